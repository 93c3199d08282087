"""Statistics over seeds (means, deviations, paired differences) and of a gate's ranking of frequencies."""
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from mmfreq.apis.compare.runs import METRICS
from mmfreq.dct.channels import channel_indices, zigzag_order

Results = dict[str, dict[int, dict[str, Any]]]  # results by row and seed


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean (float): The mean.
        deviation (float | None): Sample standard deviation, or None for one value.
        count (int): Number of seeds.
    """
    mean: float
    deviation: Optional[float]
    count: int

    @property
    def error(self) -> Optional[float]:
        """Standard error of the mean, or None for one value."""
        return None if self.deviation is None else self.deviation / math.sqrt(self.count)


def estimate(values: list[float]) -> Estimate:
    """Return mean and deviation of one or more values."""
    return Estimate(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def reached(results: Results, row: str, metric: str = 'accuracy/top1') -> Estimate:
    """Return a metric after the last epoch of a row, in percent."""
    return estimate(list(by_seed(results, row, metric).values()))


def difference(results: Results, row: str, reference: str, metric: str = 'accuracy/top1') -> Optional[Estimate]:
    """Return the paired difference in points over the common seeds of two rows, or None without any."""
    first, second = by_seed(results, row, metric), by_seed(results, reference, metric)
    pairs = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    return estimate(pairs) if pairs else None


def any_seed(results: Results, row: str) -> dict[str, Any]:
    """Return one result of a row, for values that do not depend on the seed."""
    return next(iter(results[row].values()))


def by_seed(results: Results, row: str, metric: str) -> dict[int, float]:
    """Return a metric of a row for each seed, in percent."""
    factor = METRICS[metric][2]
    return {seed: factor * result['metrics'][metric] for seed, result in results.get(row, {}).items()}


def load_results(folder: Path) -> Results:
    """Return the results of all finished trainings in ``folder``."""
    results: Results = {}
    for path in sorted(folder.glob('*-seed*.json')):
        result = json.loads(path.read_text(encoding='utf-8'))
        results.setdefault(result['row'], {})[result['seed']] = result
    return results


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation. Ties share their mean rank."""
    ranks = [_ranks(np.asarray(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.array([(values < value).sum() + (values == value).sum() / 2 for value in values])


def frequency_correlation(probability: np.ndarray, component: int = 0) -> float:
    """Return the rank correlation of zigzag index and probability (of 192 channels) in Y, Cb or Cr (0, 1 or 2)."""
    zigzag = np.argsort(zigzag_order())
    return rank_correlation(zigzag, probability[64 * component:64 * component + 64])


def describe_selection(channels: list[int]) -> dict[str, int]:
    """Return how many channels belong to Y, Cb and Cr, and how many are in 24S and in 24D."""
    parts = {name: sum(channel // 64 == i for channel in channels) for i, name in enumerate(('Y', 'Cb', 'Cr'))}
    return dict(**parts, **{name: len(set(channels) & set(channel_indices(name))) for name in ('24S', '24D')})
