"""Resizing and cropping of a test pipeline as torch operations, which a graph can hold."""
from typing import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from mmfreq.config.pipelines import lazy_step, stock_resize, transform_type
from mmfreq.errors import RefusedError
from mmfreq.input_spec import DCT_TRANSFORMS

_ENDS = ('LoadImageFromFile', 'LoadYCbCrFromFile', 'LoadAnnotations', 'PackInputs', 'PackDetInputs')


def geometry(pipeline: Sequence[dict]) -> list[dict]:
    """Return the configs of the transforms between loader and DCT, as of stock ones.

    ``lazy=True`` marks a resize whose pixels FusedBlockDCT computes, which does not round them.
    """
    fused = 'FusedBlockDCT' in map(transform_type, pipeline)
    steps = []
    for step in pipeline:
        stock = {key: value for key, value in stock_resize(step).items() if key != '_scope_'}
        stock['type'] = kind = transform_type(stock)
        if fused and transform_type(step) == 'LazyResize' and lazy_step(stock):
            stock['lazy'] = True
        if kind not in (*DCT_TRANSFORMS, *_ENDS):
            steps.append(stock)
    return steps


def resize(step: dict) -> Callable:
    """Return ResizeEdge of the short edge, or Resize to a fixed scale, for float pixels (N, 3, H, W)."""
    scale, by_edge, lazy = step.get('scale'), step['type'] == 'ResizeEdge', step.get('lazy')
    backend, mode = step.get('backend', 'cv2'), step.get('interpolation', 'bilinear')
    fixed = step.get('edge', 'short') == 'short' if by_edge else scale and not step.get('keep_ratio')
    if not fixed or backend not in ('cv2', 'pillow') or mode not in ('bilinear', 'bicubic'):
        raise RefusedError('the test pipeline: expected Resize to a fixed scale or ResizeEdge of the '
                           f'short edge, bilinear or bicubic, got {step}; --input channels leaves '
                           'it out of the file')

    def resized(image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        if by_edge:
            short = torch.sym_min(height, width)
            size = [scale * height // short, scale * width // short]
        else:
            size = [scale, scale] if isinstance(scale, int) else [*scale[::-1]]
        # Pillow rounds the resized rows, too
        for shape in [(height, size[1]), size] if backend == 'pillow' and not lazy else [size]:
            image = F.interpolate(image, shape, mode=mode, antialias=backend == 'pillow')
            image = image if lazy else whole_levels(image)
        return image

    return resized


def whole_levels(image: Tensor) -> Tensor:
    """Round to 0..255, halves up as both backends do; the margin hides a runtime's rounding."""
    return (image + 0.5001).floor().clamp(0, 255)


def center_crop(step: dict) -> Callable:
    """Return CenterCrop; halves are rounded to even, as Python does."""
    size = step['crop_size']
    width, height = (size, size) if isinstance(size, int) else size

    def crop(image: Tensor) -> Tensor:
        for axis, side in ((2, height), (3, width)):
            rest = image.shape[axis] - side
            half = rest // 2
            image = image.narrow(axis, half + rest % 2 * (half % 2), side)
        return image

    return crop


def image_size(images: Tensor) -> Tensor:
    """Return height and width of images (N, C, H, W), float64 (2, ), which the graph computes."""
    sides = [torch.scalar_tensor(side, dtype=torch.float64) for side in images.shape[2:]]
    return torch.stack(sides)


def opencv_bilinear(images: Tensor, new: Tensor, shape: Sequence[int],
                    rounds: bool = True) -> Tensor:
    """Resize as OpenCV does, to the bit: its weights are multiples of 1/2048, its sums integers.

    The pixels (N, C, H, W) get the height and width ``new``, float64 (2, ). The result is float32
    (N, C, *shape), where rows and columns beyond ``new`` repeat the last one. LazyResize does not
    round weights and levels.
    """
    rows, columns = map(_taps, image_size(images), new, shape, (rounds, rounds))
    low, high, weight = columns
    images = images.index_select(3, low) * (2048 - weight) + images.index_select(3, high) * weight
    low, high, weight = rows
    weight = weight[:, None]
    above, below = images.index_select(2, low), images.index_select(2, high)
    if not rounds:
        return ((above * (2048 - weight) + below * weight) / 2**22).float()
    above, below = [(part / 16).floor() for part in (above, below)]
    above = (above * (2048 - weight) / 2**16).floor()
    below = (below * weight / 2**16).floor()
    return ((above + below + 2) / 4).floor().float()


def _taps(size: Tensor, new: Tensor, count: int, rounds: bool) -> tuple[Tensor, ...]:
    """Return the two pixels around each new pixel of a line, and 2048 times the second's weight."""
    place = torch.minimum(torch.arange(count, dtype=torch.float64), new - 1) + 0.5
    place = place / (new / size) - 0.5
    place = place.float() if rounds else place.clamp(min=0)
    first = place.floor()
    low, high = first.clamp(min=0).double(), (first + 1).double()
    weight = ((place - first) * 2048).double()
    weight = weight.round() if rounds else weight
    return torch.minimum(low, size - 1).long(), torch.minimum(high, size - 1).long(), weight
