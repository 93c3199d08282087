#!/usr/bin/env python3
"""Show how often a trained gate keeps each DCT channel (Fig. 5 of Xu et al. 2020).

Three grids for Y, Cb and Cr, low frequencies at the upper left; the number in a square is its zigzag index, the colour
the share of images for which the channel is kept. From a config and a checkpoint, whose gate then runs over the
validation set, or from gate_rates_*.json files, which training leaves beside its checkpoints:

    tools/gate_heatmap.py CONFIG CHECKPOINT
    tools/gate_heatmap.py RATES.json [RATES.json ...]
"""
import argparse
from pathlib import Path

from mmfreq.apis.checks import check_checkpoint
from mmfreq.apis.heatmap import plot_on_rates
from mmfreq.apis.runs import CFG_OPTIONS_HELP, KeyValues, checkpoint_file, explain_refusal, prepare, read_config
from mmfreq.apis.terminal import quiet, run_tool
from mmfreq.config.pipelines import iter_dicts
from mmfreq.files import check_writable
from mmfreq.selection.rates import OnRates, load_on_rates, measure_on_rates, save_on_rates


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('inputs', nargs='+', metavar='FILE', help='CONFIG and CHECKPOINT (a file, or a work '
                        'dir: its last checkpoint), or JSON files, drawn one below the other')
    parser.add_argument('-o', '--out', default='gate_heatmap', metavar='PREFIX',
                        help='write PREFIX.png and PREFIX.svg, and '
                        'PREFIX.json if a gate was run (default: %(default)s)')
    parser.add_argument('--phase', choices=['train', 'val', 'test'], default='val', help='which data loader the gate '
                        'runs over (default: %(default)s)')
    parser.add_argument('--names', nargs='+', help='titles (default: the files)')
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE', help=CFG_OPTIONS_HELP)
    return parser.parse_args()


def measure(args: argparse.Namespace) -> OnRates:
    """Runs the gate, writes the JSON file."""
    if len(args.inputs) != 2:
        raise SystemExit(f'expected CONFIG and CHECKPOINT, or JSON files, got {args.inputs}')
    cfg = prepare(read_config(args.inputs[0], args.cfg_options))
    if all(node.get('gate') is None for node in iter_dicts(cfg.model)):
        raise SystemExit(f'{args.inputs[0]}: expected a model with a gate, found none')
    checkpoint = checkpoint_file(args.inputs[1], best=False)  # training ends with what the gate is to keep
    with quiet(), explain_refusal():
        check_checkpoint(checkpoint, cfg)
        rates = measure_on_rates(cfg, checkpoint, f'{args.phase}_dataloader')
    save_on_rates(rates, f'{args.out}.json')
    return rates


def main() -> None:
    """Reads or measures, draws, sums up."""
    args = parse_args()
    from_files = all(name.endswith('.json') for name in args.inputs)
    try:
        for ending in ('json', 'png', 'svg'):
            check_writable(f'{args.out}.{ending}')
        rates = [load_on_rates(name) for name in args.inputs] if from_files else [measure(args)]
    except ValueError as error:
        raise SystemExit(str(error)) from error
    names = args.names or [str(Path(name).with_suffix('')) for name in args.inputs[:len(rates)]]
    if len(names) != len(rates):
        raise SystemExit(f'--names: expected {len(rates)}, got {len(names)}')
    for suffix in ('png', 'svg'):
        plot_on_rates(rates, names, f'{args.out}.{suffix}')
    for name, rate in zip(names, rates):
        kept = rate.kept()
        print(f'{name}: {kept["all"]:.1f} of {len(rate.channels)} channels kept per image (Y {kept["Y"]:.1f}, '
              f'Cb {kept["Cb"]:.1f}, Cr {kept["Cr"]:.1f}), {rate.images} images')
    print('written:', *([] if from_files else [f'{args.out}.json']), f'{args.out}.png', f'{args.out}.svg')


if __name__ == '__main__':
    run_tool(main)
