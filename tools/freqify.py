#!/usr/bin/env python3
"""Write the frequency-domain version of a stock config of mmpretrain or mmdet.

The config that is written inherits the stock one, and the DCT comes before the packer of every
pipeline. With native channels (24N) or --weights, the network computes what the stock network
computes on the image that the channels stand for, and needs no training. Otherwise images are
larger, and the backbone has no stem. Before anything is written, the backbone and a classifier's
pipelines, or a detector's test pipeline, are tried on an image of noise.
"""
import argparse
from pathlib import Path

import mmfreq
from mmfreq.apis.freqify.convert import freqified_name, write_freqified
from mmfreq.apis.runs import checkpoint_file
from mmfreq.apis.terminal import run_tool
from mmfreq.dct.channels import CHANNEL_NAMES, NATIVE_NAMES
from mmfreq.errors import RefusedError


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='stock config: mmpretrain::resnet/resnet101_8xb32_in1k.py, '
                        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py, or a path')
    names = (*NATIVE_NAMES, *CHANNEL_NAMES)
    parser.add_argument('--channels', required=True, choices=names, metavar='NAME',
                        help=f'DCT channels, one of {", ".join(names)}')
    parser.add_argument('--weights', metavar='STOCK.pth', help='checkpoint of the stock config, or its work dir; it '
                        'becomes one of the new config, with the name of --out and .pth')
    parser.add_argument('-o', '--out', help='config to write (default: the name of the stock '
                        'config with the channels, such as resnet101-dct24s_8xb32_in1k.py)')
    parser.add_argument('--stats', help='statistics of the channels: a shipped set or a JSON file '
                        'of tools/dataset_stats.py (default: imagenette-224-4x4 for native channels, '
                        'photos-1333x800 for detection, else the shipped set of the size nearest '
                        'to the training crops)')
    parser.add_argument('--force', action='store_true', help='replace an existing file')
    return parser.parse_args()


def main() -> None:
    """Convert, try and write."""
    args = parse_args()
    mmfreq.setup()
    out = Path(args.out or freqified_name(args.config, args.channels))
    if out.suffix != '.py':
        raise RefusedError(f'--out: expected a .py file, got {out}')
    files = [out, out.with_suffix('.pth')] if args.weights else [out]
    for file in files:
        if file.exists() and not args.force:
            raise RefusedError(f'{file} exists; --force replaces it')
    weights = args.weights and checkpoint_file(args.weights)
    print(*write_freqified(args.config, args.channels, out, args.stats, weights),
          *(f'wrote {file}' for file in files), sep='\n')
    if weights:
        for line in (f'train {out}', f'test {out} {files[1]}', f'export {out} {files[1]} {out.with_suffix(".onnx")}'):
            print(f'mmfreq {line}')


if __name__ == '__main__':
    run_tool(main)
