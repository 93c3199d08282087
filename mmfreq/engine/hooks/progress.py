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
from torch.utils.data import DataLoader
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
        self._result = 'not evaluated'
        self._loss = math.nan
        self._started = self._shown = time.monotonic()

    def before_train(self, runner: Runner) -> None:
        """Describe the training."""
        by_epoch = isinstance(runner._train_loop, EpochBasedTrainLoop)
        length = (f'{runner.max_epochs} epochs of {len(runner.train_dataloader)} steps' if by_epoch
                  else f'{runner.max_iters} steps')
        length += f', of which {runner.iter} steps are done' if runner.iter else ''
        loaders = dict(train=runner.train_dataloader)
        if runner.val_loop is not None:
            loaders['val'] = runner.val_dataloader
        self._describe(runner, loaders, length)
        self._begin(runner.max_iters, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Show how far the training is."""
        self._bar.update()
        if self._is_due():
            loss = (outputs or {}).get('loss')
            value = math.nan if loss is None else loss.item()
            if math.isfinite(self._loss) and loss is not None and not math.isfinite(value):
                self._print('WARNING: training has diverged. Try a lower learning rate or '
                            'optim_wrapper.clip_grad')
            self._loss = value
            self._show(_step(runner), '' if loss is None else f'loss {value:.4g}')

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                       outputs: Any = None) -> None:
        """Show how far the validation is."""
        if self._is_due():
            self._show(f'validation {batch_idx + 1}/{len(runner.val_dataloader)}')

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Print the metrics of a validation."""
        by_epoch = isinstance(runner._train_loop, EpochBasedTrainLoop)
        done = f'epoch {runner.epoch}' if by_epoch else f'step {runner.iter}'
        self._result = f'{_text(metrics or {})} ({done})'
        self._print(f'{done}: {_text(metrics or {})}')

    def after_train(self, runner: Runner) -> None:
        """Print where the checkpoint is."""
        self._bar.close()
        info = runner.message_hub.runtime_info
        self._print(f'last:       {self._result}')
        if info.get('best_ckpt'):
            self._print(f'best:       {info.get("best_score", math.nan):.4g}')
        checkpoint = info.get('best_ckpt') or info.get('last_ckpt')
        if checkpoint:
            self._print(f'checkpoint: {_short(checkpoint)}')

    def before_test(self, runner: Runner) -> None:
        """Describe the evaluation."""
        loader = runner.test_dataloader
        self._describe(runner, dict(test=loader), f'weights {_short(runner._load_from)}')
        self._begin(len(loader), 0)

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

    def _describe(self, runner: Runner, loaders: dict[str, DataLoader], length: str) -> None:
        model = unwrapped(runner.model)
        count = sum(weight.numel() for weight in model.parameters())
        sizes = [f'{len(loader.dataset):,} {part}' for part, loader in loaders.items()]
        part, loader = next(iter(loaders.items()))
        data = runner.cfg[f'{part}_dataloader']
        classes = list(getattr(loader.dataset, 'metainfo', {}).get('classes') or ())
        root = next((node['data_root'] for node in iter_dicts(data) if node.get('data_root')), '?')
        specs = list(input_specs(runner.cfg).values())
        self._print(
            f'network   {type(getattr(model, "backbone", model)).__name__} in {type(model).__name__}, '
            f'{count / 1e6:.1f} M weights',
            f'data      {" + ".join(sizes)} images in {root}'
            + (f'; {len(classes)} classes: {some_of(classes)}' if classes else ''),
            f'input     {specs[0] if specs else "?"}; batches of {data.get("batch_size")}',
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


def _step(runner: Runner) -> str:
    if isinstance(runner._train_loop, EpochBasedTrainLoop):
        return f'epoch {runner.epoch + 1}/{runner.max_epochs}'
    return f'step {runner.iter + 1}/{runner.max_iters}'


def _text(metrics: dict[str, Any]) -> str:
    parts = [f'{name} {value:.4g}' for name, value in metrics.items()
             if isinstance(value, (int, float)) and 'time' not in name]
    return ', '.join(parts) or 'no metrics'


def _short(path: Any) -> str:
    """Return a path relative to the current folder if it lies in it."""
    return str(path).removeprefix(f'{os.getcwd()}/') or '.'
