#!/usr/bin/env python3
"""Write a config that trains a given config's network on data of your own.

DATA is a folder with a folder of images for each class, with or without train/ and val/; a list of
files and labels (CSV or text); or a COCO file, or a folder that has some. Without a split, a fifth
of each class, drawn at random but always the same, is for validation.
"""
import argparse
import shlex
from pathlib import Path

from mmfreq.apis.new_config.write import write_config
from mmfreq.apis.terminal import quiet, run_tool
from mmfreq.dct.blocks import check_positive_int


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='"mmfreq list" shows the configs that ship with mmfreq; "mmfreq freqify" makes a '
        'frequency-domain config of a stock one or of yours.')
    parser.add_argument('config', help='config to inherit: mmfreq::resnet/'
                        'resnet50-dct24s_8xb32_in1k.py, its name alone, or a path')
    parser.add_argument('data', metavar='DATA', help='folder, list or COCO file')
    parser.add_argument('-o', '--out', default='my_config.py',
                        help='config to write (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, metavar='N', help='images of a step (default: '
                        'as in CONFIG, less for few images); the learning rate follows')
    parser.add_argument('--epochs', type=int, metavar='N', help='length of the training (default: '
                        'as in CONFIG); the schedule follows')
    parser.add_argument('--weights', metavar='WHAT', help='stock: the published weights of the '
                        'stock RGB network; random; or a checkpoint (default: as in CONFIG)')
    parser.add_argument('--stats', action='store_true',
                        help='measure the statistics of the channels on DATA')
    parser.add_argument('--no-check', action='store_true',
                        help='do not read every image to find those that cannot be read')
    parser.add_argument('--force', action='store_true', help='replace the file if it is there')
    return parser.parse_args()


def main() -> None:
    """Look at the data, write, and say how to go on."""
    args = parse_args()
    out = Path(args.out)
    try:
        for name, value in (('--batch-size', args.batch_size), ('--epochs', args.epochs)):
            if value is not None:
                check_positive_int(name, value)
        if out.suffix != '.py' or (out.exists() and not args.force):
            raise ValueError(f'--out: expected a .py file that is not there yet (--force replaces '
                             f'it), got {out}')
        with quiet():
            notes = write_config(
                args.config, args.data, out, batch_size=args.batch_size, epochs=args.epochs,
                weights=args.weights, stats=args.stats, check=not args.no_check)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    shown = shlex.quote(str(out))
    print(*notes, f'written: {out}', f'look:    mmfreq browse_dataset {shown}',
          f'train:   mmfreq train {shown}', sep='\n')


if __name__ == '__main__':
    run_tool(main)
