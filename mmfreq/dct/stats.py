"""Mean and standard deviation of the DCT channels: computed in one pass, kept as JSON with their provenance."""
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Sequence, Union

import numpy as np

_SETS_DIR = Path(__file__).parent / 'data'


@dataclass
class FreqStats:
    """Statistics of all channels of one block size.

    Attributes:
        mean (np.ndarray): float64 (3*N*N,), in DCT coefficients of 8-bit levels.
        std (np.ndarray): float64 (3*N*N,), > 0, population standard deviation (divided by the count).
        meta (dict): Where they come from: ``source``, ``count`` (blocks), ``images``, ``date``, ...
    """
    mean: np.ndarray
    std: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.std.shape:
            raise ValueError(f'statistics: expected mean and std of one length, got {self.mean.shape} and '
                             f'{self.std.shape}')
        bad = np.flatnonzero(~(np.isfinite(self.mean) & np.isfinite(self.std) & (self.std > 0)))
        if len(bad):
            raise ValueError(f'statistics: expected finite means and std > 0, got mean={self.mean[bad[0]]}, '
                             f'std={self.std[bad[0]]} in channel {bad[0]} ({len(bad)} such channels)')

    @classmethod
    def from_dict(cls, values: dict[str, Any], origin: str) -> 'FreqStats':
        """Reads ``mean`` and ``std``; every other key becomes ``meta``. ``origin`` is named in errors."""
        missing = [key for key in ('mean', 'std') if key not in values]
        if missing:
            raise ValueError(f'{origin}: expected the keys mean and std, got {sorted(values)}')
        meta = {k: v for k, v in values.items() if k not in ('mean', 'std')}
        try:
            return cls(np.array(values['mean'], dtype=np.float64), np.array(values['std'], dtype=np.float64), meta)
        except (ValueError, TypeError) as error:
            raise ValueError(f'{origin}: {error}') from error

    def check_length(self, expected: int, origin: str) -> None:
        """Raises ValueError, naming ``origin``, unless there are ``expected`` channels."""
        if len(self.mean) != expected:
            raise ValueError(f'{origin}: expected mean and std for all {expected} channels, got {len(self.mean)}')


def named_sets() -> list[str]:
    """Names of the statistics that ship with the package."""
    return sorted(path.stem for path in _SETS_DIR.glob('*.json'))


def load_stats(name_or_path: str) -> FreqStats:
    """Loads a named set or a JSON file.

    Args:
        name_or_path (str): One of :func:`named_sets`, or the path of a JSON object with the lists ``mean`` and
            ``std``, one value for each channel.

    Returns:
        FreqStats: The statistics, checked.

    Raises:
        ValueError: No such set or file, or not what such a file holds; the message names it.
    """
    if not isinstance(name_or_path, (str, Path)):
        raise ValueError(f'stats: expected a name, a path or dict(mean=..., std=...), got {name_or_path!r}')
    shipped = _SETS_DIR / f'{name_or_path}.json'
    path = shipped if name_or_path in named_sets() else Path(name_or_path)
    if not path.is_file():
        raise ValueError(f'stats: expected one of {", ".join(named_sets())} or the path of a JSON file, '
                         f'got {name_or_path!r}')
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path}: not a JSON file ({error})') from error
    if not isinstance(values, dict):
        raise ValueError(f'{path}: expected a JSON object with mean and std, got a {type(values).__name__}')
    return FreqStats.from_dict(values, str(path))


def block_stats(stats: Union[str, dict], block_size: int = 8) -> FreqStats:
    """The statistics that a transform's argument ``stats`` stands for, with a value for each channel of its blocks.

    Args:
        stats (str | dict): As :func:`load_stats` takes it, or ``dict(mean=[...], std=[...])``.
        block_size (int): Side N of the blocks. Defaults to 8.

    Raises:
        ValueError: Unknown set, or statistics that are not for 3*N*N channels; the message names them.
    """
    loaded = FreqStats.from_dict(stats, 'stats') if isinstance(stats, dict) else load_stats(stats)
    loaded.check_length(3 * block_size**2, 'stats' if isinstance(stats, dict) else f'stats={stats!r}')
    return loaded


class RunningStats:
    """Count, mean and squared deviations of many samples in one pass, in float64.

    Parts can be computed by different workers and merged, in any order: pairwise update of Chan, Golub and LeVeque,
    "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: np.ndarray = np.zeros(0)
        self.squares: np.ndarray = np.zeros(0)

    @classmethod
    def of(cls, samples: np.ndarray) -> 'RunningStats':
        """Statistics of ``samples`` (..., C) over all axes but the last."""
        flat = samples.reshape(-1, samples.shape[-1]).astype(np.float64)
        result = cls()
        result.count = len(flat)
        result.mean = flat.mean(axis=0)
        result.squares = ((flat - result.mean)**2).sum(axis=0)
        return result

    def merge(self, other: 'RunningStats') -> 'RunningStats':
        """Takes in the samples of ``other``, of as many channels; returns self."""
        if self.count and other.count and self.mean.shape != other.mean.shape:
            raise ValueError(f'statistics: expected {len(self.mean)} channels, got {len(other.mean)}')
        if not self.count:
            self.count, self.mean, self.squares = other.count, other.mean.copy(), other.squares.copy()
        elif other.count:
            total = self.count + other.count
            delta = other.mean - self.mean
            self.mean = self.mean + delta * (other.count / total)
            self.squares = self.squares + other.squares + delta**2 * (self.count * other.count / total)
            self.count = total
        return self

    def finish(self, meta: dict[str, Any]) -> FreqStats:
        """The statistics so far. Raises ValueError if there is no sample, or a channel that never varies."""
        if not self.count:
            raise ValueError('statistics: no image was read')
        return FreqStats(self.mean, np.sqrt(self.squares / self.count), {**meta, 'count': self.count})


def merged(parts: Sequence[RunningStats]) -> RunningStats:
    """Statistics of all samples of ``parts``."""
    result = RunningStats()
    for part in parts:
        result.merge(part)
    return result
