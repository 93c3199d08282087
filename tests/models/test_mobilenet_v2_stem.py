"""MobileNetV2 without its stem, in both hosts: shapes, numbers and checkpoints against the stock networks."""
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint
from numpy.testing import assert_allclose
from test_stem import assert_equal, clone, evaluating, log, randomized, shapes
from torch import nn

import mmfreq.models.cls as cls
import mmfreq.models.det as det

import mmdet.models.backbones as det_stock  # isort: skip
import mmpretrain.models.backbones as cls_stock  # isort: skip

# Modified and stock class of each host, and what the convolutions of its first block are called.
HOSTS = {
    'mmpretrain': (cls.FreqMobileNetV2, cls_stock.MobileNetV2, 'layer1.0.conv.0.', 'layer1.0.conv.1.'),
    'mmdet': (det.FreqMobileNetV2, det_stock.MobileNetV2, 'layer1.0.depthwise_conv.', 'layer1.0.linear_conv.'),
}
__all__ = ['log']  # a fixture
StateDict = dict[str, torch.Tensor]


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> tuple[type, type, str, str]:
    torch.manual_seed(0)
    return HOSTS[request.param]


def expected_weights(stock: StateDict, fresh: StateDict, depthwise: str, linear: str) -> StateDict:
    """The documented result of loading ``stock`` into a model whose weights are ``fresh``."""
    expected = clone(fresh)
    for key, value in stock.items():
        if key.startswith(depthwise) and value.ndim:  # (channels, 1, 3, 3) and (channels, )
            channels = min(len(value), len(fresh[key]))
            expected[key][:channels] = value[:channels]
        elif key == f'{linear}conv.weight':
            channels = min(value.shape[1], fresh[key].shape[1])
            expected[key][:, :channels] = value[:, :channels]
        elif not key.startswith('conv1.'):
            expected[key] = value
    return expected


@pytest.mark.parametrize('channels', [6, 12, 24, 32, 192])
def test_names_and_shapes_are_the_stock_ones_but_for_the_first_block(host: tuple, channels: int) -> None:
    freq, stock, depthwise, linear = host
    expected = {key: shape for key, shape in shapes(stock().state_dict()).items() if not key.startswith('conv1.')}
    expected[f'{depthwise}conv.weight'] = (channels, 1, 3, 3)
    expected[f'{linear}conv.weight'] = (16, channels, 1, 1)
    for name in ('weight', 'bias', 'running_mean', 'running_var'):
        expected[f'{depthwise}bn.{name}'] = (channels, )
    assert shapes(freq(in_channels=channels).state_dict()) == expected


