"""Folded or unpacked, a network is the stock one on the image that its channels stand for."""
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from backbone_checks import BACKBONES, assert_same, build, clone, flat, load, outputs, randomized, said, side_of
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
    return dict(dict(channels=channels, stats=stats, block_size=size), **options)


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
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco': dict(
        backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512]), test_cfg=dict(rpn=dict(max_per_img=20))),
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


def test_a_folded_network_pads_as_the_stock_one() -> None:
    freq, pixels = transform('48N'), dict(PIXELS, pad_size_divisor=32)
    theirs, ours = randomized(build('mmdet.SwinTransformer')), build(
        'mmdet.SwinTransformer', 'Freq', in_channels=48, freq=freq, pixels=pixels)
    ours.load_state_dict(theirs.state_dict(), strict=False)
    x = channels_of(photo(40, 72), freq)
    padded = [nn.functional.pad(inputs, (0, sides[1], 0, sides[0])) for inputs, sides in (
        (x, (6, 6)), (normalised(rebuilt(x, freq))[0], (24, 24)))]
    assert_near(*[outputs(model, inputs[None]) for model, inputs in zip((ours, theirs), padded)])


# Blocks of 8x8 pixels


def pixels_of(x: torch.Tensor, block: BlockPixels) -> torch.Tensor:
    """BGR levels (3, H, W) of channels (C, h, w), where ``block`` knows no preprocessor."""
    pixels = torch.einsum('puvc,chw->phuwv', block.weight, x.double()) + block.bias[:, None, :, None]
    return pixels.flatten(3).flatten(1, 2)


@pytest.mark.parametrize(('channels', 'by_average', 'least_squares'), [('192', 3.5, .3), ('24S', 4., 2.5)])
def test_blocks_of_an_upscaled_image(channels: str, by_average: float, least_squares: float) -> None:
    """If the DCT upscales, the map undoes the upscaling too; errors in levels."""
    freq, image = dict(channels=channels, stats='photos-448', upscale=2), photo(64, 96)
    image[:] = image.mean(axis=2, keepdims=True)  # 24S lacks fine chroma
    x, stock = channels_of(image, freq), torch.from_numpy(image.transpose(2, 0, 1).astype(np.float64))
    blocks = [BlockPixels(dict(freq, upscale=upscale), {}, 4) for upscale in (1, 2)]
    errors = [float((pixels_of(x, block) - stock).square().mean().sqrt()) for block in blocks]
    assert errors[0] > by_average
    assert errors[1] < least_squares
    gray = channels_of(np.full((16, 16, 3), 90, np.uint8), freq)
    for block in blocks:
        torch.testing.assert_close(pixels_of(gray, block), torch.full((3, 16, 16), 90.).double(), rtol=0, atol=.6)


# Loading


@pytest.mark.parametrize('how', ['load_from', 'init_cfg', 'load_state_dict'])
@pytest.mark.parametrize(('name', 'prefix'), [('mmpretrain.ConvNeXt', 'Freq'), ('mmdet.ResNet', 'Unpacked')])
def test_every_way_of_loading(name: str, prefix: str, how: str, log: list[str], tmp_path: Path) -> None:
    options = dict(freq=transform('24N'), pixels=PIXELS, gate=dict(), **(
        dict(in_channels=24) if prefix == 'Freq' else {}))
    given, model = clone(randomized(build(name))), build(name, prefix, **options)
    given.update((key, value) for key, value in model.state_dict().items() if key.startswith('gate.'))
    _, loaded = load(how, model, given, tmp_path)
    assert {key for key in given if not torch.equal(given[key], loaded[key])} == (
        {'downsample_layers.0.0.weight', 'downsample_layers.0.0.bias'} if prefix == 'Freq' else set())
    assert [line.partition('; ')[2] for line in said(log)] == (
        ['downsample_layers.0.0 folded from (16, 3, 4, 4)'] if prefix == 'Freq' else [])
    assert_same(load(how, build(name, prefix, **options), loaded, tmp_path)[1], loaded)


def test_the_layer_to_pixels_can_be_trained(tmp_path: Path) -> None:
    name, options = 'mmpretrain.ResNet', dict(freq=transform('24N'), pixels=PIXELS)
    fixed, model = (build(name, 'Unpacked', train_unpack=train, **options) for train in (False, True))
    assert set(clone(model)) - set(clone(fixed)) == {'unpack_weight', 'unpack_bias'}
    for each in (fixed, model):
        each.load_state_dict(randomized(build(name)).state_dict(), strict=True)
    model(torch.randn(2, 24, 16, 16))[-1].square().sum().backward()
    assert model.unpack_weight.grad.abs().sum() > 0
    trained = randomized(model).state_dict()
    model = build(name, 'Unpacked', train_unpack=True, **options)
    assert_same(load('load_from', model, trained, tmp_path)[1], trained)


def test_a_checkpoint_of_other_pixels_is_refused() -> None:
    model = build('mmpretrain.ResNet', 'Unpacked', freq=transform('24N'), pixels=PIXELS)
    rgb = InputSpec(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), colors='rgb')
    for spec, words in ((rgb, None), (replace(rgb, colors='bgr'), 'colors'), (replace(rgb, mean=(0., 0., 0.)), 'mean'),
                        (InputSpec.of(transform('12N')), 'channels')):
        given = dict(state_dict=model.state_dict(), meta=dict(input_spec=spec.to_dict()))
        with pytest.raises(RefusedError, match=words) if words else nullcontext():
            check_checkpoint(given, InputSpec.of(transform('24N')), model)
        if words != 'channels':  # a training may start from other channels
            model.input_spec, model.source_specs = InputSpec.of(transform('24N')), (spec, )
            with pytest.raises(RefusedError, match=words) if words else nullcontext():
                model.load_state_dict(given['state_dict'])


@pytest.mark.parametrize(('options', 'words'), [
    ({'freq.channels': '12N'}, 'channels: freq of UnpackedResNet has 12N'), ({'freq.stats': 'photos-4'}, 'stats'),
    ({'input_stride': 2}, 'input_stride=2, but the stride of FreqDetDataPreprocessor is 4')])
def test_configs_whose_pipeline_has_other_channels_are_refused(options: dict, words: str) -> None:
    cfg = Config.fromfile('configs/mask_rcnn/mask-rcnn_r50-dct24n_fpn_1x_coco.py')
    cfg.model.backbone.freq = dict(cfg.model.backbone.freq)
    cfg.merge_from_dict({f'model.backbone.{key}': value for key, value in options.items()})
    with pytest.raises(ValueError, match=words):
        check_channels(cfg)


@pytest.mark.parametrize(('options', 'words'), [
    (dict(in_channels=1), 'in_channels=3, got 1'), (dict(pixels=None), 'both of freq and pixels'),
    (dict(input_stride=8), 'to cover 8x8 pixels'),
    (dict(freq=transform('24N', stats='photos-448')), '48 channels')])
def test_bad_arguments(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build('mmpretrain.ResNet', 'Unpacked', **dict(dict(freq=transform('24N'), pixels=PIXELS), **options))
