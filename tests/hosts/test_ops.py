"""nms and RoIAlign from torchvision under mmcv's wrappers, against plain-Python references and worked cases."""
import math
import subprocess
import sys

import mmcv
import numpy as np
import pytest
import torch
import torchvision

from mmfreq.hosts.ops import provide_ops

provide_ops()

from mmcv.ops import RoIAlign, batched_nms, nms, roi_align  # noqa: E402


def overlap(a: np.ndarray, b: np.ndarray, offset: int) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return shared / (sum(areas) - shared)


def plain_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int = 0) -> list[int]:
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
    return ((1 - fy) * (1 - fx) * plane[y0, x0] + (1 - fy) * fx * plane[y0, x1] + fy * (1 - fx) * plane[y1, x0]
            + fy * fx * plane[y1, x1])


def plain_roi_align(features: np.ndarray, rois: np.ndarray, size: tuple[int, int], scale: float, sampling: int,
                    aligned: bool) -> np.ndarray:
    result = np.zeros((len(rois), features.shape[1], *size))
    for r, (image, *corners) in enumerate(rois):
        x1, y1, x2, y2 = (c * scale - (0.5 if aligned else 0.) for c in corners)
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1.), max(width, 1.)
        bin_h, bin_w = height / size[0], width / size[1]
        rows = sampling or math.ceil(height / size[0])
        cols = sampling or math.ceil(width / size[1])
        for c in range(features.shape[1]):
            for i in range(size[0]):
                for j in range(size[1]):
                    samples = [bilinear(features[int(image), c], y1 + (i + (a + 0.5) / rows) * bin_h,
                                        x1 + (j + (b + 0.5) / cols) * bin_w) for a in range(rows) for b in range(cols)]
                    result[r, c, i, j] = sum(samples) / max(len(samples), 1)
    return result


def random_boxes(count: int, seed: int, size: float = 60.) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, size * 0.8, (count, 2))
    return np.concatenate((corners, corners + rng.uniform(2, size * 0.5, (count, 2))), axis=1).astype(np.float32)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
def test_nms_keeps_what_the_plain_loop_keeps(threshold: float, offset: int) -> None:
    boxes = random_boxes(80, seed=1)
    scores = np.random.default_rng(2).permutation(80).astype(np.float32) / 80
    dets, kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold, offset)
    assert kept.tolist() == plain_nms(boxes, scores, threshold, offset)
    np.testing.assert_allclose(dets[:, 4].numpy(), scores[kept.numpy()], rtol=1e-6)


def test_nms_by_hand() -> None:
    # Boxes 0 and 1 share 5x10 of 15x10 (1/3); boxes 0 and 2 are equal; box 3 is apart.
    boxes = torch.tensor([[0., 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 10], [30, 30, 40, 40]])
    scores = torch.tensor([0.6, 0.9, 0.5, 0.1])
    assert nms(boxes, scores, 0.34)[1].tolist() == [1, 0, 3]
    assert nms(boxes, scores, 0.33)[1].tolist() == [1, 3]
    # With offset 1, 6x11 of 16x11 are shared: 66 / 176 = 0.375.
    assert nms(boxes, scores, 0.36, offset=1)[1].tolist() == [1, 3]
    assert nms(boxes, scores, 0.38, offset=1)[1].tolist() == [1, 0, 3]


def test_nms_filters_by_score_and_number_and_takes_nothing() -> None:
    boxes, scores = torch.from_numpy(random_boxes(30, seed=3)), torch.linspace(0, 1, 30)
    assert nms(boxes, scores, 0.5, score_threshold=0.8)[1].min() >= 24
    assert nms(boxes, scores, 0.5, max_num=3)[1].tolist() == nms(boxes, scores, 0.5)[1].tolist()[:3]
    assert nms(boxes[:0], scores[:0], 0.5)[1].tolist() == []


