"""Guard ResNets without a stem by the stock networks: shapes, numbers, checkpoints."""
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from backbone_checks import StateDict, assert_same, clone, load, log, randomized, said
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from numpy.testing import assert_allclose
from torch import nn
from torch.utils.checkpoint import checkpoint as keep_nothing

import mmfreq.models.cls  # noqa: F401  (registers the backbones)

__all__ = ['log']  # a fixture
FIRST_CONVS = ('layer1.0.conv1.weight', 'layer1.0.downsample.0.weight')
STEM = ('conv1.', 'bn1.', 'gn1.', 'stem.')
# The stock class's options, each with the number of channels that its own stem gives to the first stage.
STOCK_OPTIONS = {
    'r18': dict(type='ResNet', depth=18),
    'r34': dict(type='ResNet', depth=34),
    'r50': dict(type='ResNet', depth=50),
    'caffe': dict(type='ResNet', depth=50, style='caffe', strides=(2, 2, 2, 2)),
    'three stages': dict(type='ResNet', depth=50, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1),
                         out_indices=(2, )),
    'group norm': dict(type='ResNet', depth=18, norm_cfg=dict(type='GN', num_groups=32)),
    'stride 1': dict(type='ResNet', depth=50, strides=(1, 1, 2, 2)),
    'dilated': dict(type='ResNet', depth=18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    'deep stem': dict(type='ResNet', depth=50, deep_stem=True, avg_down=True),
    'narrow': dict(type='ResNet', depth=18, base_channels=32),
    'drop path': dict(type='ResNet', depth=18, drop_path_rate=0.2),
    'all stages': dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3)),
    'v1c': dict(type='ResNetV1c', depth=50),
    'v1d': dict(type='ResNetV1d', depth=50),
}


@pytest.fixture(autouse=True)
def scope(quick_init: None) -> Iterator[None]:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(scope='module')
def stock_state() -> StateDict:
    """Weights of a stock ResNet-50."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return randomized(MODELS.build(STOCK_OPTIONS['r50'])).state_dict()


def freq(stock: dict[str, Any], channels: int, **kwargs: Any) -> nn.Module:
    """The stemless version of a stock backbone's config, built from the registry."""
    return MODELS.build({**stock, **kwargs, 'type': 'Freq' + stock['type'], 'in_channels': channels})


def resnet(depth: int, channels: int, **kwargs: Any) -> nn.Module:
    return freq(dict(type='ResNet', depth=depth), channels, **kwargs)


def evaluating(model: nn.Module) -> nn.Module:
    """The model in evaluation mode: the stock ``ResNet.train`` returns nothing."""
    model.eval()
    return model


def without_stem(state: StateDict) -> StateDict:
    return {key: value for key, value in state.items() if not key.startswith(STEM)}


