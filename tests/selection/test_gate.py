"""The gate by numbers: its probabilities, budgets, gradients and limits against closed forms."""
import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from mmfreq.selection.gate import ChannelGate, find_gate


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def inputs(n: int = 8, channels: int = 192) -> torch.Tensor:
    return torch.randn(n, channels, 4, 4)


def trained_gate(channels: int = 192, budget: int = 0, **arguments: Any) -> ChannelGate:
    """Return a gate whose decisions depend on the input, and whose halves disagree."""
    gate = ChannelGate(channels, **arguments)
    with torch.no_grad():
        gate.logit_weight.normal_()
        gate.logit_bias.normal_()
    gate.set_budget(budget)
    return gate


def constant_gate(logits: Any, **arguments: Any) -> ChannelGate:
    """Return a gate with the same logits for all images and both halves."""
    gate = ChannelGate(len(logits), **arguments)
    gate.logit_weight.data.zero_()
    gate.logit_bias.data.copy_(torch.as_tensor(logits) / 2)
    return gate


# Decisions without a budget


@pytest.mark.parametrize('noise', [1.0, 0.3])
def test_probability_is_the_sigmoid_of_the_logit(noise: float) -> None:
    logits, draws = torch.tensor([1.9, 0.2, -0.5]), 100_000
    gate = constant_gate(logits)
    gate.set_budget(0, noise)
    gate(torch.zeros(draws, 3, 1, 1))
    expected = torch.sigmoid(logits / noise)
    deviations = (gate.mask.detach().mean(dim=0) - expected) / (expected * (1 - expected) / draws).sqrt()
    assert deviations.abs().max() < 4


def test_logits_are_those_of_the_paper_as_convolutions() -> None:
    """Pooling, 1x1 convolution, batch norm, ReLU, grouped 1x1 convolution from C to 2C channels."""
    gate, x = trained_gate(12), inputs(5, 12)
    paper = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 12, 1), nn.BatchNorm2d(12), nn.ReLU(),
                          nn.Conv2d(12, 24, 1, groups=12))
    for half in (0, 1):
        with torch.no_grad():
            paper[1].weight.copy_(gate.linear.weight[:, :, None, None])
            paper[1].bias.copy_(gate.linear.bias)
            paper[4].weight[:, 0, 0, 0] = torch.stack([-gate.logit_weight[half], gate.logit_weight[half]]).T.flatten()
            paper[4].bias.copy_(torch.stack([-gate.logit_bias[half], gate.logit_bias[half]]).T.flatten())
        for mode in (True, False):
            off, on = paper.train(mode)(x).reshape(5, 12, 2).unbind(dim=2)
            torch.testing.assert_close(gate.train(mode).logits(x)[:, half], on - off, atol=1e-5, rtol=1e-5)


