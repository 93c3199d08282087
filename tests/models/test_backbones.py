"""Guard backbones other than ResNet, in both hosts, by the stock classes; check their configs."""
import copy
import pickle
import re
import runpy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backbone_checks import StateDict, assert_same, clone, load, log, outputs, randomized, said
from mmcv.transforms import Compose
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from torch import nn

import mmfreq.models.cls
import mmfreq.models.det  # noqa: F401  (both register the backbones)
from mmfreq.config.checks import check_channels
from mmfreq.config.pipelines import pipelines, stock_resize, transform_type
from mmfreq.dct import blocks as dct
from mmfreq.models.stem import FreqMixin, StemlessResNetMixin, grid_projection
from mmfreq.selection.gate import find_gate
from mmfreq.transforms import FreqNormalize

from mmdet.structures.bbox import HorizontalBoxes  # isort: skip  # after the operations that mmfreq supplies
from mmdet.structures.mask import BitmapMasks  # isort: skip
from mmpretrain.models.utils.batch_augments import CutMix, Mixup  # isort: skip
from mmpretrain.structures import DataSample  # isort: skip

__all__ = ['log']  # a fixture
ROOT = Path(__file__).parents[2]
STEM = ('conv1.', 'bn1.', 'stem.')
NARROW = dict(depth=50, base_channels=16, stem_channels=16)
REGNET = dict(arch=dict(w0=32, wa=40, wm=2.0, group_w=16, depth=5, bot_mul=1.0))
SWIN = dict(embed_dims=24, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8])
ALL = dict(out_indices=[0, 1, 2, 3])

# Stock backbones, small; with a stem or with patches.
STEMS = {
    'mmpretrain.ResNeXt': dict(NARROW, **ALL, groups=4),
    'mmpretrain.SEResNet': dict(NARROW, **ALL),
    'mmpretrain.Res2Net': dict(NARROW, **ALL, base_width=6),
    'mmpretrain.ResNeSt': dict(NARROW, **ALL),
    'mmpretrain.RegNet': dict(REGNET, **ALL),
    'mmdet.ResNeXt': dict(NARROW, groups=4),
    'mmdet.Res2Net': dict(NARROW, base_width=6),
    'mmdet.ResNeSt': dict(NARROW),
    'mmdet.RegNet': REGNET,
}
PATCHES = {
    'mmpretrain.ConvNeXt': dict(arch=dict(depths=[1, 1, 2, 1], channels=[16, 32, 48, 64]), **ALL,
                                gap_before_final_norm=False, layer_scale_init_value=0.5),
    'mmpretrain.SwinTransformer': dict(arch=SWIN, img_size=64, use_abs_pos_embed=True, pad_small_map=True, **ALL),
    'mmpretrain.VisionTransformer': dict(
        arch=dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64), img_size=64, out_type='featmap',
        out_indices=[0, 2]),
    'mmdet.SwinTransformer': SWIN,
}
FAMILIES = STEMS | PATCHES
FIRST_WEIGHT = {'ConvNeXt': 'downsample_layers.0.0.weight'}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


def stock(family: str, **changes: Any) -> nn.Module:
    return MODELS.build(ConfigDict(FAMILIES[family], type=family, **changes))


def freq(family: str, channels: int = 24, **changes: Any) -> nn.Module:
    arguments = dict((FAMILIES | FURTHER)[family], **changes)
    return MODELS.build(ConfigDict(arguments, type=family.replace('.', '.Freq'), in_channels=channels))


def kind(family: str) -> str:
    return family.partition('.')[2]


def first_weight(family: str) -> str:
    """Name of the weight that takes the channels."""
    if family in STEMS:
        return 'layer1.0.conv1.weight'
    return FIRST_WEIGHT.get(kind(family), 'patch_embed.projection.weight')


def expected_weights(family: str, given: StateDict, fresh: StateDict) -> StateDict:
    """The documented result of loading stock weights into a model whose weights are ``fresh``."""
    expected = {key: value.clone() for key, value in fresh.items()}
    for key, value in given.items():
        if family in PATCHES and key == first_weight(family) or family in STEMS and key.startswith(STEM):
            continue
        if key.startswith('layer1.0.downsample.') and key not in fresh:
            continue
        shared = min(value.shape[1], fresh[key].shape[1]) if value.ndim == 4 else None
        if shared is None:
            expected[key] = value
        else:
            expected[key][:, :shared] = value[:, :shared]
    return expected


# Networks


@pytest.mark.parametrize('host', ['cls', 'det'])
def test_classes_are_found_by_their_names(host: str) -> None:
    """Pickle looks a class up in its module, as configs do in the registry."""
    module = getattr(mmfreq.models, host)
    made = {name: kind for name, kind in vars(module).items() if name.startswith('Freq') and name != 'FreqMixin'}
    made = {name: kind for name, kind in made.items() if issubclass(kind, FreqMixin)}
    assert len(made) == dict(cls=52, det=19)[host]
    for name, kind in made.items():
        assert pickle.loads(pickle.dumps(kind)) is kind
        assert (kind.__name__, kind.__module__) == (name, module.__name__)
        assert 'for DCT channels: :class:`~mmfreq.models.stem.' in kind.__doc__


@pytest.mark.parametrize('family', FAMILIES)
def test_every_stage_has_the_stock_networks_shape(family: str) -> None:
    ours, theirs = outputs(freq(family), torch.rand(1, 24, 25, 33)), outputs(stock(family), torch.rand(1, 3, 100, 132))
    assert [level.shape for level in ours] == [level.shape for level in theirs]
    assert len(ours) > 1
    assert all(torch.isfinite(level).all() and level.std() > 0 for level in ours)


