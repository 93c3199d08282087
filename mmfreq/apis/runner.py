"""Turn the flags of train and test into a config, run it, write results."""
import argparse
import logging
import os
import re
import signal
import sys
import threading
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Iterator, Optional
from urllib.error import URLError

import mmengine
import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import IterBasedTrainLoop, Runner, find_latest_checkpoint

import mmfreq.hosts.drawing  # noqa: F401  the hook of --show-dir
from mmfreq.apis import checks
from mmfreq.apis.resume import ResumeCheckHook
from mmfreq.apis.snapshot import SnapshotHook
from mmfreq.apis.terminal import finished, quiet, say
from mmfreq.config.checks import check_config, merge_options
from mmfreq.config.inspect import (
    DATALOADERS,
    datasets_with_pipeline,
    iter_dicts,
    transform_type,
)
from mmfreq.config.paths import config_path, one_line, read_file
from mmfreq.files import atomic_write_text, check_writable, locked
from mmfreq.hosts.checkpoints import RefusedCheckpointError, best_in, others_in
from mmfreq.hosts.distributed import prepare_cpu_distributed

CFG_OPTIONS_HELP = ('override keys of the config: key=value, nested as a.b.c=value, list items as '
                    'a.0.b=value, lists as key="[a,b]" or key=a,b, no white space inside a value. '
                    'A new key needs a place that the config has, and must not look like a '
                    'misspelling; freq and *_pipeline change wherever the config copied them')


CHECKPOINT_HELP = ('checkpoint file, or a work dir: its best_*.pth if there is exactly one, else its '
                   'last checkpoint')


class KeyValues(DictAction):
    """mmengine's DictAction, with an error of one line for what it cannot read."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: Any, *args: Any) -> None:
        """Read the values of ``--cfg-options``."""
        for value in values:
            if '=' not in value:
                parser.error(f'{self.dest.replace("_", "-")}: expected key=value, got {value!r}')
        try:
            super().__call__(parser, namespace, values, *args)
        except (AssertionError, RecursionError):  # of braces, or brackets that are not closed
            parser.error(f'{self.dest.replace("_", "-")}: cannot read {" ".join(values)}; expected '
                         'numbers, words, lists or tuples; set keys of a dict one by one: a.b=value')


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that training and testing share."""
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE',
                        help=CFG_OPTIONS_HELP)
    parser.add_argument('--verbose', action='store_true', help='show what the hosts log, which the '
                        'log file has in any case, instead of the progress')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='how the processes of a distributed run were started: tools/dist_*.sh')
    # torchrun sets LOCAL_RANK; torch.distributed.launch passes the option instead
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def read_config(path: str, options: Optional[dict[str, Any]]) -> Config:
    """Read a config file and merge ``--cfg-options``; exit with one line if that cannot be done."""
    try:
        with quiet():
            cfg = read_file(config_path(path))
    except ValueError as error:
        raise SystemExit(str(error)) from error
    try:
        merge_options(cfg, options or {})
    except (LookupError, TypeError, ValueError) as error:
        raise SystemExit(f'--cfg-options: {error}') from error
    return cfg


