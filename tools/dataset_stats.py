#!/usr/bin/env python3
"""Compute mean and standard deviation of all DCT channels over the training pipeline of a config.

The result is a JSON file for FusedBlockDCT(..., stats='FILE.json').
"""
import argparse

import mmfreq
from mmfreq.apis.dataset_stats import dataset_statistics, save_stats
from mmfreq.apis.runs import add_cfg_options, read_config
from mmfreq.apis.terminal import run_tool, say
from mmfreq.dct.channels import COMPONENTS
from mmfreq.files import check_writable


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config with a DCT in its training pipeline; only the steps '
                        'before the DCT are applied')
    parser.add_argument('-o', '--out', default='dct_stats.json',
                        help='JSON file to write (default: %(default)s)')
    parser.add_argument('--images', type=int, default=5_000, help='number of images, sampled at '
                        'random; 0: all (default: %(default)s). The standard error that the tool '
                        'prints shows whether they suffice')
    parser.add_argument('--workers', type=int, default=2,
                        help='worker processes (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0,
                        help='seed of sampling and augmentation (default: %(default)s)')
    parser.add_argument('--range', action='store_true', help='write the largest deviation from the mean '
                        "as std: with dtype='int8', scale=127, int8 then covers the range of each channel")
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Compute the statistics, write them and print a summary."""
    args = parse_args()
    mmfreq.setup()
    cfg = read_config(args.config, args.cfg_options)
    check_writable(args.out)
    say(f'computing the statistics of {args.images or "all"} images at most')
    stats, constant = dataset_statistics(cfg, args.workers, args.images, args.seed, args.range)
    save_stats(stats, args.out)
    if constant:
        print(f'{len(constant)} channels never vary (std set to 1): {constant}')
    for component, name in enumerate(COMPONENTS):
        channel = component * len(stats.mean) // 3
        print(f'{name:2} DC: mean {stats.mean[channel]:9.3f}  std {stats.std[channel]:8.3f}')
    error = stats.meta['standard_error']
    print(f'standard error, largest of all channels: {error["mean"]:.2%} of a standard deviation '
          f'for means, {error["std"]:.2%} for standard deviations')
    print(f'{stats.meta["images"]} images, {stats.meta["count"]} blocks -> {args.out}')


if __name__ == '__main__':
    run_tool(main)
