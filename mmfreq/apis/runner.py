"""What the command-line tools share: turning their flags into a runner's config, and writing results."""
import argparse
import importlib
import logging
import os
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Iterator, Optional

import mmengine
import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.logging import print_log
from mmengine.runner import Runner, find_latest_checkpoint

from mmfreq.config.paths import config_path
from mmfreq.config.reader import DATALOADERS, check_channels, datasets_with_pipeline, iter_dicts, transform_type
from mmfreq.files import atomic_write_text
from mmfreq.hosts.checkpoints import RefusedCheckpointError, prepare_host, restrict_checkpoint_loading
from mmfreq.hosts.distributed import prepare_cpu_distributed

CFG_OPTIONS_HELP = ('override keys of the config: key=value, nested as a.b.c=value, list items as a.0.b=value, '
                    'lists as key="[a,b]" or key=a,b, no white space inside a value; key=_delete_ takes a key out')

_DELETE = '_delete_'


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that training and testing share."""
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help=CFG_OPTIONS_HELP)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='how the processes of a distributed run were started; see tools/dist_*.sh')
    # torchrun sets LOCAL_RANK; torch.distributed.launch passes the option instead
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def read_config(path: str, options: Optional[dict[str, Any]]) -> Config:
    """The config file with ``--cfg-options`` merged into it; exits with a message if there is no such file."""
    try:
        file = config_path(path)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    return merge_options(Config.fromfile(str(file)), options)


def load_config(args: argparse.Namespace) -> Config:
    """The config of ``args.config`` with the flags that training and testing share: launcher and work dir."""
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
    """The config that ``tools/train.py`` runs; see its ``--help`` for the flags."""
    cfg = load_config(args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume and args.resume != 'auto':
        cfg.update(resume=True, load_from=checkpoint_file(args.resume))
    elif args.resume and Path(cfg.work_dir, 'last_checkpoint').is_file():
        cfg.update(resume=True, load_from=checkpoint_file(cfg.work_dir))
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise SystemExit('--auto-scale-lr: the config has no auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    hooks = [transform_type(hook) for hook in cfg.get('custom_hooks') or []]
    if 'GateLossHook' not in hooks and any(node.get('gate') is not None for node in iter_dicts(cfg.get('model'))):
        print_log('the model has a gate, but custom_hooks no GateLossHook: nothing will make the gate drop channels',
                  logger='current', level=logging.WARNING)
    return _with_host_defaults(cfg)


def test_config(args: argparse.Namespace) -> Config:
    """The config that ``tools/test.py`` runs; see its ``--help`` for the flags."""
    cfg = load_config(args)
    cfg.update(resume=False, load_from=checkpoint_file(args.checkpoint))
    if not args.work_dir:  # the training run's own config and logs stay as they are
        cfg.work_dir = str(Path(cfg.work_dir, 'test'))
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir:
        _enable_visualization(cfg, args)
    if args.tta:
        _enable_tta(cfg)
    return _with_host_defaults(cfg)


def checkpoint_file(path: str) -> str:
    """The checkpoint that a file name or a work dir stands for; exits with a message if there is none."""
    found: Optional[str] = path
    if Path(path).is_dir():
        found = find_latest_checkpoint(path) if Path(path, 'last_checkpoint').is_file() else None
        if found is None:
            raise SystemExit(f'checkpoint: {path} is a folder without a last_checkpoint file; expected a checkpoint or '
                             'the work dir of a training run')
        if Path(path, Path(found).name).is_file():  # the file names an absolute path: the work dir may have moved
            found = str(Path(path, Path(found).name))
    if '://' not in found and not Path(found).is_file():
        raise SystemExit(f'checkpoint: no such file: {found}')
    return found


def _enable_visualization(cfg: Config, args: argparse.Namespace) -> None:
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise SystemExit('--show, --show-dir: the config has no default_hooks.visualization')
    out_dir = str(Path(args.show_dir).resolve()) if args.show_dir else None
    hook.update(show=args.show, wait_time=args.wait_time, interval=args.interval)
    if cfg.get('default_scope') == 'mmdet':
        hook.update(draw=True, test_out_dir=out_dir)
    else:
        hook.update(enable=True, out_dir=out_dir)


def merge_options(cfg: Config, options: Optional[dict[str, Any]]) -> Config:
    """Merges ``--cfg-options`` into ``cfg``, in place, and returns it. The value ``_delete_`` takes its key out."""
    options = options or {}
    cfg.merge_from_dict({key: value for key, value in options.items() if value != _DELETE})
    for key in (key for key, value in options.items() if value == _DELETE):
        *parents, last = key.split('.')
        try:
            node = cfg
            for parent in parents:
                node = node[int(parent)] if isinstance(node, list) else node[parent]
            if last not in node:
                raise KeyError(last)
            node.pop(last)
        except (LookupError, ValueError, TypeError, AttributeError):
            raise SystemExit(f'--cfg-options {key}={_DELETE}: the config has no such key') from None
    return cfg


def flip_tta_pipeline(pipeline: list[dict]) -> list[dict]:
    """A test pipeline with test-time augmentation by a horizontal flip.

    Pixels are flipped, not DCT coefficients: the augmentation stands before the first of mmfreq's transforms, or before
    the packer if there is none. Ground truth is not flipped: annotations are loaded behind the augmentation. The view
    that is not flipped comes first, since merged samples keep the ground truth and the shapes of the first view.
    """
    behind = ('LoadAnnotations', 'YCbCr', 'BlockDCT', 'FusedBlockDCT')
    first = next((i for i, step in enumerate(pipeline) if transform_type(step) in behind), len(pipeline) - 1)
    packer = deepcopy(pipeline[-1])
    if transform_type(packer) == 'PackDetInputs':
        keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
        packer['meta_keys'] = (*packer.get('meta_keys', keys), 'flip', 'flip_direction')
    flips = [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0., 1.)]
    tail = [[step] for step in (*deepcopy(pipeline[first:-1]), packer)]
    return [*deepcopy(pipeline[:first]), dict(type='TestTimeAug', transforms=[flips, *tail])]


def _enable_tta(cfg: Config) -> None:
    """Wraps the model for test-time augmentation: the config's own, or a horizontal flip."""
    if 'tta_model' not in cfg and cfg.get('default_scope') == 'mmdet':
        prepare_host(cfg)
        importlib.import_module('mmfreq.models.det')  # registers the model
        nms = dict(type='nms', iou_threshold=0.5)
        cfg.tta_model = dict(type='InstanceSegTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
    elif 'tta_model' not in cfg:
        cfg.tta_model = dict(type='AverageClsScoreTTA')
    for dataset in datasets_with_pipeline(cfg.test_dataloader.dataset):
        dataset['pipeline'] = cfg.get('tta_pipeline') or flip_tta_pipeline(dataset['pipeline'])
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def _with_host_defaults(cfg: Config) -> Config:
    """Gives the data loaders what mmpretrain's own tools give them unless the config does; its results rest on it."""
    if cfg.get('default_scope') == 'mmpretrain':
        for loader in filter(None, map(cfg.get, DATALOADERS)):
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)
    return cfg


