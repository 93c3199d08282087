#!/usr/bin/env python3
"""Convert the weights of other networks for those of mmfreq.

dctnet: a ResNet-50 classifier that the authors of the paper released (24, 64 or 192 channels) -> a checkpoint of
mmpretrain, and the config for it: python tools/test.py OUT.py OUT.pth evaluates it.
stock: an RGB checkpoint in the layout of mmpretrain, mmdet or torchvision -> the same weights for the frequency-domain
backbone, for load_from, or for init_cfg with prefix='backbone.'.

Files are read weights-only; one that holds anything else is refused. Weights that are unknown, missing or of another
shape than expected are listed, and nothing is written.
"""
import argparse
from pathlib import Path

from mmfreq.apis.convert_checkpoint import convert_dctnet, convert_stock
from mmfreq.apis.runner import checkpoint_file, explain_refusal
from mmfreq.dct.channels import CHANNEL_NAMES


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parsers = parser.add_subparsers(dest='source', required=True, metavar='dctnet|stock')
    for name in ('dctnet', 'stock'):
        sub = parsers.add_parser(name, help=f'see "{name} --help"')
        sub.add_argument('checkpoint', help='file to read')
        sub.add_argument('out', help='.pth file to write' + (', and the config beside it' if name == 'dctnet' else ''))
        sub.add_argument('--channels', required=name == 'stock', choices=CHANNEL_NAMES, metavar='NAME',
                         help=f'DCT channels, one of {", ".join(CHANNEL_NAMES)}' +
                         (' (default: 24S, 64S or 192, as the authors)' if name == 'dctnet' else ''))
    sub.add_argument('--config', help='stock config that the checkpoint belongs to, such as '
                     'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py (default: a ResNet, recognised by its '
                     'weights)')
    return parser.parse_args()


def main() -> None:
    """Converts, writes; or says why not."""
    args = parse_args()
    out = Path(args.out)
    if out.suffix != '.pth':
        raise SystemExit(f'convert_checkpoint: expected a .pth file to write, got {out}')
    path = checkpoint_file(args.checkpoint)
    try:
        with explain_refusal():
            if args.source == 'dctnet':
                report = convert_dctnet(path, out, args.channels)
            else:
                report = convert_stock(path, out, args.channels, args.config)
    except ValueError as error:
        raise SystemExit(f'convert_checkpoint: {error}') from error
    written = [out, out.with_suffix('.py')] if args.source == 'dctnet' else [out]
    print(*report, f'written: {" ".join(map(str, written))}', sep='\n')


if __name__ == '__main__':
    main()
