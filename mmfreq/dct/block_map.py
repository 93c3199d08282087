"""From photos to normalised DCT channels in one affine map of each block.

Colour conversion, level shift, enlargement, DCT, selection and normalisation are affine (:mod:`mmfreq.dct.blocks` has them one
by one). So each chosen channel is a weighted sum of the pixels that its block depends on, plus a constant, and
coefficients that are not chosen need never be computed. Nothing is rounded on the way, whereas
:func:`mmfreq.dct.blocks.to_ycbcr` rounds colours to whole levels, which moves a coefficient by 0.29 (standard deviation).
"""
from types import ModuleType
from typing import Sequence

import cv2
import numpy as np

from mmfreq.dct import blocks as dct

INT8_LIMIT = 127

def enlargement_matrix(block_size: int, upscale: int) -> np.ndarray:
    """Weights that make a block of N enlarged pixels from the pixels that it depends on, as bilinear resizing does.

    Args:
        block_size (int): Side N of the block, in enlarged pixels.
        upscale (int): Enlargement, a divisor of N.

    Returns:
        np.ndarray: float64 (N, window): ``N / upscale`` pixels, and if ``upscale > 1`` one more on either side.

    Raises:
        ValueError: ``block_size`` is not a multiple of ``upscale``: blocks would begin inside a pixel.
    """
    n, factor = dct.check_positive_int('block_size', block_size), dct.check_positive_int('upscale', upscale)
    if n % factor:
        raise ValueError(f'block_size: expected a multiple of upscale={factor}, got {n} (YCbCr, BlockDCT, '
                         'ChannelSelect and FreqNormalize, one by one, take other sizes)')
    if factor == 1:
        return np.eye(n)
    matrix = np.zeros((n, n // factor + 2))
    for i in range(n):
        position = (i + 0.5) / factor + 0.5  # in pixels of the window, between the centres of two of them
        left = int(position)
        matrix[i, left:left + 2] = left + 1 - position, position - left
    return matrix


class BlockMap:
    """The affine map from the pixels of a photo to some of its normalised DCT channels.

    :func:`mmfreq.dct.kernel.block_channels` runs it: along the rows of each block, over the colours, along the columns.

    Args:
        channels (Sequence[int]): The C channels, ``N*N*component + N*vertical + horizontal``.
        mean (np.ndarray): float64 (3*N*N,), subtracted from all coefficients.
        std (np.ndarray): float64 (3*N*N,), they are divided by it.
        block_size (int): Side N of a block in enlarged pixels, a multiple of ``upscale``. Defaults to 8.
        upscale (int): Bilinear enlargement before the DCT. Defaults to 1.
        channel_order (str): ``'bgr'`` or ``'rgb'``. Defaults to ``'bgr'``.

    Attributes:
        stride (int): Pixels of the photo from one block to the next.
        margin (int): Pixels on either side of these that a block depends on, too: 1 if enlarged, else 0.
        kernel (np.ndarray): float64 (C, 3, window, window): channel c of a block is the sum of ``kernel[c]`` times its
            ``window = stride + 2 * margin`` pixels (colour, row, column), plus ``bias[c]``.
        bias (np.ndarray): float64 (C,).

    Raises:
        ValueError: ``block_size`` is not a multiple of ``upscale``.
    """

    def __init__(self, channels: Sequence[int], mean: np.ndarray, std: np.ndarray, block_size: int = 8,
                 upscale: int = 1, channel_order: str = 'bgr') -> None:
        n = block_size
        basis = dct.dct_matrix(n) @ enlargement_matrix(n, upscale)  # (N, window)
        color = dct.color_matrix(channel_order)
        self.block_size, self.upscale = n, upscale
        self.stride, self.margin = n // upscale, int(upscale > 1)
        chosen = np.array(channels)
        component, vertical, horizontal = chosen // n**2, chosen // n % n, chosen % n
        mean, std = np.asarray(mean)[chosen], np.asarray(std)[chosen]
        columns = basis[horizontal] / std[:, None]  # (C, window)
        self.kernel = np.einsum('cy,cx,ck->ckyx', basis[vertical], columns, color[component, :3])
        level = np.where(chosen % n**2 == 0, n * (color[component, 3] - dct.LEVEL_SHIFT), 0)
        self.bias = (level - mean) / std
        paired = _kernel().paired
        order = np.argsort(vertical, kind='stable')
        used, starts = np.unique(vertical[order], return_index=True)
        table = np.stack([component, horizontal % 2, np.arange(len(chosen))], axis=1)
        self._weights = (color[:, :3].astype(np.float32, order='C'), paired(basis[used], used % 2), used % 2,
                         np.append(starts, len(chosen)), paired(columns, horizontal % 2)[order], table[order],
                         self.bias[order].astype(np.float32))

    def grid_shape(self, image_shape: Sequence[int]) -> tuple[int, int]:
        """Blocks (rows, columns) of a photo of ``image_shape`` pixels (H, W)."""
        return dct.grid_shape(image_shape, self.block_size, self.upscale)

    def photo(self, image: np.ndarray) -> np.ndarray:
        """Channels of one photo, computed on one thread.

        Args:
            image (np.ndarray): uint8 (H, W, 3). Edges are replicated up to a whole block.

        Returns:
            np.ndarray: float32 (C, h, w) with ``h = ceil(H * upscale / N)``, ``w = ceil(W * upscale / N)``.
        """
        image = _forward(dct.check_image(image))
        out = np.empty((len(self.bias), *self.grid_shape(image.shape)), dtype=np.float32)
        _kernel().block_channels(image.reshape(1, len(image), -1), *self._weights, self.stride, self.margin, out)
        return out

    def photo_int8(self, image: np.ndarray) -> np.ndarray:
        """:meth:`photo`, rounded to the nearest integer (halves to even) and saturated to -127..127: int8."""
        channels = self.photo(image)
        out = np.empty(channels.shape, dtype=np.int8)
        _kernel().saturate(channels.reshape(-1), out.reshape(-1))
        return out

    def batch(self, images: np.ndarray) -> np.ndarray:
        """The same of photos of one size whose colours are planes: uint8 (N, 3, H, W) to float32 (N, C, h, w)."""
        out = np.empty((len(images), len(self.bias), *self.grid_shape(images.shape[2:])), dtype=np.float32)
        for image, channels in zip(np.ascontiguousarray(images), out):
            _kernel().block_channels(image, *self._weights, self.stride, self.margin, channels)
        return out


def _kernel() -> ModuleType:
    """The compiled loops. numba takes half a second to import, and some seconds to compile the first time.

    So only those import it who make a map, which the main process does before its workers are forked; and a map holds
    weights alone, so that workers that get it pickled load the loops from disk.
    """
    from mmfreq.dct import kernel
    return kernel


def _forward(image: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) in C order. OpenCV flips fastest."""
    flipped = [axis for axis in (0, 1) if image.strides[axis] < 0]
    if flipped and image.strides[2] > 0:
        return cv2.flip(np.flip(image, flipped), {(0, ): 0, (1, ): 1, (0, 1): -1}[tuple(flipped)])
    return np.ascontiguousarray(image)
