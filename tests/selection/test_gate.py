"""The gate by numbers: its probabilities, gradients and limits against closed forms."""
import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from mmfreq.models.cls import FreqResNet
from mmfreq.selection.gate import ChannelGate, find_gate

START = 1 / (1 + math.exp(-1.9))  # biases 2.0 (on) and 0.1 (off)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def inputs(n: int = 8, channels: int = 192, size: int = 4) -> torch.Tensor:
    return torch.randn(n, channels, size, size)


def trained_gate(channels: int = 192, **arguments: Any) -> ChannelGate:
    """A gate whose decisions depend on the input."""
    gate = ChannelGate(channels, **arguments)
    with torch.no_grad():
        gate.logit_weight.normal_()
        gate.logit_bias.normal_()
    return gate


# Decisions


@pytest.mark.parametrize(('off', 'on'), [(0.1, 2.0), (0.0, 0.0), (3.0, 0.5), (-1.0, 1.0)])
def test_probability_of_being_on_is_the_sigmoid_of_the_difference(off: float, on: float) -> None:
    draws = 200_000
    logits = torch.tensor([off, on]).expand(draws, 1, 2)
    gate = ChannelGate(1, temperature=0.3)
    expected = 1 / (1 + math.exp(off - on))
    error = 4 * math.sqrt(expected * (1 - expected) / draws)  # four standard deviations
    assert gate.decide(logits).mean().item() == pytest.approx(expected, abs=error)
    reference = F.gumbel_softmax(logits, tau=0.3, hard=True)[..., 1].mean().item()
    assert reference == pytest.approx(expected, abs=error)


@pytest.mark.parametrize('temperature', [0.05, 1.0, 20.0])
def test_the_temperature_does_not_change_how_often_a_channel_is_on(temperature: float) -> None:
    logits = torch.tensor([0.1, 2.0]).expand(100_000, 1, 2)
    rate = ChannelGate(1, temperature=temperature).decide(logits).mean().item()
    assert rate == pytest.approx(START, abs=4 * math.sqrt(START * (1 - START) / 100_000))


def test_nearly_every_channel_starts_on() -> None:
    gate = ChannelGate(192)
    masks = []
    for _ in range(100):
        gate(inputs())
        masks.append(gate.mask)
    rate = torch.stack(masks).mean().item()
    draws = 100 * 8 * 192
    assert rate == pytest.approx(START, abs=4 * math.sqrt(START * (1 - START) / draws) + 1e-3)
    gate.eval()(inputs())
    assert gate.mask.min() == 1


def test_logits_are_those_of_the_paper_as_convolutions() -> None:
    """Pooling, 1x1 convolution, batch norm, ReLU, grouped 1x1 convolution from C to 2C channels."""
    gate, x = trained_gate(12), inputs(5, 12)
    paper = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 12, 1), nn.BatchNorm2d(12), nn.ReLU(),
                          nn.Conv2d(12, 24, 1, groups=12))
    with torch.no_grad():
        paper[1].weight.copy_(gate.linear.weight[:, :, None, None])
        paper[1].bias.copy_(gate.linear.bias)
        paper[4].weight.copy_(gate.logit_weight.reshape(24, 1, 1, 1))
        paper[4].bias.copy_(gate.logit_bias.reshape(24))
    for mode in (True, False):
        expected = paper.train(mode)(x).reshape(5, 12, 2)
        torch.testing.assert_close(gate.train(mode).logits(x), expected, atol=1e-6, rtol=1e-5)


def test_output_is_the_input_where_the_mask_is_one_and_zero_elsewhere() -> None:
    gate, x = trained_gate(), inputs()
    y = gate(x)
    assert set(gate.mask.unique().tolist()) == {0.0, 1.0}
    on = gate.mask.bool()
    assert torch.equal(y[on], x[on])
    assert y[~on].abs().max() == 0
    assert gate.mask.shape == (8, 192)
    assert y.shape == x.shape


def test_evaluation_is_the_arg_max_and_bit_identical_over_repeats() -> None:
    gate, x = trained_gate().eval(), inputs()
    state = torch.get_rng_state()
    first = gate(x)
    assert torch.equal(gate.mask, gate.logits(x).argmax(dim=-1).float())
    assert 0 < gate.mask.mean() < 1
    for _ in range(5):
        assert torch.equal(gate(x), first)
    assert torch.equal(torch.get_rng_state(), state)  # no noise was drawn
    torch.testing.assert_close(gate.probability, gate.logits(x).softmax(dim=-1)[..., 1])


