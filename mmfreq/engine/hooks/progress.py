"""Show in the terminal what a run does, how far it is, and how it ended."""
import io
import math
import os
import sys
import time
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
    """Print a few lines about a run, its progress in time, its results and its checkpoint.

    In a terminal, progress is a bar. Elsewhere, a line is printed after 5 seconds and then ever
    more rarely, at least every 10 minutes.
    """
    priority = 'LOWEST'  # CheckpointHook saves before

    def __init__(self) -> None:
        self._draws = sys.stderr.isatty() and is_main_process()
        self._bar = tqdm(disable=True)
        self._started = self._shown = time.monotonic()

    def before_train(self, runner: Runner) -> None:
        """Describe the training."""
        length = f'{runner.max_iters} steps'
        if _by_epoch(runner):
            length = f'{runner.max_epochs} epochs of {len(runner.train_dataloader)} steps'
        length += f', of which {runner.iter} steps are done' if runner.iter else ''
        self._describe(runner, ('train', 'val') if runner.val_loop else ('train', ), length)
        self._begin(runner.max_iters, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Show how far the training is."""
        self._bar.update()
        if self._is_due():
            loss = f'loss {outputs["loss"].item():.4g}' if outputs and 'loss' in outputs else ''
            done = (f'epoch {runner.epoch + 1}/{runner.max_epochs}' if _by_epoch(runner) else
                    f'step {runner.iter + 1}/{runner.max_iters}')
            self._show(done, loss)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                       outputs: Any = None) -> None:
        """Show how far the validation is."""
        if self._is_due():
            self._show(f'validation {batch_idx + 1}/{len(runner.val_dataloader)}')

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Print the metrics of a validation."""
        done = f'epoch {runner.epoch}' if _by_epoch(runner) else f'step {runner.iter}'
        self._print(f'{done}: {_text(metrics or {})}')

    def after_train(self, runner: Runner) -> None:
        """Print the best result, if one is kept, and the checkpoint."""
        self._bar.close()
        info = runner.message_hub.runtime_info
        if info.get('best_ckpt'):
            self._print(f'best:       {info.get("best_score", math.nan):.4g}')
        checkpoint = info.get('best_ckpt') or info.get('last_ckpt')
        if checkpoint:
            self._print(f'checkpoint: {_short(checkpoint)}')

    def before_test(self, runner: Runner) -> None:
        """Describe the evaluation."""
        self._describe(runner, ('test', ), f'weights {_short(runner._load_from)}')
        self._begin(len(runner.test_dataloader), 0)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                        outputs: Any = None) -> None:
        """Show how far the evaluation is."""
        self._bar.update()
        if self._is_due():
            self._show('test')

    def after_test_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Print the metrics of the test."""
        self._bar.close()
        self._print(f'result: {_text(metrics or {})}')

    def _print(self, *lines: str) -> None:
        for line in lines if is_main_process() else ():
            tqdm.write(line)

    def _describe(self, runner: Runner, parts: tuple[str, ...], length: str) -> None:
        model, data = unwrapped(runner.model), runner.cfg[f'{parts[0]}_dataloader']
        datasets = [getattr(runner, f'{part}_dataloader').dataset for part in parts]
        sizes = [f'{len(dataset):,} {part}' for dataset, part in zip(datasets, parts)]
        classes = list(getattr(datasets[0], 'metainfo', {}).get('classes') or ())
        root = next((node['data_root'] for node in iter_dicts(data) if node.get('data_root')), '?')
        spec = next(iter(input_specs(runner.cfg).values()), '?')
        count = sum(weight.numel() for weight in model.parameters())
        self._print(
            f'network   {type(getattr(model, "backbone", model)).__name__} in {type(model).__name__}, '
            f'{count / 1e6:.1f} M weights',
            f'data      {" + ".join(sizes)} images in {root}'
            + (f'; {len(classes)} classes: {some_of(classes)}' if classes else ''),
            f'input     {spec}; batches of {data.get("batch_size")}',
            f'run       {length}, on {next(model.parameters()).device.type}',
            f'folder    {_short(runner.work_dir)}; log: {_short(runner.logger.log_file)}')

    def _begin(self, total: int, done: int) -> None:
        self._bar = tqdm(
            total=total, initial=done, smoothing=0, leave=False, dynamic_ncols=self._draws,
            file=sys.stderr if self._draws else io.StringIO(), mininterval=math.inf,
            bar_format='{desc} {percentage:3.0f}% |{bar:20}| {elapsed}, {remaining} left{postfix}')
        self._started = self._shown = time.monotonic()

    def _is_due(self) -> bool:
        now = time.monotonic()
        pause = 0.2 if self._draws else min(600, max(5, 0.2 * (now - self._started)))
        return now - self._shown >= pause

    def _show(self, text: str, postfix: str = '') -> None:
        self._shown = time.monotonic()
        self._bar.set_description_str(text, refresh=False)
        self._bar.set_postfix_str(postfix, refresh=False)
        self._bar.refresh() if self._draws else self._print(str(self._bar))


def _by_epoch(runner: Runner) -> bool:
    return isinstance(runner._train_loop, EpochBasedTrainLoop)


def _text(metrics: dict[str, Any]) -> str:
    parts = [f'{name} {value:.4g}' for name, value in metrics.items()
             if isinstance(value, (int, float)) and 'time' not in name]
    return ', '.join(parts) or 'no metrics'


def _short(path: Any) -> str:
    """Return a path relative to the current folder if it lies in it."""
    return str(path).removeprefix(f'{os.getcwd()}/') or '.'
