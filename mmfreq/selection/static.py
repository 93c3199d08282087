"""From on-rates to a static selection, and to the config that trains on it."""
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from mmfreq.config.pipelines import iter_dicts, transform_type
from mmfreq.config.writer import beside, child_text, plain_config, stock_base
from mmfreq.dct.channels import (
    CHANNEL_NAMES,
    COMPONENTS,
    NATIVE_NAMES,
    channel_indices,
    read_json,
)
from mmfreq.errors import RefusedError
from mmfreq.files import atomic_write_text
from mmfreq.selection.rates import OnRates


def static_name(dynamic: str, count: int) -> str:
    """``resnet50-dct192-gate_8xb32_in1k`` -> ``resnet50-dct24-learned_8xb32_in1k``."""
    name, replaced = re.subn(r'dct\d+[a-z]*(-gate|-learned)?', f'dct{count}-learned', dynamic, count=1)
    return name if replaced else f'{dynamic}-dct{count}-learned'


def describe_selection(rates: OnRates, channels: list[int]) -> str:
    """Describe a selection in a few lines."""
    parts = ', '.join(f'{name} {sum(channel // rates.block_size**2 == i for channel in channels)}'
                      for i, name in enumerate(COMPONENTS))
    chosen = np.isin(rates.channels, channels)
    lowest, rest = rates.probability[chosen].min(), rates.probability[~chosen]
    lines = [f'{len(channels)} of {len(rates.channels)} channels: {channels}', f'components: {parts}',
             f'lowest probability of the selection: {lowest:.3f}'
             + (f', highest of the others: {rest.max():.3f}' if rest.size else ''),
             rates.describe(len(channels))]
    lines += [f'in common with {name}: {len({*channels} & {*known})} of {len(known)}'
              for name, known in named_selections(rates, len(channels)).items()]
    return '\n'.join(lines)


def named_selections(rates: OnRates, count: int) -> dict[str, list[int]]:
    """Return the named selections of ``count`` channels among those of the rates, by name."""
    names = {4: NATIVE_NAMES, 8: CHANNEL_NAMES}.get(rates.block_size, ())
    known = {name: channel_indices(name, rates.block_size) for name in names}
    return {name: channels for name, channels in known.items()
            if len(channels) == count and {*channels} <= {*rates.channels.tolist()}}


def save_selection(rates: OnRates, channels: list[int], path: str) -> None:
    """Write a selection for ``channels='FILE.json'``: the channels, and where they come from."""
    by_channel = dict(zip(rates.channels.tolist(), rates.on_rate.tolist()))
    values = dict(channels=channels, block_size=rates.block_size, images=rates.images,
                  on_rate=[by_channel[i] for i in channels], source=rates.meta)
    atomic_write_text(path, json.dumps(values, indent=1) + '\n')


def write_static(rates: OnRates, channels: list[int], dynamic: Path, selection: Path, out: Path,
                 carried: bool = False) -> None:
    """Write a selection, and the config ``out`` of :func:`static_config` that takes it."""
    save_selection(rates, channels, str(selection))
    atomic_write_text(out, static_config(dynamic, selection, out, carried))


def static_config(dynamic: Path, selection: Path, out: Path, carried: bool = False) -> str:
    """Return the text of the config ``out``, which trains on a selection without the gate.

    It inherits the stock config from which ``dynamic``, the config of the network that had a gate,
    comes. The selection is a file of :func:`save_selection`. If weights are ``carried`` over to a
    checkpoint beside ``out``, a training starts from them.

    Raises:
        RefusedError: ``dynamic`` has no DCT in its pipelines.
    """
    target = plain_config(dynamic)
    count = len(read_json(selection, 'a list "channels"')['channels'])
    for node in iter_dicts(target.get('model')):
        node.pop('gate', None)
        if transform_type(node).startswith('Freq') and 'in_channels' in node:
            node['in_channels'] = count
    file = Path(os.path.relpath(selection, out.parent)).as_posix()
    if not _replace_selection(target, f'{{{{ fileDirname }}}}/{file}'):
        raise RefusedError(f'{dynamic}: expected pipelines with FusedBlockDCT or BlockDCT')
    if 'custom_hooks' in target:
        target['custom_hooks'] = [hook for hook in target['custom_hooks']
                                  if transform_type(hook) != 'GateLossHook']
    if carried:
        target['load_from'] = str(out.with_suffix('.pth'))
    comment = f'Static selection of DCT channels, learned with {dynamic.name}.'
    names = beside(out) if carried else {}
    return child_text(stock_base(dynamic), target, comment, out.parent, names)


def _replace_selection(node: Any, channels: Any) -> int:
    """Select ``channels`` after every DCT in ``node``, and return how many there are."""
    if isinstance(node, dict):
        freq = node.get('freq')  # of a preprocessor or a backbone, which may leave out the type
        transforms = [freq] if isinstance(freq, dict) else []
        transforms += [node] if transform_type(node) == 'FusedBlockDCT' else []
        for transform in transforms:
            transform['channels'] = channels
        return len(transforms) + sum(_replace_selection(child, channels) for child in node.values())
    if not isinstance(node, (list, tuple)):
        return 0
    count = sum(_replace_selection(child, channels) for child in node)
    kinds = [transform_type(step) if isinstance(step, dict) else '' for step in node]
    if isinstance(node, list) and 'BlockDCT' in kinds:
        node[:] = [step for step, kind in zip(node, kinds) if kind != 'ChannelSelect']
        node.insert(kinds.index('BlockDCT') + 1, dict(type='ChannelSelect', channels=channels))
        count += 1
    return count
