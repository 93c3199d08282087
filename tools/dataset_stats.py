#!/usr/bin/env python3
"""Compute mean and standard deviation of all DCT channels over the training pipeline of a config.

The result is a JSON file for FusedBlockDCT(..., stats='FILE.json').
"""
import argparse

from mmfreq.apis.dataset_stats import INT8_SCALES, dataset_statistics, save_stats
from mmfreq.apis.runs import CFG_OPTIONS_HELP, KeyValues, read_config
from mmfreq.apis.terminal import quiet, run_tool
from mmfreq.dct.channels import COMPONENTS
from mmfreq.files import check_writable


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config whose training pipeline has BlockDCT or FusedBlockDCT; augmentations '
                        'before it are applied, what follows it is not')
    parser.add_argument('-o', '--out', default='dct_stats.json', help='JSON file to write (default: %(default)s)')
    parser.add_argument('--images', type=int, help='use only so many images, picked at random (default: all); the '
                        'standard error that is printed says whether they suffice, and 20,000 mostly do')
    parser.add_argument('--workers', type=int, default=2, help='worker processes (default: %(default)s)')
    parser.add_argument('--scales', type=float, nargs='+', default=INT8_SCALES, help="scales to judge for "
                        "FusedBlockDCT(..., dtype='int8', scale=...) (default: %(default)s)")
    parser.add_argument('--seed', type=int, default=0, help='seed of the augmentation (default: %(default)s)')
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE', help=CFG_OPTIONS_HELP)
    return parser.parse_args()


def main() -> None:
    """Compute, write and sum up."""
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    try:
        check_writable(args.out)
        with quiet():
            stats, constant = dataset_statistics(cfg, args.workers, args.images, args.seed, args.scales)
    except (OSError, ValueError) as error:
        raise SystemExit(f'{args.config}: {error}') from error
    save_stats(stats, args.out)
    if constant:
        print(f'{len(constant)} channels never vary (std set to 1): {constant}')
    for component, name in enumerate(COMPONENTS):
        channel = component * len(stats.mean) // 3
        print(f'{name:2} DC: mean {stats.mean[channel]:9.3f}  std {stats.std[channel]:8.3f}')
    print('int8, selected channels: scale, values clipped, error (standard deviations)')
    for row in stats.meta['int8']:
        print(f'{row["scale"]:8g} {row["clipped"]:12.5%} {row["rms_error"]:10.4f}')
    print(f"proposed: dtype='int8', scale={stats.meta['int8_scale']:g} (least error)")
    error = stats.meta['standard_error']
    print(f'standard error, largest of all channels: {error["mean"]:.2%} of a standard deviation for means, '
          f'{error["std"]:.2%} for standard deviations')
    print(f'{stats.meta["images"]} images, {stats.meta["count"]} blocks -> {args.out}')


if __name__ == '__main__':
    run_tool(main)
