"""Guard ResNets and MobileNetV2 without a stem by the stock networks of either host: shapes, numbers, checkpoints."""
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from backbone_checks import (
    STEMLESS,
    assert_same,
    build,
    clone,
    expected_weights,
    load,
    outputs,
    randomized,
    said,
)
from mmengine.registry import MODELS
from torch import nn

STEM = ('conv1', 'bn1', 'gn1', 'stem', 'relu', 'maxpool')
# Further options of mmpretrain's stock ResNets, narrow ones.
VARIANTS = {
    'r18': dict(type='ResNet', depth=18),
    'r50': dict(type='ResNet', depth=50, base_channels=64, stem_channels=64),
    'caffe': dict(type='ResNet', depth=50, style='caffe', strides=(2, 2, 2, 2)),
    'three stages': dict(type='ResNet', depth=50, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1),
                         out_indices=(2, )),
    'group norm': dict(type='ResNet', depth=18, norm_cfg=dict(type='GN', num_groups=8)),
    'stride 1': dict(type='ResNet', depth=50, strides=(1, 1, 2, 2)),
    'dilated': dict(type='ResNet', depth=18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    'deep stem': dict(type='ResNet', depth=50, deep_stem=True, avg_down=True),
    'wide stem': dict(type='ResNet', depth=18, stem_channels=32),
    'drop path': dict(type='ResNet', depth=18, drop_path_rate=0.2),
    'v1c': dict(type='ResNetV1c', depth=50),
    'v1d': dict(type='ResNetV1d', depth=50),
}
VARIANTS = {name: dict(dict(base_channels=16, stem_channels=16), **options) for name, options in VARIANTS.items()}
CASES = [*VARIANTS, *STEMLESS]


@pytest.fixture(autouse=True)
def quick(quick_init: None) -> None:
    """Weights that count are random or loaded."""


def stock(case: str, **changes: Any) -> nn.Module:
    if case in STEMLESS:
        return build(case, **changes)
    return MODELS.build(dict(VARIANTS[case], **changes, type=f'mmpretrain.{VARIANTS[case]["type"]}'))


def freq(case: str, channels: int, **changes: Any) -> nn.Module:
    if case in STEMLESS:
        return build(case, 'Freq', in_channels=channels, **changes)
    return MODELS.build(dict(VARIANTS[case], in_channels=channels, **changes,
                             type=f'mmpretrain.Freq{VARIANTS[case]["type"]}'))


def stem_width(network: nn.Module) -> int:
    """Number of channels that a stock stem makes."""
    is_resnet = hasattr(network, 'res_layers')
    return network.layer1[0].conv1.in_channels if is_resnet else network.conv1.out_channels


def is_stem(key: str) -> bool:
    return key.split('.')[0] in STEM


def without_stem(network: nn.Module) -> nn.Module:
    """The stock network with identities for a stem."""
    for name in STEM:
        if hasattr(network, name):
            setattr(network, name, nn.Identity())
    return network


@pytest.mark.parametrize('channels', [6, 192])
@pytest.mark.parametrize('case', CASES)
def test_only_the_first_block_has_other_shapes(case: str, channels: int) -> None:
    model = freq(case, channels)
    axes, expected = model.channel_axes(), {key: value.shape for key, value in stock(case).state_dict().items()}
    assert model.first_weight in axes
    for key, value in model.state_dict().items():
        shape = list(expected.get(key, value.shape))
        if key in axes:
            shape[axes[key]] = channels
        assert list(value.shape) == shape, key
        assert key in expected or key.startswith('layer1.0.downsample.')
    assert all(is_stem(key) for key in expected if key not in model.state_dict())
    assert not any(is_stem(key) for key in model.state_dict())


