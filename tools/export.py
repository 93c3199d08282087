#!/usr/bin/env python3
"""Write a trained classifier or detector as one self-contained file, ONNX or torch.export.

The file takes pixels and gives scores, or boxes, labels, scores and masks: resizing, cropping,
colour, DCT, gate, softmax and NMS are in it. It appears once it gives the same as PyTorch.
docs/export.md shows how to run it.
"""
import argparse
from pathlib import Path

from mmfreq.apis.export import INPUTS, exporter
from mmfreq.apis.export_file import check_packages
from mmfreq.apis.runs import (
    CFG_OPTIONS_HELP,
    CHECKPOINT_HELP,
    KeyValues,
    checkpoint_file,
    explain_refusal,
    prepare,
    read_config,
)
from mmfreq.apis.terminal import quiet, run_tool
from mmfreq.files import check_writable


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help=CHECKPOINT_HELP)
    parser.add_argument('out', type=Path, metavar='OUT.onnx', help='or OUT.pt2, for torch.export')
    parser.add_argument('--input', choices=INPUTS, default='image', help='what the file takes: '
                        'uint8 pixels (N, H, W, 3), or the DCT channels (N, C, h, w) as the test '
                        'pipeline gives them, float32 or int8 (default: %(default)s)')
    parser.add_argument('--order', choices=('rgb', 'bgr'), default='rgb',
                        help='order of the colours in pixels (default: %(default)s)')
    parser.add_argument('--fp16', action='store_true', help='compute in float16 behind the DCT')
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE',
                        help=CFG_OPTIONS_HELP)
    return parser.parse_args()


def main() -> None:
    """Export, and say how far the file's scores are from those of PyTorch."""
    args = parse_args()
    with quiet():
        cfg = prepare(read_config(args.config, args.cfg_options))
    checkpoint = checkpoint_file(args.checkpoint)
    try:
        check_packages()
        check_writable(args.out)
        with quiet(), explain_refusal():
            made = exporter(cfg, checkpoint, args.input, args.order, args.fp16)
        print(f'export: writing and checking {args.out} ...', flush=True)
        checked = made.write(args.out)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    print(f'export: {args.out}, {args.out.stat().st_size / 1e6:.1f} MB; checked on {made.source}')
    for reference, differences in checked.items():
        found = ', '.join(f'{name} {value:.1e}' for name, value in differences.items())
        print(f'export: largest differences from {reference}: {found}')


if __name__ == '__main__':
    run_tool(main)
