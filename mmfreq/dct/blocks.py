"""Colour conversion, block DCT-II and their inverses.

Conventions of the whole package (:mod:`mmfreq.dct` defines the words):

- Colours are full-range JFIF YCbCr (ITU-R BT.601, as in JPEG), components in the order Y, Cb, Cr.
- Levels are shifted by -128. The transform is the orthonormal DCT-II, ``F = D X D^T`` with
  ``D[k, n] = c(k) cos((2n + 1) k pi / (2N))``, ``c(0) = sqrt(1/N)``, ``c(k > 0) = sqrt(2/N)``. For
  8x8 blocks of levels 0..255, the DC coefficient lies in [-1024, 1016].
- The number of a channel is ``N*N * component + N * vertical_frequency + horizontal_frequency``,
  with components 0, 1, 2.
"""
from functools import cache
from typing import Optional, Sequence

import cv2
import numpy as np
import torch

from mmfreq.dct.channels import ChannelSpec, channel_indices, check_positive_int

LEVEL_SHIFT = 128
INT8_LIMIT = 127  # of channels that are sent as int8

# Weights of R, G, B and 1 for Y, Cb and Cr (JFIF 1.02, from BT.601's luma weights).
_RGB_TO_YCBCR = np.array([
    [0.299, 0.587, 0.114, 0],
    [-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772, 128],
    [0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402, 128],
])


def check_image(image: np.ndarray) -> np.ndarray:
    """Return ``image``; raise ValueError unless it is uint8 (H, W, 3) with at least one pixel."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError('expected a non-empty uint8 image (H, W, 3), got '
                         f'{image.dtype} {image.shape}')
    return image


def color_matrix(channel_order: str = 'bgr') -> np.ndarray:
    """Return the weights of the three colours and 1 for Y, Cb and Cr (levels 0..255): (3, 4)."""
    if channel_order not in ('bgr', 'rgb'):
        raise ValueError(f"channel_order: expected 'bgr' or 'rgb', got {channel_order!r}")
    return _RGB_TO_YCBCR[:, [2, 1, 0, 3]] if channel_order == 'bgr' else _RGB_TO_YCBCR


def to_ycbcr(image: np.ndarray, channel_order: str = 'bgr') -> np.ndarray:
    """Convert a colour image to full-range YCbCr.

    Args:
        image (np.ndarray): uint8 (H, W, 3).
        channel_order (str): ``'bgr'`` or ``'rgb'``. Defaults to ``'bgr'``.

    Returns:
        np.ndarray: uint8 (H, W, 3), Y, Cb, Cr, rounded to the nearest level.
    """
    image = np.asarray(check_image(image))  # computes the pixels of a lazy image
    ycbcr = cv2.transform(image.astype(np.float32), color_matrix(channel_order))
    return cv2.convertScaleAbs(ycbcr)  # rounds and saturates; nothing is negative


def from_ycbcr(ycbcr: np.ndarray, channel_order: str = 'bgr') -> np.ndarray:
    """Invert :func:`to_ycbcr`.

    Args:
        ycbcr (np.ndarray): uint8 or float (H, W, 3), Y, Cb, Cr in levels 0..255.
        channel_order (str): ``'bgr'`` or ``'rgb'`` of the result. Defaults to ``'bgr'``.

    Returns:
        np.ndarray: uint8 (H, W, 3), rounded and clipped to 0..255.
    """
    matrix = color_matrix(channel_order)
    inverse = np.linalg.inv(matrix[:, :3])
    rgb = (ycbcr.astype(np.float64) - matrix[:, 3]) @ inverse.T
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


@cache
def dct_matrix(block_size: int = 8) -> np.ndarray:
    """Return the orthonormal DCT-II matrix, float64 (N, N): row k is frequency k."""
    n = np.arange(check_positive_int('block_size', block_size))
    matrix = np.sqrt(2 / block_size) * np.cos(np.outer(n, 2 * n + 1) * np.pi / (2 * block_size))
    matrix[0] = np.sqrt(1 / block_size)
    matrix.setflags(write=False)
    return matrix


@cache
def block_basis(block_size: int = 8) -> np.ndarray:
    """Return float64 (N*N, N*N): ``coefficients = block @ basis``, both row by row."""
    d = dct_matrix(block_size)
    basis = np.ascontiguousarray(np.kron(d, d).T)
    basis.setflags(write=False)
    return basis


def _as_float(result: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Return the float64 ``result`` as float32 unless ``source`` is float64."""
    return result if source.dtype == np.float64 else result.astype(np.float32)


def to_int8(values: np.ndarray) -> np.ndarray:
    """Round float values (halves to even) and saturate them to -127..127: int8."""
    return np.clip(np.rint(values), -INT8_LIMIT, INT8_LIMIT).astype(np.int8)


