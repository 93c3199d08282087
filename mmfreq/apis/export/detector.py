"""Export detectors of mmdet: from pixels to boxes, labels, scores and masks."""
from typing import Any, Callable, Iterator

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmfreq.apis.export.detections import COARSE, FINE, Rounding, compare
from mmfreq.apis.export.file import Arrays, Differences, Exporter, Reference
from mmfreq.apis.export.fixed_lengths import fixed_lengths
from mmfreq.apis.export.inputs import ImageInput
from mmfreq.apis.export.resize import image_size, opencv_bilinear
from mmfreq.apis.inference import Model
from mmfreq.apis.terminal import say
from mmfreq.errors import RefusedError

REPETITIONS = 8  # a detection that a coin decides about is in all of them once in 256 cases
ROUNDING, INT8_ROUNDING = 5e-7, 1e-4
_NMS = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}


class DetectorInput(ImageInput):
    """Pixels, uint8 (1, H, W, 3), to a network's input; arguments as of :class:`ImageInput`.

    The image is resized and padded as mmdet's Resize and Pad do, and padded as the preprocessor pads
    one image.
    """

    def __init__(self, cfg: Config, preprocessor: Any, order: str) -> None:
        super().__init__(cfg, order)
        step, pad, *others = *self.about['steps'], {}, {}
        how = step.get('type'), step.get('backend', 'cv2'), step.get('interpolation', 'bilinear')
        pads = pad.get('type', 'Pad'), pad.get('padding_mode', 'constant')
        if (how != ('Resize', 'cv2', 'bilinear') or not isinstance(step.get('scale'), (tuple, list))
                or pads != ('Pad', 'constant') or any(others)):
            raise RefusedError('the test pipeline: expected one Resize with scale=(width, height), '
                               'bilinear, by cv2, and perhaps a Pad with a constant, got '
                               f'{self.about["steps"]}, which cannot be exported')
        self.scale, self.keep_ratio, self.pad = step['scale'], step.get('keep_ratio', False), pad
        value = pad.get('pad_val', 0)
        value = np.broadcast_to(value.get('img', 0) if isinstance(value, dict) else value, 3)
        self.pad_pixel = value[::1 if order == 'bgr' else -1].tolist()  # OpenCV's are BGR
        self.rounds = not step.get('lazy')
        self.divisor = preprocessor.pad_size_divisor * self.stride
        self.pad_value = float(preprocessor.pad_value)

    def resized_shape(self, size: Tensor) -> Tensor:
        """Return the resized height and width for those of an image, float64 (2, )."""
        if not self.keep_ratio:
            return torch.tensor(self.scale[::-1], dtype=torch.float64)
        factor = torch.minimum(max(self.scale) / size.max(), min(self.scale) / size.min())
        return (size * factor + 0.5).floor()

    def padded_shape(self, shape: Tensor) -> Tensor:
        """Return the height and width to which Pad brings a resized image's, float64 (2, )."""
        if self.pad.get('size'):
            return torch.tensor(self.pad['size'][::-1], dtype=torch.float64)
        divisor = self.pad.get('size_divisor') or 1
        shape = shape.max().expand(2) if self.pad.get('pad_to_square') else shape
        return (shape / divisor).ceil() * divisor

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, list[int], list[int]]:
        """Return the input, and its description for mmdet's metadata.

        Returns:
            tuple[Tensor, Tensor, list[int], list[int]]: The input, float32 (1, C, h, w); the factors
            of height and width, float64 (2, ); height and width in pixels after the pipeline and
            after the preprocessor.
        """
        images = images.permute(0, 3, 1, 2)
        size = image_size(images)
        new = self.resized_shape(size)
        shape = self.padded_shape(new)
        padded = [self.divisor * count for count in whole_numbers((shape / self.divisor).ceil())]
        images = opencv_bilinear(images, new, padded, self.rounds)
        images = filled(images, new, torch.tensor(self.pad_pixel).float().view(3, 1, 1), shape)
        inputs = filled(self.converted(images), (shape / self.stride).ceil(), self.pad_value)
        return inputs, new / size, whole_numbers(shape), padded


