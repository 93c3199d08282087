#!/usr/bin/env python3
"""Write a trained classifier or detector as one self-contained file, ONNX or torch.export.

The file takes pixels and returns scores, or boxes, labels, scores and masks: resizing, cropping,
colour, DCT, gate, softmax and NMS are in it. It appears if its results are those of PyTorch.
docs/export.md shows how to run it.
"""
import argparse
import logging
import warnings
from pathlib import Path

import mmfreq
from mmfreq.apis.export import check_out, exporter
from mmfreq.apis.inference import load_model
from mmfreq.apis.runs import CHECKPOINT_HELP, add_cfg_options, checkpoint_file, read_config
from mmfreq.apis.terminal import run_tool


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help=CHECKPOINT_HELP)
    parser.add_argument('out', type=Path, metavar='OUT.onnx', help='or OUT.pt2, for torch.export')
    parser.add_argument('--input', choices=('image', 'channels'), default='image', help='input of '
                        'the file: uint8 pixels (N, H, W, 3), or the DCT channels (N, C, h, w) of '
                        'the test pipeline, float32 or int8 (default: %(default)s)')
    parser.add_argument('--order', choices=('rgb', 'bgr'), default='rgb',
                        help='order of the colours in pixels (default: %(default)s)')
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Export, and print the differences of the file's results from those of PyTorch."""
    args = parse_args()
    check_out(args.out)
    mmfreq.setup()
    logging.getLogger('onnx_ir').setLevel(logging.ERROR)  # it warns of torch's own graphs
    warnings.simplefilter('ignore')  # torch.export warns of attributes, which the gate sets for hooks
    cfg = read_config(args.config, args.cfg_options)
    model = load_model(cfg, checkpoint_file(args.checkpoint), 'cpu')
    graph = exporter(model, args.input, args.order)
    print(f'export: writing {args.out}, compared on {graph.source}', flush=True)
    for reference, differences in graph.write(args.out).items():
        values = ', '.join(f'{name} {value:.1e}' for name, value in differences.items())
        print(f'export: largest differences from {reference}: {values}')
    print(f'export: {args.out}, {args.out.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    run_tool(main)
