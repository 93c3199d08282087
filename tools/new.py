#!/usr/bin/env python3
"""Write a config that trains a given config's network on data of your own.

DATA is a folder of class folders (ROOT/<class>, or ROOT/train/<class> and ROOT/val/<class>), a list
FILE.csv with the header file,label or file,label,split, or COCO annotations (FILE.json, or a folder
with annotations/train.json and annotations/val.json). Without a split, a fifth of each class, drawn
at random but always the same, is for validation.
"""
import argparse
import shlex
from pathlib import Path

import mmfreq
from mmfreq.apis.terminal import run_tool
from mmfreq.errors import RefusedError


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='"mmfreq list" shows the configs that ship with mmfreq; "mmfreq freqify" makes a '
        'frequency-domain config of a stock one or of yours.')
    parser.add_argument('config', help='config to inherit: mmfreq::resnet/'
                        'resnet50-dct24s_8xb32_in1k.py, its name alone, or a path')
    parser.add_argument('data', metavar='DATA', help='folder, list or COCO file')
    parser.add_argument('-o', '--out', type=Path, default='my_config.py',
                        help='config to write (default: %(default)s)')
    parser.add_argument('--images', nargs='+', type=lambda text: text.split('=', 1), default=[],
                        metavar='SPLIT=DIR', help='folders of the images of COCO annotations: '
                        'train=DIR val=DIR (default: the folder with the name of the split)')
    parser.add_argument('--batch-size', type=int, metavar='N', help='images of a step (default: '
                        'as in CONFIG, less for few images); the learning rate follows')
    parser.add_argument('--epochs', type=int, metavar='N', help='length of the training (default: '
                        'as in CONFIG); the schedule follows')
    parser.add_argument('--weights', metavar='WHAT', help='stock (the published weights of the '
                        'stock RGB network), random, a checkpoint, or the work dir of a training '
                        '(default: as in CONFIG)')
    parser.add_argument('--stats', action='store_true',
                        help='measure the statistics of the channels on DATA')
    parser.add_argument('--no-check', action='store_true',
                        help='do not read the images: unreadable ones stay, and sizes are not '
                        'compared')
    parser.add_argument('--force', action='store_true', help='replace the file if it exists')
    return parser.parse_args()


def main() -> None:
    """Read the data, write the config, and name the next commands."""
    args = parse_args()
    mmfreq.setup()
    from mmfreq.apis.new_config import write_config  # imports mmdet
    if any(value is not None and value < 1 for value in (args.batch_size, args.epochs)):
        raise RefusedError('--batch-size, --epochs: expected an integer of 1 or more')
    if args.out.suffix != '.py' or (args.out.exists() and not args.force):
        raise RefusedError('--out: expected a .py file that does not exist (--force replaces it), '
                           f'got {args.out}')
    notes = write_config(
        args.config, args.data, args.out, folders=dict(args.images), batch_size=args.batch_size,
        epochs=args.epochs, weights=args.weights, stats=args.stats, check=not args.no_check)
    shown = shlex.quote(str(args.out))
    print(*notes, f'written: {args.out}', f'look:    mmfreq browse_dataset {shown}',
          f'train:   mmfreq train {shown}', sep='\n')


if __name__ == '__main__':
    run_tool(main)
