#!/usr/bin/env python3
"""Convert a released DCTNet classifier to a checkpoint of mmpretrain and its config.

Takes the ResNet-50 classifiers of the paper's authors (24, 64 or 192 channels);
python tools/test.py OUT.py OUT.pth evaluates the result. Stock RGB checkpoints need no conversion:
every backbone takes them by load_from or init_cfg.

Files are read weights-only; one that holds anything else is refused. Weights that are unknown,
missing or misshapen are listed, and nothing is written.
"""
import argparse
from pathlib import Path

from mmfreq.apis.convert_checkpoint import convert_dctnet
from mmfreq.apis.runs import checkpoint_file, explain_refusal
from mmfreq.apis.terminal import quiet, run_tool
from mmfreq.dct.channels import CHANNEL_NAMES


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='file to read')
    parser.add_argument('out', help='.pth file to write; the config is written beside it')
    parser.add_argument('--channels', choices=CHANNEL_NAMES, metavar='NAME',
                        help=f'DCT channels, one of {", ".join(CHANNEL_NAMES)} '
                        "(default: the authors' 24S, 64S or 192)")
    return parser.parse_args()


def main() -> None:
    """Convert and write, or say in one line why not."""
    args = parse_args()
    out = Path(args.out)
    if out.suffix != '.pth':
        raise SystemExit(f'expected a .pth file to write, got {out}')
    path = checkpoint_file(args.checkpoint)
    try:
        with quiet(), explain_refusal():
            report = convert_dctnet(path, out, args.channels)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    print(*report, f'written: {out} {out.with_suffix(".py")}', sep='\n')


if __name__ == '__main__':
    run_tool(main)
