"""A gate in front of networks whose channels are known to matter."""
import math
from typing import Any, Iterator, Optional

import numpy as np
import pytest
import torch
from torch import nn

from mmfreq.input_spec import InputSpec
from mmfreq.selection.frozen import distance, selection_distances, static_rates, train_gate
from mmfreq.selection.gate import ChannelGate
from mmfreq.selection.rates import OnRates

CHANNELS = 24
NEEDED = [2, 3, 7, 11, 16, 23]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def network(channels: list[int]) -> nn.Module:
    """A random network, nonlinear in ``channels`` and blind to the others."""
    layers = nn.Sequential(nn.Conv2d(CHANNELS, 16, 1), nn.Tanh(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(16, 10))
    for weight in (layers[0].weight, layers[4].weight):
        nn.init.orthogonal_(weight)
    blind = [channel for channel in range(CHANNELS) if channel not in channels]
    layers[0].weight.data[:, blind] = 0
    return layers.requires_grad_(False).eval()


def batches(size: int = 8) -> Iterator[tuple[torch.Tensor, Optional[list[bool]]]]:
    while True:
        yield torch.randn(size, CHANNELS, 4, 4), None


def learned(net: Any, target: int, steps: int = 80) -> OnRates:
    gate = ChannelGate(CHANNELS, per_image=False)
    losses = list(train_gate(gate, net, batches(), target, steps))
    assert len(losses) == steps
    return static_rates(gate, InputSpec(channels=tuple(range(CHANNELS)), block_size=4), 8 * steps, config='a.py')


@pytest.mark.parametrize('nested', [False, True])
def test_it_finds_the_channels_that_matter(nested: bool) -> None:
    net = network(NEEDED)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    rates = learned((lambda x: (net[0](x), [net(x)])) if nested else net, len(NEEDED))
    assert rates.top(len(NEEDED)) == NEEDED
    assert rates.verdict()['common'] == len(NEEDED)
    assert 'the gate is decided' in rates.describe()
    assert (rates.images, rates.block_size, rates.meta) == (640, 4, dict(config='a.py', budget=len(NEEDED)))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_selection_is_as_far_as_the_output_on_it() -> None:
    net, kept = network(NEEDED), torch.ones(3, CHANNELS, dtype=torch.bool)
    kept[0, 5] = kept[1, NEEDED[0]] = kept[2, NEEDED[:4]] = False
    inputs = [torch.randn(8, CHANNELS, 4, 4) for _ in range(5)]
    distances = selection_distances(net, inputs, kept)
    assert distances.shape == (5, 3)
    for batch, row in zip(inputs, distances):
        removed = batch.clone()
        removed[:, NEEDED[0]] = 0
        assert row[0] == pytest.approx(0, abs=1e-3)  # blind to this channel
        assert row[1] == pytest.approx(distance(net(removed), net(batch)).item())
        assert row[0] < row[1] < row[2]


@pytest.mark.parametrize('target', [1, 6, 17])
def test_the_rates_sum_up_to_the_target(target: int) -> None:
    assert learned(network(NEEDED), target).kept()['all'] == pytest.approx(target, abs=1e-3)


def test_a_gate_that_cannot_know_is_undecided() -> None:
    """All channels matter as much: the halves keep what their images and draws happen to favour."""
    rates = learned(lambda x: x.square().sum(dim=(2, 3)), len(NEEDED))
    assert not rates.verdict()['decided']
    assert 'UNDECIDED' in rates.describe()


def test_the_distance_by_hand() -> None:
    expected = torch.tensor([[0., 2.], [4., 6.]])  # variance 5
    one, two = expected + 1, expected + torch.tensor([[3.], [0.]])
    assert distance(one, expected).item() == pytest.approx(math.sqrt(1 / 5))
    assert distance(two, expected).item() == pytest.approx(math.sqrt(9 / 5) / 2, rel=1e-3)
    nested = distance((one, dict(a=[two])), (expected, dict(a=[expected])))
    assert nested.item() == pytest.approx((math.sqrt(1 / 5) + math.sqrt(9 / 5) / 2) / 2, rel=1e-3)


def test_the_same_outputs_have_a_distance_and_a_gradient_of_0() -> None:
    expected = torch.randn(3, 5, 2, 2)
    outputs = expected.clone().requires_grad_()
    loss = distance([outputs, torch.ones(3, 2)], [expected, torch.ones(3, 2)])  # one without variance
    loss.backward()
    assert loss.item() < 1e-3
    assert not outputs.grad.any()


def test_second_halves_train_their_own_logits() -> None:
    gate = ChannelGate(CHANNELS, per_image=False)
    start = gate.logit_bias.detach().clone()
    inputs = ((x, [True] * len(x)) for x, _ in batches())
    list(train_gate(gate, network(NEEDED), inputs, 6, 2))
    assert np.array_equal((gate.logit_bias != start).any(dim=1), [False, True])
