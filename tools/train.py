#!/usr/bin/env python3
"""Train a model from an OpenMMLab config, in the frequency domain or not."""
import argparse
import os

from mmengine.config import DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmfreq.cli import CFG_OPTIONS_HELP, explain_refusal, prepare, train_config


def parse_args() -> argparse.Namespace:
    """Flags as in mmpretrain's and mmdet's tools/train.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, e.g. configs/resnet/resnet50-dct24s_8xb32_in1k.py')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: the config\'s, else '
                        'work_dirs/<name of the config>)')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='continue from CHECKPOINT; without a value, from the last checkpoint in the work dir, '
                        'or from the start if there is none')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate by the actual over the config\'s base batch size')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help=CFG_OPTIONS_HELP)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='how the processes of a distributed run were started; see tools/dist_train.sh')
    # torchrun sets LOCAL_RANK; torch.distributed.launch passes the option instead
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    """Builds the runner of the config and trains."""
    args = parse_args()
    cfg = prepare(train_config(args))
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    with explain_refusal(cfg):
        runner.train()


if __name__ == '__main__':
    main()