def grid_shape(image_shape: Sequence[int], block_size: int = 8,
               upscale: int = 1) -> tuple[int, int]:
    """Return the blocks (rows, columns) that cover an upscaled image of (H, W) pixels."""
    return tuple(-(-int(side) * upscale // block_size) for side in image_shape[:2])


def upscale_image(image: np.ndarray, factor: int) -> np.ndarray:
    """Upscale bilinearly, half-pixel centres, edges replicated: float32 (fH, fW, C)."""
    check_positive_int('upscale', factor)
    size = (image.shape[1] * factor, image.shape[0] * factor)
    upscaled = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return upscaled.reshape(size[1], size[0], image.shape[2])


def block_dct(image: np.ndarray, block_size: int = 8) -> np.ndarray:
    """Compute the level-shifted, orthonormal DCT-II of every block.

    Args:
        image (np.ndarray): uint8 or float (H, W, C), levels 0..255. Edges are replicated up to a
            multiple of ``block_size``.
        block_size (int): Side N of a block in pixels. Defaults to 8.

    Returns:
        np.ndarray: (ceil(H/N), ceil(W/N), C*N*N), float64 for float64 input, else float32.
    """
    n, (height, width, components) = block_size, image.shape
    rows, cols = grid_shape(image.shape, n)
    if (height, width) != (rows * n, cols * n):
        image = np.pad(image, ((0, rows * n - height), (0, cols * n - width), (0, 0)), 'edge')
    # (rows, n, cols, n, C) -> (rows, cols, C, n, n)
    blocks = image.reshape(rows, n, cols, n, components).transpose(0, 2, 4, 1, 3)
    blocks = np.subtract(blocks, LEVEL_SHIFT, dtype=np.float64, order='C')
    # torch uses one thread in a data loader's worker; NumPy's BLAS would use all of them
    coefficients = torch.from_numpy(blocks.reshape(-1, n * n)) @ torch.tensor(block_basis(n))
    return _as_float(coefficients.numpy().reshape(rows, cols, components * n * n), image)


def block_idct(coefficients: np.ndarray, block_size: int = 8) -> np.ndarray:
    """Invert :func:`block_dct` and undo the level shift.

    Args:
        coefficients (np.ndarray): float (h, w, C*N*N).
        block_size (int): Side N of a block in pixels. Defaults to 8.

    Returns:
        np.ndarray: (h*N, w*N, C), float64 for float64 input, else float32. Levels are neither
        rounded nor clipped.
    """
    n, (rows, cols, channels) = block_size, coefficients.shape
    blocks = coefficients.reshape(-1, n * n).astype(np.float64) @ block_basis(n).T + LEVEL_SHIFT
    # (rows, cols, C, n, n) -> (rows, n, cols, n, C)
    image = blocks.reshape(rows, cols, -1, n, n).transpose(0, 3, 1, 4, 2)
    return _as_float(image.reshape(rows * n, cols * n, channels // (n * n)), coefficients)


def coefficients_to_bgr(coefficients: np.ndarray, channels: Optional[ChannelSpec] = None,
                        image_shape: Optional[Sequence[int]] = None, block_size: int = 8,
                        upscale: int = 1) -> np.ndarray:
    """Rebuild an image from some of its channels, not normalised; the others count as zero.

    Args:
        coefficients (np.ndarray): float (h, w, C).
        channels (str | Sequence, optional): The C channels, see
            :func:`mmfreq.dct.channels.channel_indices`. Defaults to None: all, in order.
        image_shape (Sequence[int], optional): Pixels (H, W) before upscaling and padding, to crop
            the result to. Defaults to None: all blocks.
        block_size (int): Side N of a block in pixels. Defaults to 8.
        upscale (int): Factor of the upscaling before the DCT, undone here. Defaults to 1.

    Returns:
        np.ndarray: uint8 BGR (H, W, 3).

    Raises:
        ValueError: ``channels`` is invalid or has another length than the coefficients, or
            ``image_shape`` is larger than their blocks.
    """
    total = 3 * check_positive_int('block_size', block_size)**2
    channels = channel_indices(range(total) if channels is None else channels, block_size)
    if coefficients.ndim != 3 or coefficients.shape[2] != len(channels):
        raise ValueError(f'expected coefficients (h, w, {len(channels)}), got {coefficients.shape}')
    cube = np.zeros((*coefficients.shape[:2], total), dtype=np.float32)
    cube[:, :, channels] = coefficients
    ycbcr = block_idct(cube, block_size)
    most = tuple(side // check_positive_int('upscale', upscale) for side in ycbcr.shape[:2])
    height, width = most if image_shape is None else image_shape[:2]
    if not (1 <= height <= most[0] and 1 <= width <= most[1]):
        raise ValueError(f'image_shape: expected (1, 1) to {most}, got {(height, width)}')
    ycbcr = ycbcr[:height * upscale, :width * upscale]
    if upscale > 1:
        ycbcr = cv2.resize(ycbcr, (width, height), interpolation=cv2.INTER_AREA)
    return from_ycbcr(ycbcr)
