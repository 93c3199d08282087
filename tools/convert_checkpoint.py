#!/usr/bin/env python3
"""Convert a released DCTNet classifier to a checkpoint of mmpretrain and its config.

The input is a ResNet-50 classifier of the paper's authors (24, 64 or 192 channels). The command
python tools/test.py OUT.py OUT.pth evaluates the result. Stock RGB checkpoints need no conversion:
every backbone takes them by load_from or init_cfg.
"""
import argparse
from pathlib import Path

import mmfreq
from mmfreq.apis.convert_checkpoint import convert_dctnet
from mmfreq.apis.runs import checkpoint_file
from mmfreq.apis.terminal import run_tool
from mmfreq.dct.channels import CHANNEL_NAMES
from mmfreq.errors import RefusedError


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='file to read')
    parser.add_argument('out', type=Path,
                        help='.pth file to write; the config is written beside it')
    parser.add_argument('--channels', choices=CHANNEL_NAMES, metavar='NAME',
                        help=f'DCT channels, one of {", ".join(CHANNEL_NAMES)} '
                        "(default: the authors' 24S, 64S or 192)")
    return parser.parse_args()


def main() -> None:
    """Convert and write."""
    args = parse_args()
    mmfreq.setup()
    if args.out.suffix != '.pth':
        raise RefusedError(f'expected a .pth file to write, got {args.out}')
    channels = convert_dctnet(checkpoint_file(args.checkpoint), args.out, args.channels)
    print(f'wrote {args.out} and {args.out.with_suffix(".py")}, channels {channels}')


if __name__ == '__main__':
    run_tool(main)
