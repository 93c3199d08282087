"""Export detectors of mmdet: from pixels to boxes, labels, scores and masks."""
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.ops import box_iou

from mmfreq.apis.export.file import Arrays, Differences, Exporter, Reference
from mmfreq.apis.export.fixed_lengths import fixed_lengths
from mmfreq.apis.export.inputs import ImageInput
from mmfreq.apis.export.resize import image_size, opencv_bilinear
from mmfreq.apis.inference import Model
from mmfreq.apis.terminal import say
from mmfreq.errors import RefusedError

FINE = dict(scores=1e-4, boxes=1e-4, masks=0.02, unmatched=0.01, tied=1.)
COARSE = dict(scores=0.05, boxes=0.05, masks=0.1, unmatched=0.05, tied=1.)
_NMS = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
SAME = 0.9  # IoU of boxes that are one detection
SMALL = 32 * 32  # pixels of a mask; COCO's small objects


class DetectorInput(ImageInput):
    """Pixels, uint8 (1, H, W, 3), to a network's input; arguments as of :class:`ImageInput`.

    The image is resized as mmdet's Resize does, and padded as the preprocessor pads one image.
    """

    def __init__(self, cfg: Config, preprocessor: Any, order: str) -> None:
        super().__init__(cfg, order)
        step = self.about['steps'][0] if len(self.about['steps']) == 1 else {}
        how = step.get('type'), step.get('backend', 'cv2'), step.get('interpolation', 'bilinear')
        if how != ('Resize', 'cv2', 'bilinear') or not isinstance(step.get('scale'), (tuple, list)):
            raise RefusedError('the test pipeline: expected one Resize with scale=(width, height), '
                               f'bilinear, by cv2, got {self.about["steps"]}, which cannot be exported')
        self.scale, self.keep_ratio = step['scale'], step.get('keep_ratio', False)
        self.rounds = not step.get('lazy')
        self.divisor = preprocessor.pad_size_divisor * self.stride
        self.pad_value = float(preprocessor.pad_value)

    def resized_shape(self, size: Tensor) -> Tensor:
        """Return the resized height and width for those of an image, float64 (2, )."""
        if not self.keep_ratio:
            return torch.tensor(self.scale[::-1], dtype=torch.float64)
        factor = torch.minimum(max(self.scale) / size.max(), min(self.scale) / size.min())
        return (size * factor + 0.5).floor()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, list[int], list[int]]:
        """Return the input, and its description for mmdet's metadata.

        Returns:
            tuple[Tensor, Tensor, list[int], list[int]]: The input, float32 (1, C, h, w); the factors
            of height and width, float64 (2, ); resized and padded height and width in pixels.
        """
        images = images.permute(0, 3, 1, 2)
        size = image_size(images)
        new = self.resized_shape(size)
        padded = [self.divisor * count for count in whole_numbers((new / self.divisor).ceil())]
        inputs = self.converted(opencv_bilinear(images, new, padded, self.rounds))
        for axis in (2, 3):
            inside = torch.arange(inputs.shape[axis]) * self.stride < new[axis - 2]
            inputs = torch.where(inside.view(-1, *[1] * (3 - axis)), inputs, self.pad_value)
        return inputs, new / size, whole_numbers(new), padded


def whole_numbers(values: Tensor) -> list[int]:
    """Return a tensor's values as positive integers that may be sizes in a graph."""
    numbers = [value.item() for value in values.long()]
    for number in numbers:
        torch._check(number >= 1)
    return numbers


class Detector(nn.Module):
    """From pixels through ``front``, their conversion, and mmdet's detector to detections."""

    def __init__(self, front: DetectorInput, model: nn.Module) -> None:
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
            Where there are fewer than K, labels are -1 and the rest is 0.
        """
        inputs, factors, resized, padded = self.front(images)
        sample, shapes = DetDataSample(), dict(batch_input_shape=padded, pad_shape=padded)
        meta = dict(img_shape=resized, ori_shape=resized, scale_factor=(1., 1.), **shapes)
        for key, value in meta.items():  # metainfo= would copy sizes that the graph computes
            sample.set_field(tuple(value), key, field_type='metainfo')
        with fixed_lengths():
            results = self.model.predict(inputs, [sample], rescale=False)[0].pred_instances
        exists = results.scores > 0
        boxes = torch.where(exists[:, None], results.bboxes / factors.float().flip(0).repeat(2), 0.)
        outputs = [boxes, torch.where(exists, results.labels, -1), torch.where(exists, results.scores, 0.)]
        if 'masks' in self.outputs:
            masks = pasted(results.masks, boxes, images.shape[1], images.shape[2])
            threshold = self.model.roi_head.test_cfg.mask_thr_binary
            outputs.append((masks >= threshold) & exists[:, None, None])
        return tuple(output[None] for output in outputs)


def check_detector(model: nn.Module) -> None:
    """Refuse settings that :func:`fixed_lengths` ignores, and that few images would show."""
    for name, part in model.named_modules():
        test_cfg = getattr(part, 'test_cfg', None) or {}
        nms = test_cfg.get('nms') or {}
        if nms.get('type', 'nms') != 'nms' or set(nms) - _NMS:
            raise RefusedError(f"model.{name}.test_cfg.nms: expected dict(type='nms', "
                               f'iou_threshold=...), got {dict(nms)}, which cannot be exported')
        if name != 'rpn_head' and test_cfg.get('min_bbox_size', 0) > 0:
            raise RefusedError(f'model.{name}.test_cfg.min_bbox_size: expected 0, got '
                               f'{test_cfg["min_bbox_size"]}, which cannot be exported')


def pasted(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Interpolate masks (K, h, w) within their boxes (K, 4) in an image: float32 (K, H, W)."""
    factors = []
    for axis, (count, side) in enumerate(zip(masks.shape[:0:-1], (width, height))):
        start, end = boxes[:, axis, None], boxes[:, axis + 2, None]
        place = (torch.arange(side) + 0.5 - start) / (end - start) * count - 0.5
        factors.append(F.relu(1 - (place[:, :, None] - torch.arange(count)).abs()))
    return factors[1] @ masks @ factors[0].transpose(1, 2)


