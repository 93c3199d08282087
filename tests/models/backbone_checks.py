"""Small backbones of both hosts, and what the tests of backbones share."""
from pathlib import Path
from typing import Any, Union

import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from numpy.testing import assert_array_equal
from torch import nn

import mmfreq.models.cls
import mmfreq.models.det  # noqa: F401  (both register the backbones)
from mmfreq.models.stem import ProjectionMixin

StateDict = dict[str, torch.Tensor]

# Arguments of stock backbones, mostly with all levels. First those in which a residual block takes the channels.
NARROW = dict(depth=50, base_channels=16, stem_channels=16)
REGNET = dict(arch=dict(w0=32, wa=40, wm=2.0, group_w=16, depth=5, bot_mul=1.0))
ALL = dict(out_indices=[0, 1, 2, 3])
STEMLESS = {
    'mmpretrain.ResNet': dict(NARROW, **ALL),
    'mmpretrain.ResNeXt': dict(NARROW, **ALL, groups=4),
    'mmpretrain.SEResNet': dict(NARROW, **ALL),
    'mmpretrain.Res2Net': dict(NARROW, **ALL, base_width=6),
    'mmpretrain.ResNeSt': dict(NARROW, **ALL),
    'mmpretrain.RegNet': dict(REGNET, **ALL),
    'mmdet.ResNet': dict(NARROW),
    'mmdet.ResNeXt': dict(NARROW, groups=4),
    'mmdet.Res2Net': dict(NARROW, base_width=6),
    'mmdet.ResNeSt': dict(NARROW),
    'mmdet.RegNet': REGNET,
    'mmpretrain.MobileNetV2': dict(widen_factor=0.5, out_indices=(0, 2, 6, 7)),
    'mmdet.MobileNetV2': dict(widen_factor=0.5, out_indices=(0, 2, 6, 7)),
}
SWIN = dict(embed_dims=24, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8])
PATCHES = {
    'mmpretrain.ConvNeXt': dict(arch=dict(depths=[1, 1, 2, 1], channels=[16, 32, 48, 64]), **ALL,
                                gap_before_final_norm=False, layer_scale_init_value=0.5),
    'mmpretrain.SwinTransformer': dict(arch=SWIN, img_size=64, use_abs_pos_embed=True, pad_small_map=True, **ALL),
    'mmpretrain.VisionTransformer': dict(
        arch=dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64), img_size=64, out_type='featmap',
        out_indices=[0, 2]),
    'mmdet.SwinTransformer': SWIN,
}
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
BACKBONES = STEMLESS | PATCHES | FURTHER


def build(name: str, prefix: str = '', **changes: Any) -> nn.Module:
    """A stock backbone, or the frequency-domain version whose name has the ``prefix``."""
    host, _, kind = name.partition('.')
    arguments = dict(BACKBONES[name], type=f'{host}.{prefix}{kind}')
    if prefix != 'Freq':
        arguments.pop('input_stride', None)
    arguments.update(changes)
    with DefaultScope.overwrite_default_scope(host):
        return MODELS.build(ConfigDict(arguments))


def freq(name: str, channels: int = 24, **changes: Any) -> nn.Module:
    return build(name, 'Freq', in_channels=channels, **changes)


def side_of(name: str) -> int:
    """Pixels of a square image that a stock backbone takes."""
    sides = dict(EfficientFormer=224, PyramidVig=224, Vig=224, DetectoRS_ResNet=128, ViTEVA02=56)
    return sides.get(name.partition('.')[2], 64)


def said(log: list[str]) -> list[str]:
    """What the backbones themselves logged."""
    return [line for line in log if line.startswith(('Freq', 'Unpacked'))]


def randomized(model: nn.Module) -> nn.Module:
    """Make every weight and buffer random, norms and position embeddings too; variances positive."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and 'relative_coords' not in name:  # SwinV2 makes these anew
            noise = torch.randn(value.shape) * (0.1 if value.ndim < 2 else value[0].numel()**-0.5)
            value.copy_(noise + (value.ndim == 1 and not name.endswith('mean')))
            value.copy_(value.abs() if 'running_var' in name else value)
    return model


def clone(source: Union[nn.Module, StateDict]) -> StateDict:
    """A copy of the weights."""
    state = source.state_dict() if isinstance(source, nn.Module) else source
    return {key: value.clone() for key, value in state.items()}


def outputs(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The levels of a backbone, in one list: HRNet, DaViT and others nest them."""
    model.eval()  # some return None
    with torch.no_grad():
        return flat(model(x))


def flat(levels: Any) -> list[torch.Tensor]:
    return [levels] if isinstance(levels, torch.Tensor) else [part for level in levels for part in flat(level)]


def assert_same(actual: StateDict, expected: StateDict) -> None:
    """Compare weights exactly."""
    assert set(actual) == set(expected)
    for key, value in expected.items():
        assert_array_equal(actual[key].numpy(), value.numpy(), err_msg=key)


def expected_weights(model: nn.Module, stock: StateDict, fresh: StateDict) -> StateDict:
    """The documented result of loading stock weights into a model whose weights were ``fresh``."""
    expected = clone(fresh)
    for key, value in stock.items():
        if key in fresh and not (isinstance(model, ProjectionMixin) and key == model.first_weight):
            shared = tuple(slice(min(sides)) for sides in zip(value.shape, fresh[key].shape))
            expected[key][shared] = value[shared].to(fresh[key].dtype)
    return expected


def load(how: str, model: nn.Module, state: StateDict, folder: Path) -> tuple[StateDict, StateDict]:
    """Load backbone weights as ``load_from``, ``init_cfg`` or torch does; return before and after."""
    file = str(folder / 'weights.pth')
    torch.save(dict(state_dict={f'backbone.{key}': value for key, value in state.items()}), file)
    fresh = clone(model)
    if how == 'init_cfg':
        model.init_cfg = ConfigDict(type='Pretrained', checkpoint=file, prefix='backbone.')
        model.init_weights()
    elif how == 'load_from':
        whole = nn.Module()
        whole.backbone = model
        load_checkpoint(whole, file, map_location='cpu', logger=MMLogger.get_current_instance())
    else:
        model.load_state_dict(state, strict=True)
    return fresh, clone(model)
