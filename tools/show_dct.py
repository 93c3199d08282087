#!/usr/bin/env python3
"""Draw an image, its DCT channels, and the image as selections of them keep it."""
import argparse

import cv2

from mmfreq.apis.show_dct import plot_channels
from mmfreq.apis.terminal import run_tool
from mmfreq.dct.channels import CHANNEL_NAMES
from mmfreq.errors import RefusedError
from mmfreq.files import check_not_input


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('image', help='image file')
    parser.add_argument('--channels', nargs='+', default=['24S', '6S'], choices=CHANNEL_NAMES,
                        metavar='NAME', help=f'of {", ".join(CHANNEL_NAMES)} (default: 24S 6S)')
    parser.add_argument('-o', '--out', default='dct.png',
                        help='PNG or SVG file to write (default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    """Read the image, draw, write."""
    args = parse_args()
    check_not_input(args.out, args.image)
    image = cv2.imread(args.image)
    if image is None:
        raise RefusedError(f'{args.image}: expected an image that OpenCV reads')
    plot_channels(image, args.channels, args.out)
    print('written:', args.out)


if __name__ == '__main__':
    run_tool(main)
