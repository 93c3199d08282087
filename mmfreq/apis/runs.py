"""Turn the flags of train and test into a config, and run it."""
import argparse
import os
import re
from pathlib import Path
from typing import Any, Optional

import mmengine
import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmfreq.apis.terminal import say
from mmfreq.config.checks import check_config
from mmfreq.config.paths import config_path
from mmfreq.config.pipelines import (
    DATALOADERS,
    all_hooks,
    datasets_with_pipeline,
    drop_channels,
    iter_dicts,
    transform_type,
    with_imports,
)
from mmfreq.errors import RefusedError
from mmfreq.files import atomic_write_text, check_writable

CFG_OPTIONS_HELP = ('override keys of the config: key=value, nested as a.b.c=value, list items as '
                    'a.0.b=value, lists as key="[a,b]" or key=a,b, no white space inside a value')
CHECKPOINT_HELP = ('checkpoint file, or a work dir: its newest best_*.pth if all are of one metric, else '
                   'its last checkpoint')


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, as in the hosts' tools."""
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help=CFG_OPTIONS_HELP)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that training and testing share."""
    add_cfg_options(parser)
    parser.add_argument('--verbose', action='store_true', help='show the log in the terminal, as the '
                        'hosts do, instead of the progress')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='how the processes of a distributed run were started: tools/dist_*.sh')
    # torchrun sets LOCAL_RANK; torch.distributed.launch passes the option instead
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def read_config(path: str, options: Optional[dict[str, Any]] = None) -> Config:
    """Read a config and merge ``--cfg-options``.

    Raises:
        RefusedError: There is no such config, or an option names a variable whose value the config
            has copied, so that it would change nothing.
    """
    cfg = Config.fromfile(str(config_path(path)))
    for key in options or {}:
        top = key.partition('.')[0]
        if top == 'freq' or top.endswith('_pipeline') and top != 'tta_pipeline':
            raise RefusedError(f'--cfg-options {key}: the data sets have copied {top}, so that the '
                               'option would change nothing. Inherit the config and set it there, or '
                               'name the copy, such as train_dataloader.dataset.pipeline.0.KEY')
    cfg.merge_from_dict(options or {})
    return cfg


def load_config(args: argparse.Namespace) -> Config:
    """Read the config of ``args.config`` and apply the flags that training and testing share."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    default = str(Path('work_dirs', config_path(args.config).stem))
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default
    cfg.custom_imports = with_imports(cfg.get('custom_imports'), ['mmfreq.engine'])
    hooks = cfg.setdefault('default_hooks', {})
    hooks.setdefault('input_spec', dict(type='InputSpecHook'))
    if not args.verbose:
        cfg.setdefault('runner_type', 'QuietRunner')
        hooks.setdefault('progress', dict(type='ProgressHook'))
    elif cfg.get('runner_type') == 'QuietRunner':  # the config of an earlier run
        cfg.pop('runner_type')
        hooks.pop('progress', None)
    if cfg.get('default_scope') == 'mmpretrain':  # as mmpretrain's own tools do
        for loader in filter(None, map(cfg.get, DATALOADERS)):
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)
    if args.launcher == 'pytorch' and get_device() == 'cpu':
        _use_gloo(cfg)
    return cfg