def filled(images: Tensor, shape: Tensor, value: Any, until: Any = (torch.inf, torch.inf)) -> Tensor:
    """Fill the rows and columns of images (N, C, H, W) beyond ``shape`` with a value.

    Those beyond ``until``, which make a block whole, are treated as the last one before it.
    """
    for axis, inside, end in zip((2, 3), shape, until):
        place = torch.arange(images.shape[axis], dtype=torch.float64)
        is_inside = place.clamp(max=end - 1) < inside
        images = torch.where(is_inside.view(-1, *[1] * (3 - axis)), images, value)
    return images


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
        # the padding that DETR would mask is too small for a cell of its features
        sample, shapes = DetDataSample(), dict(batch_input_shape=resized, pad_shape=padded)
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

    def results(self, sample: Any) -> Arrays:
        """Return boxes (K, 4), labels, scores (K, ) and, if there are any, masks of a data sample."""
        results = sample.pred_instances
        names = ['bboxes', 'labels', 'scores'] + ['masks'] * ('masks' in results)
        return [results[name].numpy() for name in names]

    def example(self) -> tuple[Tensor, dict]:
        """Return an image, whose height and width are dynamic."""
        return self.inputs()[0], dict.fromkeys((1, 2), torch.export.Dim.DYNAMIC)

    def references(self) -> list[Reference]:
        """Return the same graph in PyTorch, and test pipeline and mmdet, with their repetitions."""
        count = sum(len(result[0]) for result in self.expected)
        if not count:
            say('WARNING: mmdet detects nothing in these images, so that nothing is compared; a lower '
                'score_thr in model.test_cfg helps')
        inputs, limits = self.inputs(), (FINE if self.network.front.int8_scale is None else COARSE, COARSE)
        fine, coarse = ({name: value for name, value in limit.items()
                         if name != 'masks' or name in self.network.outputs} for limit in limits)
        graph = [(self.graph(one), self.again(self.graph, one)) for one in inputs]
        stock = [(one, self.again(self.stock, packed)) for one, packed in zip(self.expected, self.packed)]
        return [('the same graph in PyTorch', zip(inputs, graph), fine),
                (f'{count} detections of test pipeline and mmdet', zip(inputs, stock), coarse)]

    def graph(self, inputs: Tensor) -> Arrays:
        """Return what the graph detects in PyTorch."""
        return detections([output.numpy() for output in self.network(inputs)])

    @torch.no_grad()
    def stock(self, packed: dict) -> Arrays:
        """Return what mmdet detects in a result of the test pipeline."""
        return self.results(self.model.module.test_step(pseudo_collate([packed]))[0])

    def again(self, detect: Callable, image: Any) -> Iterator[Arrays]:
        """Yield what ``detect`` returns for an image where PyTorch rounds otherwise."""
        noise = ROUNDING if self.network.front.int8_scale is None else INT8_ROUNDING
        for seed in range(REPETITIONS):
            with Rounding(noise, seed):
                result = detect(image)
            yield result

    def differences(self, outputs: Arrays, expected: tuple[Arrays, Iterator[Arrays]],
                    allowed: Differences) -> Differences:
        """Return the differences of detections: :func:`~mmfreq.apis.export.detections.compare`."""
        return compare(detections(outputs), *expected, allowed)

    def check(self, run: Callable) -> dict[str, Differences]:
        """Check as :meth:`Exporter.check` does; warn where rounding decides about most detections."""
        largest = super().check(run)
        if max(differences['tied'] for differences in largest.values()) > 0.5:
            say('WARNING: in an image, rounding decides about more than half of the detections, which are '
                'not compared: their scores, or those of proposals, are nearly equal')
        return largest


def detections(outputs: Arrays) -> Arrays:
    """Return the detections in a graph's outputs (1, K, ...), without missing ones."""
    exists = outputs[2][0] > 0
    return [output[0][exists] for output in outputs]