def prepare(cfg: Config) -> Config:
    """Checks the config and readies the process for its run; returns it."""
    check_channels(cfg)
    prepare_host(cfg)
    restrict_checkpoint_loading()
    prepare_cpu_distributed(cfg)
    return cfg


@contextmanager
def explain_refusal() -> Iterator[None]:
    """Exits with one line where a checkpoint is refused."""
    try:
        yield
    except RefusedCheckpointError as error:
        raise SystemExit(str(error)) from error


def check_output(path: str) -> None:
    """Exits with a message unless ``--out`` can be written: a metrics (.json) or a predictions file (.pkl)."""
    if Path(path).suffix not in ('.json', '.pkl'):
        raise SystemExit(f'--out: expected a .json file (metrics) or a .pkl file (predictions), got {path}')


def save_results(runner: Runner, path: Optional[str]) -> dict[str, Any]:
    """Runs the test loop, writes metrics (.json) or predictions (.pkl) to ``path``, if any; returns the metrics."""
    if path and path.endswith('.pkl'):
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=path))
    metrics = runner.test()
    if path and path.endswith('.json') and is_main_process():
        atomic_write_text(path, mmengine.dump(metrics, file_format='json', indent=1) + '\n')
        runner.logger.info(f'metrics written to {path}')
    return metrics