@pytest.mark.parametrize('family', STEMS)
def test_with_the_stems_channels_it_is_the_stock_network_behind_its_stem(family: str) -> None:
    strides = dict(strides=(1, 2, 2, 2))  # RegNet's own would halve the grid first
    reference = randomized(stock(family, **strides))
    channels = reference.layer1[0].conv1.in_channels
    model = freq(family, channels)
    model.load_state_dict(reference.state_dict(), strict=True)
    x = level = torch.randn(2, channels, 12, 10)
    reference.eval()
    for ours, name in zip(outputs(model, x), reference.res_layers, strict=True):
        with torch.no_grad():
            level = getattr(reference, name)(level)
        torch.testing.assert_close(ours, level, rtol=1e-5, atol=1e-6)
        assert level.std() > 1e-3


@pytest.mark.parametrize('family', PATCHES)
def test_on_patches_as_channels_it_is_the_stock_network(family: str) -> None:
    """48 channels that hold 4x4 RGB pixels, and the stock embedding's weight in the same order."""
    reference, model = randomized(stock(family)), freq(family, 48)
    model.load_state_dict(reference.state_dict(), strict=True)
    weight = F.pixel_unshuffle(reference.get_parameter(first_weight(family)).detach(), 4)
    with torch.no_grad():
        model.get_parameter(first_weight(family)).copy_(weight)
    x = torch.randn(2, 3, 100, 132)
    for ours, theirs in zip(outputs(model, F.pixel_unshuffle(x, 4)), outputs(reference, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert theirs.std() > 1e-2


@pytest.mark.parametrize(('patch', 'cell', 'kernel'), [(16, 4, 4), (16, 8, 2), (32, 4, 8), (4, 4, 1)])
def test_groups_of_cells_make_the_stock_number_of_tokens(patch: int, cell: int, kernel: int) -> None:
    model = freq('mmpretrain.VisionTransformer', patch_size=patch, input_stride=cell)
    assert model.pos_embed.shape[1] == 1 + (64 // patch)**2
    assert model.patch_embed.projection.weight.shape == (32, 24, kernel, kernel)
    assert outputs(model, torch.rand(1, 24, 64 // cell, 64 // cell))[0].shape[-2:] == (64 // patch, 64 // patch)


@pytest.mark.parametrize(('kernel', 'stride', 'padding'), [(4, 4, 0), (7, 4, 3), (7, 4, 2), (16, 16, 0), (7, 8, 3)])
def test_a_projection_of_cells_keeps_the_grid_of_the_patches(kernel: int, stride: int, padding: int) -> None:
    """Overlapping patches too, as other networks have them."""
    patches = nn.Conv2d(3, 8, kernel, stride=stride, padding=padding, bias=False).requires_grad_(False)
    cells = grid_projection(patches, 24, (stride // 4, stride // 4))
    assert cells.weight.shape == (8, 24, stride // 4, stride // 4)
    assert (cells.bias, cells.weight.requires_grad) == (None, False)
    assert cells(torch.rand(1, 24, 16, 24)).shape == patches(torch.rand(1, 3, 64, 96)).shape


@pytest.mark.parametrize('family', ['mmpretrain.RegNet', *PATCHES])
def test_copies(family: str) -> None:
    model, x = randomized(freq(family, gate=dict())), torch.randn(1, 24, 16, 16)
    expected = outputs(model, x)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(outputs(copied, x), expected, strict=True))


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(patch_size=14), r'expected patches a multiple of input_stride=4 pixels apart, got \(14, 14\)'),
    (dict(input_stride=0), 'FreqVisionTransformer: input_stride: expected an integer >= 1, got 0'),
    (dict(input_stride=True), 'got True'),
    (dict(input_stride=4.0), r'got 4\.0'),
    (dict(channels=0), 'in_channels: expected .* got 0'),
])
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        freq('mmpretrain.VisionTransformer', **arguments)


@pytest.mark.parametrize('family', FAMILIES)
def test_inputs_of_other_channels_are_refused(family: str) -> None:
    with pytest.raises(ValueError, match=rf'Freq{kind(family)}: .*in_channels=24 .*\(1, 48, 16, 16\)'):
        freq(family)(torch.rand(1, 48, 16, 16))


@pytest.mark.parametrize('family', FAMILIES)
def test_the_gate_comes_first(family: str) -> None:
    model = freq(family, gate=dict(always_on=[5]))
    assert find_gate(model) is model.gate
    model.train()
    x = torch.randn(2, 24, 16, 16)
    (sum(level.square().sum() for level in model(x)) + model.gate.mask.sum()).backward()
    assert model.gate.linear.weight.grad.abs().sum() > 0
    assert model.gate.mask.shape == (2, 24)
    with torch.no_grad():
        model.gate.logit_bias[3] = torch.tensor([9., -9.])  # channel 3 is off
    levels = outputs(model, x)
    other = x.clone()
    other[:, 3] += 1
    assert all(torch.equal(a, b) for a, b in zip(outputs(model, other), levels))
    other[:, 5] += 1
    assert not torch.equal(outputs(model, other)[-1], levels[-1])


@pytest.mark.parametrize('frozen', [-1, 0, 1, 2])
@pytest.mark.parametrize('family', FAMILIES)
def test_frozen_stages_and_norm_eval_are_the_stock_ones(family: str, frozen: int) -> None:
    options = dict(frozen_stages=frozen, **(dict(norm_eval=frozen == 1) if family in STEMS else {}))
    ours, theirs = freq(family, gate=dict(), **options), stock(family, **options)
    ours.train()
    theirs.train()
    trained = [{name: p.requires_grad for name, p in model.named_parameters() if not name.startswith((*STEM, 'gate.'))}
               for model in (ours, theirs)]
    assert trained[0] == trained[1]
    assert all(trained[0].values()) == (frozen < (0 if 'Swin' in family else 1))
    modes = [{name: module.training for name, module in model.named_modules()
              if list(module.parameters(False)) and not f'{name}.'.startswith((*STEM, 'gate.'))}
             for model in (ours, theirs)]
    assert modes[0] == modes[1]
    assert all(parameter.requires_grad for parameter in ours.gate.parameters())


@pytest.mark.parametrize('family', ['mmpretrain.ConvNeXt', 'mmpretrain.SwinTransformer', 'mmdet.SwinTransformer',
                                    'mmdet.RegNet', 'mmdet.PyramidVisionTransformer', 'mmpretrain.XCiT'])
def test_the_gate_keeps_its_start_when_the_stock_class_initialises(family: str) -> None:
    model = freq(family, channels=192, gate=dict())
    model.init_weights()
    assert model.gate.linear.weight.std().item() == pytest.approx((2 / 192)**0.5, rel=0.02)  # kaiming, ReLU
    assert model.gate.logit_bias.unique().tolist() == pytest.approx([0.1, 2.0])


# Checkpoints


@pytest.mark.parametrize(('channels', 'how'), [(12, 'load_state_dict'), (24, 'init_cfg'), (64, 'load_state_dict')])
@pytest.mark.parametrize('family', FAMILIES)
def test_stock_weights_load(family: str, channels: int, how: str, log: list[str], tmp_path: Path) -> None:
    given = clone(randomized(stock(family)))
    fresh, loaded = load(how, freq(family, channels), given, tmp_path)
    assert not any(key.startswith(STEM) for key in loaded)
    assert_same(loaded, expected_weights(family, given, fresh))
    line, = said(log)
    assert f'Freq{kind(family)}: stock RGB weights loaded into {channels} DCT channels' in line
    assert first_weight(family) in line
    assert ('newly made, (' in line) == (family in PATCHES)
    assert ('stem dropped' in line) == (family in STEMS)


@pytest.mark.parametrize('family', FAMILIES)
def test_own_weights_load_without_a_word(family: str, log: list[str]) -> None:
    saved, model = randomized(freq(family, gate=dict())), freq(family, gate=dict())
    model.load_state_dict(saved.state_dict(), strict=True)
    assert_same(clone(model), clone(saved))
    assert said(log) == []


@pytest.mark.parametrize('family', FAMILIES)
def test_weights_for_other_channels_are_refused(family: str) -> None:
    with pytest.raises(ValueError, match=rf'Freq{kind(family)}: .*in_channels=12, .*{first_weight(family)} has shape '
                       r'.*, 24 input channels'):
        freq(family, 12).load_state_dict(freq(family, 24).state_dict(), strict=False)


def test_weights_for_other_patches_are_refused() -> None:
    family = 'mmpretrain.VisionTransformer'
    with pytest.raises(ValueError, match=r'or a stock one with its stem or patch embedding; '
                       r'.*\(32, 3, 32, 32\).* instead of \(32, 24, 4, 4\)'):
        freq(family).load_state_dict(stock(family, patch_size=32).state_dict(), strict=False)


@pytest.mark.parametrize(('family', 'frozen', 'told'), [
    ('mmpretrain.RegNet', 1, 'set it to -1'), ('mmpretrain.RegNet', 0, ''), ('mmdet.ResNeXt', 1, 'set it to -1'),
    ('mmpretrain.ConvNeXt', 1, 'keeps downsample_layers.0.0.weight from being trained: set it to -1'),
    ('mmpretrain.ConvNeXt', 0, ''), ('mmpretrain.SwinTransformer', 0, 'set it to -1'),
    ('mmdet.SwinTransformer', 0, 'set it to -1'), ('mmdet.SwinTransformer', -1, ''),
    ('mmpretrain.VisionTransformer', 1, 'set it to -1'), ('mmpretrain.VisionTransformer', -1, ''),
])
def test_new_weights_in_frozen_stages_are_a_warning(family: str, frozen: int, told: str, log: list[str]) -> None:
    freq(family, frozen_stages=frozen).load_state_dict(stock(family).state_dict())
    line, = said(log)
    assert told in line
    assert ('frozen_stages' in line) == bool(told)


def test_a_shortcut_that_the_first_block_does_not_need_is_dropped(log: list[str]) -> None:
    """RegNet's first stage at stride 1, with as many channels as it makes."""
    given, model = clone(randomized(stock('mmpretrain.RegNet'))), freq('mmpretrain.RegNet', 32)
    model.load_state_dict(given, strict=True)
    assert 'layer1.0.downsample dropped' in said(log)[0]
    assert_same(clone(model), {key: value for key, value in given.items()
                               if not key.startswith((*STEM, 'layer1.0.downsample.'))})


def test_old_checkpoints_of_swin_load_as_into_the_stock_class(tmp_path: Path) -> None:
    """Before version 2 the last norm was called ``norm``, before version 3 the masks were saved."""
    config = dict(type='ImageClassifier', neck=dict(type='GlobalAveragePooling'),
                  head=dict(type='LinearClsHead', num_classes=3, in_channels=192))
    backbone = dict(arch=SWIN, pad_small_map=True)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        theirs = MODELS.build(dict(config, backbone=dict(backbone, type='SwinTransformer')))
        ours = MODELS.build(dict(config, backbone=dict(backbone, type='FreqSwinTransformer', in_channels=24)))
    old = {re.sub(r'^backbone\.norm3\.', 'backbone.norm.', key): value
           for key, value in clone(randomized(theirs)).items()}
    old['backbone.stages.0.blocks.1.attn.attn_mask'] = torch.zeros(4, 49, 49)
    torch.save(dict(state_dict=old), tmp_path / 'old.pth')
    randomized(theirs)
    for model in (theirs, ours):
        load_checkpoint(model, str(tmp_path / 'old.pth'))
    for key, value in theirs.state_dict().items():
        if 'patch_embed.projection.weight' not in key:
            assert torch.equal(ours.state_dict()[key], value), key
    assert torch.equal(ours.backbone.norm3.weight, old['backbone.norm.weight'])


def test_swin_checkpoints_of_its_authors_load_as_into_the_stock_class(tmp_path: Path, log: list[str]) -> None:
    names = {'patch_embed.projection': 'patch_embed.proj', 'stages': 'layers', 'attn.w_msa': 'attn',
             'ffn.layers.0.0': 'mlp.fc1', 'ffn.layers.1': 'mlp.fc2'}
    given = {}
    for key, value in clone(randomized(stock('mmdet.SwinTransformer'))).items():
        for ours, authors in names.items():
            key = key.replace(ours, authors)
        given[key] = value
    torch.save(dict(model=given), tmp_path / 'swin.pth')
    options = dict(convert_weights=True, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'swin.pth')))
    theirs, ours = stock('mmdet.SwinTransformer', **options), freq('mmdet.SwinTransformer', **options)
    fresh = clone(ours)
    theirs.init_weights()
    ours.init_weights()
    assert_same(clone(ours), expected_weights('mmdet.SwinTransformer', clone(theirs), fresh))
    assert len(said(log)) == 1


@pytest.mark.parametrize(('name', 'changes'), [
    ('ResNeXt', {}), ('ResNeSt', {}), ('ResNeSt', dict(dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1))), ('RegNet', {}),
    ('SwinTransformer', dict(use_abs_pos_embed=False)),
])
def test_backbones_take_each_others_weights_across_the_hosts(name: str, changes: dict) -> None:
    classifier, detector = randomized(freq(f'mmpretrain.{name}', **changes)), freq(f'mmdet.{name}', **changes)
    detector.load_state_dict(classifier.state_dict(), strict=True)
    x = torch.randn(1, 24, 32, 32)
    for ours, theirs in zip(outputs(detector, x), outputs(classifier, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    back = freq(f'mmpretrain.{name}', **changes)
    back.load_state_dict(detector.state_dict(), strict=True)
    assert_same(clone(back), clone(classifier))


# Further backbones: small, with all levels that they give

VIT = dict(arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64), img_size=64)
POOL = dict(arch=dict(layers=[1, 1, 1, 1], embed_dims=[16] * 4, mlp_ratios=[2] * 4), out_indices=(0, 2, 4, 6))
TWINS = dict(embed_dims=[16] * 4, depths=[2] * 4, num_heads=[1] * 4, patch_sizes=[4, 2, 2, 2], strides=[4, 2, 2, 2],
             mlp_ratios=[2] * 4, sr_ratios=[8, 4, 2, 1])
REP = dict(num_blocks=[1] * 4, width_factor=[0.25] * 4)
HR = dict(extra={f'stage{i}': dict(num_modules=1, num_branches=i, block='BASIC' if i > 1 else 'BOTTLENECK',
                                   num_blocks=(1, ) * i, num_channels=(4, 8, 16, 32)[:i]) for i in (1, 2, 3, 4)})
PVT = dict(embed_dims=16, num_layers=[1] * 4, num_heads=[1] * 4)
THIN = dict(widen_factor=0.125, deepen_factor=0.33, out_indices=(0, 1, 2, 3, 4))
FURTHER = {
    'mmpretrain.BEiTViT': VIT,
    'mmpretrain.CSPDarkNet': dict(depth=53, out_indices=(0, 1, 2, 3, 4)),
    'mmpretrain.CSPResNet': dict(depth=50, **ALL),
    'mmpretrain.CSPResNeXt': dict(depth=50, **ALL),
    'mmpretrain.Conformer': dict(arch=dict(embed_dims=32, depths=3, channel_ratio=1, num_heads=2), base_channels=16,
                                 out_indices=[1, 2, 3]),
    'mmpretrain.DaViT': dict(arch=dict(embed_dims=16, depths=[1] * 4, num_heads=[1, 1, 2, 2]), pad_small_map=True,
                             **ALL),
    'mmpretrain.DeiT3': VIT,
    'mmpretrain.DenseNet': dict(arch=dict(growth_rate=8, depths=[1] * 4, init_channels=16), **ALL),
    'mmpretrain.DistilledVisionTransformer': VIT,
    'mmpretrain.EdgeNeXt': dict(arch=dict(channels=[16, 16, 32, 32], depths=[1] * 4, num_heads=[4] * 4), **ALL),
    'mmpretrain.EfficientFormer': dict(
        arch=dict(layers=[1] * 4, embed_dims=[16] * 4, downsamples=[False, True, True, True], vit_num=1), **ALL),
    'mmpretrain.EfficientNet': dict(arch='b0', out_indices=(1, 2, 3, 4, 5, 6)),
    'mmpretrain.EfficientNetV2': dict(arch='b0', out_indices=(1, 2, 3, 4)),
    'mmpretrain.HRNet': HR,
    'mmpretrain.HiViT': dict(arch=dict(embed_dims=32, depths=[1, 1, 7], num_heads=2), img_size=64),
    'mmpretrain.HorNet': dict(arch=dict(base_dim=16, depths=[1] * 4, orders=[2] * 4,
                                        dw_cfg=[dict(type='DW', kernel_size=7)] * 4),
                              gap_before_final_norm=False, **ALL),
    'mmpretrain.LeViT': dict(arch='128s', img_size=64, out_indices=(0, 1, 2)),
    'mmpretrain.MViT': dict(arch=dict(embed_dims=16, num_layers=3, num_heads=1, downscale_indices=[1, 2]), img_size=64,
                            out_scales=[0, 1, 2]),
    'mmpretrain.MixMIMTransformer': dict(arch=dict(embed_dims=16, depths=[1] * 4, num_heads=[1, 1, 2, 2]), img_size=64,
                                         window_size=[4, 4, 4, 2]),
    'mmpretrain.MobileNetV3': dict(arch='small', out_indices=(0, 1, 3, 8, 12)),
    'mmpretrain.MobileOne': dict(arch=dict(REP, num_conv_branches=[1] * 4, num_se_blocks=[0] * 4), **ALL),
    'mmpretrain.MobileViT': dict(arch='xx_small', out_indices=(0, 1, 2, 3, 4)),
    'mmpretrain.PCPVT': dict(arch=TWINS, **ALL),
    'mmpretrain.PoolFormer': POOL,
    'mmpretrain.PyramidVig': dict(arch='tiny', k=3),
    'mmpretrain.RIFormer': POOL,
    'mmpretrain.RepLKNet': dict(arch=dict(large_kernel_sizes=[5] * 4, layers=[1] * 4, channels=[16] * 4, small_kernel=3,
                                          dw_ratio=1), **ALL),
    'mmpretrain.RepMLPNet': dict(arch=dict(channels=[16] * 4, depths=[1] * 4, sharesets_nums=[1, 4, 8, 16]),
                                 img_size=64, **ALL),
    'mmpretrain.RepVGG': dict(arch=dict(REP, group_layer_map=None, se_cfg=None), **ALL),
    'mmpretrain.RevVisionTransformer': VIT,
    'mmpretrain.SEResNeXt': dict(NARROW, **ALL, groups=4),
    'mmpretrain.SVT': dict(arch=dict(TWINS, window_sizes=[7] * 4), **ALL),
    'mmpretrain.ShuffleNetV2': dict(widen_factor=0.5, out_indices=(0, 1, 2)),
    'mmpretrain.SwinTransformerV2': dict(arch=dict(SWIN, extra_norm_every_n_blocks=0), img_size=64,
                                         window_size=[4, 4, 4, 2], **ALL),
    'mmpretrain.TinyViT': dict(arch=dict(channels=[16, 16, 32, 32], num_heads=[1] * 4, depths=[1] * 4),
                               img_size=(64, 64), window_size=[4, 4, 4, 2], gap_before_final_norm=False, **ALL),
    'mmpretrain.VAN': dict(arch=dict(embed_dims=[16] * 4, depths=[1] * 4, ffn_ratios=[2] * 4), **ALL),
    'mmpretrain.VGG': dict(depth=16, num_stages=3, dilations=(1, 1, 1), out_indices=(0, 1, 2)),
    'mmpretrain.ViTEVA02': dict(VIT, patch_size=14, img_size=56, input_stride=2),
    'mmpretrain.Vig': dict(arch='tiny', k=3),
    'mmpretrain.XCiT': dict(embed_dims=32, depth=2, num_heads=2, cls_attn_layers=1),
    'mmdet.CSPDarknet': THIN,
    'mmdet.CSPNeXt': THIN,
    'mmdet.Darknet': dict(out_indices=(1, 2, 3, 4, 5)),
    'mmdet.DetectoRS_ResNet': dict(NARROW),
    'mmdet.EfficientNet': dict(arch='b0', out_indices=(2, 3, 4)),
    'mmdet.HRNet': HR,
    'mmdet.HourglassNet': dict(downsample_times=2, num_stacks=1, stage_channels=(16, ) * 3, stage_blocks=(1, 1, 1),
                               feat_channel=16),
    'mmdet.PyramidVisionTransformer': PVT,
    'mmdet.PyramidVisionTransformerV2': PVT,
    'mmdet.SSDVGG': dict(depth=16, with_last_pool=False, ceil_mode=True, out_indices=(3, 4),
                         out_feature_indices=(22, 34)),
    'mmdet.TridentResNet': dict(NARROW, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2, ),
                                num_branch=3, test_branch_idx=1, trident_dilations=(1, 2, 3)),
}
# Tensors of the stem that go: a convolution has one or two, a norm five.
GONE = {'CSPDarkNet': 6, 'CSPNeXt': 12, 'Darknet': 6, 'DetectoRS_ResNet': 6, 'EfficientFormer': 7, 'HRNet': 1,
        'LeViT': 6, 'MobileOne': 12, 'PyramidVig': 7, 'RepLKNet': 18, 'RepVGG': 12, 'SEResNeXt': 6, 'SSDVGG': 2,
        'TinyViT': 6, 'TridentResNet': 6, 'VGG': 2, 'Vig': 7, 'XCiT': 6}
FIXED = ('EfficientFormer', 'PyramidVig', 'Vig')  # of 224x224 pixels only


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock networks of fixed depth and width, made small."""
    from mmdet.models.backbones import Darknet
    from mmpretrain.models.backbones import CSPDarkNet, CSPResNet, CSPResNeXt, EfficientNetV2, PyramidVig, Vig

    for network, depth in ((CSPDarkNet, 53), (CSPResNet, 50), (CSPResNeXt, 50)):
        settings = network.arch_settings[depth]
        count = len(settings['num_blocks'])
        widths = dict(num_blocks=(1, ) * count, out_channels=(128, ) * count,
                      in_channels=(settings['in_channels'][0], ) + (128, ) * (count - 1))
        monkeypatch.setitem(network.arch_settings, depth, dict(settings, **widths))
    monkeypatch.setitem(Darknet.arch_settings, 53, ((1, ) * 5, ((32, 64), *((64, 64), ) * 4)))
    monkeypatch.setitem(EfficientNetV2.arch_settings, 'b0', [
        [1, 3, 1, 1, 32, 16, 0.0, -1], [1, 3, 2, 4, 16, 32, 0.0, 0], [1, 3, 2, 4, 32, 48, 0.25, 1],
        [1, 1, 1, 1, 48, 64, 0.0, -2]])
    monkeypatch.setitem(Vig.arch_settings, 'tiny', dict(num_blocks=1, channels=32))
    monkeypatch.setitem(PyramidVig.arch_settings, 'tiny', dict(blocks=[1] * 4, channels=[16] * 4))


def flat(levels: Any) -> list[torch.Tensor]:
    """The levels of a backbone, in one list: HRNet, DaViT and others nest them."""
    return [levels] if isinstance(levels, torch.Tensor) else [part for level in levels for part in flat(level)]


@pytest.mark.parametrize('family', FURTHER)
def test_further_backbones(family: str, shallow: None, log: list[str]) -> None:
    """Stock shapes on the same image; stock weights but for the stem; one step of training."""
    host, name = family.split('.')
    with DefaultScope.overwrite_default_scope(host):
        arguments = {key: value for key, value in FURTHER[family].items() if key != 'input_stride'}
        theirs = MODELS.build(ConfigDict(arguments, type=family))
        ours = MODELS.build(ConfigDict(FURTHER[family], type=f'{host}.Freq{name}', in_channels=24))
    side = 224 if name in FIXED else 128 if name == 'DetectoRS_ResNet' else 64
    side = 56 if 'EVA' in name else side
    cells = side // ours.input_stride
    shapes = [[level.shape for level in flat(outputs(model, torch.rand(1, channels, size, size)))]
              for model, channels, size in ((theirs, 3, side), (ours, 24, cells))]
    assert shapes[0] == shapes[1]

    given, fresh = clone(randomized(theirs)), clone(ours)
    missing, unexpected = ours.load_state_dict(given, strict=False)
    assert not unexpected
    assert all('relative_' in key for key in missing)  # what the stock class makes anew too
    line, = said(log)
    assert ours.first_weight in line
    assert len(given) - len(given.keys() & fresh.keys()) == GONE.get(name, 0)
    assert ('stem dropped (' in line) == (name in GONE)
    loaded = ours.state_dict()
    made = [key for key in loaded if key not in given or not torch.equal(loaded[key], given[key])]
    if isinstance(ours, StemlessResNetMixin):
        assert made == ['layer1.0.conv1.weight', 'layer1.0.downsample.0.weight']
    else:
        assert made[0] == ours.first_weight
        assert all(key.startswith(ours.projection) or key in missing for key in made)
        assert all(torch.equal(loaded[key], fresh[key]) for key in made)

    randomized(ours).train()  # mmdet's TridentResNet is made of memory as it is
    sum(level.square().mean() for level in flat(ours(torch.randn(2, 24, cells, cells)))).backward()
    gradients = {key: value.grad for key, value in ours.named_parameters() if value.grad is not None}
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    assert gradients[ours.first_weight].abs().max() > 0


def test_a_deployed_network_has_its_projection_too() -> None:
    arch = dict(REP, group_layer_map=None, se_cfg=None)
    config = dict(type='mmpretrain.FreqRepVGG', arch=arch, in_channels=24, out_indices=(0, 3))
    model = randomized(MODELS.build(config))
    x = torch.randn(1, 24, 32, 32)
    before = outputs(model, x)
    model.switch_to_deploy()
    deployed = MODELS.build(dict(config, deploy=True))
    deployed.load_state_dict(model.state_dict(), strict=True)
    for ours, theirs in zip(outputs(deployed, x), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('family', 'frozen'), [('mmpretrain.PoolFormer', -1), ('mmpretrain.EfficientNet', 0)])
def test_nothing_is_frozen_unless_it_is_said(family: str, frozen: int) -> None:
    """Stock PoolFormer freezes its patch embedding by default; EfficientNet counts from 0."""
    model = freq(family)
    model.train()
    assert (model.frozen_stages, model.unfrozen) == (frozen, frozen)
    assert all(parameter.requires_grad for parameter in model.parameters())


# Batch augmentations on channels


def coefficients(images: np.ndarray) -> torch.Tensor:
    """Normalised channels, float64 (N, 192, h, w), of images (N, H, W, 3) in YCbCr."""
    normalize = FreqNormalize('photos-448')
    cells = [(dct.block_dct(image.astype(np.float64)) - normalize._mean) / normalize._std for image in images]
    return torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2)


def test_mixup_of_channels_is_the_dct_of_mixed_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3)).astype(np.float64)
    results = []
    for batch in (coefficients(images), torch.from_numpy(images)):
        np.random.seed(1)
        torch.manual_seed(1)
        results.append(Mixup(0.8)(batch, torch.eye(4)))
    (cells, scores), (pixels, expected) = results
    torch.testing.assert_close(cells, coefficients(pixels.numpy()), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize('seed', range(4))
def test_cutmix_of_channels_pastes_whole_blocks_and_shares_the_labels_by_area(seed: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 56 * 8, 56 * 8, 3)).astype(np.float64)
    np.random.seed(seed)
    torch.manual_seed(seed)
    before = coefficients(images)
    after, scores = CutMix(1.0)(before.clone(), torch.eye(2))
    pasted = (after != before).any(dim=1).numpy()  # (N, 56, 56)
    mixed = np.where(pasted.repeat(8, axis=1).repeat(8, axis=2)[..., None], images[::-1], images)
    torch.testing.assert_close(after, coefficients(mixed), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(1 - scores.diagonal(), pasted.mean(axis=(1, 2)), atol=1e-6)


# Configs

CONFIGS = sorted(path for path in ROOT.glob('configs/*/*-dct24s*.py')
                 if path.parent.name in ('resnext', 'seresnet', 'res2net', 'resnest', 'regnet', 'convnext', 'swin',
                                         'swin_transformer', 'vision_transformer'))
CLASSIFIERS = [path for path in CONFIGS if path.stem.endswith('_in1k')]
DETECTORS = [path for path in CONFIGS if path.stem.endswith('_coco')]
DIFFERENCE = {'custom_imports', 'model', 'data_preprocessor', 'freq', 'load', 'train_pipeline', 'test_pipeline',
              'train_dataloader', 'val_dataloader', 'test_dataloader', 'default_hooks'}
RESIZES = {'train_crop', 'test_resize', 'resize'}  # variables


def stem(path: Path) -> str:
    return path.stem


def stock_config(path: Path) -> Config:
    """The host's config of the same name."""
    folder = 'mask_rcnn' if '_x101' in path.stem else path.parent.name
    host = 'mmpretrain' if path in CLASSIFIERS else 'mmdet'
    return get_config(f'{host}::{folder}/{path.stem.replace("-dct24s", "")}.py')


def plain(node: Any) -> Any:
    """A part of a config without the scope marks that inheriting from a host leaves."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items() if key != '_scope_'}
    return [plain(item) for item in node] if isinstance(node, (list, tuple)) else node


def noise_file(folder: Path, shape: tuple[int, int]) -> str:
    path = folder / 'noise.png'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    return str(path)


def test_every_family_has_a_config() -> None:
    folders = [path.parent.name for path in CLASSIFIERS]
    assert sorted(set(folders)) == ['convnext', 'regnet', 'res2net', 'resnest', 'resnext', 'seresnet',
                                    'swin_transformer', 'vision_transformer']
    assert [path.parent.name for path in DETECTORS] == ['convnext', 'resnext', 'swin']
    for path in CONFIGS:
        assert len(path.read_text().splitlines()) <= 25
        assert (path.parent / 'README.md').is_file()


@pytest.mark.parametrize('path', CLASSIFIERS, ids=stem)
def test_classification_configs_differ_from_the_stock_ones_by_the_input(path: Path) -> None:
    ours, theirs = (plain(cfg._cfg_dict) for cfg in (Config.fromfile(str(path)), stock_config(path)))
    assert {key for key in ours if ours[key] != theirs.get(key)} - RESIZES == DIFFERENCE
    theirs['model']['backbone'].update(type='Freq' + theirs['model']['backbone']['type'], in_channels=24)
    assert ours['model'] == theirs['model']
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        steps, expected = (cfg[name]['dataset'].pop('pipeline') for cfg in (ours, theirs))
        assert ours[name] == theirs[name]
        assert steps[0] == dict(type='LoadImageFromFile')
        assert steps[-2] == dict(type='FusedBlockDCT', channels='24S', stats='photos-448')
        for step in expected:
            sizes = {key: 2 * step[key] for key in ('scale', 'crop_size') if key in step}
            step.update(sizes, **(dict(crop_padding=64) if step['type'].startswith('EfficientNet') else {}))
        assert [stock_resize(step) for step in steps[1:-2] + steps[-1:]] == expected[1:]


@pytest.mark.parametrize('path', CLASSIFIERS, ids=stem)
def test_classification_configs_give_the_model_its_input(path: Path, tmp_path: Path) -> None:
    cfg, file = Config.fromfile(str(path)), noise_file(tmp_path, (375, 500))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for name in ('train_dataloader', 'test_dataloader'):
            pipeline, = pipelines(cfg, name)
            packed = Compose(pipeline)(dict(img_path=file, gt_label=0))
            side = 64 if 'resnest' in path.stem and 'test' in name else 56
            assert packed['inputs'].shape == (24, side, side)
            assert packed['inputs'].dtype == torch.float32


@pytest.mark.parametrize('path', CLASSIFIERS, ids=stem)
def test_classification_configs_train(path: Path) -> None:
    """Through the preprocessor with its batch augmentations, forward and backward."""
    cfg = Config.fromfile(str(path))
    side = 56 if 'swin' in path.stem else 16
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
        data = dict(inputs=[torch.randn(24, side, side) for _ in range(2)],
                    data_samples=[DataSample().set_gt_label(label) for label in (3, 7)])
        model.train()
        losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    losses['loss'].backward()
    assert abs(losses['loss'].item() - np.log(1000)) < 3
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert model.backbone.get_parameter(model.backbone.first_weight).grad.abs().max() > 0


@pytest.mark.parametrize('path', DETECTORS, ids=stem)
def test_detection_configs_differ_from_the_stock_ones_by_the_input(path: Path) -> None:
    cfg = Config.fromfile(str(path))
    check_channels(cfg)
    ours, theirs = (plain(config._cfg_dict) for config in (cfg, stock_config(path)))
    assert {key for key in ours if ours[key] != theirs.get(key)} <= DIFFERENCE | RESIZES | {'custom_hooks'}
    for part in ('neck', 'rpn_head', 'roi_head', 'train_cfg', 'test_cfg'):
        assert ours['model'][part] == theirs['model'][part], part
    backbone, expected = ours['model']['backbone'], theirs['model']['backbone']
    assert {key for key in backbone if backbone[key] != expected.get(key)} <= {'type', 'in_channels', 'init_cfg',
                                                                             'convert_weights'}
    source = ROOT / 'configs' / path.parent.name.replace('swin', 'swin_transformer')
    assert (source / f'{Path(backbone["init_cfg"]["checkpoint"]).parent.name}.py').is_file()
    for name in ('train_dataloader', 'test_dataloader'):
        steps, expected = ([transform_type(stock_resize(step)) for step in config[name]['dataset']['pipeline']]
                           for config in (ours, theirs))
        assert steps == ['LoadImageFromFile', *expected[1:-1], 'FusedBlockDCT', expected[-1]]


@pytest.mark.parametrize('path', DETECTORS, ids=stem)
def test_detection_configs_train(path: Path) -> None:
    cfg = Config.fromfile(str(path))
    cfg.model.backbone.init_cfg = None
    cfg.model.train_cfg.rpn_proposal.max_per_img = cfg.model.train_cfg.rcnn.sampler.num = 32
    results = dict(
        img=np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8), img_id=0, img_path='noise',
        img_shape=(90, 130), ori_shape=(90, 130), gt_bboxes=HorizontalBoxes([[10., 12., 70., 80.]]),
        gt_bboxes_labels=np.array([2]), gt_ignore_flags=np.array([False]),
        gt_masks=BitmapMasks(np.ones((1, 90, 130), np.uint8), 90, 130))
    with DefaultScope.overwrite_default_scope('mmdet'):
        packed = Compose(cfg.train_pipeline[-2:])(results)
        assert packed['inputs'].shape == (24, 23, 33)
        model = MODELS.build(cfg.model)
        model.train()
        data = model.data_preprocessor(dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']]), True)
        losses = model(**data, mode='loss')
    total = sum(torch.stack(v).sum() if isinstance(v, list) else v for k, v in losses.items() if 'loss' in k)
    assert torch.isfinite(total)
    total.backward()
    parameters = dict(model.backbone.named_parameters())
    frozen = {name for name, parameter in parameters.items() if parameter.grad is None}
    assert frozen == ({name for name in parameters if name.startswith('layer1.')} if 'x101' in path.stem else set())


def test_the_gate_of_a_convnext_detector_learns_at_the_full_rate() -> None:
    """The stock recipe lowers the rate from layer to layer, by names that start with ``backbone``."""
    cfg = Config.fromfile(str(next(path for path in DETECTORS if 'convnext' in path.stem)))
    model = nn.Module()
    model.backbone = MODELS.build(dict(cfg.model.backbone, gate=dict(), init_cfg=None))
    cfg.optim_wrapper.type = 'OptimWrapper'  # mixed precision needs a GPU
    with DefaultScope.overwrite_default_scope('mmdet'):
        groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    rates = {id(parameter): group['lr'] for group in groups for parameter in group['params']}
    assert len(rates) == len(list(model.parameters()))
    assert {rates[id(parameter)] for parameter in model.backbone.gate.parameters()} == {0.0001}
    assert rates[id(model.backbone.downsample_layers[0][0].weight)] == pytest.approx(0.0001 * 0.95**7)


# docs/new_backbone.md


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the document shows, current and on the Python path."""
    text = (ROOT / 'docs' / 'new_backbone.md').read_text()
    for block in re.findall(r'```python\n(.*?)```', text, re.DOTALL):
        (tmp_path / block.split('\n')[0].removeprefix('# ')).write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_document_adds_backbones_in_ten_lines(documented: Path, log: list[str],
                                                  capsys: pytest.CaptureFixture) -> None:
    files = {path.name: path.read_text().splitlines()[1:] for path in documented.iterdir()}
    assert sorted(files) == ['check.py', 'mlp-mixer-base-p16-dct24s_64xb64_in1k.py', 'my_mlp_mixer.py',
                             'my_shufflenet.py']
    assert all(len([line for line in files[name] if line]) <= 10 for name in ('my_shufflenet.py', 'my_mlp_mixer.py'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        runpy.run_path('check.py')
        cfg = Config.fromfile('mlp-mixer-base-p16-dct24s_64xb64_in1k.py')
        check_channels(cfg)
        packed = Compose(pipelines(cfg, 'train_dataloader')[0])(
            dict(img_path=noise_file(documented, (100, 100)), gt_label=0))
        # For time:
        cfg.model.backbone.arch = dict(embed_dims=32, num_layers=2, tokens_mlp_dims=16, channels_mlp_dims=64)
        cfg.model.head.in_channels = 32
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
        data = dict(inputs=[packed['inputs']] * 2, data_samples=[packed['data_samples']] * 2)
        data = model.data_preprocessor(data, True)
        model.train()
        model(**data, mode='loss')['loss'].backward()
        plain_backbone = {key: value for key, value in cfg.model.backbone.items() if key != 'in_channels'}
        given = MODELS.build(dict(plain_backbone, type='MlpMixer')).state_dict()
        model.backbone.load_state_dict(given, strict=True)
        import my_shufflenet
        shufflenet = my_shufflenet.FreqShuffleNetV1(in_channels=24, gate=dict())
        levels = shufflenet(torch.rand(2, 24, 16, 16))
    assert '(1, 768, 196)' in capsys.readouterr().out.splitlines()
    assert packed['inputs'].shape == (24, 56, 56)
    assert model.backbone.patch_embed.projection.weight.grad.abs().max() > 0
    assert said(log) == ['FreqMlpMixer: stock RGB weights loaded into 24 DCT channels, to be trained before use; '
                         'patch_embed.projection.weight newly made, (32, 24, 4, 4) instead of (32, 3, 16, 16)']
    assert levels[0].shape == (2, 960, 2, 2)


def test_the_document_lists_all_backbones() -> None:
    text = (ROOT / 'docs' / 'new_backbone.md').read_text()
    table, missing = text.partition('## Supported backbones')[2].split('## Unsupported backbones')
    columns = [set(), set()]
    for row in re.findall(r'^\| `.*', table, re.MULTILINE):
        for column, cell in zip(columns, row.split('|')[2:4]):
            column.update(re.sub(r' \(\w+\)', '', cell).strip().split(', '))
    for column, host in zip(columns, ('mmpretrain', 'mmdet')):
        names = {name for name in MODELS.children[host].module_dict if name.startswith('Freq')}
        assert {f'Freq{name}' for name in column} == {name for name in names if 'Preprocessor' not in name} - {
            'FreqMlpMixer', 'FreqShuffleNetV1'}  # the document's own
        assert not column & set(re.findall(r'(\w+)[,\s]', missing))
