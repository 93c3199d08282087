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
    to_int8,
)
from mmfreq.dct.lazy_image import LazyImage
from mmfreq.dct.planes import JpegPlanes


def upscale_matrix(n: int, factor: int) -> np.ndarray:
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
        basis = dct_matrix(n) @ upscale_matrix(n, upscale)  # (N, window)
        color = color_matrix(channel_order)
        self.block_size, self.upscale, self.channel_order = n, upscale, channel_order
        self.stride, self.margin = n // upscale, int(upscale > 1)
        chosen = np.array(channels)
        component, vertical, horizontal = chosen // n**2, chosen // n % n, chosen % n
        mean, std = np.asarray(mean)[chosen], np.asarray(std)[chosen]
        columns = basis[horizontal] / std[:, None]  # (C, window)
        self.kernel = np.einsum('cy,cx,ck->ckyx', basis[vertical], columns, color[component, :3])
        is_dc, luma = chosen % n**2 == 0, component == 0
        self.bias = (is_dc * n * (color[component, 3] - LEVEL_SHIFT) - mean) / std
        parts = np.stack([component, vertical, horizontal, np.arange(len(chosen))], axis=1)
        affine = np.stack([1 / std, self.bias], axis=1).astype(np.float32)
        self._weights = [_loop_weights(basis, color[:, :3], parts, affine)]
        affine[:, 1] = (is_dc * n * -LEVEL_SHIFT - mean) / std  # levels of chroma are around 128, too
        parts[:, 0] -= ~luma  # Cb is plane 0 of chroma
        self._plane_weights = [_loop_weights(basis, np.empty((0, 1)), parts[each], affine[each])
                               for each in (luma, ~luma)]
        _compiled_loop()  # compiled before workers are forked

    def channels(self, image: Union[np.ndarray, LazyImage], dtype: str = 'float32') -> np.ndarray:
        """Compute the channels of an image on one thread.

        Args:
            image (np.ndarray | LazyImage): uint8 (H, W, 3). Edges are replicated up to a whole
                block. A lazy image is resized without rounding.
            dtype (str): ``'float32'``, or ``'int8'`` for rounded and saturated channels. Defaults to
                ``'float32'``.

        Returns:
            np.ndarray: (C, h, w), see :func:`mmfreq.dct.blocks.grid_shape`.

        Raises:
            ValueError: Another dtype or shape.
        """
        loop = _compiled_loop()
        grid_h, grid_w = grid_shape(check_image(image).shape, self.block_size, self.upscale)
        grid = max(grid_h, loop.LANES), max(grid_w, loop.LANES)
        out, rounded = (np.empty((len(self.bias), *(grid if kind == dtype else (0, 0))), kind)
                        for kind in ('float32', 'int8'))
        lazy, weights, colors = LazyImage.of(image), self._weights, 3
        if isinstance(lazy.pixels, JpegPlanes) and self.channel_order == 'bgr':
            sources, weights, colors = lazy.pixels.planes(lazy.eighths), self._plane_weights, 1
            if len(sources) == 1:
                out[:] = self.bias[:, None, None]  # the chroma of grey
                rounded[:] = to_int8(self.bias)[:, None, None]
        else:
            pixels = _forward(np.asarray(lazy.pixels))
            sources = [(pixels.reshape(1, len(pixels), -1), (1., 1.))]
        axes = lazy.axes
        for (planes, scales), arguments in zip(sources, weights):
            if planes.shape[2] < colors * loop.LANES:
                planes = np.pad(planes, ((0, 0), (0, 0), (0, colors * loop.LANES - planes.shape[2])))
            loop.block_channels(planes, scales, axes, lazy.antialias, *arguments, self.stride, self.margin,
                                out, rounded)
        return np.ascontiguousarray((rounded if dtype == 'int8' else out)[:, :grid_h, :grid_w])


def _loop_weights(basis: np.ndarray, color: np.ndarray, parts: np.ndarray,
                  affine: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return arguments of the compiled loop, from ``color`` to ``affine``.

    ``basis`` are the weights of each frequency, (N, window). ``parts`` holds component, vertical
    and horizontal frequency of each channel and its place in the result: (C, 4).
    """
    component, vertical, horizontal, index = parts.T
    order = np.lexsort((horizontal, vertical, component))
    used, row = np.unique(vertical, return_inverse=True)
    across, column = np.unique(horizontal, return_inverse=True)
    lines, starts = np.unique(np.stack([component, row], axis=1)[order], axis=0, return_index=True)
    rows = np.pad(basis[used], ((0, len(used) % 2), (0, 0)))  # the loop takes an even number
    return (color.astype(np.float32, order='C'), rows.astype(np.float32), basis[across].astype(np.float32),
            lines, np.append(starts, len(parts)), np.stack([column, index], axis=1)[order], affine[order])


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