@pytest.mark.parametrize('case', CASES)
def test_with_the_stems_channels_it_is_the_stock_network_behind_its_stem(case: str) -> None:
    strides = dict(strides=(1, 2, 2, 2)) if 'RegNet' in case else {}  # its own would halve the grid first
    reference = randomized(stock(case, **strides))
    model = freq(case, stem_width(reference))
    model.load_state_dict(reference.state_dict(), strict=True)
    x = torch.randn(2, stem_width(reference), 24, 20)
    for ours, theirs in zip(outputs(model, x), outputs(without_stem(reference), x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        assert theirs.std() > 1e-3


@pytest.mark.parametrize('channels', [4, 24, 192])
def test_other_channel_counts_equal_the_stock_network_on_padded_channels(channels: int) -> None:
    reference, model = randomized(stock('r50')), freq('r50', channels)
    randomized(model).load_state_dict(reference.state_dict())
    x = torch.zeros(2, max(channels, 64), 8, 8)  # zero wherever only one of the two networks has a channel
    x[:, :min(channels, 64)] = torch.randn(2, min(channels, 64), 8, 8)
    ours, theirs = outputs(model, x[:, :channels])[0], outputs(without_stem(reference), x[:, :64])[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


# Checkpoints


@pytest.mark.parametrize(('how', 'channels'), [('load_from', 6), ('init_cfg', 48)])
@pytest.mark.parametrize('case', CASES)
def test_stock_checkpoints_load(case: str, how: str, channels: int, log: list[str], tmp_path: Path) -> None:
    given = clone(randomized(stock(case)))
    before = clone(given)
    model = freq(case, channels)
    fresh, loaded = load(how, model, given, tmp_path)
    assert_same(loaded, expected_weights(model, given, fresh))
    assert_same(given, before)
    assert not [line for line in log if 'unexpected key' in line or 'do not match' in line]
    line, = said(log)
    width = stem_width(stock(case))
    assert f'stock RGB weights loaded into {channels} DCT channels' in line
    assert 'stem dropped' in line
    assert model.first_weight in line
    assert f'first {min(channels, width)} of {width} channels taken' in line
    assert (f'{channels - width} newly made' in line) == (channels > width)


def test_torchvision_weights_and_half_precision_load(log: list[str]) -> None:
    given, model = randomized(torchvision.models.resnet50()).half().state_dict(), freq('r50', 24)
    fresh = clone(model)
    result = model.load_state_dict(given, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == ([], ['fc.weight', 'fc.bias'])
    assert_same(clone(model), expected_weights(model, given, fresh))
    assert len(said(log)) == 1


@pytest.mark.parametrize('case', ['r18', 'mmdet.RegNet', 'mmpretrain.MobileNetV2', 'mmdet.MobileNetV2'])
def test_stock_weights_that_lost_their_stem_are_refused(case: str) -> None:
    given = {key: value for key, value in stock(case).state_dict().items() if not is_stem(key)}
    with pytest.raises(ValueError, match='in_channels=24, or a stock one with its stem'):
        freq(case, 24).load_state_dict(given)


def test_a_shortcut_that_the_first_block_does_not_need_is_dropped(log: list[str]) -> None:
    """RegNet's first stage at stride 1, with as many channels as it makes."""
    given, model = clone(randomized(stock('mmpretrain.RegNet'))), freq('mmpretrain.RegNet', 32)
    model.load_state_dict(given, strict=True)
    assert 'layer1.0.downsample dropped' in said(log)[0]
    assert_same(clone(model), {key: value for key, value in given.items()
                               if not is_stem(key) and not key.startswith('layer1.0.downsample.')})


# Entry at stage 2


@pytest.mark.parametrize(('strides', 'stride'), [((1, 2, 2, 2), 8), ((1, 1, 2, 2), 4), ((2, 2, 2, 2), 16)])
def test_input_stride_of_late_entry_is_that_of_stage_2(strides: tuple[int, ...], stride: int) -> None:
    assert freq('r18', 24, entry_stage=2, strides=strides).input_stride == stride
    assert freq('r18', 24, strides=strides).input_stride == 4


@pytest.mark.parametrize('case', ['r18', 'v1d'])
def test_late_entry_is_the_stock_network_behind_stage_1(case: str) -> None:
    reference = without_stem(randomized(stock(case, depth=18, strides=(1, 1, 2, 2), out_indices=(1, 2, 3))))
    model = freq(case, 16, depth=18, entry_stage=2, out_indices=(1, 2, 3))
    state = {key: value for key, value in reference.state_dict().items() if not key.startswith('layer1.')}
    model.load_state_dict(state, strict=True)
    reference.layer1 = nn.Identity()
    x = torch.randn(2, 16, 8, 8)
    for ours, theirs in zip(outputs(model, x), outputs(reference, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize(('channels', 'frozen'), [(24, 1), (24, 2), (192, -1)])
def test_stock_checkpoints_load_at_stage_2(channels: int, frozen: int, log: list[str]) -> None:
    given, model = randomized(stock('r50')).state_dict(), freq('r50', channels, entry_stage=2, frozen_stages=frozen)
    model.train()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (int(name[5]) > frozen), name
    fresh = clone(model)
    model.load_state_dict(given, strict=True)
    assert_same(clone(model), expected_weights(model, given, fresh))
    assert not any(key.startswith('layer1.') for key in fresh)
    line, = said(log)
    assert re.search(f'stem dropped.* first {channels} of 256 channels taken.* layer1 dropped', line)
    told = 'frozen_stages=2 keeps layer2.0.conv1.weight from being trained: set it to -1' in line
    assert told == (frozen == 2)


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(entry_stage=0), 'entry_stage: expected an integer >= 1, got 0'), (dict(entry_stage=True), 'got True'),
    (dict(entry_stage=2, out_indices=(0, 1)), r'entry_stage=2: expected out_indices of 1 or more, got \(0, 1\)'),
    (dict(in_channels=0), 'in_channels: expected an integer >= 1, got 0'), (dict(in_channels='24'), "got '24'")])
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MODELS.build({**VARIANTS['r18'], 'type': 'mmpretrain.FreqResNet', 'in_channels': 24, **arguments})
