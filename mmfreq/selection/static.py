"""From on-rates to a static selection, and to the config that trains on it."""
import json
import os
from pathlib import Path
from typing import Any

from mmfreq.config.pipelines import iter_dicts, transform_type
from mmfreq.config.writer import child_text, plain_config, stock_base
from mmfreq.dct.channels import channel_indices
from mmfreq.errors import RefusedError
from mmfreq.files import atomic_write_text
from mmfreq.selection.rates import OnRates


def save_selection(rates: OnRates, channels: list[int], path: str) -> None:
    """Write a selection for ``channels='FILE.json'``: the channels, and where they come from."""
    by_channel = dict(zip(rates.channels.tolist(), rates.on_rate.tolist()))
    values = dict(channels=channels, block_size=rates.block_size, images=rates.images,
                  on_rate=[by_channel[i] for i in channels], source=rates.meta)
    atomic_write_text(path, json.dumps(values, indent=1) + '\n')


def static_config(dynamic: Path, selection: Path, out: Path) -> str:
    """Return the text of the config ``out``, which trains on a selection without the gate.

    It inherits the stock config from which ``dynamic``, the config with the gate, comes. The
    selection is a file of :func:`save_selection`.

    Raises:
        RefusedError: ``dynamic`` has no backbone with a gate, or no DCT in its pipelines.
    """
    target = plain_config(dynamic)
    backbones = [node for node in iter_dicts(target.get('model')) if node.get('gate') is not None]
    if not backbones:
        raise RefusedError(f'{dynamic}: expected a backbone with gate=dict(...)')
    for backbone in backbones:
        del backbone['gate']
        backbone['in_channels'] = len(channel_indices(str(selection)))
    file = Path(os.path.relpath(selection, out.parent)).as_posix()
    if not _replace_selection(target, f'{{{{ fileDirname }}}}/{file}'):
        raise RefusedError(f'{dynamic}: expected pipelines with FusedBlockDCT or BlockDCT')
    hooks = target.get('custom_hooks', [])
    target['custom_hooks'] = [hook for hook in hooks if transform_type(hook) != 'GateLossHook']
    comment = f'Static selection of DCT channels, learned with {dynamic.name}.'
    return child_text(stock_base(dynamic), target, comment, out.parent)


def _replace_selection(node: Any, channels: Any) -> int:
    """Select ``channels`` after every DCT in ``node``, and return how many there are."""
    if isinstance(node, dict):
        on_device = node.get('placement') == 'device' and node.get('freq')
        if on_device or transform_type(node) == 'FusedBlockDCT':
            (on_device or node)['channels'] = channels
            return 1
        return sum(_replace_selection(child, channels) for child in node.values())
    if not isinstance(node, (list, tuple)):
        return 0
    count = sum(_replace_selection(child, channels) for child in node)
    kinds = [transform_type(step) if isinstance(step, dict) else '' for step in node]
    if isinstance(node, list) and 'BlockDCT' in kinds:
        node[:] = [step for step, kind in zip(node, kinds) if kind != 'ChannelSelect']
        node.insert(kinds.index('BlockDCT') + 1, dict(type='ChannelSelect', channels=channels))
        count += 1
    return count
