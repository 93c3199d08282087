#!/usr/bin/env python3
"""Show an image, its DCT channels, and what selections of them keep of it."""
import argparse

import mmcv

from mmfreq.apis.show_dct import plot_channels
from mmfreq.apis.terminal import run_tool
from mmfreq.dct.channels import CHANNEL_NAMES
from mmfreq.files import check_not_input, check_writable


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('image', help='image file')
    parser.add_argument('--channels', nargs='+', default=['24S', '6S'], choices=CHANNEL_NAMES, metavar='NAME',
                        help=f'selections, of {", ".join(CHANNEL_NAMES)} (default: 24S 6S)')
    parser.add_argument('-o', '--out', default='dct.png', help='PNG or SVG file to write (default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    """Read the image, draw, write."""
    args = parse_args()
    if not args.out.endswith(('.png', '.svg')):
        raise SystemExit(f'--out: expected a .png or .svg file, got {args.out}')
    try:
        check_not_input(args.out, args.image)
        check_writable(args.out)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    try:
        image = mmcv.imread(args.image)
    except Exception as error:  # every decoder has its own
        raise SystemExit(f'{args.image}: {error}') from error
    if image is None:
        raise SystemExit(f'{args.image}: cannot be decoded as an image')
    plot_channels(image, args.channels, args.out)
    print('written:', args.out)


if __name__ == '__main__':
    run_tool(main)