class DetectorExporter(Exporter):
    """Export a detector of mmdet; arguments as of :class:`Exporter`."""

    def __init__(self, model: Model, kind: str = 'image', order: str = 'rgb') -> None:
        if kind != 'image':
            raise RefusedError('a detector is exported from pixels: expected --input image')
        super().__init__(model, kind, order)
        front = DetectorInput(model.cfg, model.module.data_preprocessor, order)
        self.network = Detector(front, model.module).eval()
        self.test_cfg = model.module.test_cfg.get('rcnn') or model.module.test_cfg

    def results(self, sample: Any) -> Arrays:
        """Return boxes (K, 4), labels, scores (K, ) and, if there are any, masks of a data sample."""
        results = sample.pred_instances
        names = ['bboxes', 'labels', 'scores'] + ['masks'] * ('masks' in results)
        return [results[name].numpy() for name in names]

    def example(self) -> tuple[Tensor, dict]:
        """Return an image, whose height and width are dynamic."""
        return self.inputs()[0], dict.fromkeys((1, 2), torch.export.Dim.DYNAMIC)

    def references(self) -> list[Reference]:
        """Return the same graph in PyTorch, and test pipeline and mmdet."""
        inputs = self.inputs()
        graph = [detections([output.numpy() for output in self.network(one)]) for one in inputs]
        count = sum(len(result[0]) for result in self.expected)
        if not count:
            say('WARNING: mmdet detects nothing in these images, so that nothing is compared; a lower '
                'score_thr in model.test_cfg helps')
        fine = FINE if self.network.front.int8_scale is None else COARSE
        return [('the same graph in PyTorch', zip(inputs, graph), fine),
                (f'{count} detections of test pipeline and mmdet', zip(inputs, self.expected), COARSE)]

    def differences(self, outputs: Arrays, expected: Arrays, allowed: Differences) -> Differences:
        """Compare detections one by one.

        Returns:
            dict: The largest differences of matched detections: ``scores``, relative to the largest
            one; ``boxes``, relative to the image; ``masks``, as part of the mask or of 32x32 pixels.
            The parts of all detections that are ``tied`` and ``unmatched``: see :meth:`is_tied`.
        """
        outputs = detections(outputs)
        pairs = matches(outputs, expected)
        largest = dict.fromkeys(allowed, 0.)
        if len(pairs[0]):
            mine, others = ([part[one] for part in result] for one, result in zip(pairs, (outputs, expected)))
            largest['boxes'] = np.abs(mine[0] - others[0]).max() / expected[0].max()
            largest['scores'] = np.abs(mine[2] - others[2]).max() / expected[2].max()
            if len(mine) > 3:
                sizes = np.maximum(SMALL, others[3].sum((1, 2)))
                largest['masks'] = ((mine[3] != others[3]).sum((1, 2)) / sizes).max()
        margin = allowed['scores'] * max([*expected[2], *outputs[2]], default=0.)
        for one, other, matched in ((outputs, expected, pairs[0]), (expected, outputs, pairs[1])):
            left = np.setdiff1d(np.arange(len(one[0])), matched)
            is_tied = self.is_tied([part[left] for part in one], one, other, margin)
            for name, count in (('tied', is_tied.sum()), ('unmatched', (~is_tied).sum())):
                largest[name] += count / max(1, len(outputs[0]) + len(expected[0]))
        return largest

    def is_tied(self, left: Arrays, one: Arrays, others: Arrays, margin: float) -> np.ndarray:
        """Return whether rounding decides that detections are ``left`` without a counterpart.

        Their scores are within ``margin`` of the lowest that is kept, or of an overlapping
        detection's in the other result, which NMS prefers there. bool (K, ).
        """
        lowest = [result[2].min() for result in (one, others)
                  if 0 < self.test_cfg.max_per_img <= len(result[2])]
        lowest = max([self.test_cfg.get('score_thr', 0.), *lowest])
        close = np.abs(left[2][:, None] - others[2]) <= margin
        rival = overlaps(left, others) > self.test_cfg.nms.iou_threshold
        return (left[2] <= lowest + margin) | (rival & close).any(1)


def detections(outputs: Arrays) -> Arrays:
    """Return the detections in a graph's outputs (1, K, ...), without missing ones."""
    exists = outputs[2][0] > 0
    return [output[0][exists] for output in outputs]


def overlaps(one: Arrays, others: Arrays) -> np.ndarray:
    """Return the IoU of the boxes of detections, 0 for different labels: (K, L)."""
    overlap = box_iou(torch.tensor(one[0]), torch.tensor(others[0])).numpy()
    return np.where(one[1][:, None] == others[1], overlap, 0)


def matches(outputs: Arrays, expected: Arrays) -> list[np.ndarray]:
    """Return the numbers of the detections (boxes, labels, ...) of one class whose boxes overlap most."""
    overlap = overlaps(outputs, expected)
    pairs = linear_sum_assignment(overlap, maximize=True)
    return [one[overlap[pairs] > SAME] for one in pairs]
