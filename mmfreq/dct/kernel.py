"""The inner loops of :class:`mmfreq.dct.block_map.BlockMap`, compiled by numba on import.

Array libraries pass over a whole image for each operation, which costs more than the arithmetic.
Here a few rows of blocks go through all steps before the next ones are read, so intermediate
results stay in the processor's cache. The machine code is kept for later processes, beside this
file or in ``NUMBA_CACHE_DIR``.
"""
import warnings
import zlib
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np
from numba import njit, types

_STRIP_VALUES = 100_000  # float32 values that fit into a processor's second-level cache, 400 kB

_BYTES = types.Array(types.uint8, 3, 'C', readonly=True)
_F1, _F2, _F3 = (types.Array(types.float32, n, 'C') for n in (1, 2, 3))
_I1, _I2 = (types.Array(types.int64, n, 'C') for n in (1, 2))
_SIGNATURE = types.void(_BYTES, _F2, _F2, _I1, _I1, _F2, _I2, _F1, types.int64, types.int64, _F3)

_OPTIONS = dict(nogil=True, fastmath=True, error_model='numpy')
_SOURCES = 0  # checksum of all kernels: one holds code of others, whose changes numba does not see
for _path in sorted(Path(__file__).parent.glob('*kernel.py')):
    _SOURCES = zlib.crc32(_path.read_bytes(), _SOURCES)
inner = njit(**_OPTIONS)  # inlined into the functions below and cached with them


def compiled(signature: Any) -> Callable[[Callable], Callable]:
    """Compile for one thread, without the GIL, and keep the machine code on disk where possible.

    A damaged cache file is replaced, with a warning.
    """

    def decorate(function: Callable) -> Callable:
        function.__qualname__ += f'_{_SOURCES:08x}'  # a part of the file's name
        try:
            return njit(signature, cache=True, **_OPTIONS)(function)
        except Exception as error:  # unpickling a damaged file raises errors of many classes
            cause = error
        try:
            njit(cache=True, **_OPTIONS)(function)._cache.flush()
            compiled = njit(signature, cache=True, **_OPTIONS)(function)
        except (RuntimeError, OSError):  # no folder to write to, or the disk is full
            return njit(signature, **_OPTIONS)(function)
        warnings.warn(f"mmfreq: replaced a damaged file in numba's cache ({cause!r})", stacklevel=2)
        return compiled

    return decorate


@inner
def _add_and_subtract(a: Any, b: Any, total: Any, difference: Any) -> None:
    """Write ``a + b`` and ``a - b``."""
    for x in range(len(a)):
        left, right = np.float32(a[x]), np.float32(b[x])
        total[x] = left + right
        difference[x] = left - right


@inner
def _replicate(line: Any, first: int, length: int, values: int) -> None:
    """Replicate the edge pixels, of ``values`` values each, around ``length`` known values."""
    for x in range(first - 1, -1, -1):
        line[x] = line[x + values]
    for x in range(first + length, len(line)):
        line[x] = line[x - values]


@inner
def _weighted_sum(weights: Any, lines: Any, constant: Any, out: Any) -> None:
    """Write ``constant + sum(weights[j] * lines[j])`` for a multiple of 4 weights."""
    for j in range(0, len(weights), 4):
        w0, w1, w2, w3 = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        a, b, c, d = lines[j], lines[j + 1], lines[j + 2], lines[j + 3]
        if j == 0:
            for x in range(len(out)):
                out[x] = constant + w0 * a[x] + w1 * b[x] + w2 * c[x] + w3 * d[x]
        else:
            for x in range(len(out)):
                out[x] += w0 * a[x] + w1 * b[x] + w2 * c[x] + w3 * d[x]


@inner
def _every(step: int, a: Any, b: Any, c: Any, lines: Any) -> None:
    """Write every ``step``-th value of a, b and c into three lines."""
    first, second, third = lines[0], lines[1], lines[2]
    at = 0
    for x in range(len(first)):
        first[x] = a[at]
        second[x] = b[at]
        third[x] = c[at]
        at += step


@inner
def _mix_colors(weights: Any, left: Any, right: Any, total: Any, difference: Any) -> None:
    """Mix three colours of left and right samples; write the component's sum and difference."""
    w0, w1, w2 = weights[0], weights[1], weights[2]
    a, b, c = left[0], left[1], left[2]
    d, e, f = right[0], right[1], right[2]
    for x in range(len(total)):
        total[x] = w0 * (a[x] + d[x]) + w1 * (b[x] + e[x]) + w2 * (c[x] + f[x])
    for x in range(len(difference)):
        difference[x] = w0 * (a[x] - d[x]) + w1 * (b[x] - e[x]) + w2 * (c[x] - f[x])


