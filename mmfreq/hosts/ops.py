"""mmcv's ``nms`` and ``roi_align`` from torchvision, for an mmcv without compiled ops.

mmcv's wrappers (``mmcv.ops.nms``, ``mmcv.ops.RoIAlign``, ...) stay as they are. They load compiled
functions from a module named ``mmcv._ext``; :mod:`mmfreq.hosts.finder` loads this file as that module.
Every other op exists too, and raises NotImplementedError when called.
"""
from typing import Any, Callable

import torch
import torchvision

_FULL_MMCV = ('install an mmcv with compiled ops, prebuilt for your torch and CUDA or built from source '
              '("pip install --no-build-isolation mmcv", or onedl-mmcv; tens of minutes)')


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Convert half and bfloat16, which are too coarse for coordinates, to float32."""
    return tensor.float() if tensor.dtype in (torch.half, torch.bfloat16) else tensor


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int) -> torch.Tensor:
    """Suppress boxes that overlap a better one, as mmcv's op does; half and bfloat16 in float32.

    Args:
        boxes (torch.Tensor): (N, 4), x1, y1, x2, y2.
        scores (torch.Tensor): (N, ).
        iou_threshold (float): Drop boxes that overlap a better one by more than this.
        offset (int): 0, or 1 if a box's width is x2 - x1 + 1.

    Returns:
        torch.Tensor: int64 indices of the kept boxes, best score first.
    """
    boxes, scores = _at_least_float32(boxes), _at_least_float32(scores)
    dtype = torch.promote_types(boxes.dtype, scores.dtype)
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    return torchvision.ops.nms(boxes.to(dtype), scores.to(dtype), iou_threshold)


def _require_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError("roi_align with pool_mode='max' has no counterpart in torchvision: use "
                                  f"pool_mode='avg', or {_FULL_MMCV}")


def roi_align_forward(input: torch.Tensor, rois: torch.Tensor, output: torch.Tensor,
                      argmax_y: torch.Tensor, argmax_x: torch.Tensor, *, aligned_height: int,
                      aligned_width: int, spatial_scale: float, sampling_ratio: int, pool_mode: int,
                      aligned: bool) -> None:
    """Average-pool regions as mmcv's op does; half and bfloat16 in float32, also under autocast.

    Args:
        input (torch.Tensor): (N, C, H, W).
        rois (torch.Tensor): (R, 5): image index, x1, y1, x2, y2.
        output (torch.Tensor): (R, C, aligned_height, aligned_width); filled.
        argmax_y (torch.Tensor): Unused; for max pooling.
        argmax_x (torch.Tensor): Unused; for max pooling.
        aligned_height (int): Rows of the output.
        aligned_width (int): Columns of the output.
        spatial_scale (float): Cells of ``input`` per pixel of ``rois``.
        sampling_ratio (int): Samples per bin and direction; 0: one per cell.
        pool_mode (int): 1 (average); 0 (max) raises NotImplementedError.
        aligned (bool): Whether to shift boxes by half a cell.
    """
    _require_average(pool_mode)
    features = _at_least_float32(input)
    # torchvision.ops.roi_align would go through torch.compile for deterministic algorithms on a GPU
    output.copy_(torch.ops.torchvision.roi_align(
        features, rois.to(features.dtype), spatial_scale, aligned_height, aligned_width,
        sampling_ratio, aligned))


def roi_align_backward(grad_output: torch.Tensor, rois: torch.Tensor, argmax_y: torch.Tensor,
                       argmax_x: torch.Tensor, grad_input: torch.Tensor, *, aligned_height: int,
                       aligned_width: int, spatial_scale: float, sampling_ratio: int, pool_mode: int,
                       aligned: bool) -> None:
    """Fill ``grad_input`` (N, C, H, W) with the gradient of :func:`roi_align_forward`."""
    _require_average(pool_mode)
    grad = _at_least_float32(grad_output)
    grad_input.copy_(torch.ops.torchvision._roi_align_backward(
        grad, rois.to(grad.dtype), spatial_scale, aligned_height, aligned_width, *grad_input.shape,
        sampling_ratio, aligned))


def get_compiler_version() -> str:
    """Return 'n/a', which mmcv.utils.collect_env reports for an mmcv without ops."""
    return 'n/a'


get_compiling_cuda_version = get_compiler_version


def __getattr__(name: str) -> Callable:
    """Return, for any other op, a function that raises NotImplementedError."""
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f'this mmcv has no compiled op {name!r}: {_FULL_MMCV}')

    return missing