@pytest.mark.parametrize('scores_dtype', [torch.half, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('boxes_dtype', [torch.half, torch.bfloat16, torch.float32])
def test_nms_of_any_precision(boxes_dtype: torch.dtype, scores_dtype: torch.dtype) -> None:
    boxes = torch.from_numpy(random_boxes(50, seed=11)).to(boxes_dtype)
    scores = torch.from_numpy(np.random.default_rng(12).permutation(50) / 64).to(scores_dtype)  # exact in each
    kept = nms(boxes, scores, 0.5)[1]
    assert kept.tolist() == plain_nms(boxes.double().numpy(), scores.double().numpy(), 0.5)


@pytest.mark.parametrize('split_thr', [10000, 60, 1])
def test_batched_nms_keeps_classes_apart(split_thr: int) -> None:
    """From ``split_thr`` boxes on, mmcv goes through the classes one by one."""
    boxes, scores = random_boxes(60, seed=4), np.random.default_rng(5).permutation(60).astype(np.float32)
    classes = np.arange(60) % 3
    _, kept = batched_nms(*map(torch.from_numpy, (boxes, scores, classes)),
                          dict(type='nms', iou_threshold=0.5, split_thr=split_thr))
    expected = [np.flatnonzero(classes == c)[i] for c in range(3)
                for i in plain_nms(boxes[classes == c], scores[classes == c], 0.5)]
    assert sorted(kept.tolist()) == sorted(expected)
    assert np.all(np.diff(scores[kept.numpy()]) < 0)


@pytest.mark.parametrize('by_config', [False, True])
def test_class_agnostic_nms_is_nms(by_config: bool) -> None:
    boxes, scores = random_boxes(60, seed=4), np.random.default_rng(5).permutation(60).astype(np.float32)
    cfg = dict(type='nms', iou_threshold=0.5, **(dict(class_agnostic=True) if by_config else {}))
    dets, kept = batched_nms(*map(torch.from_numpy, (boxes, scores, np.arange(60) % 3)), cfg,
                             class_agnostic=not by_config)
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
    result = roi_align(torch.from_numpy(features), torch.from_numpy(rois), (4, 3), 0.25, sampling, 'avg', aligned)
    expected = plain_roi_align(features, rois, (4, 3), 0.25, sampling, aligned)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)


def test_roi_align_by_hand() -> None:
    ramp = torch.arange(16.).reshape(1, 1, 4, 4)  # value = 4 * row + column
    roi = torch.tensor([[0., 1, 1, 3, 3]])
    # Aligned, the box covers cells 0.5..2.5; its centre is (1.5, 1.5), where the ramp is 4 * 1.5 + 1.5.
    np.testing.assert_allclose(RoIAlign(1, 1.0, 1, aligned=True)(ramp, roi).item(), 7.5, rtol=1e-6)
    # Not aligned, the centre is (2, 2).
    np.testing.assert_allclose(RoIAlign(1, 1.0, 1, aligned=False)(ramp, roi).item(), 10., rtol=1e-6)
    # At half scale the aligned box covers 0..1 around (0.5, 0.5).
    np.testing.assert_allclose(RoIAlign(1, 0.5, 1, aligned=True)(ramp, roi).item(), 2.5, rtol=1e-6)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling', [0, 2])
def test_roi_align_gradient(sampling: int, aligned: bool) -> None:
    features = torch.from_numpy(np.random.default_rng(8).normal(size=(2, 2, 6, 7))).requires_grad_()
    rois = torch.tensor([[0, 1., 2, 9, 11], [1, 3, 0, 20, 8], [1, -4, -4, 5, 5]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: roi_align(x, rois, (2, 3), 0.4, sampling, 'avg', aligned), (features, ))


def test_roi_align_of_no_rois() -> None:
    features = torch.rand(1, 4, 8, 8, requires_grad=True)
    result = roi_align(features, torch.zeros(0, 5), (7, 7), 1.0)
    assert result.shape == (0, 4, 7, 7)
    result.sum().backward()
    np.testing.assert_array_equal(features.grad.numpy(), np.zeros((1, 4, 8, 8)))


# Coordinates that half (a step of 0.5 there) and bfloat16 (4 or 8) cannot hold; image numbers and scale are exact.
FINE_ROIS = torch.tensor([[0, 513.3, 700.7, 790.9, 941.2], [1, 601.1, 530.4, 1009.6, 777.7]])


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16])
def test_roi_align_in_half_precision_keeps_the_coordinates(dtype: torch.dtype, autocast: bool) -> None:
    features = torch.from_numpy(np.random.default_rng(9).normal(size=(2, 3, 64, 64))).to(dtype).requires_grad_()
    grad = torch.from_numpy(np.random.default_rng(10).normal(size=(2, 3, 4, 4))).to(dtype)
    with torch.autocast('cpu', dtype=dtype, enabled=autocast):
        result = roi_align(features, FINE_ROIS, (4, 4), 0.0625, 2)
    result.backward(grad)  # outside autocast, as mmengine does
    assert result.dtype == features.grad.dtype == dtype
    exact = features.detach().double().requires_grad_()
    roi_align(exact, FINE_ROIS.double(), (4, 4), 0.0625, 2).backward(grad.double())  # see test_roi_align_gradient
    expected = plain_roi_align(exact.detach().numpy(), FINE_ROIS.double().numpy(), (4, 4), 0.0625, 2, True)
    tolerance = dict(rtol=torch.finfo(dtype).eps, atol=1e-5)
    np.testing.assert_allclose(result.detach().double().numpy(), expected, **tolerance)
    np.testing.assert_allclose(features.grad.double().numpy(), exact.grad.numpy(), **tolerance)


