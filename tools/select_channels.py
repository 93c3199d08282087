#!/usr/bin/env python3
"""Select the channels that a trained gate is most likely to keep, and write the config that trains on them alone.

Channels are ranked by their mean probability of being kept. Equal ones are ranked by their on-rate, then low
frequencies first; the report says so where it matters.
"""
import argparse
import re
from pathlib import Path

import numpy as np

from mmfreq.apis.terminal import quiet, run_tool
from mmfreq.config.paths import config_path
from mmfreq.dct.channels import COMPONENTS
from mmfreq.files import atomic_write_text
from mmfreq.selection.rates import OnRates, load_on_rates
from mmfreq.selection.static import overlap, save_selection, static_config


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('rates', help='gate_rates_*.json, which training leaves beside its checkpoints, or the JSON '
                        'file of tools/gate_heatmap.py')
    parser.add_argument('--channels', type=int, default=24, help='how many (default: %(default)s)')
    parser.add_argument('--config', help='config that the gate was trained with (default: the one that RATES names)')
    parser.add_argument('-o', '--out', help="selection for FusedBlockDCT(channels='FILE.json', ...) (default: "
                        'selection-N.json beside RATES)')
    parser.add_argument('--out-config', help='config that trains on the selection (default: beside the selection, '
                        'named after the config)')
    return parser.parse_args()


def static_name(dynamic: str, count: int) -> str:
    """``resnet50-dct192-gate_8xb32_in1k`` -> ``resnet50-dct24-learned_8xb32_in1k``."""
    name, found = re.subn(r'dct\d+\w*?-gate', f'dct{count}-learned', dynamic, count=1)
    return name if found else f'{dynamic}-dct{count}-learned'


def report(rates: OnRates, channels: list[int]) -> str:
    """What was chosen, in numbers of channels."""
    size = rates.block_size**2
    parts = ', '.join(f'{name} {sum(channel // size == i for channel in channels)}'
                      for i, name in enumerate(COMPONENTS))
    lines = [f'{len(channels)} of {len(rates.channels)} channels: {channels}', f'components: {parts}']
    chosen = np.isin(rates.channels, channels)
    lowest, rest = rates.probability[chosen].min(), rates.probability[~chosen]
    lines.append(f'lowest probability chosen: {lowest:.3f}' +
                 (f', highest left out: {rest.max():.3f}' if rest.size else ''))
    if rest.size and rest.max() == lowest:
        ties = int((rates.probability == lowest).sum())
        lines.append(f'WARNING: {ties} channels have this probability, {int((rest == lowest).sum())} of them left out: '
                     'the on-rate, then the frequency decided. Such ties come from a gate that has not learned yet')
    if rates.block_size == 8:
        lines += [f'in common with {name}: {len(overlap(channels, name))} of 24' for name in ('24S', '24D')]
    return '\n'.join(lines)


def main() -> None:
    """Selects, writes, reports."""
    args = parse_args()
    try:
        rates = load_on_rates(args.rates)
        channels = rates.top(args.channels)
        config = args.config or rates.meta.get('config')
        if not config:
            raise ValueError(f'{args.rates} names no config; give --config')
        dynamic = config_path(config)
        selection = Path(args.out or Path(args.rates).with_name(f'selection-{len(channels)}.json'))
        out = Path(args.out_config or selection.with_name(f'{static_name(dynamic.stem, len(channels))}.py'))
        save_selection(rates, channels, str(selection))
        with quiet():
            atomic_write_text(out, static_config(dynamic, selection, out))
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    print(report(rates, channels))
    print(f'written: {selection} {out}')


if __name__ == '__main__':
    run_tool(main)