def _use_gloo(cfg: Config) -> None:
    """Let mmengine start a distributed run without an accelerator, for which it expects CUDA."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(backend='gloo')
    defaults = dict(type='MMDistributedDataParallel', broadcast_buffers=False,
                    find_unused_parameters=cfg.get('find_unused_parameters', False))
    cfg.model_wrapper_cfg = {**defaults, **(cfg.get('model_wrapper_cfg') or {}), 'device_ids': None}


def train_config(args: argparse.Namespace) -> Config:
    """Return the config that ``tools/train.py`` runs; its ``--help`` explains the flags."""
    cfg = load_config(args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume == 'auto':
        if Path(cfg.work_dir, 'last_checkpoint').is_file():  # else it starts as the config says, from load_from if any
            cfg.update(resume=True, load_from=find_checkpoint(cfg.work_dir, best=False)[0])
        else:
            say(f'{cfg.work_dir} has no checkpoint to resume: the training starts anew')
    elif args.resume:
        cfg.update(resume=True, load_from=checkpoint_file(args.resume, best=False))
    if args.auto_scale_lr:
        cfg.auto_scale_lr.enable = True
    has_gate = any(node.get('gate') is not None for node in iter_dicts(cfg.get('model')))
    if has_gate and 'GateLossHook' not in map(transform_type, all_hooks(cfg)):
        say('WARNING: the model has a gate, but no GateLossHook makes it drop channels')
    check_config(cfg)
    return cfg


def test_config(args: argparse.Namespace) -> Config:
    """Return the config that ``tools/test.py`` runs; its ``--help`` explains the flags."""
    cfg = load_config(args)
    cfg.update(resume=False, load_from=checkpoint_file(args.checkpoint))
    if not args.work_dir:  # beside the checkpoint, where compare looks for it
        folder = cfg.work_dir if '://' in cfg.load_from else Path(cfg.load_from).parent
        cfg.work_dir = str(Path(folder, 'test'))
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.channels:
        try:
            drop_channels(cfg, 'test_dataloader', [args.channels])
        except RefusedError as error:
            raise RefusedError(f'--channels {args.channels}: {error}') from error
        say(f'the input is cut to {args.channels}; its other channels are at their mean')
    if args.show or args.show_dir:
        _enable_visualization(cfg, args)
    check_config(cfg)
    if args.tta:
        if not (cfg.get('tta_pipeline') and cfg.get('tta_model')):
            raise RefusedError('--tta: expected tta_pipeline and tta_model in the config')
        for dataset in datasets_with_pipeline(cfg.test_dataloader.dataset):
            dataset['pipeline'] = cfg.tta_pipeline
        cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    return cfg


def find_checkpoint(path: str, best: bool = True) -> tuple[str, str]:
    """Return a checkpoint file, and which one it is of the work dir that ``path`` may name.

    Of a work dir that is its newest ``best_*.pth`` if they are of one metric and ``best`` is True, else the last.
    """
    if '://' in path or Path(path).is_file():
        return path, ''
    files = sorted(Path(path).glob('best_*.pth'), key=os.path.getmtime) if best else []
    metrics = {re.sub(r'_(epoch|iter)_\d+', '', file.stem) for file in files}
    if len(metrics) == 1:  # earlier trainings in this folder may have left theirs
        return str(files[-1]), 'the best' if len(files) == 1 else f'the newest of {len(files)} best'
    last = Path(path, 'last_checkpoint')
    if last.is_file():  # it names an absolute path, but the work dir may have moved
        saved = Path(last.read_text().strip())
        moved = Path(path, saved.name)
        last = moved if moved.is_file() else saved
    if not last.is_file():
        raise RefusedError(f'checkpoint: expected a file, or the work dir of a training, got {path}')
    return str(last), f'the last; {len(files)} files are best_*.pth' if files else 'the last'


def checkpoint_file(path: str, best: bool = True) -> str:
    """Return the file of :func:`find_checkpoint`, and say which one was taken from a work dir."""
    file, which = find_checkpoint(path, best)
    if which and is_main_process():
        say(f'takes {file} ({which})')
    return file


def _enable_visualization(cfg: Config, args: argparse.Namespace) -> None:
    """Draw on the images as the data set loads them, unlike the stock hooks."""
    hooks = cfg.setdefault('default_hooks', {})
    others = {key: value for key, value in (hooks.get('visualization') or {}).items()
              if key not in ('draw', 'test_out_dir', 'backend_args')}
    out_dir = str(Path(args.show_dir).resolve()) if args.show_dir else None
    hooks['visualization'] = dict(
        others, type='FreqVisualizationHook', enable=True, show=args.show, wait_time=args.wait_time,
        interval=args.interval, out_dir=out_dir)


def build_runner(cfg: Config) -> Runner:
    """Build the runner that ``runner_type`` names, else the stock one."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def check_output(path: str) -> None:
    """Raise RefusedError unless ``--out`` is a metrics (.json) or a predictions file (.pkl)."""
    if Path(path).suffix not in ('.json', '.pkl'):
        raise RefusedError('--out: expected a .json file (metrics) or a .pkl file (predictions), '
                           f'got {path}')
    check_writable(path)


def evaluate(runner: Runner, path: Optional[str]) -> dict[str, Any]:
    """Run the test loop, write metrics (.json) or predictions (.pkl), return the metrics."""
    if path and path.endswith('.pkl'):
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=path))
    metrics = runner.test()
    if path and path.endswith('.json') and is_main_process():
        atomic_write_text(path, mmengine.dump(metrics, file_format='json', indent=1) + '\n')
    return metrics