def test_roi_align_stays_with_the_compiled_op(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchvision's Python function changes over to torch.compile for deterministic algorithms on a GPU."""
    monkeypatch.setattr(torchvision.ops, 'roi_align', lambda *args: pytest.fail('went through the Python function'))
    torch.use_deterministic_algorithms(True)
    try:
        result = roi_align(torch.arange(16.).reshape(1, 1, 4, 4), torch.tensor([[0., 1, 1, 3, 3]]), (1, 1), 1.0)
    finally:
        torch.use_deterministic_algorithms(False)
    np.testing.assert_allclose(result.item(), 7.5, rtol=1e-6)


ABSENT_OPS = '''
import mmfreq.hosts.ops
assert mmfreq.hosts.ops.provide_ops() and mmfreq.hosts.ops.provide_ops()
import mmcv.ops, torch
try:
    mmcv.ops.roi_align(torch.rand(1, 1, 4, 4), torch.zeros(1, 5), (1, 1), 1.0, 0, 'max')
except NotImplementedError as error:
    print(error)
try:
    mmcv.ops.soft_nms(torch.rand(3, 4), torch.rand(3))
except NotImplementedError as error:
    print(error)
'''

COLLECT_ENV = '''
import mmfreq.hosts.ops
assert mmfreq.hosts.ops.provide_ops()
from mmcv.utils import collect_env
info = collect_env()
print(info['MMCV'], info['MMCV Compiler'], info['MMCV CUDA Compiler'])
'''

COMPILED_WINS = '''
import sys, types
sys.modules['mmcv._ext'] = compiled = types.ModuleType('mmcv._ext')
import mmfreq.hosts.ops
assert not mmfreq.hosts.ops.provide_ops()
assert sys.modules['mmcv._ext'] is compiled
'''

NOT_PAID_FOR = '''
import sys, mmfreq
assert 'mmcv.ops' not in sys.modules and 'mmcv._ext' not in sys.modules
assert 'mmdet' not in sys.modules and 'mmpretrain' not in sys.modules
'''


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_other_ops_name_themselves_and_the_way_out() -> None:
    output = run_python(ABSENT_OPS)
    assert "pool_mode='max'" in output
    assert "'softnms'" in output
    assert output.count('onedl-mmcv') == 2


def test_environment_is_told_as_without_ops() -> None:
    assert run_python(COLLECT_ENV).split() == [mmcv.__version__, 'n/a', 'n/a']


def test_compiled_ops_win() -> None:
    run_python(COMPILED_WINS)


def test_importing_mmfreq_imports_no_host_and_no_ops() -> None:
    run_python(NOT_PAID_FOR)
