"""Compare detections one by one, unless rounding decides about them."""
from typing import Any, Callable, Iterable, Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.overrides import TorchFunctionMode
from torchvision.ops import box_iou

from mmfreq.apis.export.file import Arrays, Differences

FINE = dict(scores=1e-4, boxes=1e-4, masks=0.02, unmatched=0.01, tied=1.)
COARSE = dict(scores=0.05, boxes=0.05, masks=0.1, unmatched=0.05, tied=1.)
_SAME = 0.9  # IoU of boxes that may be one detection
_SMALL = 32 * 32  # pixels of a mask; COCO's small objects
_NOISY = ('conv2d', 'linear', 'sigmoid', 'softmax')


class Rounding(TorchFunctionMode):
    """Multiply what layers and scores return by 1 + noise of a ``size``, as if they rounded otherwise."""

    def __init__(self, size: float, seed: int) -> None:
        super().__init__()
        self.size, self.generator = size, torch.Generator().manual_seed(seed)

    def __torch_function__(self, function: Callable, types: Sequence, args: tuple = (),
                           kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if getattr(function, '__name__', '') in _NOISY:
            result = result * (1 + self.size * torch.randn(result.shape, generator=self.generator))
        return result


def compare(outputs: Arrays, expected: Arrays, repetitions: Iterable[Arrays],
            allowed: Differences) -> Differences:
    """Compare detections (boxes, labels, scores and perhaps masks) with the expected ones.

    Where more differs than is ``allowed``, ``repetitions`` of the expected ones, with other rounding,
    decide. An expected detection that is missing or different there is not compared: equal scores may
    come in another order, and NMS, or a cut after the best ones, may keep others. An additional detection
    is not compared if its score is no higher than those of a repetition. At most twice as many detections
    may be missing, or additional, as in a repetition. The result must have at least half as many
    detections as each repetition.

    Returns:
        dict: The largest differences of detections: ``scores``, relative to the largest one;
        ``boxes``, relative to the image; ``masks``, as part of the mask or of 32x32 pixels. The parts
        of all detections that are ``unmatched``, and ``tied``: not compared.
    """
    found = _differences(outputs, expected, allowed)
    if any(found[name] > allowed[name] for name in allowed):
        found = _differences(outputs, expected, allowed, repetitions)
    return found


def _differences(outputs: Arrays, expected: Arrays, allowed: Differences,
                 repetitions: Iterable[Arrays] = ()) -> Differences:
    """Return the differences without those of detections that differ among repetitions."""
    steady, most_added, most_missing, highest = np.ones(len(expected[0]), bool), 0, 0, 0.
    fewest = len(expected[0])
    for repeated in repetitions:
        one, other = _matches(repeated, expected)
        close = [value <= allowed[name] for name, value in _deviations(repeated, expected, one, other).items()]
        steady &= np.isin(np.arange(len(steady)), other[np.all(close, 0)])
        added = np.delete(repeated[2], one)
        most_added, highest = max(most_added, 2 * len(added)), max([highest, *added])
        most_missing = max(most_missing, 2 * (len(steady) - len(other)))
        fewest = min(fewest, len(repeated[0]))
    one, other = _matches(outputs, expected)
    largest = dict.fromkeys(allowed, 0.)
    for name, values in _deviations(outputs, expected, one, other).items():
        largest[name] = values[steady[other]].max(initial=0.)
    margin = allowed['scores'] * max(expected[2], default=0.)
    added = np.delete(outputs[2], one)
    tied = min(most_added, (added <= highest + margin).sum())
    missing = np.delete(steady, other)
    lost = missing.sum() + max(0, (~missing).sum() - most_missing, fewest // 2 - len(outputs[0]))
    total = max(1, len(outputs[0]) + len(expected[0]))
    largest['tied'] = ((~steady).sum() + tied) / total
    largest['unmatched'] = (lost + len(added) - tied) / total
    return largest


def _matches(outputs: Arrays, expected: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of detections of one class that are most alike in box and score."""
    overlap = box_iou(torch.tensor(outputs[0]), torch.tensor(expected[0])).numpy()
    same = (outputs[1][:, None] == expected[1]) & (overlap > _SAME)
    alike = np.where(same, overlap + 1 - np.abs(outputs[2][:, None] - expected[2]), 0)
    pairs = linear_sum_assignment(alike, maximize=True)
    one, other = (places[same[pairs]] for places in pairs)
    return one, other


def _deviations(outputs: Arrays, expected: Arrays, one: np.ndarray, other: np.ndarray) -> Differences:
    """Return the differences of pairs, (K, ) of each kind."""
    mine, others = [part[one] for part in outputs], [part[other] for part in expected]
    deviations = dict(scores=np.abs(mine[2] - others[2]) / expected[2].max(initial=1e-9),
                      boxes=np.abs(mine[0] - others[0]).max(1, initial=0.) / expected[0].max(initial=1e-9))
    if len(mine) > 3:
        sizes = np.maximum(_SMALL, others[3].sum((1, 2)))
        deviations['masks'] = (mine[3] != others[3]).sum((1, 2)) / sizes
    return deviations