def test_always_on() -> None:
    gate = trained_gate(always_on=[0, 64, 128])
    with torch.no_grad():
        gate.logit_bias.copy_(torch.tensor([9.0, -9.0]))
        gate.logit_weight.zero_()
    for mode in (True, False):
        gate.train(mode)(inputs(100))
        assert gate.mask[:, [0, 64, 128]].min() == 1
        assert gate.mask.mean(dim=0).argsort(descending=True)[:3].sort().values.tolist() == [0, 64, 128]
        assert gate.probability[:, 64].min() == 1


def test_one_sample_in_training_uses_the_running_statistics() -> None:
    gate, x = trained_gate(), inputs(1)
    before = copy.deepcopy(gate.state_dict())
    logits = gate.logits(x)
    assert all(torch.equal(value, before[key]) for key, value in gate.state_dict().items())
    assert torch.equal(logits, gate.eval().logits(x))


# Gradients


@pytest.mark.parametrize('temperature', [0.5, 1.0, 4.0])
def test_gradient_is_that_of_the_soft_decision(temperature: float) -> None:
    logits = torch.randn(64, 10, 2, requires_grad=True)
    weights = torch.randn(64, 10)
    gate = ChannelGate(10, temperature=temperature)
    torch.manual_seed(3)
    (gate.decide(logits) * weights).sum().backward()
    torch.manual_seed(3)
    uniform = torch.rand(64, 10).clamp(1e-7, 1 - 1e-7).double().numpy()
    score = (logits[..., 1] - logits[..., 0]).detach().double().numpy() + np.log(uniform / (1 - uniform))
    soft = 1 / (1 + np.exp(-score / temperature))
    expected = weights.numpy() * soft * (1 - soft) / temperature  # derivative of sigmoid(score / t)
    np.testing.assert_allclose(logits.grad[..., 1], expected, atol=1e-5)
    np.testing.assert_allclose(logits.grad[..., 0], -expected, atol=1e-5)


def test_limits_of_the_temperature() -> None:
    """Hot: gradient 1 / (4 t) everywhere. Cold: nothing, but near the decision."""
    logits = torch.randn(1000, 1, 2, requires_grad=True)
    ChannelGate(1, temperature=1e4).decide(logits).sum().backward()
    torch.testing.assert_close(1e4 * logits.grad[..., 1], torch.full((1000, 1), 0.25), atol=1e-3, rtol=0)
    logits.grad = None
    ChannelGate(1, temperature=1e-4).decide(logits).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[..., 1] == 0).float().mean() > 0.99


@pytest.mark.parametrize('noise', [1.0, 0.3, 0.02])
def test_noise_scales_how_random_the_draws_are(noise: float) -> None:
    gate, draws = ChannelGate(2), 100_000
    gate.set_noise(noise)
    logits = torch.tensor([[0.0, 0.2], [0.5, 0.0]]).expand(draws, 2, 2)
    for rate, difference in zip(gate.decide(logits).mean(dim=0).tolist(), (0.2, -0.5)):
        expected = 1 / (1 + math.exp(-difference / noise))
        assert rate == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / draws) + 1e-6)


def test_probability_is_that_of_the_draws_in_training_and_that_of_noise_1_in_evaluation() -> None:
    gate, x = trained_gate(), inputs()
    gate.set_noise(0.25)
    difference = (gate.logits(x) @ torch.tensor([-1.0, 1.0])).detach()
    gate(x)
    torch.testing.assert_close(gate.probability, torch.sigmoid(difference / 0.25), atol=1e-5, rtol=0)
    gate.eval()
    difference = (gate.logits(x) @ torch.tensor([-1.0, 1.0])).detach()
    gate(x)
    torch.testing.assert_close(gate.probability, torch.sigmoid(difference), atol=1e-5, rtol=0)


def test_gradients_reach_every_parameter_and_stay_finite() -> None:
    gate = trained_gate()
    x = inputs()
    (gate(x).square().mean() + gate.mask.sum()).backward()
    for name, parameter in gate.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    assert gate.logit_bias.grad.abs().min() > 0
    assert gate.linear.weight.grad.abs().max() > 0


# Ways to run it


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_decisions_are_the_same_under_autocast(dtype: torch.dtype) -> None:
    if dtype is torch.half and torch.__version__ < '2.4':
        pytest.skip('this torch has no autocast to half on a CPU')
    gate, x = trained_gate().eval(), inputs()
    expected = gate.logits(x)
    with torch.autocast('cpu', dtype=dtype):
        assert torch.equal(gate.logits(x), expected)
        y = gate(x.to(dtype))
        assert y.dtype == dtype
        assert gate.mask.dtype == torch.float32
    gate.train()
    with torch.autocast('cpu', dtype=dtype):
        gate(x.to(dtype)).float().sum().backward()
    assert torch.isfinite(gate.logit_bias.grad).all()


