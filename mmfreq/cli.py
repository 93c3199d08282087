"""What the command-line tools share: turning their flags into a runner's config, and writing results."""
import argparse
from pathlib import Path
from typing import Any, Optional

import mmengine
import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner, find_latest_checkpoint

from mmfreq.compat import prepare_cpu_distributed, restrict_checkpoint_loading
from mmfreq.config import DATALOADERS, check_channels
from mmfreq.files import atomic_write_text

CFG_OPTIONS_HELP = ('override keys of the config: key=value, nested as a.b.c=value, list items as a.0.b=value, '
                    'lists as key="[a,b]" or key=a,b, no white space inside a value; key=_delete_ takes a key out')

_DELETE = '_delete_'


def load_config(args: argparse.Namespace) -> Config:
    """The config of ``args.config`` with the flags that every tool has: launcher and work dir."""
    if not Path(args.config).is_file():
        raise SystemExit(f'config: no such file: {args.config}')
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    # command line > config > name of the config file
    default = str(Path('work_dirs', Path(args.config).stem))
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
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else checkpoint_file(args.resume)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise SystemExit('--auto-scale-lr: the config has no auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    return _finish(cfg, args)


def test_config(args: argparse.Namespace) -> Config:
    """The config that ``tools/test.py`` runs; see its ``--help`` for the flags."""
    cfg = load_config(args)
    cfg.load_from = checkpoint_file(args.checkpoint)
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir:
        _enable_visualization(cfg, args)
    return _finish(cfg, args)


def checkpoint_file(path: str) -> str:
    """The checkpoint that a file name or a work dir stands for; exits with a message if there is none."""
    found: Optional[str] = path
    if Path(path).is_dir():
        found = find_latest_checkpoint(path) if Path(path, 'last_checkpoint').is_file() else None
        if found is None:
            raise SystemExit(f'checkpoint: {path} is a folder without a last_checkpoint file; expected a checkpoint or '
                             'the work dir of a training run')
    if '://' not in found and not Path(found).is_file():
        raise SystemExit(f'checkpoint: no such file: {found}')
    return found


def _enable_visualization(cfg: Config, args: argparse.Namespace) -> None:
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise SystemExit('--show, --show-dir: the config has no default_hooks.visualization')
    out_dir = str(Path(args.show_dir).resolve()) if args.show_dir else None
    hook.update(show=args.show, wait_time=args.wait_time, interval=args.interval)
    if hook.type.endswith('DetVisualizationHook'):
        hook.update(draw=True, test_out_dir=out_dir)
    else:
        hook.update(enable=True, out_dir=out_dir)


def _finish(cfg: Config, args: argparse.Namespace) -> Config:
    _set_host_defaults(cfg)
    return merge_options(cfg, args.cfg_options)


def merge_options(cfg: Config, options: Optional[dict[str, Any]]) -> Config:
    """Merges ``--cfg-options`` into ``cfg``, in place, and returns it. The value ``_delete_`` takes its key out."""
    options = options or {}
    cfg.merge_from_dict({key: value for key, value in options.items() if value != _DELETE})
    for key in (key for key, value in options.items() if value == _DELETE):
        *parents, last = key.split('.')
        node = cfg
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node.get(parent, {})
        if last not in node:
            raise SystemExit(f'--cfg-options {key}={_DELETE}: the config has no such key')
        del node[last]
    return cfg


def _set_host_defaults(cfg: Config) -> None:
    """Gives the data loaders what mmpretrain's own tools give them unless the config does; its results rest on it."""
    if cfg.get('default_scope') != 'mmpretrain':
        return
    for name in DATALOADERS:
        loader = cfg.get(name)
        if loader:
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)


def prepare(cfg: Config) -> Config:
    """Checks the config and readies the process for its run; returns it."""
    check_channels(cfg)
    restrict_checkpoint_loading()
    prepare_cpu_distributed(cfg)
    return cfg


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
