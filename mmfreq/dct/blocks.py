"""Colour conversion, block DCT-II and their inverses.

Conventions of the whole package:

- Colour is full-range JFIF YCbCr (ITU-R BT.601, as in JPEG), components in the order Y, Cb, Cr.
- Samples are shifted by -128. The transform is the orthonormal DCT-II, ``F = D X D^T`` with
  ``D[k, n] = c(k) cos((2n + 1) k pi / (2N))``, ``c(0) = sqrt(1/N)``, ``c(k > 0) = sqrt(2/N)``. For
  8x8 blocks of uint8 samples the DC coefficient lies in [-1024, 1016].
- Channel number = ``N*N * component + N * vertical_frequency + horizontal_frequency``.
"""
from functools import cache
from typing import Optional, Sequence

import cv2
import numpy as np
import torch

LEVEL_SHIFT = 128

# Rows give Y, Cb, Cr from R, G, B, 1 (JFIF 1.02, from BT.601's luma weights).
_RGB_TO_YCBCR = np.array([
    [0.299, 0.587, 0.114, 0],
    [-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772, 128],
    [0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402, 128],
])


def check_positive_int(name: str, value: int) -> int:
    """Return ``value``; raise ValueError unless it is an integer >= 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'{name}: expected an integer >= 1, got {value!r}')
    return value


def check_image(image: np.ndarray) -> np.ndarray:
    """Return ``image``; raise ValueError unless it is uint8 (H, W, 3) with at least one pixel."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError('expected a non-empty uint8 image (H, W, 3), got '
                         f'{image.dtype} {image.shape}')
    return image


def color_matrix(channel_order: str = 'bgr') -> np.ndarray:
    """Return float64 (3, 4): rows give Y, Cb, Cr (levels 0..255) from the three colours and 1."""
    if channel_order not in ('bgr', 'rgb'):
        raise ValueError(f"channel_order: expected 'bgr' or 'rgb', got {channel_order!r}")
    return _RGB_TO_YCBCR[:, [2, 1, 0, 3]] if channel_order == 'bgr' else _RGB_TO_YCBCR


def to_ycbcr(image: np.ndarray, channel_order: str = 'bgr') -> np.ndarray:
    """Convert a colour image to full-range YCbCr.

    Args:
        image (np.ndarray): uint8 (H, W, 3).
        channel_order (str): ``'bgr'`` or ``'rgb'``. Defaults to ``'bgr'``.

    Returns:
        np.ndarray: uint8 (H, W, 3), Y, Cb, Cr, rounded to the nearest level (halves either way).
    """
    image = np.asarray(check_image(image))  # a lazy image gets its pixels here
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
    if ycbcr.ndim != 3 or ycbcr.shape[2] != 3:
        raise ValueError(f'expected an image (H, W, 3), got {ycbcr.shape}')
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
    """Return float64 (N*N, N*N): ``coefficients = block @ basis``, both flattened row by row."""
    d = dct_matrix(block_size)
    basis = np.ascontiguousarray(np.kron(d, d).T)
    basis.setflags(write=False)
    return basis


@cache
def _basis_tensor(block_size: int) -> torch.Tensor:
    return torch.tensor(block_basis(block_size))