def test_half_precision_weights() -> None:
    gate, x = trained_gate().eval(), inputs()
    reference = gate(x)
    half = gate.to(torch.bfloat16)
    assert half(x.bfloat16()).dtype == torch.bfloat16
    assert (half.mask != (reference.flatten(2).abs().amax(2) > 0).float()).float().mean() < 0.05


def test_copies_and_pickles_after_a_forward_pass() -> None:
    """As EMA, best-model keeping and torch.save of a whole model do."""
    gate = trained_gate()
    x = inputs()
    gate(x).sum().backward()
    for other in (copy.deepcopy(gate), pickle.loads(pickle.dumps(gate))):
        assert other.mask is None
        assert torch.equal(other.eval()(x), copy.deepcopy(gate).eval()(x))
    assert gate.mask is not None


def test_compiled_gate_equals_the_eager_one() -> None:
    gate, x = trained_gate(), inputs()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(copy.deepcopy(gate), backend=counter)
    for mode in (False, True):
        gate.train(mode)
        compiled.train(mode)
        for noise in (1.0, 0.5, 0.25):
            gate.set_noise(noise)
            compiled.set_noise(noise)
            torch.manual_seed(1)
            expected = gate(x)
            torch.manual_seed(1)
            torch.testing.assert_close(compiled(x), expected)
            assert torch.equal(compiled.mask, gate.mask)
        if mode is False:
            frames = counter.frame_count
    assert counter.frame_count == frames + 1  # training once, whatever the noise
    grads = []
    for module in (gate, compiled):
        torch.manual_seed(2)
        module.zero_grad()
        (module(x).sum() + 0.1 * module.mask.sum()).backward()
        grads.append([parameter.grad for parameter in module.parameters()])
    for actual, expected in zip(*grads):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_activation_checkpointing_without_reentry_gives_the_same_gradients() -> None:
    gate, x = trained_gate(), inputs().requires_grad_()
    grads = []
    for forward in (gate, lambda x: checkpoint(gate, x, use_reentrant=False)):
        torch.manual_seed(2)
        gate.zero_grad()
        y = forward(x)
        (y.square().sum() + 0.1 * gate.mask.sum()).backward()
        grads.append([parameter.grad.clone() for parameter in gate.parameters()])
    for actual, expected in zip(*grads):
        torch.testing.assert_close(actual, expected)


# In a backbone


def test_backbone_with_a_gate_is_the_one_without_on_the_masked_input() -> None:
    gated = FreqResNet(18, in_channels=64, gate=dict(temperature=2.0, always_on=[0]))
    plain = FreqResNet(18, in_channels=64)
    weights = {key: value for key, value in gated.state_dict().items() if not key.startswith('gate.')}
    plain.load_state_dict(weights)
    x = inputs(2, 64, 8)
    gate = find_gate(gated)
    assert gate.temperature == 2.0
    assert gate.always_on.nonzero().tolist() == [[0]]
    torch.manual_seed(4)
    y = gated(x)[0]
    torch.testing.assert_close(y, plain(x * gate.mask[:, :, None, None])[0])
    assert find_gate(plain) is None


def test_initialisation_of_a_backbone_leaves_the_gates_own() -> None:
    backbone = FreqResNet(18, in_channels=24, gate=dict())
    backbone.init_weights()
    bias = backbone.gate.logit_bias.detach()
    assert torch.equal(bias, torch.tensor([0.1, 2.0]).expand(24, 2))
    weights = ChannelGate(192).logit_weight
    assert weights.std().item() == pytest.approx(0.001, rel=0.2)  # 384 values


def test_frozen_stages_and_norm_eval() -> None:
    backbone = FreqResNet(18, in_channels=24, gate=dict(), frozen_stages=1, norm_eval=True)
    backbone.train()
    assert all(parameter.requires_grad for parameter in backbone.gate.parameters())
    assert not any(parameter.requires_grad for parameter in backbone.layer1.parameters())
    assert not backbone.gate.norm.training
    assert backbone.gate.training


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(channels=0), 'channels'),
    (dict(channels=2.5), 'channels'),
    (dict(channels=4, temperature=0), 'temperature > 0'),
    (dict(channels=4, temperature=float('nan')), 'temperature > 0'),
    (dict(channels=4, always_on=[4]), r'0\.\.3'),
    (dict(channels=4, always_on=[-1]), r'0\.\.3'),
])
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChannelGate(**arguments)


def test_wrong_inputs_noise_and_two_gates() -> None:
    with pytest.raises(ValueError, match='expected a noise > 0, got 0'):
        ChannelGate(24).set_noise(0)
    with pytest.raises(ValueError, match=r'expected an input \(N, 24, H, W\)'):
        ChannelGate(24)(inputs(2, 25))
    with pytest.raises(ValueError, match='expected one ChannelGate in ModuleList, found 0, 1'):
        find_gate(nn.ModuleList([ChannelGate(2), ChannelGate(2)]))
