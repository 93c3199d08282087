"""The inner loops of :class:`mmfreq.dct.block_map.BlockMap`, compiled to machine code by numba when this module is imported.

Array libraries pass over a whole photo for each operation, which costs more than the arithmetic. Here a few rows of
blocks go through all steps before the next ones are read, so that what lies between them stays in the cache.
The machine code is kept for later processes, beside this file or where ``NUMBA_CACHE_DIR`` says.
"""
from typing import Any, Callable, Sequence

import numpy as np
from numba import njit, types

from mmfreq.dct.block_map import INT8_LIMIT

_STRIP_VALUES = 100_000  # float32 values that fit into a processor's second cache, 400 kB

_BYTES = types.Array(types.uint8, 3, 'C', readonly=True)
_F1, _F2, _F3 = (types.Array(types.float32, n, 'C') for n in (1, 2, 3))
_I1, _I2 = (types.Array(types.int64, n, 'C') for n in (1, 2))
_SIGNATURE = types.void(_BYTES, _F2, _F2, _I1, _I1, _F2, _I2, _F1, types.int64, types.int64, _F3)


_OPTIONS = dict(nogil=True, fastmath=True, error_model='numpy')
_inner = njit(**_OPTIONS)  # becomes part of the functions below, and is kept with them


def _compiled(signature: Any) -> Callable[[Callable], Callable]:
    """Decorator: numba's, for one thread and without the GIL; kept on disk if there is a place to write to."""

    def decorate(function: Callable) -> Callable:
        try:
            return njit(signature, cache=True, **_OPTIONS)(function)
        except (RuntimeError, OSError):  # numba finds no folder that it can write to, or the disk is full
            return njit(signature, **_OPTIONS)(function)

    return decorate


@_inner
def _add_and_subtract(a: Any, b: Any, total: Any, difference: Any) -> None:
    """Writes ``a + b`` and ``a - b``."""
    for x in range(len(a)):
        left, right = np.float32(a[x]), np.float32(b[x])
        total[x] = left + right
        difference[x] = left - right


@_inner
def _replicate(line: Any, first: int, length: int, values: int) -> None:
    """Fills up a line of pixels of ``values`` values each, on both sides of ``length`` known values."""
    for x in range(first - 1, -1, -1):
        line[x] = line[x + values]
    for x in range(first + length, len(line)):
        line[x] = line[x - values]


@_inner
def _weighted_sum(weights: Any, lines: Any, constant: Any, out: Any) -> None:
    """Writes ``constant + sum(weights[j] * lines[j])``; the number of weights is a multiple of 4."""
    for j in range(0, len(weights), 4):
        w0, w1, w2, w3 = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        a, b, c, d = lines[j], lines[j + 1], lines[j + 2], lines[j + 3]
        if j == 0:
            for x in range(len(out)):
                out[x] = constant + w0 * a[x] + w1 * b[x] + w2 * c[x] + w3 * d[x]
        else:
            for x in range(len(out)):
                out[x] += w0 * a[x] + w1 * b[x] + w2 * c[x] + w3 * d[x]


@_inner
def _every(step: int, a: Any, b: Any, c: Any, lines: Any) -> None:
    """Writes every ``step``-th value of a, b and c into three lines."""
    first, second, third = lines[0], lines[1], lines[2]
    at = 0
    for x in range(len(first)):
        first[x] = a[at]
        second[x] = b[at]
        third[x] = c[at]
        at += step


@_inner
def _mix_colors(weights: Any, left: Any, right: Any, total: Any, difference: Any) -> None:
    """Writes the sum and the difference of one component's left and right samples, from three colours each."""
    w0, w1, w2 = weights[0], weights[1], weights[2]
    a, b, c = left[0], left[1], left[2]
    d, e, f = right[0], right[1], right[2]
    for x in range(len(total)):
        total[x] = w0 * (a[x] + d[x]) + w1 * (b[x] + e[x]) + w2 * (c[x] + f[x])
    for x in range(len(difference)):
        difference[x] = w0 * (a[x] - d[x]) + w1 * (b[x] - e[x]) + w2 * (c[x] - f[x])


