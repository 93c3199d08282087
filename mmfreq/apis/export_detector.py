"""Export detectors of mmdet: the parts of their graph, and the comparison with PyTorch.

mmdet's own ``predict`` is what is traced. Where it makes lists whose lengths depend on the image,
functions of fixed lengths take the place of its own: what is missing has a score that is not
positive (:func:`fixed_lengths`).
"""
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any, Callable, Iterator, Optional
from unittest import mock

import numpy as np
import torch
from mmdet.models import FCOS, FasterRCNN, MaskRCNN, RetinaNet, dense_heads, roi_heads
from mmdet.models.dense_heads import base_dense_head
from mmdet.models.roi_heads.bbox_heads import bbox_head
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.ops import box_iou

from mmfreq.apis.export_file import Arrays, Differences, Exporter, composed
from mmfreq.apis.export_graph import PixelSteps, image_size, opencv_bilinear
from mmfreq.apis.terminal import say
from mmfreq.config.pipelines import iter_dicts, pipelines

TOLERANCES = {'scores': 1e-4, 'boxes': 1e-4, 'masks': 1e-2, 'unmatched detections': 0.01}
SAME = 0.9  # IoU of boxes that are one detection
SMALL = 32 * 32  # pixels of a mask; COCO's small objects

_DETECTORS = FasterRCNN, MaskRCNN, RetinaNet, FCOS
_PARTS = {
    'rpn_head': (dense_heads.RPNHead, ),
    'roi_head': (roi_heads.StandardRoIHead, ),
    'roi_head.bbox_roi_extractor': (roi_heads.SingleRoIExtractor, ),
    'roi_head.mask_roi_extractor': (roi_heads.SingleRoIExtractor, ),
    'roi_head.bbox_head': (roi_heads.BBoxHead, roi_heads.ConvFCBBoxHead, roi_heads.Shared2FCBBoxHead,
                           roi_heads.Shared4Conv1FCBBoxHead),
    'roi_head.mask_head': (roi_heads.FCNMaskHead, ),
    'bbox_head': (dense_heads.RetinaHead, dense_heads.RetinaSepBNHead, dense_heads.FCOSHead),
}


