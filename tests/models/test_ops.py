# ruff: noqa: I001
"""nms and RoIAlign from torchvision under mmcv's wrappers, against plain-Python references."""
import math
import subprocess
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
import torchvision
from numpy.testing import assert_allclose

from mmfreq.models.ops import provide_ops

provide_ops()  # before mmcv.ops looks for its functions

from mmcv.ops import batched_nms, nms, roi_align  # noqa: E402


def overlap(a: np.ndarray, b: np.ndarray, offset: int) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return shared / (sum(areas) - shared)


def plain_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int = 0) -> list:
    kept: list[int] = []
    for i in np.argsort(-scores, kind='stable'):
        if all(overlap(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(int(i))
    return kept


def bilinear(plane: np.ndarray, y: float, x: float) -> float:
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.
    y, x = max(y, 0.), max(x, 0.)
    y0, x0 = min(int(y), height - 1), min(int(x), width - 1)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy, fx = (y - y0 if y0 < height - 1 else 0.), (x - x0 if x0 < width - 1 else 0.)
    return ((1 - fy) * (1 - fx) * plane[y0, x0] + (1 - fy) * fx * plane[y0, x1]
            + fy * (1 - fx) * plane[y1, x0] + fy * fx * plane[y1, x1])


def plain_roi_align(features: np.ndarray, rois: np.ndarray, size: tuple[int, int], scale: float,
                    sampling: int, aligned: bool) -> np.ndarray:
    result = np.zeros((len(rois), features.shape[1], *size))
    for r, c, i, j in np.ndindex(result.shape):
        image = int(rois[r, 0])
        x1, y1, x2, y2 = rois[r, 1:] * scale - (0.5 if aligned else 0.)
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1.), max(width, 1.)
        bin_h, bin_w = height / size[0], width / size[1]
        rows, cols = sampling or math.ceil(bin_h), sampling or math.ceil(bin_w)
        samples = [bilinear(features[image, c], y1 + (i + (a + 0.5) / rows) * bin_h,
                            x1 + (j + (b + 0.5) / cols) * bin_w)
                   for a, b in np.ndindex(rows, cols)]
        result[r, c, i, j] = sum(samples) / max(len(samples), 1)
    return result


def random_boxes(count: int, seed: int, size: float = 60.) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, size * 0.8, (count, 2))
    far = corners + rng.uniform(2, size * 0.5, (count, 2))
    return np.concatenate((corners, far), axis=1).astype(np.float32)


