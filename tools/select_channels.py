#!/usr/bin/env python3
"""Select the channels that a trained gate ranks highest, and write a config that trains on them.

Channels are ranked by their mean probability of being kept, then by their on-rate, then low
frequencies first. A gate that is undecided on so many channels is refused: its selection is chance.
"""
import argparse
from pathlib import Path

import mmfreq
from mmfreq.apis.terminal import run_tool
from mmfreq.config.paths import config_path
from mmfreq.errors import RefusedError
from mmfreq.selection.rates import load_on_rates
from mmfreq.selection.static import describe_selection, static_name, write_static


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('rates', help='gate_rates_*.json, which training leaves beside its '
                        'checkpoints, or the JSON file of tools/gate_heatmap.py')
    parser.add_argument('--channels', type=int, default=24, help='how many (default: %(default)s)')
    parser.add_argument('--force', action='store_true', help='take those of an undecided gate, too')
    parser.add_argument('--config', help='config of the network with the gate (default: the one that RATES names)')
    parser.add_argument('-o', '--out', help="selection for FusedBlockDCT(channels='FILE.json', ...) "
                        '(default: selection-N.json beside RATES)')
    parser.add_argument('--out-config', help='config that trains on the selection (default: beside '
                        'the selection, named after the config)')
    return parser.parse_args()


def main() -> None:
    """Select, write, report."""
    args = parse_args()
    mmfreq.setup()
    rates = load_on_rates(args.rates)
    channels = rates.top(args.channels)
    if not rates.verdict(args.channels)['decided'] and not args.force:
        raise RefusedError(f'{args.rates}: {rates.describe(args.channels)}. Train it longer or on '
                           'more images, or take the channels all the same with --force')
    config = args.config or rates.meta.get('config')
    if not config:
        raise RefusedError(f'{args.rates} names no config; give --config')
    dynamic = config_path(config)
    default = Path(args.rates).with_name(f'selection-{len(channels)}.json')
    selection = Path(args.out or default)
    out = Path(args.out_config or selection.with_name(
        f'{static_name(dynamic.stem, len(channels))}.py'))
    write_static(rates, channels, dynamic, selection, out)
    print(describe_selection(rates, channels))
    print(f'written: {selection} {out}')


if __name__ == '__main__':
    run_tool(main)
