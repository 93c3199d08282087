#!/usr/bin/env python3
"""Write the frequency-domain version of a stock config of mmpretrain or mmdet, as a config that inherits it.

Larger photos, the DCT before the packer of every pipeline, the backbone without its stem, preprocessor and statistics.
Before anything is written, the pipelines are run on a noise photo and the model is built; what cannot be converted is
refused with the reason.
"""
import argparse
from pathlib import Path

from mmfreq.apis.freqify.convert import freq_name, write_freqified
from mmfreq.apis.terminal import quiet, run_tool
from mmfreq.dct.channels import CHANNEL_NAMES


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='stock config: mmpretrain::resnet/resnet101_8xb32_in1k.py, '
                        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py, or a path')
    parser.add_argument('--channels', required=True, choices=CHANNEL_NAMES, metavar='NAME',
                        help=f'DCT channels, one of {", ".join(CHANNEL_NAMES)}')
    parser.add_argument('-o', '--out', help='config to write (default: here, named after the stock config, such as '
                        'resnet101-dct24s_8xb32_in1k.py)')
    parser.add_argument('--stats', help='statistics of the channels: a shipped set or a JSON file of '
                        'tools/dataset_stats.py (default: the shipped ones of the size of photo '
                        'nearest to the enlarged crops, such as photos-448; for detection photos-1333x800)')
    parser.add_argument('--force', action='store_true', help='replace the file if it is there')
    return parser.parse_args()


def main() -> None:
    """Converts, tries, writes; or says why not."""
    args = parse_args()
    try:
        out = Path(args.out or f'{freq_name(args.config, args.channels)}.py')
        if out.suffix != '.py':
            raise ValueError(f'--out: expected a .py file, got {out}')
        if out.exists() and not args.force:
            raise ValueError(f'{out} is there already; --force replaces it')
        with quiet():
            notes = write_freqified(args.config, args.channels, out, args.stats)
    except (OSError, ValueError) as error:
        where = '' if args.config in str(error) else f'{args.config}: '
        raise SystemExit(f'{where}{error}') from error
    print(*notes, f'written: {out}', sep='\n')


if __name__ == '__main__':
    run_tool(main)
