#!/usr/bin/env python3
"""Show what a choice of DCT channels keeps of a photo: the photo, its channels, the photo rebuilt from the choice."""
import argparse

from mmfreq.apis.show_dct import plot_channels
from mmfreq.dct.channels import CHANNEL_NAMES
from mmfreq.image_files import read_image_file


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('image', help='image file')
    parser.add_argument('--channels', nargs='+', default=['24S', '6S'], choices=CHANNEL_NAMES, metavar='NAME',
                        help=f'channel selections, of {", ".join(CHANNEL_NAMES)} (default: 24S 6S)')
    parser.add_argument('--out', default='dct.png', help='PNG or SVG file to write (default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    """Reads the photo, draws, writes."""
    args = parse_args()
    if not args.out.endswith(('.png', '.svg')):
        raise SystemExit(f'--out: expected a .png or .svg file, got {args.out}')
    try:
        image = read_image_file(args.image)
    except (OSError, ValueError) as error:
        raise SystemExit(f'show_dct: {error}') from error
    plot_channels(image, args.channels, args.out)
    print('written:', args.out)


if __name__ == '__main__':
    main()
