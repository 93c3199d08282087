"""Mean and standard deviation of the DCT channels, kept as JSON with their provenance."""
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Union

import numpy as np

from mmfreq.dct.channels import read_json

_SETS_DIR = Path(__file__).parent / 'data'


@dataclass
class FreqStats:
    """Statistics of all channels of one block size.

    Attributes:
        mean (np.ndarray): float64 (3*N*N,), in DCT coefficients of levels 0..255.
        std (np.ndarray): float64 (3*N*N,), > 0, population standard deviation.
        meta (dict): Provenance: ``source``, ``count`` (blocks), ``images``, ``date``, ...
    """
    mean: np.ndarray
    std: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bad = np.flatnonzero(~(np.isfinite(self.mean) & np.isfinite(self.std) & (self.std > 0)))
        if len(bad):
            raise ValueError(f'statistics: expected finite means and std > 0, got mean='
                             f'{self.mean[bad[0]]}, std={self.std[bad[0]]} in channel {bad[0]} '
                             f'({len(bad)} such channels)')

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> 'FreqStats':
        """Take ``mean`` and ``std``; other keys become ``meta``."""
        mean, std = (np.array(values[key], dtype=np.float64) for key in ('mean', 'std'))
        return cls(mean, std, {k: v for k, v in values.items() if k not in ('mean', 'std')})


def named_sets() -> list[str]:
    """List the names of the statistics that ship with the package."""
    return sorted(path.stem for path in _SETS_DIR.glob('*.json'))


def load_stats(name_or_path: str) -> FreqStats:
    """Load one of :func:`named_sets`, or a JSON object with the lists ``mean`` and ``std``.

    Raises:
        ValueError: Unknown set, or a missing or malformed file; the message names it.
    """
    shipped = name_or_path in named_sets()
    path = _SETS_DIR / f'{name_or_path}.json' if shipped else Path(name_or_path)
    if not path.is_file():
        raise ValueError(f'stats: expected one of {", ".join(named_sets())} or the path of a JSON '
                         f'file, got {name_or_path!r}')
    return FreqStats.from_dict(read_json(path, 'mean and std'))


def block_stats(stats: Union[str, dict], block_size: int = 8) -> FreqStats:
    """Return the statistics of all channels of one block size.

    Args:
        stats (str | dict): As for :func:`load_stats`, or ``dict(mean=[...], std=[...])``.
        block_size (int): Side N of the blocks. Defaults to 8.

    Raises:
        ValueError: As for :func:`load_stats`, or not 3*N*N channels.
    """
    loaded = FreqStats.from_dict(stats) if isinstance(stats, dict) else load_stats(stats)
    expected = 3 * block_size**2,
    if not loaded.mean.shape == loaded.std.shape == expected:
        name = 'stats' if isinstance(stats, dict) else f'stats={stats!r}'
        raise ValueError(f'{name}: expected mean and std of {expected[0]} channels, got the shapes '
                         f'{loaded.mean.shape} and {loaded.std.shape}')
    return loaded


@dataclass
class RunningStats:
    """Count, mean, squared deviations and limits of many samples in one pass, in float64.

    Parts can be merged in any order, by the pairwise update of Chan, Golub and LeVeque, "Updating
    formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    count: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(1))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(1))
    lowest: np.ndarray = field(default_factory=lambda: np.full(1, np.inf))
    highest: np.ndarray = field(default_factory=lambda: np.full(1, -np.inf))

    @classmethod
    def of(cls, samples: np.ndarray) -> 'RunningStats':
        """Compute the statistics of ``samples`` (..., C) over all axes but the last."""
        lines = np.moveaxis(samples, -1, 0).reshape(samples.shape[-1], -1)
        mean = lines.mean(axis=1, dtype=np.float64)
        deviations = lines - mean[:, None]
        return cls(lines.shape[1], mean, np.einsum('cn,cn->c', deviations, deviations),
                   lines.min(axis=1), lines.max(axis=1))

    @classmethod
    def merged(cls, parts: Iterable['RunningStats']) -> 'RunningStats':
        """Merge the statistics of all ``parts``, which have the same channels."""
        result = cls()
        for part in parts:
            result.merge(part)
        return result

    def merge(self, other: 'RunningStats') -> None:
        """Add the samples of ``other``, which has the same channels."""
        total = self.count + other.count
        weight = other.count / max(total, 1)
        delta = other.mean - self.mean
        self.mean = self.mean + delta * weight
        self.squares = self.squares + other.squares + delta**2 * (self.count * weight)
        self.lowest = np.minimum(self.lowest, other.lowest)
        self.highest = np.maximum(self.highest, other.highest)
        self.count = total

    def finish(self, meta: dict[str, Any], use_range: bool = False) -> FreqStats:
        """Return the statistics; raise ValueError without samples or if a channel never varies.

        With ``use_range``, their ``std`` is the largest deviation from the mean.
        """
        std = np.sqrt(self.squares / max(1, self.count))
        if use_range:
            std = np.maximum(self.highest - self.mean, self.mean - self.lowest)
        return FreqStats(self.mean, std, {**meta, 'count': self.count})