def load_config(args: argparse.Namespace) -> Config:
    """Read the config of ``args.config`` and apply the flags that training and testing share."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    # command line > config > name of the config file
    default = str(Path('work_dirs', config_path(args.config).stem))
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default
    if args.amp and not torch.cuda.is_available():
        raise SystemExit('--amp: mixed precision needs a GPU, and torch finds none')
    return cfg


def train_config(args: argparse.Namespace) -> Config:
    """Return the config that ``tools/train.py`` runs; its ``--help`` explains the flags."""
    cfg = load_config(args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume and args.resume != 'auto':
        cfg.update(resume=True, load_from=checkpoint_file(args.resume, best=False))
    elif args.resume and Path(cfg.work_dir, 'last_checkpoint').is_file():
        cfg.update(resume=True, load_from=checkpoint_file(cfg.work_dir, best=False))
    elif args.resume:
        _say_once(f'no last_checkpoint in {cfg.work_dir}: the training starts from its beginning')
    elif not cfg.get('resume') and any(Path(cfg.work_dir).glob('*.pth')):
        _say_once(f'{cfg.work_dir} has checkpoints of an earlier training, which stay until this one '
                  'writes files of their names, the best one too; to go on with it: --resume')
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise SystemExit('--auto-scale-lr: the config has no auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    hooks = [transform_type(hook) for hook in cfg.get('custom_hooks') or []]
    has_gate = any(node.get('gate') is not None for node in iter_dicts(cfg.get('model')))
    if has_gate and 'GateLossHook' not in hooks:
        print_log('the model has a gate, but custom_hooks no GateLossHook: nothing will make the '
                  'gate drop channels', logger='current', level=logging.WARNING)
    return _with_host_defaults(cfg)


def test_config(args: argparse.Namespace) -> Config:
    """Return the config that ``tools/test.py`` runs; its ``--help`` explains the flags."""
    cfg = load_config(args)
    cfg.update(resume=False, load_from=checkpoint_file(args.checkpoint))
    if not args.work_dir:  # the training run's own config and logs stay as they are
        cfg.work_dir = str(Path(cfg.work_dir, 'test'))
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show:
        check_display('--show-dir DIR')
    if args.show_dir:
        try:
            Path(args.show_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SystemExit(f'--show-dir: {error}') from error
    if args.show or args.show_dir:
        _enable_visualization(cfg, args)
    if args.tta:
        _enable_tta(cfg)
    return _with_host_defaults(cfg)


def find_checkpoint(path: str, best: bool = True) -> tuple[str, str]:
    """Return a checkpoint file, and what it is of the work dir that ``path`` may name.

    Args:
        path (str): A checkpoint, or a work dir: its ``best_*.pth`` if it has exactly one, else the
            last checkpoint.
        best (bool): Whether the best one may stand for a work dir. Defaults to True.

    Raises:
        ValueError: There is none.
    """
    if not Path(path).is_dir():
        if '://' not in path and not Path(path).is_file():
            raise ValueError(f'checkpoint: no such file: {path}')
        return path, ''
    found = best_in(path) if best else []
    if len(found) == 1:
        return str(found[0]), 'the best'
    last = find_latest_checkpoint(path) if Path(path, 'last_checkpoint').is_file() else None
    if not last:
        raise ValueError(f'checkpoint: {path} is a folder without a last_checkpoint file; expected '
                         f'a checkpoint or the work dir of a training run{others_in(path)}')
    if Path(path, Path(last).name).is_file():  # last_checkpoint is absolute; the dir may move
        last = str(Path(path, Path(last).name))
    if not Path(last).is_file():
        raise ValueError(f'checkpoint: no such file: {last}, the last one of {path}'
                         + others_in(path))
    return last, f'the last; {len(found)} files are best_*.pth' if found else 'the last'


def checkpoint_file(path: str, best: bool = True) -> str:
    """Return what :func:`find_checkpoint` finds, and say it; exit with one line if there is none."""
    try:
        file, which = find_checkpoint(path, best)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if which:
        _say_once(f'takes {file} ({which})')
    return file


def check_display(instead: str) -> None:
    """Exit with one line if pictures are to be shown and there is no display."""
    if sys.platform == 'linux' and not {'DISPLAY', 'WAYLAND_DISPLAY'} & {*os.environ}:
        raise SystemExit(f'--show: there is no display; {instead} saves the pictures')


def _enable_visualization(cfg: Config, args: argparse.Namespace) -> None:
    """Draw on the images as the data set loads them, instead of the stock hooks' way."""
    hooks = cfg.setdefault('default_hooks', {})
    old = {key: value for key, value in (hooks.get('visualization') or {}).items()
           if key not in ('draw', 'test_out_dir', 'backend_args')}
    out_dir = str(Path(args.show_dir).resolve()) if args.show_dir else None
    hooks['visualization'] = dict(
        old, type='FreqVisualizationHook', enable=True, show=args.show, wait_time=args.wait_time,
        interval=args.interval, out_dir=out_dir)


