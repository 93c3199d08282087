"""What the terminal shows of a run: a few lines about it, its progress in time, where it ended."""
import io
import math
import os
import re
import shlex
import sys
import time
import warnings
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Optional, TextIO

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader
from tqdm import tqdm

from mmfreq.apis.compare.runs import HEADLINES, METRICS
from mmfreq.config.checks import front_ends
from mmfreq.config.inspect import iter_dicts
from mmfreq.hosts.checkpoints import unwrapped

_SHOWN = re.compile(r' - (\x1b\[\d+m)?(WARNING|ERROR|CRITICAL)')
_HOSTS_OWN = re.compile('FileClient|HardDiskBackend|"function" registry')  # warnings about what only the hosts can mend


def say(text: str) -> None:
    """Write a line on stderr that begins with the name of the program, as argparse has it."""
    tqdm.write(f'{os.path.basename(sys.argv[0])}: {text}', file=sys.stderr)


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool, in whose arguments ``~`` is the user's folder, as in a shell.

    Raises:
        SystemExit: 2, as from argparse, where a user's error ends the tool: SystemExit with a
            message, or an error of the system with a file. 130 where the user interrupts it. One
            line says so.
    """
    sys.argv[1:] = [re.sub(r'^(--[\w-]+=)?(~.*)', _home, argument) for argument in sys.argv[1:]]
    try:
        main()
    except KeyboardInterrupt:
        say('interrupted')
        raise SystemExit(130) from None
    except OSError as error:
        if error.strerror is None:  # of a worker process, or of a library
            raise
        why = 'is a file; expected a folder' if isinstance(error, FileExistsError) else error.strerror
        _refuse(SystemExit(f'{error.filename}: {why}' if error.filename else why))
    except SystemExit as refused:
        _refuse(refused)


def _home(argument: re.Match) -> str:
    return (argument[1] or '') + os.path.expanduser(argument[2])


def _refuse(refused: SystemExit) -> None:
    if isinstance(refused.code, str):
        say(f'error: {refused.code}')
        refused.code = 2
    raise refused


class _Warnings(io.TextIOBase):
    """Take what the hosts write, and pass on what is logged as a warning or an error.

    A logger that is made meanwhile keeps this stream: it passes all on when no ``quiet`` is active.
    """
    active = 0

    def __init__(self, out: TextIO) -> None:
        self.out = out

    def write(self, text: str) -> int:
        """Pass on or drop one record of a logger, or one print."""
        shown = _SHOWN.search(text) and not _HOSTS_OWN.search(text)
        if shown or not _Warnings.active:
            self.out.write(text)
            self.out.flush()
        return len(text)


@contextmanager
def quiet(verbose: bool = False) -> Iterator[Optional[TextIO]]:
    """Keep what the hosts print and log out of the terminal, but for warnings; logs have it all.

    Args:
        verbose (bool): Whether to let it through. Defaults to False.

    Yields:
        TextIO: The terminal; None if ``verbose``.
    """
    terminal = sys.stdout
    if verbose:
        yield None
        return
    sys.stdout = _Warnings(terminal)
    _Warnings.active += 1
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', module=r'mm(cv|det|engine|pretrain)\b')
            yield terminal
    finally:
        sys.stdout = terminal
        _Warnings.active -= 1


class ProgressHook(Hook):
    """Say what is run on what, how far it is, how long it still takes, and how it ended.

    Args:
        out (TextIO): Where to write lines. If stderr is a terminal, a bar is drawn there; else a
            line comes after 5 seconds, then ever more rarely, at the latest every 10 minutes.
        config (str): The config, as the user named it.
    """
    priority = 'LOWEST'  # behind CheckpointHook

    def __init__(self, out: TextIO, config: str) -> None:
        self.out, self.config = out, config
        self.draws = sys.stderr.isatty() and is_main_process()
        self.bar = tqdm(disable=True)
        self.best, self.last, self.saved = '', '', None
        self.diverged = False
        self.outputs: dict[str, Any] = {}  # of the last training step

    def _say(self, *lines: str) -> None:
        for line in lines if is_main_process() else ():
            tqdm.write(line, file=self.out)
        self.out.flush()

    def _begin(self, total: int, done: int, text: str) -> None:
        self.bar = tqdm(
            total=total, initial=done, smoothing=0, leave=False, dynamic_ncols=self.draws,
            file=sys.stderr if self.draws else io.StringIO(), mininterval=math.inf,
            bar_format='{desc} {percentage:3.0f}% |{bar:20}| {elapsed}, {remaining} left{postfix}')
        self.started, self.shown = time.monotonic(), -math.inf
        self._show(text)

    def _loss(self) -> str:
        """Return the loss of the last step; wait for the device."""
        loss = self.outputs.get('loss')
        value = 0. if loss is None else loss.item()
        if not math.isfinite(value) and not self.diverged:
            self.diverged = True
            self._say(f'WARNING: the loss is {value}: what the network has learnt is lost; try a '
                      'lower learning rate, optim_wrapper.optimizer.lr, or optim_wrapper.clip_grad')
        return '' if loss is None else f'loss {value:.4g}'

    def _show(self, text: str) -> None:
        now = time.monotonic()
        pause = 0.2 if self.draws else min(600, max(5, 0.2 * (now - self.started)))
        if now - self.shown < pause:
            return
        self.shown = now
        self.bar.set_description_str(text, refresh=False)
        self.bar.set_postfix_str(self._loss(), refresh=False)
        self.bar.refresh() if self.draws else self._say(str(self.bar))

    def before_train(self, runner: Runner) -> None:
        """Say what will be trained on what."""
        self.by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        self.saved = runner.message_hub.runtime_info.get('best_ckpt')  # of the part that is resumed
        steps = len(runner.train_dataloader)
        length = (f'{runner.max_epochs} epochs of {steps} steps' if self.by_epoch else
                  f'{runner.max_iters} steps')
        loaders = dict(train=runner.train_dataloader)
        if runner.val_loop is not None:
            loaders['val'] = runner.val_dataloader
        length += f', of which {runner.iter} steps are done' if runner.iter else ''
        self._say(*describe_run(runner, loaders, f', {length}'))
        if not finished(runner):
            self._begin(runner.max_iters, runner.iter, self._where(runner))

    def _where(self, runner: Runner) -> str:
        if not self.by_epoch:
            return f'step {runner.iter + 1}/{runner.max_iters}'
        return f'epoch {runner.epoch + 1}/{runner.max_epochs}'

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: Any = None) -> None:
        """Show how far the training is."""
        self.bar.update()
        self.outputs = outputs or {}
        self._show(self._where(runner))

    def after_train_epoch(self, runner: Runner) -> None:
        """Say where an epoch ended that no validation follows."""
        if runner.val_loop is None:
            self._say(f'{self._where(runner)}: {self._loss()}')

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                       outputs: Any = None) -> None:
        """Show how far the validation is."""
        self._show(f'validation {batch_idx + 1}/{len(runner.val_dataloader)}')

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Say what the validation found."""
        done = f'epoch {runner.epoch}' if self.by_epoch else f'step {runner.iter}'
        figures = headlines(metrics or {})
        self.last = f'{_text(figures)} ({done})'
        saved = runner.message_hub.runtime_info.get('best_ckpt')
        if saved != self.saved:
            self.saved, self.best = saved, self.last
        self._say(', '.join(filter(None, (f'{done}: {_text(figures)}', self._loss()))))

    def after_train(self, runner: Runner) -> None:
        """Say how the training ended, and what comes next."""
        self.bar.close()
        known = runner.message_hub.runtime_info
        saved, found = known.get('last_ckpt'), f'last: {self.last or "not evaluated"}'
        if known.get('best_ckpt'):
            saved, score = known['best_ckpt'], known.get('best_score', math.nan)
            found = f'best: {self.best or f"{score:.4g} (before this run went on)"}'
        if saved:
            self._say(f'{found}; checkpoint: {_short(saved)}; next: '
                      f'{shlex.join(["mmfreq", "test", self.config, _short(saved)])}')

    def before_test(self, runner: Runner) -> None:
        """Say what will be evaluated on what."""
        loader = runner.test_dataloader
        self._say(*describe_run(runner, dict(test=loader), f', weights {_short(runner._load_from)}'))
        self._begin(len(loader), 0, 'test')

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                        outputs: Any = None) -> None:
        """Show how far the evaluation is."""
        self.bar.update()
        self._show('test')

    def after_test_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Say what the evaluation found."""
        self.bar.close()
        self._say(f'result: {_text(headlines(metrics or {}))}')


def finished(runner: Runner) -> bool:
    """Return whether nothing is left to train; a resumed run may have other epochs than before."""
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        return runner.epoch >= runner.max_epochs
    return runner.iter >= runner.max_iters


def describe_run(runner: Runner, loaders: dict[str, DataLoader], length: str) -> list[str]:
    """Return five lines: network, data, input, run, folder."""
    model, cfg = unwrapped(runner.model), runner.cfg
    count = sum(weight.numel() for weight in model.parameters())
    name = type(getattr(model, 'backbone', model)).__name__
    sizes = [f'{len(loader.dataset):,} {part}' for part, loader in loaders.items()]
    part, loader = next(iter(loaders.items()))
    given = cfg[f'{part}_dataloader']
    classes = list(getattr(loader.dataset, 'metainfo', {}).get('classes') or ())
    named = ', '.join(classes[:6]) + (', ...' if len(classes) > 6 else '')
    root = next((node['data_root'] for node in iter_dicts(given) if node.get('data_root')), '?')
    found = front_ends(cfg)
    words, channels = (found[0][1].words, len(found[0][1].channels)) if found else ({}, 0)
    taken = f'{channels} DCT channels ({words["channels"]}), {words["statistics"]}' if channels else (
        'RGB pixels')
    device = next(model.parameters()).device.type
    return [f'network   {name} in {type(model).__name__}, {count / 1e6:.1f} M weights',
            f'data      {" + ".join(sizes)} images in {root}; {len(classes)} '
            f'{"class" if len(classes) == 1 else "classes"}: {named}',
            f'input     {taken}, batches of {given.get("batch_size")}',
            f'run       on {device}{length}',
            f'folder    {_short(runner.work_dir)}; the log is {_short(runner.logger.log_file)}']


def headlines(metrics: dict[str, float]) -> dict[str, float]:
    """Return the metrics that a reader looks for, by name in words; all if none is known."""
    known = {METRICS[key][0]: metrics[key] * METRICS[key][2] for key in HEADLINES if key in metrics}
    numbers = {key: value for key, value in metrics.items() if isinstance(value, (int, float))}
    return known or {key: value for key, value in numbers.items() if 'time' not in key}


def _text(figures: dict[str, float]) -> str:
    parts = []
    for name, value in figures.items():
        what, _, unit = name.partition(', ')
        parts.append(f'{what} {value:.2f}{" " + unit if unit else ""}')
    return ', '.join(parts) or 'no figures'


def _short(path: Any) -> str:
    """Return a path relative to the current folder if it lies in it."""
    path = str(path)
    return path.removeprefix(f'{os.getcwd()}/') or '.'