class Canvas(PixelSteps):
    """Pixels, uint8 (1, H, W, 3), to a network's input of fixed size; arguments as the base class.

    The image is resized as mmdet's Resize does, and lies in the upper left corner of a canvas that
    holds the scale of the pipeline in its own orientation, padded as the preprocessor does.
    """

    def __init__(self, cfg: Config, preprocessor: nn.Module, order: str) -> None:
        super().__init__(cfg, preprocessor, order)
        if len(self.steps) != 1:
            raise ValueError('the test pipeline: expected one Resize, got '
                             f'{[step["type"] for step in self.described["steps"]]}')
        self.limits, self.keep_ratio = self.steps[0]
        self.rounds = not self.described['steps'][0].get('lazy')
        divisor = preprocessor.pad_size_divisor * self.stride
        height, width = (side + -side % divisor for side in self.limits)
        self.canvas = height, width
        self.described.update(canvas=[height, width], stride=self.stride)

    @staticmethod
    def step(step: dict) -> tuple[tuple[int, int], bool]:
        """Return what mmdet's Resize needs: height and width to fit, and whether ratios stay."""
        known = dict(type='Resize', backend='cv2', interpolation='bilinear')
        plain = {*known, 'scale', 'keep_ratio', 'clip_object_border', 'lazy'}
        is_plain = {**known, **step} == {**step, **known} and set(step) <= plain
        if not is_plain or not isinstance(step.get('scale'), (tuple, list)):
            raise ValueError('the test pipeline: expected Resize with scale=(width, height), '
                             f'bilinear, by cv2, got {step}, which cannot be exported for a detector')
        width, height = step['scale']
        return (height, width), step.get('keep_ratio', False)

    def fits(self, image: np.ndarray) -> bool:
        """Return whether the graph resizes an image (H, W, 3) as the pipeline does."""
        height, width = self.limits
        return (height - width) * (image.shape[0] - image.shape[1]) >= 0

    def shapes(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return height and width of images (1, 3, H, W), and of the resized ones: float64 (2, )."""
        size, limits = image_size(images), torch.tensor(self.limits, dtype=torch.float64)
        scale = (limits / size).amin(0) if self.keep_ratio else limits / size
        return size, (size * scale + 0.5).floor()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the input, float32 (1, C, h, w), and what :meth:`shapes` returns."""
        images = images.permute(0, 3, 1, 2)
        size, new = self.shapes(images)
        inputs = self.converted(opencv_bilinear(images, new, self.canvas, self.rounds))
        for axis in (2, 3):
            inside = torch.arange(inputs.shape[axis]) * self.stride < new[axis - 2]
            inputs = inputs * inside.float().view(-1, *[1] * (3 - axis))
        return inputs, size, new


class Detector(nn.Module):
    """A canvas, and behind it a detector of mmdet that :func:`check_detector` accepts."""

    def __init__(self, front: Canvas, model: nn.Module) -> None:
        super().__init__()
        check_detector(model)
        self.front, self.model = front, model
        masks = ('masks', ) if getattr(model, 'with_mask', False) else ()
        self.outputs = 'boxes', 'labels', 'scores', *masks

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detect in pixels, uint8 (1, H, W, 3).

        Returns:
            tuple[Tensor, ...]: Boxes (1, K, 4), float32 x1, y1, x2, y2 in pixels of the image,
            int64 labels (1, K) and float32 scores (1, K), best first, and bool masks (1, K, H, W).
            Where there are less than K, labels are -1 and the rest is 0.
        """
        inputs, size, new = self.front(images)
        sample = DetDataSample(metainfo=dict(
            img_shape=self.front.canvas, ori_shape=self.front.canvas, scale_factor=(1., 1.),
            batch_input_shape=self.front.canvas))
        with fixed_lengths(self.model, new.float()):
            found = self.model.predict(inputs, [sample], rescale=False)[0].pred_instances
        there = found.scores > 0
        boxes = found.bboxes / (new / size).float().flip(0).repeat(2)
        boxes = torch.where(there[:, None], boxes, 0.)
        made = boxes, torch.where(there, found.labels, -1), torch.where(there, found.scores, 0.)
        if 'masks' in self.outputs:
            masks = pasted(found.masks, boxes, images.shape[1], images.shape[2])
            threshold = self.model.roi_head.test_cfg.mask_thr_binary
            made = *made, (masks >= threshold) & there[:, None, None]
        return tuple(one[None] for one in made)


def check_detector(model: nn.Module) -> None:
    """Raise ValueError unless :func:`fixed_lengths` covers all that a detector does."""
    if type(model) not in _DETECTORS:
        raise ValueError(f'expected {", ".join(kind.__name__ for kind in _DETECTORS)}, got '
                         f'{type(model).__name__}, which cannot be exported')
    for name, part in model.named_modules():
        if name in _PARTS and type(part) not in _PARTS[name]:
            raise ValueError(f'model.{name}: {type(part).__name__} cannot be exported, only '
                             f'{", ".join(kind.__name__ for kind in _PARTS[name])}')
        test_cfg = getattr(part, 'test_cfg', None) or {}
        nms = test_cfg.get('nms') or {}
        known = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
        if nms.get('type', 'nms') != 'nms' or set(nms) - known:
            raise ValueError(f"model{name and '.'}{name}.test_cfg.nms: expected dict(type='nms', "
                             f'iou_threshold=...), got {dict(nms)}, which cannot be exported')
        _check_limits(part, name, test_cfg)


def _check_limits(part: nn.Module, name: str, test_cfg: dict) -> None:
    """Raise ValueError for limits of detections that have no fixed length, or would be lost."""
    refused = []
    if test_cfg.get('max_per_img', 1) < 1:
        refused.append('test_cfg.max_per_img: expected a number >= 1')
    if not getattr(getattr(part, 'bbox_coder', None), 'clip_border', True):
        refused.append('bbox_coder.clip_border: expected True')
    if name != 'rpn_head' and test_cfg.get('min_bbox_size', 0) > 0:
        refused.append('test_cfg.min_bbox_size: expected 0')
    if refused:
        raise ValueError(f"model{name and '.'}{name}.{refused[0]}; anything else cannot be exported")


@contextmanager
def fixed_lengths(model: nn.Module, limits: Tensor) -> Iterator[None]:
    """Let a detector's ``predict`` return K detections, clipped to ``limits`` (height and width)."""
    coders = {type(part.bbox_coder) for part in model.modules() if hasattr(part, 'bbox_coder')}
    patches = [
        (dense_heads.RPNHead, '_bbox_post_process', best_proposals),
        (dense_heads.base_dense_head.BaseDenseHead, '_bbox_post_process', best_boxes),
        (base_dense_head, 'filter_scores_and_topk', best_priors),
        (bbox_head, 'multiclass_nms', best_of_classes),
        (roi_heads.SingleRoIExtractor, 'forward', pooled),
        (roi_heads.FCNMaskHead, '_predict_by_feat_single', class_masks),
    ] + [(kind, 'decode', _clipped(kind.decode, limits)) for kind in coders]
    with ExitStack() as stack:
        for owner, name, function in patches:
            stack.enter_context(mock.patch.object(owner, name, function))
        yield


def _clipped(decode: Callable, limits: Tensor) -> Callable:
    """Return a coder's ``decode`` that clips boxes to a size known when the graph runs."""
    def clipped(self: Any, points: Tensor, deltas: Tensor, max_shape: Any = None,
                **kwargs: Any) -> Tensor:
        boxes = decode(self, points, deltas, max_shape=None, **kwargs)
        return torch.minimum(boxes.clamp(min=0), limits.flip(0).repeat(boxes.shape[-1] // 2))

    return clipped


def suppressed(boxes: Tensor, scores: Tensor, groups: Tensor, nms: dict) -> Tensor:
    """Return the scores (M, ), -1 where a box of the same group is better; see mmcv's batched_nms."""
    chosen = (scores > 0).nonzero()[:, 0]
    extent = torch.where(scores > 0, boxes.amax(1), 0.).amax(0) + 1
    shifted = boxes if nms.get('class_agnostic') else boxes + (groups * extent)[:, None]
    kept = torch.ops.torchvision.nms(shifted[chosen], scores[chosen], nms['iou_threshold'])
    is_kept = torch.zeros_like(scores).index_fill(0, chosen[kept], 1.)
    return torch.where(is_kept > 0, scores, -1.)


def _best(count: int, boxes: Tensor, scores: Tensor, labels: Tensor) -> InstanceData:
    """Return the best boxes."""
    scores, best = scores.topk(min(count, len(scores)))
    return InstanceData(bboxes=boxes[best], scores=scores, labels=labels[best])


def _large(results: InstanceData, cfg: Any) -> Tensor:
    """Return the scores (M, ), -1 for boxes that are too small."""
    sides = results.bboxes[:, 2:] - results.bboxes[:, :2]
    smallest = cfg.get('min_bbox_size', -1)
    if smallest < 0:
        return results.scores
    return torch.where((sides > smallest).all(1), results.scores, -1.)


def best_proposals(self: Any, results: InstanceData, cfg: Any, **_: Any) -> InstanceData:
    """Replace RPNHead._bbox_post_process: repeat the best proposal, which NMS suppresses later."""
    boxes, scores = results.bboxes, _large(results, cfg)
    scores = suppressed(boxes, scores, results.level_ids, cfg.nms)
    found = _best(cfg.max_per_img, boxes, scores, torch.zeros_like(results.level_ids))
    found.bboxes = torch.where(found.scores[:, None] > 0, found.bboxes, found.bboxes[:1])
    return found


def best_boxes(self: Any, results: InstanceData, cfg: Any, **_: Any) -> InstanceData:
    """Replace BaseDenseHead._bbox_post_process."""
    scores = _large(results, cfg)
    if 'score_factors' in results:
        scores = scores * results.score_factors
    scores = suppressed(results.bboxes, scores, results.labels, cfg.nms)
    return _best(cfg.max_per_img, results.bboxes, scores, results.labels)


def best_priors(scores: Tensor, score_thr: float, topk: int, results: dict) -> tuple:
    """Replace mmdet's filter_scores_and_topk."""
    flat = torch.where(scores > score_thr, scores, -1.).flatten()
    flat, best = flat.topk(min(topk, len(flat)) if topk > 0 else len(flat))
    prior = best // scores.shape[1]
    kept = {name: value[prior] for name, value in results.items()}
    return flat, best % scores.shape[1], prior, kept


def best_of_classes(boxes: Tensor, scores: Tensor, score_thr: float, nms: dict, max_num: int,
                    box_dim: int = 4) -> tuple[Tensor, Tensor]:
    """Replace mmdet's multiclass_nms."""
    scores = scores[:, :-1]
    labels = torch.arange(scores.shape[1]).expand_as(scores).flatten()
    boxes = boxes.view(len(boxes), -1, 4).expand(-1, scores.shape[1], -1).reshape(-1, 4)
    scores = torch.where(scores > score_thr, scores, -1.).flatten()
    found = _best(max_num, boxes, suppressed(boxes, scores, labels, nms), labels)
    return torch.cat((found.bboxes, found.scores[:, None]), 1), found.labels


def pooled(self: Any, feats: tuple, rois: Tensor, roi_scale_factor: Optional[float] = None) -> Tensor:
    """Replace SingleRoIExtractor.forward, whose branches depend on the levels that have boxes."""
    levels = self.map_roi_levels(rois, len(feats))
    made = feats[0].new_zeros(len(rois), self.out_channels, *self.roi_layers[0].output_size)
    for level, (layer, feature) in enumerate(zip(self.roi_layers, feats)):
        chosen = (levels == level).nonzero()[:, 0]
        regions = torch.ops.torchvision.roi_align(
            feature, rois[chosen], layer.spatial_scale, *layer.output_size,
            layer.sampling_ratio, layer.aligned)
        made = made.index_put((chosen, ), regions)
    return made


def class_masks(self: Any, mask_preds: Tensor, labels: Tensor, **_: Any) -> Tensor:
    """Replace FCNMaskHead._predict_by_feat_single: return the class's mask (K, 28, 28), not pasted."""
    index = torch.zeros_like(labels) if self.class_agnostic else labels
    return mask_preds.sigmoid()[torch.arange(len(labels)), index]


def pasted(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Interpolate masks (K, h, w) within their boxes (K, 4) in an image: float32 (K, H, W)."""
    factors = []
    for axis, (count, side) in enumerate(zip(masks.shape[:0:-1], (width, height))):
        start, end = boxes[:, axis, None], boxes[:, axis + 2, None]
        place = (torch.arange(side) + 0.5 - start) / (end - start) * count - 0.5
        factors.append(F.relu(1 - (place[:, :, None] - torch.arange(count)).abs()))
    return factors[1] @ masks @ factors[0].transpose(1, 2)


class DetectorExporter(Exporter):
    """Export a detector of mmdet; arguments as of :class:`~mmfreq.apis.export_file.Exporter`."""
    def __init__(self, cfg: Config, checkpoint: str, kind: str = 'image', order: str = 'rgb',
                 half: bool = False) -> None:
        if kind != 'image' or half:
            raise ValueError('a detector is exported from pixels to detections in float32: expected '
                             'neither --input channels nor --fp16')
        super().__init__(cfg, checkpoint, kind, order)
        self._compare_unrounded()
        front = Canvas(self.cfg, self.model.data_preprocessor, self.order)
        self.network = Detector(front, self.model).eval()
        self.threshold = 'rcnn.score_thr' if self.model.test_cfg.get('rcnn') else 'score_thr'
        self.tolerances = dict(TOLERANCES)
        if 'masks' not in self.network.outputs:
            del self.tolerances['masks']
        self.images = [image if front.fits(image) else np.rot90(image).copy() for image in self.images]

    def _compare_unrounded(self) -> None:
        """Let a pipeline that rounds to int8 give float32, as inside of the file."""
        steps = deepcopy(pipelines(self.cfg, 'test_dataloader')[0])
        rounding = [step for step in iter_dicts(steps) if step.get('dtype') == 'int8']
        for step in rounding:
            del step['dtype'], step['scale']
        if rounding:
            self.pipeline = composed(steps)
            self.model.data_preprocessor._enable_normalize = False  # which undoes int8

    def example(self) -> tuple[Tensor, dict]:
        """Return an image, whose height and width are dynamic."""
        auto = torch.export.Dim.DYNAMIC
        return self.pixels(self.images[0]), {1: auto, 2: auto}

    def metadata(self) -> dict[str, Any]:
        """Return what the file says about itself; the network's input is the canvas."""
        front = self.network.front
        cells = [side // front.stride for side in front.canvas]
        return {**super().metadata(), 'network_input': [len(front.bias), *cells]}

    def check(self, run: Callable) -> dict[str, Differences]:
        """Compare detections with those of mmdet."""
        cases = list(self.cases())
        count = sum(len(expected[0]) for _, expected in cases)
        if not count:
            say(f'WARNING: mmdet detects nothing in these images, so that the file is compared with nothing; to '
                f'compare, lower score_thr: --cfg-options model.test_cfg.{self.threshold}=0')
        return {f"mmdet's {count} detections": self.compare(run, cases, 'mmdet', self.tolerances)}

    def cases(self) -> Iterator[tuple[Tensor, Arrays]]:
        """Yield images as the file takes them, with mmdet's detections, whose canvas is the file's."""
        front, names = self.network.front, dict(boxes='bboxes')
        height, width = (side // front.stride for side in front.canvas)
        for image in self.images:
            batch = self.model.data_preprocessor(pseudo_collate([self.packed(image)]))
            inputs, samples = batch['inputs'], batch['data_samples']
            inputs = F.pad(inputs, (0, width - inputs.shape[3], 0, height - inputs.shape[2]))
            samples[0].set_metainfo(dict(batch_input_shape=front.canvas))
            with torch.no_grad():
                found = self.model.predict(inputs, samples, rescale=True)[0].pred_instances
            yield self.pixels(image), [found[names.get(name, name)].numpy()
                                       for name in self.network.outputs]

    def differences(self, made: Arrays, expected: Arrays) -> Differences:
        """Compare detections one by one.

        Returns:
            dict: Of matched detections, which are of one class and overlap nearly wholly, the
            largest differences of scores, relative to the largest; of boxes, relative to the
            image; and of masks, as part of the mask or of 32x32 pixels. The part of detections that
            have no match.
        """
        there = made[2][0] > 0
        made = [one[0][there] for one in made]
        pairs = matches(made, expected)
        left = len(made[0]) + len(expected[0]) - 2 * len(pairs)
        found = dict.fromkeys(self.tolerances, 0.)
        found['unmatched detections'] = left / max(1, len(made[0]) + len(expected[0]))
        for mine, other in pairs:
            apart = [np.abs(a[mine] * 1. - b[other] * 1.) for a, b in zip(made, expected)]
            found['scores'] = max(found['scores'], apart[2] / expected[2].max())
            found['boxes'] = max(found['boxes'], apart[0].max() / expected[0].max())
            if len(made) > 3:
                size = max(SMALL, expected[3][other].sum())
                found['masks'] = max(found['masks'], apart[3].sum() / size)
        return found


def matches(made: Arrays, expected: Arrays) -> list[tuple[int, int]]:
    """Return pairs of detections (boxes, labels, ...) of one class whose boxes overlap most."""
    overlap = box_iou(torch.tensor(made[0]), torch.tensor(expected[0])).numpy()
    overlap[made[1][:, None] != expected[1]] = 0
    pairs = []
    while overlap.size and overlap.max() > SAME:
        pair = np.unravel_index(overlap.argmax(), overlap.shape)
        overlap[pair[0]], overlap[:, pair[1]] = 0, 0
        pairs.append(pair)
    return pairs