def flip_tta_pipeline(pipeline: list[dict]) -> list[dict]:
    """Return a test pipeline with test-time augmentation by a horizontal flip.

    Pixels are flipped, not DCT coefficients: the augmentation stands before the first of mmfreq's
    transforms, or before the packer if there is none. Ground truth is not flipped: annotations are
    loaded behind the augmentation. The view that is not flipped comes first, since merged samples
    keep the ground truth and the shapes of the first view.
    """
    behind = ('LoadAnnotations', 'YCbCr', 'BlockDCT', 'FusedBlockDCT')
    first = 0
    while first < len(pipeline) - 1 and transform_type(pipeline[first]) not in behind:
        first += 1
    packer = deepcopy(pipeline[-1])
    if transform_type(packer) == 'PackDetInputs':
        keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
        packer['meta_keys'] = (*packer.get('meta_keys', keys), 'flip', 'flip_direction')
    flips = [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0., 1.)]
    tail = [[step] for step in (*deepcopy(pipeline[first:-1]), packer)]
    return [*deepcopy(pipeline[:first]), dict(type='TestTimeAug', transforms=[flips, *tail])]


def _enable_tta(cfg: Config) -> None:
    """Wrap the model for test-time augmentation: the config's own, or a horizontal flip."""
    if 'tta_model' not in cfg and cfg.get('default_scope') == 'mmdet':
        if any(node.get('mask_head') for node in iter_dicts(cfg.model)):
            raise SystemExit('--tta: expected a detector without masks, or tta_model in the config')
        nms = dict(type='nms', iou_threshold=0.5)
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
    elif 'tta_model' not in cfg:
        cfg.tta_model = dict(type='AverageClsScoreTTA')
    for dataset in datasets_with_pipeline(cfg.test_dataloader.dataset):
        dataset['pipeline'] = cfg.get('tta_pipeline') or flip_tta_pipeline(dataset['pipeline'])
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def _with_host_defaults(cfg: Config) -> Config:
    """Give data loaders the defaults of mmpretrain's own tools, on which its results rest."""
    if cfg.get('default_scope') == 'mmpretrain':
        for loader in filter(None, map(cfg.get, DATALOADERS)):
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)
    return cfg


def prepare(cfg: Config, *loaders: str) -> Config:
    """Check the config, exiting with one line if it is wrong; ready the process for its run.

    Args:
        cfg (Config): The config to run.
        *loaders (str): Dataloaders of the run, such as ``'train_dataloader'``, whose files must be
            there. For training, so must the weights that the backbone starts from.
    """
    try:
        check_config(cfg)
        checks.check_data_folders(cfg, loaders)
        if 'train_dataloader' in loaders:
            checks.check_initial_weights(cfg)
    except ValueError as error:
        raise SystemExit(f'config: {error}') from error
    prepare_cpu_distributed(cfg)
    return cfg


def _is_first_process() -> bool:
    """Return whether this is the only process, or the first one that a launcher has started."""
    names = ('RANK', 'OMPI_COMM_WORLD_RANK', 'SLURM_PROCID')
    return next((os.environ[name] for name in names if name in os.environ), '0') == '0'


def _say_once(text: str) -> None:
    """Write a line from the first process alone, also before the processes know each other."""
    if _is_first_process():
        say(text)


@contextmanager
def alone_in(work_dir: str) -> Iterator[None]:
    """Exit with one line if another training is running in a work dir."""
    with ExitStack() as stack:
        if _is_first_process():
            try:
                stack.enter_context(locked(work_dir))
            except BlockingIOError:
                raise SystemExit(f'--work-dir: another training is running in {work_dir}; wait for '
                                 'its end, or give another folder') from None
        yield


@contextmanager
def explain_refusal() -> Iterator[None]:
    """Exit with one line if a checkpoint or an image is refused, or a file is out of reach."""
    try:
        yield
    except (ValueError, FileNotFoundError, URLError) as error:
        # a worker of a DataLoader puts its traceback before the message
        line = re.sub(r'^[\w.]+Error: ', '', str(error).strip().rpartition('\n')[2])
        known = not isinstance(error, ValueError) or isinstance(error, RefusedCheckpointError)
        if not known and not re.search(r'cannot be decoded as an image|\(img_path: ', line):
            raise
        raise SystemExit(line) from error


