"""Folded or unpacked, a network is the stock one on the image that its channels stand for."""
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from backbone_checks import BACKBONES, assert_same, build, clone, flat, load, outputs, randomized, side_of
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmfreq.config.checks import check_channels
from mmfreq.dct import blocks as dct
from mmfreq.dct.channels import channel_indices
from mmfreq.engine.checkpoints import check_checkpoint
from mmfreq.errors import RefusedError
from mmfreq.input_spec import InputSpec
from mmfreq.models.pixels import BlockPixels
from mmfreq.models.stem import PatchMixin
from mmfreq.transforms import FusedBlockDCT

from mmdet.structures import DetDataSample  # isort: skip

PIXELS = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
PATCHES = [name for name in BACKBONES if issubclass(MODELS.get(name.replace('.', '.Freq')), PatchMixin)]
OVERLAP = [f'mmpretrain.{name}' for name in ('DaViT', 'MViT', 'PoolFormer', 'RIFormer', 'VAN')] + [
    'mmdet.PyramidVisionTransformerV2']


def transform(channels: Any, size: int = 4, **options: Any) -> dict[str, Any]:
    """A FusedBlockDCT's config with statistics that differ from channel to channel."""
    rng = np.random.default_rng(1)
    stats = dict(mean=rng.normal(0, 9, 3 * size**2).tolist(), std=rng.uniform(2, 40, 3 * size**2).tolist())
    return dict(channels=channels, stats=stats, block_size=size, **options)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 BGR with details of all sizes, as photographs have."""
    rng = np.random.default_rng(seed)
    image = sum(cv2.GaussianBlur(rng.normal(0, 40 * sigma, (height, width, 3)), (0, 0), sigma) for sigma in (.4, 1, 4))
    return np.clip(image + 110, 0, 255).astype(np.uint8)


def channels_of(image: np.ndarray, freq: dict[str, Any]) -> torch.Tensor:
    return torch.from_numpy(FusedBlockDCT(**freq)(dict(img=image))['img'].transpose(2, 0, 1).copy())


def rebuilt(channels: torch.Tensor, freq: dict[str, Any]) -> torch.Tensor:
    """The BGR image (3, H, W) that channels of native blocks stand for, neither rounded nor clipped."""
    size, mean, std = freq['block_size'], *map(np.array, freq['stats'].values())
    cube = np.tile(mean, (*channels.shape[1:], 1))
    chosen = channel_indices(freq['channels'], size)
    cube[..., chosen] += channels.numpy().transpose(1, 2, 0) * std[chosen]
    matrix = dct.color_matrix('bgr')
    bgr = (dct.block_idct(cube, size) - matrix[:, 3]) @ np.linalg.inv(matrix[:, :3]).T
    return torch.from_numpy(bgr.transpose(2, 0, 1))


def normalised(bgr: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(PIXELS[key]).view(3, 1, 1) for key in ('mean', 'std'))
    return ((bgr.flip(0) - mean) / std)[None].float()


def assert_near(ours: Any, theirs: Any) -> None:
    """Up to 1e-4 of the range."""
    for a, b in zip(flat(ours), flat(theirs), strict=True):
        assert b.std() > 0
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * float(b.max() - b.min()))


@pytest.mark.parametrize('channels', ['48N', '24N', [3, 0, 40]])
def test_native_blocks_become_the_pixels_that_they_stand_for(channels: Any) -> None:
    freq, image = transform(channels), photo(24, 32)
    x, block = channels_of(image, freq), BlockPixels(freq, PIXELS, 4)
    pixels = torch.einsum('puvc,chw->phuwv', block.weight, x.double()) + block.bias[:, None, :, None]
    expected = normalised(rebuilt(x, freq))[0]
    torch.testing.assert_close(pixels.reshape(3, 24, 32).float(), expected, rtol=0, atol=2e-5)
    if channels == '48N':
        stock = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float64))
        torch.testing.assert_close(expected, normalised(stock)[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize('name', PATCHES)
def test_a_folded_network_is_the_stock_one(name: str, shallow: None) -> None:
    size = 2 if 'EVA' in name else 4
    options = dict(freq=transform(list(range(3 * size**2)), size), pixels=PIXELS, in_channels=3 * size**2)
    if name in OVERLAP:
        with pytest.raises(ValueError, match='overlap .* Unpacked'):
            build(name, 'Freq', **options)
        return
    theirs, ours = randomized(build(name)), build(name, 'Freq', **options)
    missing, unexpected = ours.load_state_dict(clone(theirs), strict=False)
    assert not [key for key in (*missing, *unexpected) if 'relative_' not in key]
    image = photo(side_of(name), side_of(name))
    stock = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float64))
    assert_near(outputs(ours, channels_of(image, options['freq'])[None]), outputs(theirs, normalised(stock)))


@pytest.mark.parametrize('channels', ['48N', '12N'])
@pytest.mark.parametrize('name', ['mmpretrain.ResNet', 'mmpretrain.EfficientNet', 'mmpretrain.MobileNetV3',
                                  'mmpretrain.HRNet', 'mmpretrain.SwinTransformer', 'mmdet.CSPDarknet', *OVERLAP])
def test_an_unpacked_network_is_the_stock_one(name: str, channels: str) -> None:
    options = dict(freq=transform(channels), pixels=PIXELS)
    theirs, ours = randomized(build(name)), build(name, 'Unpacked', **options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert_same(clone(ours), clone(theirs))
    x = channels_of(photo(64, 64), options['freq'])
    assert_near(outputs(ours, x[None]), outputs(theirs, normalised(rebuilt(x, options['freq']))))


SMALL = {  # changes of stock configs
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco': dict(backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512])),
    'retinanet/retinanet_r50_fpn_1x_coco': dict(backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512])),
    'rtmdet/rtmdet_tiny_8xb32-300e_coco': dict(
        backbone=dict(norm_cfg=dict(type='BN')), neck=dict(norm_cfg=dict(type='BN')),
        bbox_head=dict(norm_cfg=dict(type='BN'))),
    'yolox/yolox_tiny_8xb8-300e_coco': {},
}


@pytest.mark.parametrize('name', SMALL)
def test_an_unpacked_detector_is_the_stock_one(name: str) -> None:
    """Images of two sizes in one batch: the padding is the stock one too."""
    cfg, freq = get_config(f'mmdet::{name}.py'), transform('24N')
    cfg.merge_from_dict(dict(model=SMALL[name]))
    cfg.model.backbone.init_cfg = None
    cfg.model.data_preprocessor.pop('batch_augments', None)
    with DefaultScope.overwrite_default_scope('mmdet'):
        theirs = randomized(MODELS.build(cfg.model)).eval()
        cfg.model.backbone.update(type=f'Unpacked{cfg.model.backbone.type}', freq=freq,
                                  pixels=cfg.model.data_preprocessor)
        cfg.model.data_preprocessor = dict(type='FreqDetDataPreprocessor')
        ours = MODELS.build(cfg.model).eval()
        check_checkpoint(dict(state_dict=theirs.state_dict()), InputSpec.of(freq), ours)
        x = [channels_of(photo(*shape, seed=i), freq) for i, shape in enumerate([(96, 128), (128, 64)])]
        results = []
        for model, inputs in ((ours, x), (theirs, [rebuilt(channels, freq).float() for channels in x])):
            samples = [DetDataSample(metainfo=dict(img_shape=(4 * item.shape[1], 4 * item.shape[2]),
                                                   scale_factor=(1., 1.))) for item in x]
            data = model.data_preprocessor(dict(inputs=inputs, data_samples=samples))
            with torch.no_grad():
                results.append(model(**data, mode='tensor'))
    assert_near(*results)
