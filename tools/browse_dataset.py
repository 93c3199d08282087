#!/usr/bin/env python3
"""Draw the input of the network, beside the original image, for classification and detection configs.

The image is rebuilt from the selected DCT channels after augmentation, with labels, boxes and masks
drawn on it.
"""
import argparse
from pathlib import Path

import cv2
import mmcv
import numpy as np
from tqdm import tqdm

import mmfreq
from mmfreq.apis.browse import Browser
from mmfreq.apis.runs import add_cfg_options, read_config
from mmfreq.apis.terminal import run_tool, say


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--phase', choices=['train', 'val', 'test'], default='train',
                        help='which data loader (default: %(default)s)')
    parser.add_argument('-o', '--out', dest='out_dir', default='browse', metavar='DIR',
                        help='folder for the pictures (default: %(default)s)')
    parser.add_argument('--number', type=int, default=20,
                        help='how many samples (default: %(default)s)')
    parser.add_argument('--shuffle', action='store_true',
                        help='draw samples from all over the data set instead of its first ones')
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Draw sample after sample."""
    args = parse_args()
    mmfreq.setup()
    browser = Browser(read_config(args.config, args.cfg_options), f'{args.phase}_dataloader')
    indices = np.arange(len(browser.dataset))
    if args.shuffle:
        indices = np.random.default_rng(0).permutation(indices)
    failed = 0
    for index in tqdm(indices[:args.number].tolist(), unit='picture', disable=None):
        try:
            path, picture = browser.draw(index)
        except (OSError, ValueError, AssertionError, cv2.error) as error:  # a damaged image
            say(f'sample {index}: {error}')
            failed += 1
            continue
        file = Path(args.out_dir, f'{index:05d}-{Path(path).stem}.png')
        mmcv.imwrite(picture[:, :, ::-1], str(file))
    print(f'{len(indices[:args.number]) - failed} pictures in {args.out_dir}')
    if failed:
        raise SystemExit(1)


if __name__ == '__main__':
    run_tool(main)