@pytest.mark.parametrize('widen_factor', [1.0, 0.5])
def test_behind_the_stock_stem_it_is_the_stock_network(host: tuple, widen_factor: float) -> None:
    freq, stock, *_ = host
    options = dict(widen_factor=widen_factor, out_indices=(0, 2, 6, 7))
    reference = evaluating(randomized(stock(**options)))
    model = evaluating(freq(in_channels=round(32 * widen_factor), **options))
    model.load_state_dict(reference.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        actual, expected = model(reference.conv1(x)), reference(x)
    assert [tuple(level.shape[2:]) for level in actual] == [(16, 24), (4, 6), (1, 2), (1, 2)]
    for level, other in zip(actual, expected):
        assert_allclose(level.numpy(), other.numpy(), rtol=1e-6)
        assert other.abs().max() > 1e-3


@pytest.mark.parametrize('channels', [6, 192])
def test_the_first_block_by_hand(host: tuple, channels: int) -> None:
    freq, _, depthwise, linear = host
    model = evaluating(randomized(freq(in_channels=channels, out_indices=(0, ))))
    weights, x = model.state_dict(), torch.randn(2, channels, 8, 10)

    def norm(values: torch.Tensor, prefix: str) -> torch.Tensor:
        mean, var, scale, shift = (weights[f'{prefix}bn.{name}'].view(1, -1, 1, 1)
                                   for name in ('running_mean', 'running_var', 'weight', 'bias'))
        return (values - mean) / torch.sqrt(var + 1e-5) * scale + shift

    hidden = F.conv2d(x, weights[f'{depthwise}conv.weight'], padding=1, groups=channels)
    expected = norm(F.conv2d(norm(hidden, depthwise).clamp(0, 6), weights[f'{linear}conv.weight']), linear)
    with torch.no_grad():
        assert_allclose(model(x)[0].numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.fixture(params=['load_from', 'init_cfg', 'load_state_dict'])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Loads backbone weights as that entry of a config does, or as torch; gives the weights before and after."""

    def loaded(freq: type, channels: int, state: StateDict, **kwargs: Any) -> tuple[StateDict, StateDict]:
        file = str(tmp_path / 'weights.pth')
        torch.save(dict(state_dict={f'backbone.{key}': value for key, value in state.items()}, meta={}), file)
        init_cfg = dict(type='Pretrained', checkpoint=file, prefix='backbone.')
        model = freq(in_channels=channels, **kwargs, **(dict(init_cfg=init_cfg) if request.param == 'init_cfg' else {}))
        fresh = clone(model.state_dict())
        if request.param == 'init_cfg':
            model.init_weights()
        elif request.param == 'load_from':
            whole = nn.Module()
            whole.backbone = model
            load_checkpoint(whole, file, map_location='cpu', logger=MMLogger.get_current_instance())
        else:
            model.load_state_dict(state, strict=True)
        return fresh, model.state_dict()

    return loaded


@pytest.mark.parametrize('channels', [6, 32, 48])
def test_stock_checkpoint_loads(host: tuple, load: Any, channels: int, log: list[str]) -> None:
    freq, stock, depthwise, linear = host
    state = randomized(stock()).state_dict()
    before = clone(state)
    fresh, loaded = load(freq, channels, state)
    assert_equal(loaded, expected_weights(state, fresh, depthwise, linear))
    assert_equal(state, before)
    assert not [line for line in log if 'unexpected key' in line or 'do not match' in line]
    line, = (line for line in log if line.startswith('FreqMobileNetV2'))
    assert f'into {channels} DCT channels' in line
    assert 'stem dropped (6 tensors), first ' + {6: '6 of 32', 32: '32 of 32', 48: '32 of 32'}[channels] in line
    assert ('16 newly made' in line) == (channels == 48)


@pytest.mark.parametrize(('frozen', 'told'), [(-1, False), (0, False), (1, True)])
def test_stock_weights_in_frozen_stages_are_a_warning(frozen: int, told: bool, log: list[str]) -> None:
    model = cls.FreqMobileNetV2(in_channels=24, frozen_stages=frozen)
    model.load_state_dict(cls_stock.MobileNetV2().state_dict())
    line, = (line for line in log if line.startswith('FreqMobileNetV2'))
    assert (f'frozen_stages={frozen} keeps the first stage from being trained' in line) == told


def test_own_checkpoint_reloads_without_a_word(host: tuple, load: Any, log: list[str]) -> None:
    freq, *_ = host
    state = randomized(freq(in_channels=24)).state_dict()
    assert_equal(load(freq, 24, state)[1], state)
    assert not [line for line in log if line.startswith('FreqMobileNetV2') or 'do not match' in line]


def test_checkpoint_for_other_channels_is_refused(host: tuple, load: Any) -> None:
    freq, _, depthwise, _ = host
    with pytest.raises(ValueError, match=rf'FreqMobileNetV2: .*in_channels=12,.* \S*{depthwise}conv.weight has shape '
                       r'\(24, 1, 3, 3\), 24 input channels'):
        load(freq, 12, freq(in_channels=24).state_dict())


def test_stock_weights_that_lost_their_stem_are_refused(host: tuple) -> None:
    freq, stock, *_ = host
    state = {key: value for key, value in stock().state_dict().items() if not key.startswith('conv1.')}
    with pytest.raises(ValueError, match='in_channels=24, or a stock one with its stem.* 32 input channels'):
        freq(in_channels=24).load_state_dict(state)


@pytest.mark.parametrize('channels', [8, 16, 24])
def test_checkpoint_of_another_width_does_not_fit(host: tuple, channels: int) -> None:
    freq, stock, *_ = host
    with pytest.raises(RuntimeError, match='size mismatch for layer1'):
        freq(in_channels=channels).load_state_dict(stock(widen_factor=0.5).state_dict())


@pytest.mark.parametrize('frozen', [-1, 0, 1, 7])
def test_frozen_stages(host: tuple, frozen: int) -> None:
    model = host[0](in_channels=24, frozen_stages=frozen)
    model.train()
    for name, parameter in model.named_parameters():
        stage = 8 if name.startswith('conv2') else int(name[5])
        assert parameter.requires_grad == (stage > frozen), name


def test_gate_is_the_first_thing_that_the_input_meets(host: tuple) -> None:
    freq, *_ = host
    gated, plain = freq(in_channels=24, gate=dict(always_on=[0])), freq(in_channels=24)
    gated.train()
    x = torch.randn(4, 24, 32, 32)
    gated(x)[-1].square().sum().backward()
    assert gated.gate.logit_weight.grad.abs().sum() > 0
    assert gated.gate.mask[:, 0].tolist() == [1.] * 4
    plain.load_state_dict({key: value for key, value in gated.state_dict().items() if not key.startswith('gate.')})
    gated.eval()
    plain.eval()
    gated.gate.logit_bias.data[5:] = torch.tensor([2.0, 0.1])  # off
    with torch.no_grad():
        masked = torch.cat([x[:, :5], torch.zeros(4, 19, 32, 32)], dim=1)
        assert_allclose(gated(x)[-1].numpy(), plain(masked)[-1].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('channels', [0, 2.5, True, '24', None])
def test_bad_in_channels(channels: Any) -> None:
    with pytest.raises(ValueError, match=f'FreqMobileNetV2: expected in_channels .* got {channels!r}'):
        cls.FreqMobileNetV2(in_channels=channels)


def test_input_with_the_wrong_number_of_channels(host: tuple) -> None:
    with pytest.raises(ValueError, match=r'FreqMobileNetV2: .*in_channels=24 .*\(1, 48, 8, 8\)'):
        host[0](in_channels=24)(torch.rand(1, 48, 8, 8))
