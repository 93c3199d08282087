"""Guard MobileNetV2 without its stem, in both hosts, by the stock networks: shapes, numbers, checkpoints."""
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from backbone_checks import StateDict, assert_same, clone, load, log, over_ways, randomized, said
from numpy.testing import assert_allclose

import mmfreq.models.cls as cls
import mmfreq.models.det as det

import mmdet.models.backbones as det_stock  # isort: skip
import mmpretrain.models.backbones as cls_stock  # isort: skip

__all__ = ['log']  # a fixture

# Modified and stock class of each host, and what the convolutions of its first block are called.
HOSTS = {
    'mmpretrain': (cls.FreqMobileNetV2, cls_stock.MobileNetV2, 'layer1.0.conv.0.', 'layer1.0.conv.1.'),
    'mmdet': (det.FreqMobileNetV2, det_stock.MobileNetV2, 'layer1.0.depthwise_conv.', 'layer1.0.linear_conv.'),
}
@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> tuple[type, type, str, str]:
    torch.manual_seed(0)
    return HOSTS[request.param]


def shapes(state: StateDict) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


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
    reference = randomized(stock(**options))
    reference.eval()
    model = freq(in_channels=round(32 * widen_factor), **options)
    model.load_state_dict(reference.state_dict(), strict=True)
    model.eval()  # the stock train() returns nothing
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
    model = randomized(freq(in_channels=channels, out_indices=(0, )))
    model.eval()
    weights, x = model.state_dict(), torch.randn(2, channels, 8, 10)

    def norm(values: torch.Tensor, prefix: str) -> torch.Tensor:
        mean, var, scale, shift = (weights[f'{prefix}bn.{name}'].view(1, -1, 1, 1)
                                   for name in ('running_mean', 'running_var', 'weight', 'bias'))
        return (values - mean) / torch.sqrt(var + 1e-5) * scale + shift

    hidden = F.conv2d(x, weights[f'{depthwise}conv.weight'], padding=1, groups=channels)
    expected = norm(F.conv2d(norm(hidden, depthwise).clamp(0, 6), weights[f'{linear}conv.weight']), linear)
    with torch.no_grad():
        assert_allclose(model(x)[0].numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('how', 'channels'), [('load_from', 6), ('load_state_dict', 32), ('init_cfg', 48)])
def test_stock_checkpoint_loads(host: tuple, how: str, channels: int, log: list[str], tmp_path: Path) -> None:
    freq, stock, depthwise, linear = host
    state = randomized(stock()).state_dict()
    before = clone(state)
    fresh, loaded = load(how, freq(in_channels=channels), state, tmp_path)
    assert_same(loaded, expected_weights(state, fresh, depthwise, linear))
    assert_same(state, before)
    assert not [line for line in log if 'unexpected key' in line or 'do not match' in line]
    line, = said(log)
    assert f'into {channels} DCT channels' in line
    assert 'stem dropped (6 tensors)' in line
    assert ('first 6 of 32 channels' in line, 'first 32 of 32 channels' in line) == (channels == 6, channels == 48)
    assert ('16 newly made' in line) == (channels == 48)


@pytest.mark.parametrize(('frozen', 'told'), [(-1, False), (0, False), (1, True)])
def test_stock_weights_in_frozen_stages_are_a_warning(frozen: int, told: bool, log: list[str]) -> None:
    model = cls.FreqMobileNetV2(in_channels=24, frozen_stages=frozen)
    model.load_state_dict(cls_stock.MobileNetV2().state_dict())
    line, = said(log)
    assert (f'frozen_stages={frozen} keeps layer1.0.conv.0.conv.weight from being trained' in line) == told


@over_ways
def test_own_checkpoint_reloads_without_a_word(host: tuple, how: str, log: list[str], tmp_path: Path) -> None:
    freq, *_ = host
    state = randomized(freq(in_channels=24)).state_dict()
    assert_same(load(how, freq(in_channels=24), state, tmp_path)[1], state)
    assert not [line for line in log if line.startswith('Freq') or 'do not match' in line]


@over_ways
def test_checkpoint_for_other_channels_is_refused(host: tuple, how: str, tmp_path: Path) -> None:
    freq, _, depthwise, _ = host
    with pytest.raises(ValueError, match=rf'FreqMobileNetV2: .*in_channels=12,.* \S*{depthwise}conv.weight has shape '
                       r'\(24, 1, 3, 3\), 24 input channels'):
        load(how, freq(in_channels=12), freq(in_channels=24).state_dict(), tmp_path)


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