@contextmanager
def explain_build() -> Iterator[None]:
    """Exit with one line if a model or a data set refuses its arguments or its files."""
    try:
        yield
    except (AssertionError, OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        text = ' '.join(str(error).split())
        if isinstance(error, (KeyError, TypeError)) and not re.search('registry|argument', text):
            raise
        raise SystemExit(f'config: {text}') from error


def build_runner(cfg: Config) -> Runner:
    """Build the runner of a prepared config."""
    with explain_build():
        return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _build_optimizer(runner: Runner) -> None:
    """Build the optimizer, as the run would; say what is wrong with it."""
    if isinstance(runner.model, torch.nn.Module):  # a FlexibleRunner builds it later
        try:
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        except Exception as error:  # of any optimizer
            raise SystemExit(f'config: optim_wrapper: {one_line(error)}') from error


def _check_datasets(runner: Runner, *modes: str) -> None:
    """Build the loops of these modes, as the run would; compare the classes of their data."""
    with explain_build():
        loops = {f'{mode}_dataloader': getattr(runner, f'{mode}_loop') for mode in modes}
        datasets = {name: loop.dataloader.dataset for name, loop in loops.items() if loop}
        for name, loop in loops.items():
            if loop and not isinstance(loop, IterBasedTrainLoop):  # its sampler never ends
                checks.check_steps(name, loop.dataloader)
        built = isinstance(runner.model, torch.nn.Module)  # a FlexibleRunner builds it later
        checks.check_classes(checks.model_heads(runner.model) if built else {}, datasets)


class _SayFinished(Hook):
    """Say in one line that a resumed run has nothing left to train."""

    def before_train(self, runner: Runner) -> None:
        if finished(runner):
            runner.logger.warning('nothing to train: this run is finished '
                                  f'(iteration {runner.iter} of {runner.max_iters})')


def train(runner: Runner) -> None:
    """Train; if the user interrupts, say what is saved and how to go on, and exit with 130.

    So does SIGTERM, by which schedulers of clusters end a job.
    """
    snapshot = SnapshotHook()
    checking = checks.CheckpointCheckHook(partial=not runner._resume)
    for hook in (_SayFinished(), checking, ResumeCheckHook(), snapshot):
        runner.register_hook(hook)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _check_datasets(runner, 'train', 'val')
        _build_optimizer(runner)
        with explain_refusal():
            runner.train()
    except KeyboardInterrupt:
        part = snapshot.save(runner)
        saved = find_latest_checkpoint(runner.work_dir)
        if is_main_process():
            say(f'interrupted in epoch {runner.epoch + 1}; last checkpoint: {saved}; '
                'the same command with --resume goes on from there'
                + (', with that epoch from its beginning' if part else '') if saved else
                'interrupted before the first checkpoint: nothing is saved')
        raise SystemExit(130) from None


def check_output(path: str) -> None:
    """Exit with one line unless ``--out`` is a metrics (.json) or a predictions file (.pkl)."""
    if Path(path).suffix not in ('.json', '.pkl'):
        raise SystemExit('--out: expected a .json file (metrics) or a .pkl file (predictions), '
                         f'got {path}')
    try:
        check_writable(path)
    except ValueError as error:
        raise SystemExit(f'--out: {error}') from error


def save_results(runner: Runner, path: Optional[str]) -> dict[str, Any]:
    """Run the test loop, write metrics (.json) or predictions (.pkl), return the metrics."""
    if path and path.endswith('.pkl'):
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=path))
    runner.register_hook(checks.CheckpointCheckHook())
    _check_datasets(runner, 'test')
    with explain_refusal():
        metrics = runner.test()
    if path and path.endswith('.json') and is_main_process():
        atomic_write_text(path, mmengine.dump(metrics, file_format='json', indent=1) + '\n')
    return metrics
