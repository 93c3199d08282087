"""One affine map from the pixels of a block to its normalised DCT channels.

Colour conversion, level shift, upscaling, DCT, selection and normalisation are affine
(:mod:`mmfreq.dct.blocks` has each of them). A channel of a block is therefore a weighted sum of the
pixels that the block depends on, plus a constant, and coefficients outside the selection are never
computed. The map rounds nothing, whereas :func:`mmfreq.dct.blocks.to_ycbcr` rounds colours to whole
levels, which moves a coefficient by 0.29 (standard deviation).

Each backend has one implementation: :mod:`mmfreq.dct.blocks` in NumPy is the reference,
:mod:`mmfreq.dct.kernel` is the compiled loop, and :mod:`mmfreq.models.dct_layer` is a convolution.
"""
from types import ModuleType
from typing import Sequence, Union

import cv2
import numpy as np

from mmfreq.dct.blocks import (
    LEVEL_SHIFT,
    check_image,
    check_positive_int,
    color_matrix,
    dct_matrix,
    grid_shape,
)
from mmfreq.dct.lazy_image import LazyImage


def _upscale_matrix(n: int, factor: int) -> np.ndarray:
    """Return the weights of bilinear upscaling for n upscaled pixels of a block: (n, window)."""
    if n % check_positive_int('upscale', factor):
        raise ValueError(f'block_size: expected a multiple of upscale={factor}, got {n}; YCbCr, '
                         'BlockDCT, ChannelSelect and FreqNormalize take other sizes')
    if factor == 1:
        return np.eye(n)
    matrix = np.zeros((n, n // factor + 2))
    for i in range(n):
        position = (i + 0.5) / factor + 0.5  # in the window, between two pixels' centres
        left = int(position)
        matrix[i, left:left + 2] = left + 1 - position, position - left
    return matrix


class BlockMap:
    """Affine map from the pixels of an image to some of its normalised DCT channels.

    Args:
        channels (Sequence[int]): The C channels of the selection.
        mean (np.ndarray): float64 (3*N*N,), subtracted from the coefficients.
        std (np.ndarray): float64 (3*N*N,), divides them.
        block_size (int): Side N of a block in upscaled pixels, a multiple of ``upscale``. Defaults
            to 8.
        upscale (int): Bilinear upscaling before the DCT. Defaults to 1.
        channel_order (str): ``'bgr'`` or ``'rgb'``. Defaults to ``'bgr'``.

    Attributes:
        stride (int): Pixels of the image from one block to the next.
        margin (int): Further pixels on either side that a block depends on: 1 if upscaled, else 0.
        kernel (np.ndarray): float64 (C, 3, window, window) with ``window = stride + 2 * margin``.
            Channel c of a block is the sum of ``kernel[c]`` times its pixels (colour, row, column),
            plus ``bias[c]``.
        bias (np.ndarray): float64 (C,).

    Raises:
        ValueError: ``block_size`` is not a multiple of ``upscale``.
    """

    def __init__(self, channels: Sequence[int], mean: np.ndarray, std: np.ndarray,
                 block_size: int = 8, upscale: int = 1, channel_order: str = 'bgr') -> None:
        n = block_size
        basis = dct_matrix(n) @ _upscale_matrix(n, upscale)  # (N, window)
        color = color_matrix(channel_order)
        self.block_size, self.upscale = n, upscale
        self.stride, self.margin = n // upscale, int(upscale > 1)
        chosen = np.array(channels)
        component, vertical, horizontal = chosen // n**2, chosen // n % n, chosen % n
        mean, std = np.asarray(mean)[chosen], np.asarray(std)[chosen]
        columns = basis[horizontal] / std[:, None]  # (C, window)
        self.kernel = np.einsum('cy,cx,ck->ckyx', basis[vertical], columns, color[component, :3])
        level = np.where(chosen % n**2 == 0, n * (color[component, 3] - LEVEL_SHIFT), 0)
        self.bias = (level - mean) / std
        order = np.lexsort((component, vertical))
        used, starts = np.unique(vertical[order], return_index=True)
        across, column = np.unique(horizontal, return_inverse=True)
        table = np.stack([component, column, np.arange(len(chosen))], axis=1)
        rows = np.pad(basis[used], ((0, len(used) % 2), (0, 0)))  # the loop takes an even number
        self._weights = (
            color[:, :3].astype(np.float32, order='C'), rows.astype(np.float32),
            np.append(starts, len(chosen)), basis[across].astype(np.float32), table[order],
            np.stack([1 / std, self.bias], axis=1).astype(np.float32)[order])
        _compiled_loop()  # compiled before workers are forked

    def channels(self, image: Union[np.ndarray, LazyImage]) -> np.ndarray:
        """Compute the channels of an image on one thread.

        Args:
            image (np.ndarray | LazyImage): uint8 (H, W, 3). Edges are replicated up to a whole
                block. A lazy image is resized without rounding.

        Returns:
            np.ndarray: float32 (C, h, w), see :func:`mmfreq.dct.blocks.grid_shape`.

        Raises:
            ValueError: Another dtype or shape.
        """
        shape = grid_shape(check_image(image).shape, self.block_size, self.upscale)
        out = np.empty((len(self.bias), *shape), dtype=np.float32)
        lazy = LazyImage.of(image)
        pixels = _forward(lazy.pixels)
        _compiled_loop().block_channels(
            pixels.reshape(len(pixels), -1), lazy.axes, lazy.supports, *self._weights, self.stride,
            self.margin, out)
        return out

def _compiled_loop() -> ModuleType:
    """Return :mod:`mmfreq.dct.kernel`.

    Importing numba takes half a second and compiling some seconds the first time, so that only the
    first map does it. A map holds weights alone: a worker that receives it pickled loads the
    machine code from disk.
    """
    from mmfreq.dct import kernel
    return kernel


def _forward(image: np.ndarray) -> np.ndarray:
    """Return the image (H, W, 3) in C order; OpenCV flips fastest."""
    flipped = [axis for axis in (0, 1) if image.strides[axis] < 0]
    if flipped and image.strides[2] > 0:
        return cv2.flip(np.flip(image, flipped), {(0, ): 0, (1, ): 1, (0, 1): -1}[tuple(flipped)])
    return np.ascontiguousarray(image)
