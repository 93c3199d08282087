"""The inner loops of :class:`mmfreq.dct.moments.ImageBlocks`, compiled by numba on import.

A weighted sum of whole lines is the fastest of loops. So the horizontal transform runs over the
columns of the turned image; its result is turned, and the vertical transform of one row of blocks
stays in the processor's cache, where its squares are added up. The means are linear, so they need
no coefficients.
"""
from typing import Any

import numpy as np
from numba import types

from mmfreq.dct.kernel import axis_weights, compiled, inner, mix_pixels, sum_rows

_ROWS = 8  # of blocks whose squares are added in float32 before float64 takes them

_BYTES = types.Array(types.uint8, 2, 'C', readonly=True)
_I1 = types.int64[::1]
_F2, _F3, _F4 = (types.Array(types.float32, n, 'C') for n in (2, 3, 4))
_D2, _D4 = types.float64[:, ::1], types.float64[:, :, :, ::1]


@inner
def _add_squares(values: Any, shift: Any, out: Any) -> None:
    """Add ``(values - shift)**2``."""
    for x in range(len(out)):
        deviation = values[x] - shift[x]
        out[x] += deviation * deviation


@inner
def _add(values: Any, out: Any) -> None:
    for x in range(len(out)):
        out[x] += values[x]


@compiled(types.void(_BYTES, _I1, types.float32, _F2, _F2, types.int64, types.int64, _F2, _F3,
                     _D2))
def column_sums(columns: np.ndarray, axis: np.ndarray, support: float, color: np.ndarray,
                basis: np.ndarray, stride: int, margin: int, lines: np.ndarray, out: np.ndarray,
                totals: np.ndarray) -> None:
    """Compute weighted sums of the columns of an image, for each column of blocks.

    Args:
        columns (np.ndarray): uint8 (W, 3*H), C order, interleaved pixels, column by column.
        axis (np.ndarray): int64 (6,), second row of :attr:`mmfreq.dct.lazy_image.LazyImage.axes`.
        support (float): Its source pixels around a resized one.
        color (np.ndarray): float32 (3, 3), weights of the image's colours for Y, Cb and Cr.
        basis (np.ndarray): float32 (K, window), weights of K frequencies, K even.
        stride (int): Pixels of the resized image from one block to the next.
        margin (int): Pixels on either side of these that also belong to the block.
        lines (np.ndarray): float32 (W, 3*H), written: columns of Y, Cb, Cr side by side.
        out (np.ndarray): float32 (blocks, K, 3*H), lines of Y, Cb, Cr side by side; written.
        totals (np.ndarray): float64 (K, 3*H), zeros; the sums over the blocks are added.
    """
    height = columns.shape[1] // 3
    for x in range(len(columns)):
        for c in range(3):
            mix_pixels(color[c], columns[x], lines[x, c * height:(c + 1) * height])
    places, weights, taps = axis_weights(axis, support, basis, stride, margin, len(out))
    for block in range(len(out)):
        sum_rows(weights[block, :, :taps], lines, places[block], slice(0, 3 * height), out[block])
        for u in range(len(basis)):
            _add(out[block, u], totals[u])


@compiled(types.void(_F2, _D2, _I1, types.float32, _F2, types.int64, types.int64, types.int64, _I1,
                     _D4, _F4))
def row_moments(lines: np.ndarray, totals: np.ndarray, axis: np.ndarray, support: float,
                basis: np.ndarray, stride: int, margin: int, rows: int, picked: np.ndarray,
                moments: np.ndarray, blocks: np.ndarray) -> None:
    """Compute the moments of weighted sums of lines, for each row of blocks.

    Args:
        lines (np.ndarray): float32 (3*H, columns*K), what :func:`column_sums` gives, turned.
        totals (np.ndarray): float64 (K, 3*H), sums over the columns of blocks.
        axis (np.ndarray): int64 (6,), first row of :attr:`mmfreq.dct.lazy_image.LazyImage.axes`.
        support (float): As for :func:`column_sums`.
        basis (np.ndarray): As for :func:`column_sums`.
        stride (int): As for :func:`column_sums`.
        margin (int): As for :func:`column_sums`.
        rows (int): Rows of blocks.
        picked (np.ndarray): int64 (n,), numbers of blocks to keep, row by row.
        moments (np.ndarray): float64 (2, 3, K, K), zeros; means and squared deviations are added.
        blocks (np.ndarray): float32 (n, 3, K, K), written: the blocks that were picked.
    """
    count, height, width = len(basis), len(lines) // 3, lines.shape[1]
    columns = width // count
    places, weights, taps = axis_weights(axis, support, basis, stride, margin, rows)
    profile = np.zeros((count, height))  # weights of the rows in the sum over all blocks
    for y in range(rows):
        for k in range(count):
            for t in range(taps):
                profile[k, places[y, t]] += weights[y, k, t]
    sums = np.empty((count, width), np.float32)
    means = np.empty((count, width), np.float32)
    part = np.empty((count, width), np.float32)
    squares = np.empty((count, width))
    for c in range(3):
        for k in range(count):
            for u in range(count):
                total = 0.
                for r in range(height):
                    total += profile[k, r] * totals[u, c * height + r]
                moments[0, c, k, u] = total / (rows * columns)
                means[k, u::count] = moments[0, c, k, u]
        squares[:] = 0
        for y in range(rows):
            sum_rows(weights[y, :, :taps], lines[c * height:(c + 1) * height], places[y],
                     slice(0, width), sums)
            if y % _ROWS == 0:
                part[:] = 0
            for k in range(count):
                _add_squares(sums[k], means[k], part[k])
                if y % _ROWS == _ROWS - 1 or y == rows - 1:
                    _add(part[k], squares[k])
            for i in range(len(picked)):
                if picked[i] // columns == y:
                    at = picked[i] % columns * count
                    blocks[i, c] = sums[:, at:at + count]
        for k in range(count):
            for x in range(columns):
                for u in range(count):
                    moments[1, c, k, u] += squares[k, x * count + u]
