"""LazyResize against the stock transforms: same random numbers and labels, same channels up to rounding."""
import pickle
from copy import deepcopy
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.registry import TRANSFORMS, DefaultScope
from numpy.testing import assert_array_equal
from references import noise

import mmfreq.models.cls  # noqa: F401
import mmfreq.models.det  # noqa: F401
from mmfreq.dct.lazy_image import LAZY_RESIZES, LazyImage

from mmdet.structures.bbox import HorizontalBoxes  # isort: skip  after mmfreq.models.det

IMAGE = cv2.resize(noise(30, 40), (200, 150), interpolation=cv2.INTER_CUBIC)
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


def transformed(scope: str, steps: list[dict], seed: int, image: np.ndarray = IMAGE, path: str = '') -> dict[str, Any]:
    results = dict(img_path=path, img=image.copy(), img_shape=image.shape[:2], ori_shape=image.shape[:2])
    if scope == 'mmdet':
        results['gt_bboxes'] = HorizontalBoxes(torch.tensor([[10., 20., 60., 140.]]))
    with DefaultScope.overwrite_default_scope(scope):
        pipeline = pickle.loads(pickle.dumps(Compose(deepcopy(steps))))  # as in a spawned worker
        np.random.seed(seed)
        return pipeline(results)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('case', CASES)
def test_only_the_rounding_differs_from_the_stock_transform(case: str, seed: int) -> None:
    scope, steps = CASES[case]
    waiting = [lazy(step) for step in steps]
    stock, results = transformed(scope, steps, seed), transformed(scope, waiting, seed)
    assert isinstance(results['img'], LazyImage)
    assert_array_equal(np.asarray(results['img']), stock['img'])
    singles = [dict(type='YCbCr'), dict(type='BlockDCT')]  # compute the pixels
    assert_array_equal(*(transformed(scope, [*each, *singles], seed)['img'] for each in (waiting, steps)))
    stock, results = transformed(scope, [*steps, FUSED], seed), transformed(scope, [*waiting, FUSED], seed)
    error = results.pop('img') - stock.pop('img')
    assert np.sqrt(np.mean(error**2)) < 0.5  # whole levels: 0.29; OpenCV's arithmetic of 11 bits a little more
    assert {key: repr(value) for key, value in results.items()} == {key: repr(value) for key, value in stock.items()}


@pytest.mark.parametrize('shape', [(1, 1), (1, 2), (2, 2), (1, 40), (40, 1), (3, 50), (300, 9)], ids=str)
@pytest.mark.parametrize('scale', [4, 224])
def test_crops_of_a_fraction_of_a_pixel(scale: int, shape: tuple) -> None:
    """EfficientNet's crop of last resort may have less than a pixel, which neither transform accepts."""
    step = dict(type='EfficientNetRandomCrop', scale=scale, interpolation='bilinear', max_attempts=0)
    try:
        expected = transformed('mmpretrain', [step], 0, noise(*shape))['img']
    except cv2.error:
        with pytest.raises(ValueError, match='LazyResize: crop: '):
            transformed('mmpretrain', [lazy(step)], 0, noise(*shape))
    else:
        assert_array_equal(np.asarray(transformed('mmpretrain', [lazy(step)], 0, noise(*shape))['img']), expected)


@pytest.mark.parametrize(('step', 'image'), [
    (dict(type='RandomResizedCrop', scale=64, interpolation='bicubic', backend='pillow'), IMAGE),
    (dict(type='ResizeEdge', scale=64, interpolation='area'), IMAGE),
    (dict(type='Resize', scale=(64, 64)), IMAGE.astype(np.float32)),
    (dict(type='RandomResizedCrop', scale=64), np.ascontiguousarray(IMAGE[:, :, 0])),
    (dict(type='Resize', scale=(64, 64)), np.dstack([IMAGE, IMAGE[:, :, :1]])),
], ids=['bicubic', 'area', 'float', 'grey', 'four colours'])
def test_other_resizes_are_done_at_once(step: dict, image: np.ndarray) -> None:
    results, stock = (transformed('mmpretrain', [each], 1, image) for each in (lazy(step), step))
    assert type(results['img']) is np.ndarray
    assert_array_equal(results['img'], stock['img'])


def test_other_transforms_are_refused() -> None:
    with DefaultScope.overwrite_default_scope('mmpretrain'), pytest.raises(ValueError, match="resize .*'CenterCrop'"):
        TRANSFORMS.build(dict(type='LazyResize', resize='CenterCrop', crop_size=8))