def test_evaluation_takes_positive_logits_of_the_mean_without_noise() -> None:
    gate, x = trained_gate().eval(), inputs()
    state = torch.get_rng_state()
    first = gate(x)
    logits = gate.logits(x).mean(dim=1)
    assert torch.equal(gate.mask, (logits > 0).float())
    assert 0 < gate.mask.mean() < 1
    assert all(torch.equal(gate(x), first) for _ in range(5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(gate.probability, torch.sigmoid(logits))
    assert torch.equal(gate.halves, gate.logits(x))
    assert torch.equal(first, x * gate.mask[:, :, None, None])


def test_an_image_trains_the_weights_of_its_half() -> None:
    gate, x = trained_gate(), inputs(4)
    for second in (None, [True, False, False, True], [True]):
        gate.second = second and torch.tensor(second)
        halves = second if second and len(second) == 4 else [False, True, False, True]
        for image, half in enumerate(halves):
            gate.zero_grad()
            gate(x)
            gate.mask[image].sum().backward()
            moved = gate.logit_bias.grad.abs().sum(dim=1) > 0
            assert moved.tolist() == [not half, half]


# The budget


@pytest.mark.parametrize('noise', [1.0, 0.3, 0.02])
@pytest.mark.parametrize('budget', [1, 6, 24, 150, 191])
def test_probabilities_of_every_image_sum_up_to_the_budget(budget: int, noise: float) -> None:
    gate, x = trained_gate(budget=budget), inputs(64)
    logits = gate.logits(x)[:, 0].detach()
    offsets = gate.solve(logits, torch.tensor(noise))
    sums = torch.sigmoid((logits + offsets).double() / noise).sum(dim=1)
    np.testing.assert_allclose(sums, budget, atol=0.01)
    gate.set_budget(budget, noise)
    counts = torch.stack([gate(x) is None or gate.mask.detach().sum(dim=1) for _ in range(50)])
    spread = math.sqrt(min(budget, 192 - budget) / counts.numel())  # at most, of independent draws
    assert counts.mean().item() == pytest.approx(budget, abs=4 * spread + 0.01)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('budget', [2, 24, 191, 192])
def test_evaluation_and_training_at_noise_0_keep_the_largest_logits(budget: int, training: bool) -> None:
    gate, x = trained_gate(always_on=[7]), inputs(16)
    gate.set_budget(budget, noise=0.)
    logits = gate.train(training).logits(x, running=True).mean(dim=1).detach()
    y = gate(x)
    assert (gate.mask.sum(dim=1) == budget).all()
    lowest = torch.where(gate.mask.bool(), logits, torch.inf).amin(dim=1)
    assert (lowest > torch.where(gate.mask.bool(), -torch.inf, logits).amax(dim=1)).all()
    assert ((gate.probability > 0.5) == gate.mask.bool()).all()
    if training:
        y.square().sum().backward()
        assert all(not parameter.grad.any() for parameter in gate.parameters())


def test_a_budget_parts_channels_that_have_learned_nothing() -> None:
    """Constant channels, such as the colours of grey images, keep the logits of the start, which rank them."""
    gate = ChannelGate(192).eval()
    gate.logit_weight.data.zero_()
    gate.set_budget(80)
    gate(torch.zeros(2, 192, 4, 4))
    assert gate.mask[0].nonzero().flatten().tolist() == list(range(80))
    assert gate.halves[0, 0].argsort().tolist() == gate.halves[0, 1].argsort(descending=True).tolist()  # no agreement


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('steps', [0, 1, 2])
def test_the_budget_holds_where_logits_are_equal_or_neighbouring_numbers(steps: int, training: bool) -> None:
    gate = ChannelGate(6, per_image=False).train(training)
    logit = np.float32(0.1)
    for _ in range(steps):
        logit = np.nextafter(logit, np.float32(1))
    gate.logit_bias.data = torch.tensor([[0.3, float(logit), 0.1, 0.1, float(logit), -0.2]]).repeat(2, 1)
    for budget in range(1, 7):
        gate.set_budget(budget, noise=0.)
        gate(torch.randn(2, 6, 1, 1))
        assert gate.mask.sum(dim=1).tolist() == [budget, budget]
        assert ((gate.probability > 0.5).sum(dim=1) <= budget).all()


def test_the_budget_holds_where_all_logits_have_drifted() -> None:
    """As in an average of weights, which lags behind: what a stored offset would not survive."""
    gate, x = trained_gate(budget=24).eval(), inputs()
    gate(x)
    expected = gate.mask
    gate.logit_bias.data += 3
    gate(x)
    assert torch.equal(gate.mask, expected)


def test_the_budget_comes_with_the_weights() -> None:
    gate, other, x = trained_gate(budget=24), ChannelGate(192), inputs()
    other.load_state_dict(gate.state_dict())
    assert torch.equal(other.eval()(x), gate.eval()(x))
    assert other.mask.sum() == 8 * 24


def test_one_logit_per_channel_for_all_images() -> None:
    gate, x = ChannelGate(192, per_image=False), inputs(16)
    assert [name for name, _ in gate.named_parameters()] == ['logit_bias']
    gate.logit_bias.data.normal_()
    gate.set_budget(24)
    y = gate.eval()(x)
    kept = gate.logit_bias.mean(dim=0).topk(24).indices
    assert (gate.mask[:, kept] == 1).all()
    assert gate.mask.sum() == 16 * 24
    assert torch.equal(y, x * gate.mask[:, :, None, None])
    gate.train()(x)
    assert len(gate.mask.unique(dim=0)) > 1  # each image draws anew


def test_always_on() -> None:
    gate = constant_gate(np.linspace(-17, -18, 192), always_on=[0, 64, 128])
    for budget, expected in ((0, 3), (10, 10)):
        gate.set_budget(budget)
        for mode in (True, False):
            gate.train(mode)(inputs(2000))
            assert gate.mask[:, [0, 64, 128]].min() == 1
            assert gate.mask.sum(dim=1).mean().item() == pytest.approx(expected, abs=0.3)
    for budget in (3, 193):
        with pytest.raises(ValueError, match=r'budget in 4\.\.192'):
            gate.set_budget(budget)


def test_one_image_in_training_uses_the_running_statistics() -> None:
    gate, x = trained_gate(), inputs(1)
    before = copy.deepcopy(gate.state_dict())
    logits = gate.logits(x)
    assert all(torch.equal(value, before[key]) for key, value in gate.state_dict().items())
    assert torch.equal(logits, gate.eval().logits(x))


def test_training_at_noise_0_decides_as_evaluation_on_any_batch() -> None:
    gate, x = trained_gate(budget=24), inputs(4)
    gate(inputs(64))  # running statistics, which are not those of the batch
    gate.set_budget(24, noise=0.)
    expected = copy.deepcopy(gate).eval()
    expected(x)
    gate(x)
    assert torch.equal(gate.mask, expected.mask)


# Gradients


def test_gradient_is_that_of_the_soft_decision() -> None:
    gate, weights, x = trained_gate(10), torch.randn(64, 10), inputs(64, 10)
    logits = gate.logits(x).detach().requires_grad_()
    gate.logits = lambda x, running=False: logits
    torch.manual_seed(3)
    gate(x)
    (gate.mask * weights).sum().backward()
    torch.manual_seed(3)
    first = np.arange(64) % 2
    uniform = torch.rand(64, 10).clamp(1e-7, 1 - 1e-7).double().numpy()
    own = logits.detach().double().numpy()[np.arange(64), first]
    soft = 1 / (1 + np.exp(-own - np.log(uniform / (1 - uniform))))
    expected = weights.numpy() * soft * (1 - soft)
    np.testing.assert_allclose(logits.grad[np.arange(64), first], expected, atol=1e-5)
    assert not logits.grad[np.arange(64), 1 - first].any()


@pytest.mark.parametrize('budget', [0, 24])
def test_gradients_reach_every_parameter_and_stay_finite(budget: int) -> None:
    gate = trained_gate(budget=budget)
    (gate(inputs()).square().mean() + gate.mask.sum()).backward()
    for name, parameter in gate.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


# Ways to run it


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_decisions_are_the_same_under_autocast(dtype: torch.dtype) -> None:
    if dtype is torch.half and torch.__version__ < '2.4':
        pytest.skip('this torch has no autocast to half on a CPU')
    gate, x = trained_gate(budget=24).eval(), inputs()
    expected = gate.logits(x)
    with torch.autocast('cpu', dtype=dtype):
        assert torch.equal(gate.logits(x), expected)
        assert gate(x.to(dtype)).dtype == dtype
        assert gate.mask.dtype == torch.float32
        gate.train()(x.to(dtype)).float().sum().backward()
    assert torch.isfinite(gate.logit_bias.grad).all()


def test_copies_and_pickles_after_a_forward_pass() -> None:
    """As EMA, best-model keeping and torch.save of a whole model do."""
    gate, x = trained_gate(budget=24), inputs()
    gate(x).sum().backward()
    for other in (copy.deepcopy(gate), pickle.loads(pickle.dumps(gate))):
        assert other.mask is other.probability is other.halves is None
        assert torch.equal(other.eval()(x), gate.eval()(x))
        gate.train()


def test_compiled_and_eager_agree_whatever_budget_and_noise() -> None:
    torch._dynamo.reset()
    gate, x = trained_gate(24), inputs(4, 24)
    counter = CompileCounterWithBackend('aot_eager')
    compiled = copy.deepcopy(gate)
    compiled.compile(backend=counter, fullgraph=True)
    for mode in (False, True):
        for module in (gate, compiled):
            module.train(mode)
        for budget, noise in ((0, 1.0), (24, 0.5), (6, 0.25), (6, 0.0)):
            masks = []
            for module in (gate, compiled):
                module.set_budget(budget, noise)
                torch.manual_seed(1)
                module.zero_grad()
                y = module(x)
                if mode:
                    (y.sum() + 0.1 * module.mask.sum()).backward()
                masks.append(module.mask)
            assert torch.equal(*masks)
            for actual, expected in zip(compiled.parameters(), gate.parameters()):
                torch.testing.assert_close(actual.grad, expected.grad, atol=1e-5, rtol=1e-4)
    assert counter.frame_count == 2  # training and evaluation once each


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(channels=0), 'channels'), (dict(channels=2.5), 'channels'),
    (dict(channels=4, always_on=[4]), r'0\.\.3'), (dict(channels=4, always_on=[-1]), r'0\.\.3')])
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChannelGate(**arguments)


def test_wrong_inputs_and_several_gates() -> None:
    with pytest.raises(ValueError, match=r'\(N, 24, H, W\)'):
        ChannelGate(24)(inputs(2, 25))
    for count in (0, 2):
        with pytest.raises(ValueError, match='one ChannelGate in ModuleList'):
            find_gate(nn.ModuleList([ChannelGate(2) for _ in range(count)]))
