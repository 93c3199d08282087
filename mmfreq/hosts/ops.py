"""Detection without compiling: mmcv's ``nms`` and ``roi_align`` from torchvision where mmcv has no compiled ops.

mmcv's Python wrappers (``mmcv.ops.nms``, ``mmcv.ops.RoIAlign``, ...) stay as they are; they load the compiled functions
from a module named ``mmcv._ext``. Where that is missing, :func:`provide_ops` supplies one. A compiled mmcv always wins.
"""
import importlib.util
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Callable

import torch
import torchvision

_EXT = 'mmcv._ext'
_FULL_MMCV = ('install an mmcv with compiled ops: "pip install --no-build-isolation onedl-mmcv" builds them (tens of '
              'minutes), or take a prebuilt mmcv for your torch and CUDA')


def _full(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32 where it is half or bfloat16: either is too coarse for coordinates."""
    return tensor.float() if tensor.dtype in (torch.half, torch.bfloat16) else tensor


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int) -> torch.Tensor:
    """Non-maximum suppression, as mmcv's compiled op; in float32 where half or bfloat16 comes.

    Args:
        boxes (torch.Tensor): (N, 4), x1, y1, x2, y2.
        scores (torch.Tensor): (N, ).
        iou_threshold (float): Boxes that overlap a better one by more than this go.
        offset (int): 0, or 1 where a box's width is x2 - x1 + 1.

    Returns:
        torch.Tensor: int64, indices of the boxes that stay, best score first.
    """
    boxes, scores = _full(boxes), _full(scores)
    dtype = torch.promote_types(boxes.dtype, scores.dtype)
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    return torchvision.ops.nms(boxes.to(dtype), scores.to(dtype), iou_threshold)


def _require_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError(f"mmcv's roi_align with pool_mode='max' has no counterpart in torchvision: use "
                                  f"pool_mode='avg', or {_FULL_MMCV}")


def roi_align_forward(input: torch.Tensor, rois: torch.Tensor, output: torch.Tensor, argmax_y: torch.Tensor,
                      argmax_x: torch.Tensor, *, aligned_height: int, aligned_width: int, spatial_scale: float,
                      sampling_ratio: int, pool_mode: int, aligned: bool) -> None:
    """RoIAlign with average pooling, as mmcv's compiled op: fills ``output`` (R, C, aligned_height, aligned_width).

    Half and bfloat16 are computed in float32, whatever autocast says (backward runs outside it).

    Args:
        input (torch.Tensor): (N, C, H, W).
        rois (torch.Tensor): (R, 5): image index, x1, y1, x2, y2.
        output (torch.Tensor): Is filled.
        argmax_y (torch.Tensor): Unused; for max pooling.
        argmax_x (torch.Tensor): Unused; for max pooling.
        aligned_height (int): Rows of the result.
        aligned_width (int): Columns of the result.
        spatial_scale (float): Cells of ``input`` for each pixel of ``rois``.
        sampling_ratio (int): Samples for each bin and direction; 0: as many as there are cells.
        pool_mode (int): 1 (average); 0 (max) raises NotImplementedError.
        aligned (bool): Whether boxes are shifted by half a cell.
    """
    _require_average(pool_mode)
    features = _full(input)
    # Not torchvision.ops.roi_align, which torch.use_deterministic_algorithms sends through torch.compile on a GPU.
    output.copy_(torch.ops.torchvision.roi_align(features, rois.to(features.dtype), spatial_scale, aligned_height,
                                                 aligned_width, sampling_ratio, aligned))


def roi_align_backward(grad_output: torch.Tensor, rois: torch.Tensor, argmax_y: torch.Tensor, argmax_x: torch.Tensor,
                       grad_input: torch.Tensor, *, aligned_height: int, aligned_width: int, spatial_scale: float,
                       sampling_ratio: int, pool_mode: int, aligned: bool) -> None:
    """Gradient of :func:`roi_align_forward`: fills ``grad_input`` (N, C, H, W); arguments as there."""
    _require_average(pool_mode)
    grad = _full(grad_output)
    grad_input.copy_(torch.ops.torchvision._roi_align_backward(
        grad, rois.to(grad.dtype), spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio,
        aligned))


class _TorchvisionOps(ModuleType):
    """Stands in for ``mmcv._ext``. Every other op is there, and raises NotImplementedError when it is called."""

    def __init__(self) -> None:
        super().__init__(_EXT, 'mmcv ops backed by torchvision (mmfreq.hosts.ops)')
        self.__spec__ = ModuleSpec(_EXT, None)
        self.nms = nms
        self.roi_align_forward = roi_align_forward
        self.roi_align_backward = roi_align_backward
        # mmcv.utils.collect_env asks for these, and itself says so of an mmcv without ops
        self.get_compiler_version = self.get_compiling_cuda_version = lambda: 'n/a'

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> None:
            raise NotImplementedError(f'the op {name!r} needs an mmcv with compiled ops, and this one has none: '
                                      f'{_FULL_MMCV}')

        return missing


def provide_ops() -> bool:
    """Makes ``mmcv.ops`` importable where mmcv has no compiled ops. Call it before anything imports ``mmcv.ops``.

    Returns:
        bool: Whether torchvision's ops are in use; False with a compiled mmcv.
    """
    if isinstance(sys.modules.get(_EXT), _TorchvisionOps):
        return True
    if _EXT in sys.modules or importlib.util.find_spec(_EXT) is not None:
        return False
    if any(name.startswith('mmdet.models') for name in sys.modules):
        warnings.warn('mmdet was imported before mmfreq.models.det, and stays without nms and RoIAlign: import '
                      'mmfreq.models.det (or cls) first', stacklevel=2)
    sys.modules[_EXT] = _TorchvisionOps()
    return True
