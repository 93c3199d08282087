#!/usr/bin/env python3
"""Train a model from an OpenMMLab config, in the frequency domain or not."""
import argparse

import mmfreq
from mmfreq.apis.runs import add_run_arguments, build_runner, train_config
from mmfreq.apis.terminal import run_tool


def parse_args() -> argparse.Namespace:
    """Read the command line; the flags are those of mmpretrain's and mmdet's tools/train.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, e.g. configs/resnet/resnet50-dct24s_8xb32_in1k.py')
    parser.add_argument('--work-dir', help="folder for logs and checkpoints (default: the config's, else "
                        'work_dirs/<name of the config>)')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='continue from CHECKPOINT; without a value, from the last checkpoint in the '
                        'work dir, or from the start if there is none')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate by the '
                        "actual batch size over the config's base batch size")
    add_run_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Build the runner of the config and train."""
    args = parse_args()
    mmfreq.setup()
    build_runner(train_config(args)).train()


if __name__ == '__main__':
    run_tool(main)