@compiled(_SIGNATURE)
def block_channels(image: np.ndarray, color: np.ndarray, rows: np.ndarray, parity: np.ndarray,
                   starts: np.ndarray, columns: np.ndarray, table: np.ndarray, bias: np.ndarray,
                   stride: int, margin: int, out: np.ndarray) -> None:
    """Compute weighted sums over the blocks of an image: over rows, colours, then columns.

    All weights are even or odd about the middle of the block. So opposite pixels are added and
    subtracted first, and half of the weights suffice: :func:`fold_symmetric`.

    Args:
        image (np.ndarray): uint8 (P, H, L), C order: (1, H, 3*W) interleaved, or (3, H, W) planes.
            Edge pixels are replicated.
        color (np.ndarray): float32 (3, 3), weights of the image's colours for Y, Cb and Cr.
        rows (np.ndarray): float32 (K, J), folded vertical weights of K frequencies.
        parity (np.ndarray): int64 (K,), 0 for even and 1 for odd vertical weights.
        starts (np.ndarray): int64 (K + 1,), channels ``starts[k]`` to ``starts[k + 1] - 1`` have
            vertical frequency k.
        columns (np.ndarray): float32 (C, J), folded horizontal weights of each channel.
        table (np.ndarray): int64 (C, 3), for each channel: component, parity of the horizontal
            weights, index in ``out``.
        bias (np.ndarray): float32 (C,), added to each channel.
        stride (int): Pixels from one block to the next.
        margin (int): Pixels on either side of these that also belong to the block.
        out (np.ndarray): float32 (C, h, w), C order; written.
    """
    planes, height, length = image.shape
    values = 3 // planes  # per pixel, side by side
    window = stride + 2 * margin
    pairs = (window + 1) // 2
    grid_h, grid_w = out.shape[1:]
    first, line = margin * values, (grid_w * stride + 2 * margin) * values
    # rows of blocks at a time
    strip = min(grid_h, max(1, _STRIP_VALUES // (2 * rows.shape[1] * planes * line)))
    plane = strip * line
    other = 1 if planes == 1 else plane  # from one colour of a pixel to the next
    channels = out.reshape(len(out), grid_h * grid_w)

    # sums and differences of opposite rows, and below of opposite columns of Y, Cb and Cr
    pixels = np.empty((2, rows.shape[1], planes * plane), np.float32)
    mixed = np.empty(planes * plane, np.float32)
    left = np.empty((3, strip * grid_w), np.float32)
    right = np.empty((3, strip * grid_w), np.float32)
    samples = np.empty((3, 2, columns.shape[1], strip * grid_w), np.float32)
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
                    _add_and_subtract(image[p, top], image[p, bottom], pixels[0, j, at + first:],
                                      pixels[1, j, at + first:])
                    if length != line:
                        _replicate(pixels[0, j, at:at + line], first, length, values)
                        _replicate(pixels[1, j, at:at + line], first, length, values)
        for k in range(len(rows)):
            _weighted_sum(rows[k], pixels[parity[k]], np.float32(0), mixed)
            for i in range(pairs):
                for row in range(count):
                    cells = slice(row * grid_w, (row + 1) * grid_w)
                    near = row * line + i * values
                    far = row * line + (window - 1 - i) * values
                    _every(stride * values, mixed[near:], mixed[near + other:],
                           mixed[near + 2 * other:], left[:, cells])
                    _every(stride * values, mixed[far:], mixed[far + other:],
                           mixed[far + 2 * other:], right[:, cells])
                for c in range(3):
                    if needed[k, c]:
                        _mix_colors(color[c], left, right, samples[c, 0, i, :size],
                                    samples[c, 1, i, :size])
            for c in range(starts[k], starts[k + 1]):
                _weighted_sum(columns[c], samples[table[c, 0], table[c, 1]], bias[c],
                              channels[table[c, 2], begin * grid_w:begin * grid_w + size])


@compiled(types.void(_F1, types.float32, types.Array(types.int8, 1, 'C')))
def saturate(values: np.ndarray, limit: float, out: np.ndarray) -> None:
    """Round float32 values (halves to even) and saturate them to ``-limit..limit``: int8."""
    for i in range(len(values)):
        out[i] = np.int8(np.rint(min(max(values[i], -limit), limit)))


def fold_symmetric(weights: np.ndarray, odd: Sequence[int]) -> np.ndarray:
    """Fold even or odd weights to those of the sums or differences of opposite pixels.

    Args:
        weights (np.ndarray): float64 (M, window), row m even about its middle, or odd.
        odd (Sequence[int]): M parities, 0 or 1.

    Returns:
        np.ndarray: float32 (M, J), the first half, zero-padded to a multiple of 4. A middle pixel
        is its own opposite, so its weight is halved.

    Raises:
        ValueError: A row does not have its parity.
    """
    mirrored = weights[:, ::-1] * np.where(odd, -1, 1)[:, None]
    if not np.allclose(weights, mirrored, rtol=0, atol=1e-9 * np.abs(weights).max()):
        raise ValueError('expected weights that are even or odd about the middle of the block')
    window = weights.shape[1]
    half = weights[:, :(window + 1) // 2].copy()
    if window % 2:
        half[:, -1] /= 2
    return np.pad(half, ((0, 0), (0, -half.shape[1] % 4))).astype(np.float32)
