#!/usr/bin/env python3
"""List the configs that ship with mmfreq: channels, input size, multiply-adds, published figure.

The paper published these figures for its networks: top-1 accuracy, box and mask AP in per cent.
They are not of trainings with this code. Multiply-adds are of this code, for one image.
"""
import argparse

from mmfreq.apis.terminal import run_tool
from mmfreq.apis.zoo import shipped_table
from mmfreq.errors import RefusedError


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('pattern', nargs='?', default='', metavar='PATTERN',
                        help='part of the name, with * and ?: resnet50, "dct24s*in1k"')
    return parser.parse_args()


def main() -> None:
    """Print a table."""
    args = parse_args()
    rows = shipped_table(args.pattern)
    if not rows:
        raise RefusedError(f'no shipped config has {args.pattern!r} in its name')
    rows.insert(0, ('config', 'channels', 'size', 'multiply-adds', 'published'))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for name, *figures in rows:
        cells = [f'{cell:>{width}}' for cell, width in zip(figures[:3], widths[1:])]
        print('  '.join((f'{name:{widths[0]}}', *cells, figures[3])).rstrip())


if __name__ == '__main__':
    run_tool(main)