def random_scores(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(count).astype(np.float32) / 128  # exact in half


HALVES = (torch.half, torch.bfloat16)


@pytest.mark.parametrize(('boxes_dtype', 'scores_dtype'), [
    (torch.float32, torch.float32), (torch.float32, torch.float64), (torch.half, torch.float32),
    *zip(HALVES, HALVES), *zip(HALVES, HALVES[::-1])])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
def test_nms_is_the_plain_loop(threshold: float, offset: int, boxes_dtype: torch.dtype,
                               scores_dtype: torch.dtype) -> None:
    boxes = torch.from_numpy(random_boxes(80, seed=1)).to(boxes_dtype)
    scores = torch.from_numpy(random_scores(80, seed=2)).to(scores_dtype)
    kept = nms(boxes, scores, threshold, offset)[1].tolist()
    assert kept == plain_nms(boxes.double().numpy(), scores.double().numpy(), threshold, offset)


@pytest.mark.parametrize('split_thr', [10000, 1])
def test_batched_nms_keeps_classes_apart(split_thr: int) -> None:
    """From ``split_thr`` boxes on, mmcv goes through the classes one by one."""
    boxes, scores = random_boxes(60, seed=4), random_scores(60, seed=5)
    classes = np.arange(60) % 3
    tensors = [torch.from_numpy(array) for array in (boxes, scores, classes)]
    cfg = dict(type='nms', iou_threshold=0.5)
    kept = batched_nms(*tensors, dict(cfg, split_thr=split_thr))[1].tolist()
    expected = []
    for number in range(3):
        where = np.flatnonzero(classes == number)
        expected += where[plain_nms(boxes[where], scores[where], 0.5)].tolist()
    assert sorted(kept) == sorted(expected)
    assert np.all(np.diff(scores[kept]) < 0)
    dets, kept = batched_nms(*tensors, cfg, class_agnostic=True)
    assert kept.tolist() == plain_nms(boxes, scores, 0.5)
    np.testing.assert_array_equal(dets.numpy(), np.column_stack((boxes, scores))[kept.numpy()])


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling', [0, 1, 2, 3])
def test_roi_align_is_the_plain_sum(sampling: int, aligned: bool) -> None:
    features = np.random.default_rng(6).normal(size=(2, 3, 12, 17))
    boxes = random_boxes(9, seed=7, size=60)
    boxes[0] = [-7, -5, 20, 30]  # beyond the image
    boxes[1] = [10, 10, 10.2, 10.1]  # smaller than a cell
    rois = np.concatenate((np.arange(9)[:, None] % 2, boxes), axis=1)
    result = roi_align(torch.from_numpy(features), torch.from_numpy(rois), (4, 3), 0.25, sampling,
                       'avg', aligned)
    expected = plain_roi_align(features, rois, (4, 3), 0.25, sampling, aligned)
    assert_allclose(result.numpy(), expected, atol=1e-5)


RAMP = torch.arange(16.).reshape(1, 1, 4, 4)  # value = 4 * row + column
ROI = torch.tensor([[0., 1, 1, 3, 3]])


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling', [0, 2])
def test_roi_align_gradient(sampling: int, aligned: bool) -> None:
    features = torch.from_numpy(np.random.default_rng(8).normal(size=(2, 2, 6, 7))).requires_grad_()
    rois = torch.tensor([[0, 1., 2, 9, 11], [1, 3, 0, 20, 8], [1, -4, -4, 5, 5]]).double()
    assert torch.autograd.gradcheck(
        lambda x: roi_align(x, rois, (2, 3), 0.4, sampling, 'avg', aligned), (features, ))


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('dtype', HALVES)
def test_roi_align_in_half_precision(dtype: torch.dtype, autocast: bool) -> None:
    """Half (steps of 0.5) and bfloat16 (4 or 8) cannot hold these coordinates."""
    if dtype is torch.half and torch.__version__ < '2.4':
        pytest.skip('this torch has no autocast to half on a CPU')
    rois = torch.tensor([[0, 513.3, 700.7, 790.9, 941.2], [1, 601.1, 530.4, 1009.6, 777.7]])
    rng = np.random.default_rng(9)
    features = torch.from_numpy(rng.normal(size=(2, 3, 64, 64))).to(dtype).requires_grad_()
    grad = torch.from_numpy(rng.normal(size=(2, 3, 4, 4))).to(dtype)
    with torch.autocast('cpu', dtype=dtype, enabled=autocast):
        result = roi_align(features, rois, (4, 4), 0.0625, 2)
    result.backward(grad)  # outside autocast, as mmengine does
    assert result.dtype == features.grad.dtype == dtype
    exact = features.detach().double().requires_grad_()
    roi_align(exact, rois.double(), (4, 4), 0.0625, 2).backward(grad.double())  # gradcheck: above
    expected = plain_roi_align(exact.detach().numpy(), rois.double().numpy(), (4, 4), 0.0625, 2,
                               True)
    tolerance = dict(rtol=torch.finfo(dtype).eps, atol=1e-5)
    assert_allclose(result.detach().double().numpy(), expected, **tolerance)
    assert_allclose(features.grad.double().numpy(), exact.grad.numpy(), **tolerance)


def test_roi_align_stays_with_the_compiled_op(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchvision's Python function goes through torch.compile for deterministic algorithms."""
    monkeypatch.setattr(torchvision.ops, 'roi_align', lambda *args: pytest.fail('went through it'))
    torch.use_deterministic_algorithms(True)
    try:
        assert_allclose(roi_align(RAMP, ROI, (1, 1), 1.0).item(), 7.5, rtol=1e-6)
    finally:
        torch.use_deterministic_algorithms(False)


def test_other_ops_name_themselves_and_the_way_out() -> None:
    with pytest.raises(NotImplementedError, match="pool_mode='max'.* install .*onedl-mmcv"):
        roi_align(RAMP, ROI, (1, 1), 1.0, 0, 'max')
    with pytest.raises(NotImplementedError, match="'softnms': install .*onedl-mmcv"):
        mmcv.ops.soft_nms(torch.rand(3, 4), torch.rand(3))
    assert mmcv.utils.collect_env()['MMCV Compiler'] == 'n/a'


# In a process of its own

MMDET_AFTER = '''
import sys, mmfreq
assert not {'mmcv.ops', 'mmcv._ext', 'mmdet', 'mmpretrain', 'torchvision'} & set(sys.modules)
import mmfreq.models.det, mmdet.models
print(sys.modules['mmcv._ext'].__file__, mmdet.models.dense_heads.base_dense_head.batched_nms.__module__)
'''

SET_UP = '''
import sys, mmfreq
mmfreq.setup()
import mmdet.models
print(sys.modules['mmcv._ext'].__file__, mmdet.models.dense_heads.base_dense_head.batched_nms.__module__)
'''

COMPILED_WINS = '''
import pathlib, sys, mmcv
mmcv.__path__.append(sys.argv[1])
pathlib.Path(sys.argv[1], '_ext.py').touch()
import mmfreq
mmfreq.setup()
import mmcv._ext
print(mmcv._ext.__file__)
'''

MMDET_BEFORE = '''
import sys, types, warnings
sys.modules['mmdet.models'] = types.ModuleType('mmdet.models')  # as mmdet leaves it without ops
warnings.showwarning = lambda message, *args: print(message)
import mmfreq
mmfreq.setup()
'''


@pytest.mark.parametrize(('code', 'expected'), [
    (MMDET_AFTER, 'ops.py mmcv.ops.nms'), (SET_UP, 'ops.py mmcv.ops.nms'),
    (MMDET_BEFORE, 'Import mmfreq.models.det first'),
    (COMPILED_WINS, '_ext.py')])
def test_order_of_imports(code: str, expected: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, '-c', code, str(tmp_path)], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(expected)
