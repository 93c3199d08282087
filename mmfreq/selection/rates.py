"""How often a gate keeps each channel, and whether it has decided which ones to keep."""
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from mmengine.dist import all_reduce, get_rank, get_world_size

from mmfreq.dct.channels import COMPONENTS, zigzag_order
from mmfreq.errors import RefusedError
from mmfreq.files import atomic_write_text
from mmfreq.input_spec import InputSpec
from mmfreq.selection.gate import CERTAIN, ChannelGate

DECIDED = 0.5  # least agreement of the halves of a gate that has decided
_LISTS = dict(channels=int, on_rate=float, probability=float, halves=float)


@dataclass
class OnRates:
    """On-rates of a gate over a set of images.

    Attributes:
        channels (np.ndarray): int (C,), as in :class:`~mmfreq.input_spec.InputSpec`.
        on_rate (np.ndarray): float64 (C,), share of the images in which a channel is kept.
        probability (np.ndarray): float64 (C,), mean probability of being kept at noise 1.
        halves (np.ndarray): float64 (2, C), mean logits of the two halves of the gate.
        images (int): Number of images.
        block_size (int): Side of a block.
        meta (dict): Where the rates come from: ``config``, ``checkpoint``, ``epoch``, ``budget``.
    """
    channels: np.ndarray
    on_rate: np.ndarray
    probability: np.ndarray
    halves: np.ndarray
    images: int
    block_size: int = 8
    meta: dict[str, Any] = field(default_factory=dict)

    def kept(self) -> dict[str, float]:
        """Return how many channels are kept per image: ``'all'``, and by name of the component."""
        component = self.channels // self.block_size**2
        kept = {name: self.on_rate[component == i].sum() for i, name in enumerate(COMPONENTS)}
        return {name: float(value) for name, value in dict(all=self.on_rate.sum(), **kept).items()}

    def top(self, count: int) -> list[int]:
        """Return the ``count`` channels of highest ``probability``, ascending.

        Channels of equal probability are ranked by ``on_rate``, then low frequencies before high
        ones, then Y, Cb, Cr. A count that is not in 1..C is refused.
        """
        if not 1 <= count <= len(self.channels):
            raise RefusedError(f'expected 1..{len(self.channels)} channels, got {count}')
        zigzag = np.argsort(zigzag_order(self.block_size))[self.channels % self.block_size**2]
        ranking = np.lexsort((self.channels, zigzag, -self.on_rate, -self.probability))
        return sorted(self.channels[ranking[:count]].tolist())

    def verdict(self, count: Optional[int] = None) -> dict[str, Any]:
        """Return whether the gate has decided on ``count`` channels (default: those it keeps).

        It has if its two halves, which saw different images and draws, rank the same channels
        highest: ``agreement = (common - chance) / (count - chance)`` is at least :data:`DECIDED`.
        Two selections at random have ``chance = k + (count - k)**2 / (C - k)`` channels in common, of
        which k are always on. A gate that keeps all channels, or only those, has not decided.

        Returns:
            dict[str, Any]: ``count``, ``common`` (int), ``chance``, ``agreement`` (float <= 1),
            ``margin`` (float, mean probability of the selection minus that of the other channels),
            ``decided`` (bool).
        """
        total = len(self.channels)
        count = count or self.meta.get('budget') or round(self.kept()['all'])
        first, second = (set(np.argsort(-half, kind='stable')[:count]) for half in self.halves)
        common, certain = len(first & second), min(count, int((self.halves == CERTAIN).all(axis=0).sum()))
        chance = certain + (count - certain)**2 / max(total - certain, 1)
        agreement = margin = 0.
        if certain < count < total:
            agreement = (common - chance) / (count - chance)
            chosen = np.isin(self.channels, self.top(count))
            margin = float(self.probability[chosen].mean() - self.probability[~chosen].mean())
        return dict(count=count, common=common, chance=round(chance, 2), decided=agreement >= DECIDED,
                    agreement=round(agreement, 3), margin=round(margin, 3))

    def describe(self, count: Optional[int] = None) -> str:
        """Return the verdict in words."""
        values = self.verdict(count)
        word = 'decided' if values['decided'] else 'UNDECIDED'
        return (f'the gate is {word}: its halves agree on {values["common"]} of {values["count"]} '
                f'channels (chance: {values["chance"]:.1f})')


def save_on_rates(rates: OnRates, path: str) -> None:
    """Write on-rates as JSON: ``meta``'s keys, ``images``, ``kept``, ``verdict`` and the lists."""
    values = {**rates.meta, 'images': rates.images, 'kept': rates.kept(),
              'verdict': rates.verdict(), 'block_size': rates.block_size,
              **{key: getattr(rates, key).tolist() for key in _LISTS}}
    atomic_write_text(path, json.dumps(values, indent=1) + '\n')


def load_on_rates(path: str) -> OnRates:
    """Read the file of :func:`save_on_rates`; raise RefusedError if it is missing or another file."""
    try:
        values = json.loads(Path(path).read_text(encoding='utf-8'))
        arrays = {key: np.array(values.pop(key), dtype) for key, dtype in _LISTS.items()}
        images, block_size = int(values.pop('images')), int(values.pop('block_size'))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RefusedError(f'{path}: not the on-rates of a gate (gate_rates_*.json): '
                           f'{type(error).__name__}: {error}') from error
    meta = {key: value for key, value in values.items() if key not in ('kept', 'verdict')}
    return OnRates(**arrays, images=images, block_size=block_size, meta=meta)


class GateCounter:
    """Sum up a gate's decisions over a data set, each image once, also where a sampler pads it.

    A process is taken to have every ``world_size``-th of the ``images``, as mmengine's metrics do.
    ``spec`` is the input of the gate.
    """

    def __init__(self, images: int, spec: InputSpec) -> None:
        self.spec = spec
        self._left = len(range(get_rank(), images, get_world_size()))
        self._sums = torch.zeros(4, len(spec.channels), dtype=torch.float64)
        self._count = torch.zeros((), dtype=torch.float64)

    def add(self, gate: ChannelGate) -> None:
        """Count the batch that went through ``gate`` last."""
        decisions = torch.stack([gate.mask, gate.probability, *gate.halves.unbind(dim=1)])
        decisions = decisions.detach()[:, :self._left]
        self._sums += decisions.sum(dim=1).cpu().double()
        self._count += decisions.shape[1]
        self._left -= decisions.shape[1]

    def finish(self, meta: dict[str, Any]) -> OnRates:
        """Return the on-rates of all processes, each of which must call this."""
        all_reduce(self._sums)
        all_reduce(self._count)
        on_rate, probability, *halves = (self._sums / self._count.clamp(min=1)).numpy()
        return OnRates(np.array(self.spec.channels), on_rate, probability, np.stack(halves),
                       int(self._count), self.spec.block_size, meta)
