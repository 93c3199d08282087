"""How often a gate keeps each channel: counted, kept as JSON, ranked."""
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, load_checkpoint
from tqdm import tqdm

from mmfreq.config.pipelines import input_spec, pipelines
from mmfreq.dct.channels import COMPONENTS, read_json, zigzag_order
from mmfreq.files import atomic_write_text
from mmfreq.selection.gate import ChannelGate, find_gate


@dataclass
class OnRates:
    """On-rates of a gate over a set of images.

    Attributes:
        channels (np.ndarray): int (C,), channel numbers, ``N*N*component + N*vertical +
            horizontal``.
        on_rate (np.ndarray): float64 (C,) in [0, 1]: in how many of the images the channel is kept
            (argmax decision).
        probability (np.ndarray): float64 (C,) in [0, 1]: mean probability of being kept at noise 1.
            Ranks the channels.
        images (int): How many images.
        block_size (int): Side N of a block.
        meta (dict): Where they come from: ``config``, ``checkpoint``, ``epoch``, ...
    """
    channels: np.ndarray
    on_rate: np.ndarray
    probability: np.ndarray
    images: int
    block_size: int = 8
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {array.shape for array in (self.channels, self.on_rate, self.probability)}
        if len(shapes) != 1 or self.channels.ndim != 1 or not self.channels.size:
            raise ValueError('on-rates: expected channels, on_rate and probability of one length, '
                             f'got {shapes}')
        limit = 3 * self.block_size**2
        distinct = set(self.channels.tolist())
        if len(distinct) < len(self.channels) or not distinct <= set(range(limit)):
            raise ValueError(f'on-rates: expected every channel once, in 0..{limit - 1}')
        for values in (self.on_rate, self.probability):
            if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
                raise ValueError('on-rates: expected rates in 0..1')

    def kept(self) -> dict[str, float]:
        """Return how many channels are kept per image: ``'all'``, and by name of the component."""
        kept, component = dict(all=float(self.on_rate.sum())), self.channels // self.block_size**2
        for i, name in enumerate(COMPONENTS):
            kept[name] = float(self.on_rate[component == i].sum())
        return kept

    def top(self, count: int) -> list[int]:
        """Return the ``count`` channels of highest ``probability``, ascending.

        It ranks also where ``on_rate`` is 0 or 1. Channels of equal probability are ranked by
        ``on_rate``, then low frequencies before high ones, then Y, Cb, Cr.

        Raises:
            ValueError: ``count`` is not in 1..C.
        """
        if not 1 <= count <= len(self.channels):
            raise ValueError(f'expected a number of channels in 1..{len(self.channels)}, got '
                             f'{count}')
        zigzag = np.argsort(zigzag_order(self.block_size))[self.channels % self.block_size**2]
        ranking = np.lexsort((self.channels, zigzag, -self.on_rate, -self.probability))
        return sorted(self.channels[ranking[:count]].tolist())


def save_on_rates(rates: OnRates, path: str) -> None:
    """Write on-rates as JSON: ``meta``'s keys, ``images``, ``block_size`` and the lists."""
    values = {**rates.meta, 'images': rates.images, 'kept': rates.kept(),
              'block_size': rates.block_size, 'channels': rates.channels.tolist(),
              'on_rate': rates.on_rate.tolist(), 'probability': rates.probability.tolist()}
    atomic_write_text(path, json.dumps(values, indent=1) + '\n')


def load_on_rates(path: str) -> OnRates:
    """Read what :func:`save_on_rates` wrote.

    Raises:
        ValueError: No such file, or not what such a file holds; the message names it.
    """
    values = read_json(path, 'the on-rates of a gate (gate_rates_*.json)')
    lists = ('channels', 'on_rate', 'probability')
    missing = [key for key in (*lists, 'images') if key not in values]
    if missing:
        raise ValueError(f'{path}: expected the on-rates of a gate (gate_rates_*.json), but it has '
                         f'no {missing[0]}')
    try:
        dtypes = int, float, float
        arrays = [np.array(values.pop(key), dtype) for key, dtype in zip(lists, dtypes)]
        images, block_size = int(values.pop('images')), int(values.pop('block_size', 8))
        values.pop('kept', None)
        return OnRates(*arrays, images, block_size, meta=values)
    except (ValueError, TypeError) as error:
        raise ValueError(f'{path}: {error}') from error


class GateCounter:
    """Sum up a gate's decisions over a data set, each image once, also where a sampler pads it.

    Args:
        images (int): Images of the data set, over all processes. The samples of a process are taken
            to be every ``world_size``-th, as mmengine's metrics do.
        channels (list[int]): Channel numbers of the gate's positions.
        block_size (int): Side of a block.
    """

    def __init__(self, images: int, channels: list[int], block_size: int) -> None:
        self.channels = channels
        self.block_size = block_size
        self._left = len(range(get_rank(), images, get_world_size()))
        self._sums = torch.zeros(2, len(channels), dtype=torch.float64)
        self._count = torch.zeros((), dtype=torch.float64)

    def add(self, gate: ChannelGate) -> None:
        """Count the batch that went through ``gate`` last."""
        decisions = torch.stack([gate.mask.detach(), gate.probability])[:, :self._left]
        self._sums += decisions.sum(dim=1).cpu().double()
        self._count += decisions.shape[1]
        self._left -= decisions.shape[1]

    def finish(self, meta: dict[str, Any]) -> OnRates:
        """Return the on-rates of all processes so far: every one of them must call this."""
        all_reduce(self._sums)
        all_reduce(self._count)
        on_rate, probability = (self._sums / self._count.clamp(min=1)).numpy()
        return OnRates(np.array(self.channels), on_rate, probability, int(self._count),
                       self.block_size, meta)


def gate_channels(cfg: Config, gate: ChannelGate, dataloader: str) -> tuple[list[int], int]:
    """Return the channel numbers of the positions of a config's gate, and the side of its blocks.

    Raises:
        ValueError: The pipeline of ``dataloader`` gives another number of channels.
    """
    steps = pipelines(cfg, dataloader)
    spec = input_spec(cfg, steps[0]) if steps else None
    channels, block_size = list(range(gate.channels)), 8
    if spec and spec.channels:
        channels, block_size = list(spec.channels), spec.block_size
    if len(channels) != gate.channels:
        raise ValueError(f'{dataloader}: expected {gate.channels} channels, as many as the gate '
                         f'has, but its pipeline gives {len(channels)}')
    return channels, block_size


def measure_on_rates(cfg: Config, checkpoint: str, dataloader: str = 'val_dataloader') -> OnRates:
    """Return the on-rates, in evaluation, of a trained gate over all images of a dataloader.

    Only the gate is run, the first thing that an input meets. A progress bar is shown.

    Raises:
        ValueError: The model has no gate, or the config no such dataloader.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if cfg.get(dataloader) is None:
        raise ValueError(f'expected a {dataloader} in the config')
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
    gate = find_gate(model)
    if gate is None:
        raise ValueError('expected a model with a gate; give the backbone gate=dict(...)')
    load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    model = model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()
    loader = Runner.build_dataloader(cfg[dataloader], seed=0)
    counter = GateCounter(len(loader.dataset), *gate_channels(cfg, gate, dataloader))
    with torch.no_grad():
        for batch in tqdm(loader, unit='batch'):
            gate(model.data_preprocessor(batch)['inputs'])
            counter.add(gate)
    return counter.finish(dict(config=cfg.filename, checkpoint=checkpoint))
