"""LazyResize against the stock transforms: same random numbers and labels, same channels up to rounding."""
import pickle
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import cv2
import mmdet.datasets  # noqa: F401
import mmpretrain.datasets  # noqa: F401
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope

from mmfreq.config.checks import check_config
from mmfreq.dct.lazy_image import LAZY_RESIZES, LazyImage

RNG = np.random.default_rng(0)
IMAGE = cv2.resize(RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8), (200, 150), interpolation=cv2.INTER_CUBIC)
FUSED = dict(type='FusedBlockDCT', channels='24S', stats=dict(mean=[0.] * 192, std=[1.] * 192))
FLIP = dict(type='RandomFlip', prob=0.5, direction='horizontal')
CASES = {
    'random crop': ('mmpretrain', [dict(type='RandomResizedCrop', scale=112), FLIP]),
    'random crop of two sides': ('mmpretrain', [dict(type='RandomResizedCrop', scale=(64, 112)), FLIP]),
    'random crop, pillow': ('mmpretrain', [dict(type='RandomResizedCrop', scale=48, backend='pillow'), FLIP]),
    'efficientnet': ('mmpretrain', [dict(type='EfficientNetRandomCrop', scale=96, interpolation='bilinear'), FLIP]),
    'short edge': ('mmpretrain', [dict(type='ResizeEdge', scale=128), dict(type='CenterCrop', crop_size=112)]),
    'long edge': ('mmpretrain', [dict(type='ResizeEdge', scale=90, edge='long', backend='pillow')]),
    'mmpretrain': ('mmpretrain', [dict(type='Resize', scale=(90, 70)), FLIP]),
    'mmdet': ('mmdet', [dict(type='Resize', scale=(333, 200), keep_ratio=True), dict(FLIP, direction='vertical')]),
    'mmdet, scale factor': ('mmdet', [dict(type='Resize', scale_factor=0.5, keep_ratio=True), FLIP]),
}


def lazy(step: dict) -> dict:
    return dict(step, type='LazyResize', resize=step['type']) if step['type'] in LAZY_RESIZES else step


def transformed(scope: str, steps: list[dict], seed: int, image: np.ndarray = IMAGE) -> dict[str, Any]:
    results = dict(img=image.copy(), img_shape=image.shape[:2], ori_shape=image.shape[:2])
    if scope == 'mmdet':
        results['gt_bboxes'] = HorizontalBoxes(torch.tensor([[10., 20., 60., 140.]]))
    with DefaultScope.overwrite_default_scope(scope):
        pipeline = pickle.loads(pickle.dumps(Compose(deepcopy(steps))))  # as a spawned worker gets it
        np.random.seed(seed)
        return pipeline(results)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('case', CASES)
def test_all_but_the_rounding_is_the_stock_transforms(case: str, seed: int) -> None:
    scope, steps = CASES[case]
    waiting = [lazy(step) for step in steps]
    stock, found = transformed(scope, steps, seed), transformed(scope, waiting, seed)
    assert isinstance(found['img'], LazyImage)
    np.testing.assert_array_equal(np.asarray(found['img']), stock['img'])
    stock, found = transformed(scope, [*steps, FUSED], seed), transformed(scope, [*waiting, FUSED], seed)
    error = found.pop('img') - stock.pop('img')
    assert np.sqrt(np.mean(error**2)) < 0.5  # whole levels: 0.29; OpenCV's arithmetic of 11 bits a little more
    assert set(found) == set(stock)
    for key, value in stock.items():
        assert repr(found[key]) == repr(value), key