@_compiled(_SIGNATURE)
def block_channels(photo: np.ndarray, color: np.ndarray, rows: np.ndarray, parity: np.ndarray, starts: np.ndarray,
                   columns: np.ndarray, table: np.ndarray, bias: np.ndarray, stride: int, margin: int,
                   out: np.ndarray) -> None:
    """Computes weighted sums over the blocks of one photo: vertically, then over colours, then horizontally.

    All weights are even or odd about the middle of the block. So pixels that lie opposite each other are added and
    subtracted first, and weights are those of pairs: :func:`paired`.

    Args:
        photo (np.ndarray): uint8 (P, H, L), C order: (1, H, 3*W) with three values a pixel, or (3, H, W) planes.
            Pixels beyond its edges are taken to be those on the edge.
        color (np.ndarray): float32 (3, 3), weights of the photo's colours for Y, Cb and Cr.
        rows (np.ndarray): float32 (K, J), paired vertical weights of K frequencies.
        parity (np.ndarray): int64 (K,), 0 where these are even, 1 where they are odd.
        starts (np.ndarray): int64 (K + 1,): ``starts[k]`` up to, not including, ``starts[k + 1]`` are the channels with
            the vertical frequency k.
        columns (np.ndarray): float32 (C, J), paired horizontal weights of each channel.
        table (np.ndarray): int64 (C, 3), of each channel: component, 0 or 1 for even or odd horizontal weights, and
            place in ``out``.
        bias (np.ndarray): float32 (C,), added to each channel.
        stride (int): Pixels from one block to the next.
        margin (int): Pixels on either side of these that belong to the block, too.
        out (np.ndarray): float32 (C, h, w), C order; written.
    """
    planes, height, length = photo.shape
    values = 3 // planes  # of a pixel, side by side
    window = stride + 2 * margin
    pairs = (window + 1) // 2
    grid_h, grid_w = out.shape[1:]
    first, line = margin * values, (grid_w * stride + 2 * margin) * values
    strip = min(grid_h, max(1, _STRIP_VALUES // (2 * rows.shape[1] * planes * line)))  # rows of blocks at a time
    plane = strip * line
    other = 1 if planes == 1 else plane  # from one colour of a pixel to the next
    channels = out.reshape(len(out), grid_h * grid_w)

    pixels = np.empty((2, rows.shape[1], planes * plane), np.float32)  # sums and differences of opposite rows
    mixed = np.empty(planes * plane, np.float32)
    left, right = np.empty((3, strip * grid_w), np.float32), np.empty((3, strip * grid_w), np.float32)
    samples = np.empty((3, 2, columns.shape[1], strip * grid_w), np.float32)  # ... of opposite columns of Y, Cb, Cr
    pixels[:, pairs:] = 0
    samples[:, :, pairs:] = 0
    needed = np.zeros((len(rows), 3), np.bool_)  # components, by vertical frequency
    for k in range(len(rows)):
        for c in range(starts[k], starts[k + 1]):
            needed[k, table[c, 0]] = True
    for begin in range(0, grid_h, strip):
        count = min(strip, grid_h - begin)
        size = count * grid_w
        for row in range(count):
            for j in range(pairs):
                y = (begin + row) * stride - margin + j
                top = min(max(y, 0), height - 1)
                bottom = min(max(y + window - 1 - 2 * j, 0), height - 1)
                for p in range(planes):
                    at = p * plane + row * line
                    _add_and_subtract(photo[p, top], photo[p, bottom], pixels[0, j, at + first:],
                                      pixels[1, j, at + first:])
                    if length != line:
                        _replicate(pixels[0, j, at:at + line], first, length, values)
                        _replicate(pixels[1, j, at:at + line], first, length, values)
        for k in range(len(rows)):
            _weighted_sum(rows[k], pixels[parity[k]], np.float32(0), mixed)
            for i in range(pairs):
                for row in range(count):
                    cells = slice(row * grid_w, (row + 1) * grid_w)
                    near, far = row * line + i * values, row * line + (window - 1 - i) * values
                    _every(stride * values, mixed[near:], mixed[near + other:], mixed[near + 2 * other:],
                           left[:, cells])
                    _every(stride * values, mixed[far:], mixed[far + other:], mixed[far + 2 * other:],
                           right[:, cells])
                for c in range(3):
                    if needed[k, c]:
                        _mix_colors(color[c], left, right, samples[c, 0, i, :size], samples[c, 1, i, :size])
            for c in range(starts[k], starts[k + 1]):
                _weighted_sum(columns[c], samples[table[c, 0], table[c, 1]], bias[c],
                              channels[table[c, 2], begin * grid_w:begin * grid_w + size])


@_compiled(types.void(_F1, types.Array(types.int8, 1, 'C')))
def saturate(values: np.ndarray, out: np.ndarray) -> None:
    """Rounds float32 values to the nearest integer (halves to even), saturated to ``-INT8_LIMIT..INT8_LIMIT``: int8."""
    for i in range(len(values)):
        out[i] = np.int8(np.rint(min(max(values[i], np.float32(-INT8_LIMIT)), np.float32(INT8_LIMIT))))


def paired(weights: np.ndarray, odd: Sequence[int]) -> np.ndarray:
    """Even or odd weights as :func:`block_channels` takes them: for sums or differences of what lies opposite.

    Args:
        weights (np.ndarray): float64 (M, window); row m is even about its middle, or odd where ``odd[m]``.
        odd (Sequence[int]): 0 or 1, M of them.

    Returns:
        np.ndarray: float32 (M, J), the first half and zeros up to a multiple of 4. A pixel in the middle is its own
        opposite, so that its weight is halved.

    Raises:
        ValueError: A row is neither.
    """
    mirrored = weights[:, ::-1] * np.where(odd, -1, 1)[:, None]
    if not np.allclose(weights, mirrored, rtol=0, atol=1e-9 * np.abs(weights).max()):
        raise ValueError('expected weights that are even or odd about the middle of the block')
    window = weights.shape[1]
    half = weights[:, :(window + 1) // 2].copy()
    if window % 2:
        half[:, -1] /= 2
    return np.pad(half, ((0, 0), (0, -half.shape[1] % 4))).astype(np.float32)
