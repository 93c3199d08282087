"""Show in the terminal the settings of a run, its progress and its results."""
import os
import sys
from typing import Any, Optional

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from tqdm import tqdm

from mmfreq.config.pipelines import input_specs, iter_dicts
from mmfreq.engine.checkpoints import some_of, unwrapped


@HOOKS.register_module()
class ProgressHook(Hook):
    """Print a few lines about a run, its progress, its results and its checkpoint.

    Progress is a bar in a terminal. Elsewhere, a line is printed each minute.
    """
    priority = 'LOWEST'  # CheckpointHook saves before

    def __init__(self) -> None:
        self._bars: dict[str, tqdm] = {}  # by mode

    def before_train(self, runner: Runner) -> None:
        """Describe the training."""
        length = f'{runner.max_epochs} epochs' if _by_epoch(runner) else f'{runner.max_iters} steps'
        self._describe(runner, 'train', f'{length}, {runner.iter} steps are done')
        self._begin('train', runner.max_iters, runner.iter)

    def before_test(self, runner: Runner) -> None:
        """Describe the evaluation."""
        self._describe(runner, 'test', f'weights {_short(runner._load_from)}')

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        if mode != 'train':
            self._begin(mode, len(getattr(runner, f'{mode}_dataloader')))

    def _after_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None,
                    mode: str = 'train') -> None:
        if mode == 'train' and 'loss' in (outputs or {}):
            self._bars[mode].set_postfix_str(f'loss {outputs["loss"].item():.4g}', refresh=False)
        self._bars[mode].update()

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Print the metrics of a validation."""
        self._bars['val'].close()
        done = f'epoch {runner.epoch}' if _by_epoch(runner) else f'step {runner.iter}'
        self._print(f'{done}: {_text(metrics or {})}')

    def after_test_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Print the metrics of the test."""
        self._bars['test'].close()
        self._print(f'result: {_text(metrics or {})}')

    def after_train(self, runner: Runner) -> None:
        """Print the best result, if one is kept, and the checkpoint."""
        self._bars['train'].close()
        info = runner.message_hub.runtime_info
        if info.get('best_ckpt'):
            self._print(f'best:       {info.get("best_score"):.4g}')
        self._print(f'checkpoint: {_short(info.get("best_ckpt") or info.get("last_ckpt"))}')

    def _print(self, *lines: str) -> None:
        for line in lines if is_main_process() else ():
            tqdm.write(line)

    def _begin(self, mode: str, total: int, done: int = 0) -> None:
        self._bars[mode] = tqdm(
            desc=mode, total=total, initial=done, unit='step', leave=False, disable=not is_main_process(),
            mininterval=0.2 if sys.stderr.isatty() else 60)

    def _describe(self, runner: Runner, mode: str, length: str) -> None:
        model, data = unwrapped(runner.model), runner.cfg[f'{mode}_dataloader']
        dataset = getattr(runner, f'{mode}_dataloader').dataset
        classes = list(getattr(dataset, 'metainfo', {}).get('classes') or ())
        root = next((node['data_root'] for node in iter_dicts(data) if node.get('data_root')), '?')
        spec = next(iter(input_specs(runner.cfg).values()), '?')
        count = sum(weight.numel() for weight in model.parameters())
        self._print(
            f'network   {type(getattr(model, "backbone", model)).__name__} in {type(model).__name__}, '
            f'{count / 1e6:.1f} M weights',
            f'data      {len(dataset):,} images in {root}; {len(classes)} classes: {some_of(classes)}',
            f'input     {spec}; batches of {data.get("batch_size")}',
            f'run       {length}, on {next(model.parameters()).device.type}',
            f'folder    {_short(runner.work_dir)}; log: {_short(runner.logger.log_file)}')


def _by_epoch(runner: Runner) -> bool:
    return isinstance(runner._train_loop, EpochBasedTrainLoop)


def _text(metrics: dict[str, Any]) -> str:
    parts = [f'{name} {value:.4g}' for name, value in metrics.items()
             if isinstance(value, (int, float)) and 'time' not in name]
    return ', '.join(parts) or 'no metrics'


def _short(path: Any) -> str:
    """Return a path relative to the current folder if it lies in it."""
    return str(path).removeprefix(f'{os.getcwd()}/') or '.'
