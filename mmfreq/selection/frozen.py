"""A gate in front of a trained network that stays as it is."""
from typing import Any, Callable, Iterable, Iterator, Optional, Sequence

import numpy as np
import torch

from mmfreq.input_spec import InputSpec
from mmfreq.selection.gate import ChannelGate
from mmfreq.selection.rates import OnRates

LEARNING_RATE, MOMENTUM = 1., 0.9
FALL = 0.7  # part of the steps in which the budget falls to the target
LEAST_NOISE = 0.2
_TINY = 1e-8


def train_gate(gate: ChannelGate, network: Callable[[torch.Tensor], Any],
               batches: Iterable[tuple[torch.Tensor, Optional[Sequence[bool]]]], target: int,
               steps: int) -> Iterator[float]:
    """Train a gate to keep the channels with which a network returns what it returns with all.

    The loss is :func:`distance`, which needs no labels. The budget falls geometrically from all
    channels to the target in the first 70 % of the steps, and rests there. The noise of the draws
    falls from 1 to 0.2 meanwhile, since a network that lacks its best channels teaches nothing
    about the others. The optimizer is SGD: Adam would divide by the size of the gradients, which is
    what tells important channels from others.

    Args:
        gate (ChannelGate): The gate, with ``per_image=False``.
        network (Callable): Returns tensors, nested in any way, for inputs (N, C, H, W). Its weights
            must not require gradients, and it must be in evaluation mode.
        batches (Iterable): Inputs, and which images are of the second half
            (:attr:`~mmfreq.selection.gate.ChannelGate.second`).
        target (int): Channels to keep.
        steps (int): Batches to train on.

    Yields:
        float: The loss of each step.
    """
    optimizer = torch.optim.SGD(gate.parameters(), LEARNING_RATE, MOMENTUM)
    gate.train()
    for step, (inputs, second) in zip(range(1, steps + 1), batches):
        gate.second = None if second is None else torch.as_tensor(second, device=inputs.device)
        progress = min(step / (FALL * steps), 1.)
        gate.lower_budget(target, progress, noise=max(1 - progress, LEAST_NOISE))
        with torch.no_grad():
            expected = network(inputs)
        loss = distance(network(gate(inputs)), expected)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def distance(outputs: Any, expected: Any) -> torch.Tensor:
    """Return how far outputs are from the expected ones, in units of the latter's deviation.

    This is the root of the mean squared error of an image, divided by the standard deviation of the
    batch, and averaged over the images and over the tensors, nested in any way, of shape (N, ...).
    The root keeps the few images that lose much from outweighing the others.
    """
    distances = []
    for output, other in zip(_tensors(outputs), _tensors(expected)):
        errors = (output - other).flatten(1).square().mean(dim=1)
        share = errors / other.var(unbiased=False).clamp(min=_TINY)
        distances.append((share + _TINY).sqrt().mean())
    return torch.stack(distances).mean()


@torch.no_grad()
def selection_distances(network: Callable[[torch.Tensor], Any], batches: Iterable[torch.Tensor],
                        kept: torch.Tensor) -> np.ndarray:
    """Return how far the outputs of a network on selections are from those on all channels.

    Args:
        network (Callable): As for :func:`train_gate`.
        batches (Iterable[torch.Tensor]): Inputs (N, C, H, W).
        kept (torch.Tensor): bool (S, C), the channels of each selection.

    Returns:
        np.ndarray: float64 (batches, S), each a :func:`distance`.
    """
    rows = []
    for inputs in batches:
        expected = network(inputs)
        rows.append([distance(network(inputs * mask.to(inputs)[:, None, None]), expected).item() for mask in kept])
    return np.array(rows)


def _tensors(node: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested lists, tuples and dicts."""
    if isinstance(node, torch.Tensor):
        yield node
    elif isinstance(node, (list, tuple, dict)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _tensors(child)


@torch.no_grad()
def static_rates(gate: ChannelGate, spec: InputSpec, images: int, **meta: Any) -> OnRates:
    """Return how likely a gate with ``per_image=False`` draws each channel, at its budget and noise.

    The probabilities sum up to the budget. They count as ``on_rate`` and as ``probability``.
    """
    halves = gate.logits(torch.zeros(1, gate.channels, 1, 1, device=gate.noise.device))
    logits = halves.mean(dim=1)
    probability = torch.sigmoid((logits + gate.solve(logits, gate.noise)) / gate.noise)
    on_rate = probability[0].cpu().double().numpy()
    return OnRates(np.array(spec.channels), on_rate, on_rate, halves[0].cpu().numpy(), images,
                   spec.block_size, dict(meta, budget=int(gate.budget)))