@pytest.mark.parametrize('shape', [(1, 1), (1, 2), (2, 2), (1, 40), (40, 1), (3, 50), (300, 9)], ids=str)
@pytest.mark.parametrize('scale', [4, 224])
def test_crops_of_a_fraction_of_a_pixel(scale: int, shape: tuple) -> None:
    """EfficientNet's crop of last resort may be one: what stock resizes is resized, the rest refused."""
    image = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    step = dict(type='EfficientNetRandomCrop', scale=scale, interpolation='bilinear', max_attempts=0)
    try:
        expected = transformed('mmpretrain', [step], 0, image)['img']
    except cv2.error:
        with pytest.raises(ValueError, match=r'LazyResize: crop: expected rows and columns of \d+x\d+ pixels'):
            transformed('mmpretrain', [lazy(step)], 0, image)
    else:
        found = transformed('mmpretrain', [lazy(step)], 0, image)['img']
        np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize(('step', 'image'), [
    (dict(type='RandomResizedCrop', scale=64, interpolation='bicubic', backend='pillow'), IMAGE),
    (dict(type='ResizeEdge', scale=64, interpolation='area'), IMAGE),
    (dict(type='Resize', scale=(64, 64)), IMAGE.astype(np.float32)),
    (dict(type='RandomResizedCrop', scale=64), np.ascontiguousarray(IMAGE[:, :, 0])),
    (dict(type='Resize', scale=(64, 64)), np.dstack([IMAGE, IMAGE[:, :, :1]])),
], ids=['bicubic', 'area', 'float', 'grey', 'four colours'])
def test_what_cannot_wait_is_resized_at_once(step: dict, image: np.ndarray) -> None:
    found, stock = transformed('mmpretrain', [lazy(step)], 1, image), transformed('mmpretrain', [step], 1, image)
    assert type(found['img']) is np.ndarray
    np.testing.assert_array_equal(found['img'], stock['img'])


def test_single_transforms_take_a_lazy_image() -> None:
    steps = [lazy(dict(type='ResizeEdge', scale=96)), dict(type='YCbCr'), dict(type='BlockDCT')]
    stock = [dict(type='ResizeEdge', scale=96), *steps[1:]]
    found, expected = (transformed('mmpretrain', each, 0)['img'] for each in (steps, stock))
    np.testing.assert_array_equal(found, expected)


def test_other_transforms_are_refused() -> None:
    with DefaultScope.overwrite_default_scope('mmpretrain'), \
            pytest.raises(ValueError, match=r"expected resize to be one of RandomResizedCrop, .* got 'CenterCrop'"):
        TRANSFORMS.build(dict(type='LazyResize', resize='CenterCrop', crop_size=8))


@pytest.mark.parametrize(('between', 'refused'), [
    (dict(type='ColorJitter', brightness=0.4), 'ColorJitter needs pixels'),
    (dict(type='CenterCrop', crop_size=448, auto_pad=True), 'CenterCrop needs pixels'),
    (dict(type='RandomApply', prob=0.5, transforms=[dict(type='Lighting', eigval=[0], eigvec=[0])]), 'Lighting needs'),
    (dict(type='CenterCrop', crop_size=400), ''),
])
def test_configs_whose_steps_need_the_pixels_are_refused(between: dict, refused: str) -> None:
    cfg = Config.fromfile('configs/resnet/resnet50-dct24s_8xb32_in1k.py')
    cfg.train_dataloader.dataset.pipeline.insert(2, between)
    expected = f"train_dataloader: {refused}.* write type='RandomResizedCrop' instead"
    with pytest.raises(ValueError, match=expected) if refused else nullcontext():
        check_config(cfg)


@pytest.mark.parametrize('order', [1, -1])
def test_alternatives_of_which_one_waits_are_refused(order: int) -> None:
    cfg = Config.fromfile('configs/resnet/resnet50-dct24s_8xb32_in1k.py')
    steps = cfg.train_dataloader.dataset.pipeline
    crops = [[steps[1]], [dict(type='RandomResizedCrop', scale=448)]][::order]
    steps[1:2] = [dict(type='RandomChoice', transforms=crops), dict(type='ColorJitter', brightness=0.4)]
    with pytest.raises(ValueError, match='ColorJitter needs pixels'):
        check_config(cfg)


def test_a_second_resize_is_refused() -> None:
    cfg = Config.fromfile('configs/resnet/resnet50-dct24s_8xb32_in1k.py')
    steps = cfg.train_dataloader.dataset.pipeline
    steps.insert(1, steps[1])
    with pytest.raises(ValueError, match="LazyResize needs pixels, .* write type='RandomResizedCrop'"):
        check_config(cfg)


def test_a_config_without_dct_behind_is_refused() -> None:
    cfg = Config.fromfile('configs/resnet/resnet50-dct24s-device_8xb32_in1k.py')
    cfg.val_dataloader.dataset.pipeline[1] = lazy(cfg.val_dataloader.dataset.pipeline[1])
    with pytest.raises(ValueError, match="val_dataloader: PackInputs needs pixels, .*type='ResizeEdge'"):
        check_config(cfg)
