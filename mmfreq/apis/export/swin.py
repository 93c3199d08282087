"""Swin's attention without branches on sizes, so that a graph may compute them."""
from typing import Any, Sequence

import torch
from mmdet.models.backbones import swin
from mmdet.models.layers.transformer.utils import AdaptivePadding
from mmpretrain.models.utils import ShiftWindowMSA
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def window_reverse(windows: Tensor, height: int, width: int, size: int) -> Tensor:
    """Put windows (N * h * w, size, size, C) back into maps (N, height, width, C).

    The hosts compute N by a division of floats, which a graph keeps as a constant.
    """
    maps = windows.view(-1, height // size, width // size, size, size, windows.shape[-1])
    return maps.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, windows.shape[-1])


def attention(self: Any, query: Tensor, hw_shape: Sequence[int]) -> Tensor:
    """Replace mmdet's ShiftWindowMSA.forward, which branches on sizes and writes its mask piece by piece."""
    (height, width), size, shift = hw_shape, self.window_size, self.shift_size
    sides = [(side + size - 1) // size * size for side in hw_shape]
    maps = F.pad(query.unflatten(1, (height, width)),
                 (0, 0, 0, sides[1] - width, 0, sides[0] - height)).roll((-shift, -shift), (1, 2))
    mask = None
    if shift:
        rows, columns = [(torch.arange(side) >= side - size).long()
                         + (torch.arange(side) >= side - shift) for side in sides]
        region = self.window_partition((3 * rows[:, None] + columns)[None, :, :, None]).flatten(1)
        mask = torch.where(region[:, None] != region[:, :, None], -100., 0.)
    windows = self.w_msa(self.window_partition(maps).flatten(1, 2), mask=mask)
    maps = window_reverse(windows.unflatten(1, (size, size)), *sides, size)
    return self.drop(maps.roll((shift, shift), (1, 2))[:, :height, :width].flatten(1, 2))


def pad_shape(self: Any, input_shape: Sequence[int]) -> list[int]:
    """Replace AdaptivePadding.get_pad_shape, which divides sizes as floats."""
    sides = zip(input_shape, self.kernel_size, self.stride, self.dilation)
    return [max((side - 1) // stride * stride + (kernel - 1) * dilation + 1 - side, 0)
            for side, kernel, stride, dilation in sides]


PATCHES = [
    (ShiftWindowMSA, 'window_reverse', staticmethod(window_reverse)),
    (swin.ShiftWindowMSA, 'forward', attention),
    (AdaptivePadding, 'get_pad_shape', pad_shape),
]
