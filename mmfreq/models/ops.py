"""mmcv's ``nms`` and ``roi_align`` from torchvision, for an mmcv without compiled ops.

mmcv's wrappers (``mmcv.ops.nms``, ``mmcv.ops.RoIAlign``, ...) load compiled functions from a module
named ``mmcv._ext``. Where it does not exist, :func:`provide_ops` puts this module in its place. Every
other op raises NotImplementedError when it is called. Half and bfloat16 tensors are computed in
float32, also under autocast.
"""
import importlib.util
import sys
import warnings
from functools import partial
from typing import Any, Callable

import torch
import torchvision

_FULL_MMCV = ('install an mmcv with compiled ops, prebuilt for your torch and CUDA or built from '
              'source ("pip install --no-build-isolation mmcv", or onedl-mmcv; tens of minutes)')


def provide_ops() -> None:
    """Let mmcv load this module as ``mmcv._ext`` if it has no compiled ops."""
    if 'mmcv._ext' in sys.modules or importlib.util.find_spec('mmcv._ext') is not None:
        return
    if 'mmdet.models' in sys.modules:
        warnings.warn('mmdet was imported before mmfreq and lacks nms and RoIAlign, since this mmcv '
                      'has no compiled ops. Import mmfreq.models.det first', stacklevel=3)
    sys.modules['mmcv._ext'] = sys.modules[__name__]


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Convert half and bfloat16, which are too coarse for coordinates, to float32."""
    return tensor.float() if tensor.dtype in (torch.half, torch.bfloat16) else tensor


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float,
        offset: int) -> torch.Tensor:
    """Suppress boxes (N, 4) that overlap a better one, as mmcv's op does.

    ``offset`` is 1 if a box's width is x2 - x1 + 1, else 0. Return int64 indices, best score first.
    """
    boxes, scores = _at_least_float32(boxes), _at_least_float32(scores)
    dtype = torch.promote_types(boxes.dtype, scores.dtype)
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    return torchvision.ops.nms(boxes.to(dtype), scores.to(dtype), iou_threshold)


def _roi_options(aligned_height: int, aligned_width: int, spatial_scale: float,
                 sampling_ratio: int, pool_mode: int, aligned: bool) -> tuple[tuple, tuple]:
    """Return torchvision's arguments before and behind the shape of the input."""
    if pool_mode != 1:
        raise NotImplementedError("roi_align with pool_mode='max' has no counterpart in "
                                  f"torchvision: use pool_mode='avg', or {_FULL_MMCV}")
    return (spatial_scale, aligned_height, aligned_width), (sampling_ratio, aligned)


def roi_align_forward(input: torch.Tensor, rois: torch.Tensor, output: torch.Tensor,
                      *argmax: torch.Tensor, **options: Any) -> None:
    """Fill ``output`` with the means over regions (image index, x1, y1, x2, y2), as mmcv's op does.

    ``argmax`` is for max pooling, which raises NotImplementedError.
    """
    features, (where, how) = _at_least_float32(input), _roi_options(**options)
    # torchvision.ops.roi_align goes through torch.compile for deterministic algorithms on a GPU
    output.copy_(torch.ops.torchvision.roi_align(features, rois.to(features.dtype), *where, *how))


def roi_align_backward(grad_output: torch.Tensor, rois: torch.Tensor, argmax_y: torch.Tensor,
                       argmax_x: torch.Tensor, grad_input: torch.Tensor, **options: Any) -> None:
    """Fill ``grad_input`` (N, C, H, W) with the gradient of :func:`roi_align_forward`."""
    grad, (where, how) = _at_least_float32(grad_output), _roi_options(**options)
    grad_input.copy_(torch.ops.torchvision._roi_align_backward(
        grad, rois.to(grad.dtype), *where, *grad_input.shape, *how))


# mmcv.utils.collect_env reports this for an mmcv without ops.
get_compiler_version = get_compiling_cuda_version = partial(str, 'n/a')


def __getattr__(name: str) -> Callable:
    """Return, for any other op, a function that raises NotImplementedError."""
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f'this mmcv has no compiled op {name!r}: {_FULL_MMCV}')

    return missing
