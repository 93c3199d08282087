#!/usr/bin/env python3
"""Show what the network gets, beside the original image.

The image is rebuilt from the selected DCT channels after augmentation, with labels, boxes and masks
drawn on it. For classification and detection configs.
"""
import argparse
from pathlib import Path

import mmcv
import numpy as np
from tqdm import tqdm

from mmfreq.apis.browse import Browser
from mmfreq.apis.runs import CFG_OPTIONS_HELP, KeyValues, check_display, explain_build, read_config
from mmfreq.apis.terminal import quiet, run_tool, say


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--phase', choices=['train', 'val', 'test'], default='train', help='which data loader '
                        '(default: %(default)s)')
    parser.add_argument('-o', '--out', dest='out_dir', default='browse',
                        metavar='DIR', help='folder for the pictures (default: %(default)s)')
    parser.add_argument('--show', action='store_true', help='show the pictures in a window instead')
    parser.add_argument('--number', type=int, default=20, help='how many samples (default: %(default)s)')
    parser.add_argument('--shuffle', action='store_true', help='draw samples from all over the data set instead of its '
                        'first ones')
    parser.add_argument('--seed', type=int, default=0, help='another one gives --shuffle other samples (default: '
                        '%(default)s)')
    parser.add_argument('--wait-time', type=float, default=0, help='seconds that a picture stays in the window; 0: '
                        'until a key is pressed (default)')
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE', help=CFG_OPTIONS_HELP)
    return parser.parse_args()


def main() -> None:
    """Draw sample after sample."""
    args = parse_args()
    if args.number < 1:
        raise SystemExit(f'--number: expected an integer >= 1, got {args.number}')
    if args.seed < 0:
        raise SystemExit(f'--seed: expected an integer >= 0, got {args.seed}')
    if args.show:
        check_display('--out DIR')
    loader = f'{args.phase}_dataloader'
    cfg = read_config(args.config, args.cfg_options)
    with quiet(), explain_build():
        browser = Browser(cfg, loader)
    if not args.show:
        Path(args.out_dir).mkdir(parents=True, exist_ok=True)
    indices = range(len(browser.dataset))
    if args.shuffle:
        indices = np.random.default_rng(args.seed).permutation(indices).tolist()
    indices = indices[:args.number]
    drawn = 0
    for index in tqdm(indices, unit='picture'):
        try:
            path, picture = browser.draw(index)
        except (OSError, ValueError) as error:
            say(f'sample {index}: {error}')
            continue
        drawn += 1
        if args.show:
            browser.visualizer.show(picture, args.config, args.wait_time)
        else:
            mmcv.imwrite(picture[:, :, ::-1], str(Path(args.out_dir, f'{index:05d}-{Path(path).stem}.png')))
    if not args.show:
        print(f'{drawn} pictures in {args.out_dir}')
    if drawn < len(indices):
        raise SystemExit(f'{len(indices) - drawn} of {len(indices)} samples cannot be drawn')


if __name__ == '__main__':
    run_tool(main)
