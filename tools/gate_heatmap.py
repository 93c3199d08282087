#!/usr/bin/env python3
"""Show how often a trained gate keeps each DCT channel (Fig. 5 of Xu et al. 2020).

Three grids for Y, Cb and Cr have low frequencies at the upper left. The number in a square is its
zigzag index, the colour the share of images in which the channel is kept. The rates come from a
config and a checkpoint, whose gate then runs over the validation set, or from gate_rates_*.json
files, which training leaves beside its checkpoints:

    tools/gate_heatmap.py CONFIG CHECKPOINT
    tools/gate_heatmap.py RATES.json [RATES.json ...]
"""
import argparse
from pathlib import Path

import mmfreq
from mmfreq.apis.heatmap import measure_on_rates, plot_on_rates
from mmfreq.apis.runs import add_cfg_options, checkpoint_file, read_config
from mmfreq.apis.terminal import run_tool
from mmfreq.files import check_writable
from mmfreq.selection.rates import OnRates, load_on_rates, save_on_rates


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('inputs', nargs='+', metavar='FILE', help='CONFIG and CHECKPOINT (a file, or '
                        'a work dir: its last checkpoint), or JSON files, drawn one below the other')
    parser.add_argument('-o', '--out', default='gate_heatmap', metavar='PREFIX',
                        help='write PREFIX.png and PREFIX.svg, and PREFIX.json if a gate was run '
                        '(default: %(default)s)')
    parser.add_argument('--phase', choices=['train', 'val', 'test'], default='val',
                        help='data loader over which the gate runs (default: %(default)s)')
    parser.add_argument('--names', nargs='+', help='titles (default: the files)')
    add_cfg_options(parser)
    return parser.parse_args()


def read_rates(args: argparse.Namespace) -> list[OnRates]:
    """Read the JSON files, or run the gate and write its JSON file."""
    if all(name.endswith('.json') for name in args.inputs):
        return [load_on_rates(name) for name in args.inputs]
    if len(args.inputs) != 2:
        raise SystemExit(f'expected CONFIG and CHECKPOINT, or JSON files, got {args.inputs}')
    mmfreq.setup()
    cfg = read_config(args.inputs[0], args.cfg_options)
    # the last checkpoint: the budget falls during the training
    checkpoint = checkpoint_file(args.inputs[1], best=False)
    rates = measure_on_rates(cfg, checkpoint, f'{args.phase}_dataloader')
    save_on_rates(rates, f'{args.out}.json')
    return [rates]


def main() -> None:
    """Read or measure rates, draw them, and print their sums."""
    args = parse_args()
    for ending in ('json', 'png', 'svg'):
        check_writable(f'{args.out}.{ending}')
    rates = read_rates(args)
    names = args.names or [str(Path(name).with_suffix('')) for name in args.inputs[:len(rates)]]
    if len(names) != len(rates):
        raise SystemExit(f'--names: expected {len(rates)}, got {len(names)}')
    for suffix in ('png', 'svg'):
        plot_on_rates(rates, names, f'{args.out}.{suffix}')
    for name, rate in zip(names, rates):
        kept = rate.kept()
        print(f'{name}: {kept["all"]:.1f} of {len(rate.channels)} channels kept per image '
              f'(Y {kept["Y"]:.1f}, Cb {kept["Cb"]:.1f}, Cr {kept["Cr"]:.1f}), {rate.images} images; '
              f'{rate.describe()}')
    print(f'written: {args.out}.png {args.out}.svg')


if __name__ == '__main__':
    run_tool(main)