def shapes(state: StateDict) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def stock_stages(stock: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What the stock stages alone make of ``x``."""
    outputs = []
    for index, name in enumerate(stock.res_layers):
        x = getattr(stock, name)(x)
        if index in stock.out_indices:
            outputs.append(x)
    return outputs


def expected_weights(stock: StateDict, fresh: StateDict) -> StateDict:
    """The documented result of loading ``stock`` into a model whose weights are ``fresh``."""
    expected = clone(fresh)
    for key, value in without_stem(stock).items():
        if key in FIRST_CONVS:
            channels = min(value.shape[1], fresh[key].shape[1])
            expected[key][:, :channels] = value[:, :channels]
        else:
            expected[key] = value
    return expected


@pytest.mark.parametrize('channels', [1, 24, 64, 192])
@pytest.mark.parametrize('name', STOCK_OPTIONS)
def test_names_and_shapes_are_the_stock_ones_but_for_the_first_block(name: str, channels: int) -> None:
    stock = without_stem(MODELS.build(STOCK_OPTIONS[name]).state_dict())
    expected = shapes(stock)
    for key in set(FIRST_CONVS) & set(stock):
        expected[key] = (expected[key][0], channels, *expected[key][2:])
    actual = shapes(freq(STOCK_OPTIONS[name], channels).state_dict())
    new = [key for key in actual if key not in expected]
    assert {key: shape for key, shape in actual.items() if key in expected} == expected
    if FIRST_CONVS[1] in stock or channels == 64:
        assert new == []
    else:
        assert all(key.startswith('layer1.0.downsample.') for key in new)
        assert actual[FIRST_CONVS[1]] == (64, channels, 1, 1)


@pytest.mark.parametrize('name', STOCK_OPTIONS)
def test_with_64_channels_it_is_the_stock_network_behind_its_stem(name: str) -> None:
    stock = evaluating(randomized(MODELS.build(STOCK_OPTIONS[name])))
    model = evaluating(freq(STOCK_OPTIONS[name], 64))
    model.load_state_dict(stock.state_dict(), strict=True)
    x = torch.randn(2, 64, 12, 10)
    with torch.no_grad():
        outputs, expected = model(x), stock_stages(stock, x)
    assert len(outputs) == len(expected)
    for actual, reference in zip(outputs, expected):
        assert_allclose(actual.numpy(), reference.numpy(), rtol=1e-6, atol=0)
        assert reference.abs().max() > 1e-3


@pytest.mark.parametrize('channels', [4, 24, 192])
def test_other_channel_counts_equal_the_stock_network_on_padded_channels(channels: int) -> None:
    stock = evaluating(randomized(MODELS.build(STOCK_OPTIONS['r50'])))
    model = evaluating(resnet(50, channels))
    model.load_state_dict(stock.state_dict())
    x = torch.zeros(2, max(channels, 64), 8, 8)  # zero wherever only one of the two networks has a channel
    x[:, :min(channels, 64)] = torch.randn(2, min(channels, 64), 8, 8)
    with torch.no_grad():
        actual, reference = model(x[:, :channels])[0], stock_stages(stock, x[:, :64])[0]
    assert_allclose(actual.numpy(), reference.numpy(), rtol=1e-4, atol=1e-5 * float(reference.abs().max()))


def test_stem_channels_of_an_inherited_config_mean_nothing() -> None:
    assert shapes(resnet(18, 24, stem_channels=32).state_dict()) == shapes(resnet(18, 24).state_dict())


def gradients(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, StateDict]:
    x = x.clone().requires_grad_()
    model.train()
    output = model(x)[0]
    output.square().sum().backward()
    return output.detach(), {'input': x.grad, **{name: p.grad for name, p in model.named_parameters()}}


def test_with_cp_changes_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(torch.utils.checkpoint, 'checkpoint', lambda function, *args: calls.append(1) or keep_nothing(
        function, *args, use_reentrant=False))
    plain, checkpointed = randomized(resnet(18, 24)), resnet(18, 24, with_cp=True)
    checkpointed.load_state_dict(plain.state_dict())
    x = torch.randn(2, 24, 8, 8)
    (output, grads), (expected, expected_grads) = gradients(checkpointed, x), gradients(plain, x)
    assert len(calls) == 8
    assert_allclose(output.numpy(), expected.numpy(), rtol=1e-6)
    for name, grad in expected_grads.items():
        assert_allclose(grads[name].numpy(), grad.numpy(), rtol=1e-4, atol=1e-6 * float(grad.abs().max()), err_msg=name)


@pytest.mark.parametrize(('how', 'channels', 'text'), [
    ('load_from', 4, r'first 4 of 64 channels taken in layer1\.0\.conv1\.weight'), ('load_state_dict', 64, ''),
    ('init_cfg', 192, r'first 64 of 64 channels taken in layer1\.0\.conv1\.weight [^,]*, 128 newly made')])
def test_stock_checkpoint_loads(stock_state: StateDict, log: list[str], how: str, channels: int, text: str,
                                tmp_path: Path) -> None:
    fresh, loaded = load(how, resnet(50, channels), stock_state, tmp_path)
    assert_same(loaded, expected_weights(stock_state, fresh))
    assert not [line for line in log if 'unexpected key' in line or 'do not match' in line]
    line, = said(log)
    assert 'stem dropped' in line
    assert all((name in line) == (channels != 64) for name in FIRST_CONVS)
    assert re.search(text, line)


def test_torchvision_weights_load(log: list[str]) -> None:
    stock = randomized(torchvision.models.resnet50()).state_dict()
    model = resnet(50, 24)
    expected = expected_weights({key: value for key, value in stock.items() if key[:2] != 'fc'}, model.state_dict())
    result = model.load_state_dict(stock, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == ([], ['fc.weight', 'fc.bias'])
    assert_same(model.state_dict(), expected)
    assert len(said(log)) == 1


@pytest.mark.parametrize(('name', 'channels'), [
    ('group norm', 24), ('deep stem', 24), ('v1c', 24), ('v1d', 24), ('caffe', 24), ('narrow', 24),
    ('r18', 24), ('r18', 192)])
def test_checkpoints_of_other_stock_networks_load(name: str, channels: int, log: list[str]) -> None:
    stock = randomized(MODELS.build(STOCK_OPTIONS[name])).state_dict()
    model = freq(STOCK_OPTIONS[name], channels)
    expected = expected_weights(stock, clone(model.state_dict()))
    model.load_state_dict(stock, strict=True)
    assert_same(model.state_dict(), expected)
    assert len(said(log)) == 1


@pytest.mark.parametrize(('how', 'depth', 'kernel'), [
    ('load_from', 18, 3), ('init_cfg', 18, 3), ('load_state_dict', 50, 1)])
def test_checkpoint_for_other_channels_is_refused(depth: int, kernel: int, how: str, tmp_path: Path) -> None:
    """The hosts' own loading is not strict, and would go on with the first block at random."""
    with pytest.raises(ValueError, match=r'FreqResNet: .*in_channels=48.* \S*layer1\.0\.conv1\.weight has shape '
                       rf'\(64, 24, {kernel}, {kernel}\), 24 input channels'):
        load(how, resnet(depth, 48), resnet(depth, 24).state_dict(), tmp_path)


def test_half_precision_checkpoint_loads() -> None:
    stock = {key: value.half() if value.is_floating_point() else value
             for key, value in randomized(MODELS.build(STOCK_OPTIONS['r50'])).state_dict().items()}
    model = resnet(50, 24)
    expected = expected_weights({key: value.to(torch.float32) if value.is_floating_point() else value
                                 for key, value in stock.items()}, clone(model.state_dict()))
    model.load_state_dict(stock)
    assert_same(model.state_dict(), expected)


def test_stock_weights_that_lost_their_stem_are_refused(stock_state: StateDict) -> None:
    with pytest.raises(ValueError, match='in_channels=24, or a stock one with its stem.* 64 input channels'):
        resnet(50, 24).load_state_dict(without_stem(stock_state))


@pytest.mark.parametrize('channels', [0, '24', None])
def test_bad_in_channels(channels: Any) -> None:
    with pytest.raises(ValueError, match=f'FreqResNet: in_channels: expected an integer >= 1, got {channels!r}'):
        resnet(18, channels)


def test_trace() -> None:
    model = evaluating(randomized(resnet(18, 24)))
    traced = torch.jit.trace(model, torch.randn(1, 24, 8, 8))
    x = torch.randn(2, 24, 16, 16)
    with torch.no_grad():
        assert_allclose(traced(x)[0].numpy(), model(x)[0].numpy(), rtol=1e-5, atol=1e-6)


# Entry at stage 2


def test_late_entry_leaves_out_stage_1_and_takes_the_grid_of_stage_2() -> None:
    model = evaluating(resnet(18, 96, entry_stage=2, out_indices=(1, 2, 3)))
    with torch.no_grad():
        outputs = model(torch.rand(1, 96, 28, 28))
    assert [tuple(output.shape[1:]) for output in outputs] == [(128, 28, 28), (256, 14, 14), (512, 7, 7)]
    assert model.first_weight == 'layer2.0.conv1.weight'
    assert not any(key.startswith(('layer1.', *STEM)) for key in model.state_dict())


@pytest.mark.parametrize(('strides', 'stride'), [((1, 2, 2, 2), 8), ((1, 1, 2, 2), 4), ((2, 2, 2, 2), 16)])
def test_input_stride_of_late_entry_is_that_of_stage_2(strides: tuple[int, ...], stride: int) -> None:
    assert resnet(18, 24, entry_stage=2, strides=strides).input_stride == stride
    assert resnet(18, 24, strides=strides).input_stride == 4


@pytest.mark.parametrize('kind', ['ResNet', 'ResNetV1d'])
def test_late_entry_is_the_stock_network_behind_stage_1(kind: str) -> None:
    stock = evaluating(randomized(MODELS.build(dict(type=kind, depth=18, strides=(1, 1, 2, 2)))))
    model = evaluating(freq(dict(type=kind, depth=18), 64, entry_stage=2))
    model.load_state_dict(stock.state_dict(), strict=True)
    x = torch.randn(2, 64, 8, 8)
    with torch.no_grad():
        expected = stock.layer4(stock.layer3(stock.layer2(x)))
        assert_allclose(model(x)[0].numpy(), expected.numpy(), rtol=1e-6, atol=0)


@pytest.mark.parametrize('channels', [24, 192])
def test_stock_checkpoint_loads_at_stage_2(stock_state: StateDict, log: list[str], channels: int) -> None:
    model = resnet(50, channels, entry_stage=2)
    fresh, stock = clone(model.state_dict()), stock_state
    model.load_state_dict(stock, strict=True)
    shared = min(channels, 256)
    for key, value in model.state_dict().items():
        expected = stock[key].clone()
        if key in ('layer2.0.conv1.weight', 'layer2.0.downsample.0.weight'):
            expected = fresh[key].clone()
            expected[:, :shared] = stock[key][:, :shared]
        assert_allclose(value.numpy(), expected.numpy(), rtol=0, atol=0, err_msg=key)
    line, = said(log)
    assert 'stem dropped' in line
    assert 'layer1 dropped' in line
    assert f'first {min(channels, 256)} of 256 channels taken' in line


@pytest.mark.parametrize(('frozen', 'told'), [(1, False), (2, True)])
def test_frozen_stages_of_late_entry(stock_state: StateDict, log: list[str], frozen: int, told: bool) -> None:
    model = resnet(50, 24, entry_stage=2, frozen_stages=frozen)
    model.train()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (int(name[5]) > frozen), name
    model.load_state_dict(stock_state)
    line, = said(log)
    assert ('frozen_stages=2 keeps layer2.0.conv1.weight from being trained: set it to -1' in line) == told


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(entry_stage=0), 'expected entry_stage to be 1 or 2, got 0'),
    (dict(entry_stage=3), 'got 3'),
    (dict(entry_stage=True), 'got True'),
    (dict(entry_stage=2, out_indices=(0, 3)), r'expected out_indices >= 1.* got \(0, 3\)'),
    (dict(entry_stage=2, num_stages=1, strides=(1, ), dilations=(1, ), out_indices=(0, )), 'num_stages >= entry_stage'),
])
def test_entry_stages_that_do_not_exist(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resnet(18, 24, **arguments)