def _result_dtype(array: np.ndarray) -> type:
    """Return float64 for float64 input, else float32. Sums run in float64 either way."""
    return np.float64 if array.dtype == np.float64 else np.float32


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
        np.ndarray: (ceil(H/N), ceil(W/N), C*N*N), float64 for float64 input, else float32. Channel
        ``N*N*component + N*vertical + horizontal``.
    """
    n = check_positive_int('block_size', block_size)
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f'expected a non-empty image (H, W, C), got {image.shape}')
    height, width, components = image.shape
    rows, cols = grid_shape(image.shape, n)
    if (height, width) != (rows * n, cols * n):
        image = np.pad(image, ((0, rows * n - height), (0, cols * n - width), (0, 0)), 'edge')
    # (rows, n, cols, n, C) -> (rows, cols, C, n, n)
    blocks = image.reshape(rows, n, cols, n, components).transpose(0, 2, 4, 1, 3)
    blocks = np.subtract(blocks, LEVEL_SHIFT, dtype=np.float64, order='C')
    # torch keeps to one thread in a data loader's worker, where NumPy's BLAS would take them all
    coefficients = (torch.from_numpy(blocks.reshape(-1, n * n)) @ _basis_tensor(n)).numpy()
    coefficients = coefficients.reshape(rows, cols, components * n * n)
    return coefficients.astype(_result_dtype(image), copy=False)


def block_idct(coefficients: np.ndarray, block_size: int = 8) -> np.ndarray:
    """Invert :func:`block_dct` and undo the level shift.

    Args:
        coefficients (np.ndarray): float (h, w, C*N*N).
        block_size (int): Side N of a block in pixels. Defaults to 8.

    Returns:
        np.ndarray: (h*N, w*N, C), float64 for float64 input, else float32. Levels are neither
        rounded nor clipped.
    """
    n = check_positive_int('block_size', block_size)
    if coefficients.ndim != 3 or coefficients.shape[2] % (n * n):
        raise ValueError(f'expected coefficients (h, w, C*{n * n}), got {coefficients.shape}')
    rows, cols, channels = coefficients.shape
    components = channels // (n * n)
    blocks = coefficients.reshape(-1, n * n).astype(np.float64) @ block_basis(n).T + LEVEL_SHIFT
    # (rows, cols, C, n, n) -> (rows, n, cols, n, C)
    image = blocks.reshape(rows, cols, components, n, n).transpose(0, 3, 1, 4, 2)
    image = image.reshape(rows * n, cols * n, components)
    return image.astype(_result_dtype(coefficients), copy=False)


def coefficients_to_bgr(coefficients: np.ndarray, channels: Optional[Sequence[int]] = None,
                        image_shape: Optional[Sequence[int]] = None, block_size: int = 8,
                        upscale: int = 1) -> np.ndarray:
    """Rebuild an image from some of its coefficients (not normalised); the others count as zero.

    Args:
        coefficients (np.ndarray): float (h, w, C).
        channels (Sequence[int], optional): The C channels, in 0..3*N*N-1, each once. Defaults to
            None: all, in order.
        image_shape (Sequence[int], optional): Pixels (H, W) before upscaling and padding, to crop
            the result to. Defaults to None: all blocks.
        block_size (int): Side N of a block in pixels. Defaults to 8.
        upscale (int): Factor of the upscaling before the DCT, which is undone. Defaults to 1.

    Returns:
        np.ndarray: uint8 BGR (H, W, 3).

    Raises:
        ValueError: The coefficients are not those of ``channels``, or ``image_shape`` is larger
            than their blocks.
    """
    total = 3 * check_positive_int('block_size', block_size)**2
    check_positive_int('upscale', upscale)
    channels = list(range(total) if channels is None else channels)
    if len(set(channels)) != len(channels) or not set(channels) <= set(range(total)):
        raise ValueError(f'channels: expected distinct numbers in 0..{total - 1}, got {channels}')
    if coefficients.ndim != 3 or coefficients.shape[2] != len(channels):
        raise ValueError(f'expected coefficients (h, w, {len(channels)}), got {coefficients.shape}')
    cube = np.zeros((*coefficients.shape[:2], total), dtype=np.float32)
    cube[:, :, channels] = coefficients
    ycbcr = block_idct(cube, block_size)
    most = ycbcr.shape[0] // upscale, ycbcr.shape[1] // upscale
    height, width = most if image_shape is None else image_shape[:2]
    if not (1 <= height <= most[0] and 1 <= width <= most[1]):
        raise ValueError(f'image_shape: expected (1, 1) to {most}, got {(height, width)}')
    ycbcr = ycbcr[:height * upscale, :width * upscale]
    if upscale > 1:
        ycbcr = cv2.resize(ycbcr, (width, height), interpolation=cv2.INTER_AREA)
    return from_ycbcr(ycbcr)
