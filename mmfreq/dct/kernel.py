"""The compiled loop of :class:`mmfreq.dct.block_map.BlockMap`; numba compiles it on import.

Bilinear resizing, cropping, flipping and the block DCT are linear and separable, and the colour
conversion is linear. Along either axis, a coefficient of a block is therefore a weighted sum of the
source pixels that the block depends on. The loop sums over rows of the source, then over colours,
then over columns, and the resized image never exists. Without resizing, each pixel of a block
depends on one source pixel.

Array libraries pass over the whole image for each operation, which costs more than the arithmetic.
This loop takes a few rows of blocks through all steps before it reads the next ones, so that
intermediate results stay in the processor's cache. numba keeps the machine code for later
processes, beside this file or in ``NUMBA_CACHE_DIR``.
"""
from typing import Any, Callable

import numpy as np
from numba import njit, types

from mmfreq.dct.blocks import INT8_LIMIT

_STRIP_BLOCKS = 448  # blocks at a time: enough for long loops, few enough for the cache

_BYTES = types.Array(types.uint8, 3, 'C', readonly=True)
_F2, _F3 = (types.Array(types.float32, n, 'C') for n in (2, 3))
_SCALES = types.UniTuple(types.float64, 2)
_SIGNED_BYTES = types.Array(types.int8, 3, 'C')
_I1, _I2 = (types.Array(types.int64, n, 'C') for n in (1, 2))
_OPTIONS = dict(nogil=True, fastmath=True, error_model='numpy')
_inner = njit(**_OPTIONS)  # inlined into the compiled function below and cached with it


def compiled(signature: Any) -> Callable[[Callable], Callable]:
    """Compile for one thread, without the GIL; keep the machine code on disk where possible."""

    def decorate(function: Callable) -> Callable:
        try:
            return njit(signature, cache=True, **_OPTIONS)(function)
        except (RuntimeError, OSError):  # no folder can be written to, or the disk is full
            return njit(signature, **_OPTIONS)(function)

    return decorate


@_inner
def _source_weights(axis: Any, scale: float, support: float, basis: Any, stride: int, margin: int,
                    pixels: Any, weights: Any) -> int:
    """Write the source pixels that each block depends on along one axis, and their weights.

    ``axis`` and ``scale`` describe one axis of a lazy image as in :func:`block_channels`. A resized
    pixel depends on the samples up to ``support`` from its centre, with linearly falling weights.
    ``basis``, float32 (K, window), are the weights of a block's resized pixels. The function writes
    into ``pixels``, int64 (blocks, T), whose spare places repeat the last pixel, and adds to
    ``weights``, float32 (blocks, K, T). It returns the largest number of source pixels of a block.
    """
    start, length, size, first, step, count = axis
    begin, end = int(start * scale), int(np.ceil((start + length) * scale))
    most = 0
    for block in range(len(pixels)):
        place, last = -1, -1
        for i in range(basis.shape[1]):
            j = i if step > 0 else basis.shape[1] - 1 - i  # in the order of the source
            kept = min(max(block * stride - margin + j, 0), count - 1)
            centre = (start + (first + step * kept + 0.5) * length / size) * scale
            low = max(int(centre - support + 0.5), begin)
            high = min(int(centre + support + 0.5), end)
            total = 0.
            for x in range(low, high):
                total += max(support - abs(x + 0.5 - centre), 0.)
            for x in range(low, high):
                part = np.float32(max(support - abs(x + 0.5 - centre), 0.) / total)
                if part > 0:
                    if x > last:
                        place, last = place + 1, x
                        pixels[block, place] = last
                    for k in range(len(basis)):
                        weights[block, k, place - (last - x)] += part * basis[k, j]
        pixels[block, place + 1:] = last
        most = max(most, place + 1)
    return most


@_inner
def _axis_weights(axis: Any, scale: float, antialias: bool, basis: Any, stride: int, margin: int,
                  blocks: int) -> Any:
    """Return pixels and weights of :func:`_source_weights`, and their places in use: 4, 8, ..."""
    support = np.float32(max(scale * axis[1] / axis[2], 1.)) if antialias else np.float32(1)
    places = basis.shape[1] * int(np.ceil(2 * support)) + 4  # enough for slices of any step
    pixels = np.empty((blocks, places), np.int64)
    weights = np.zeros((blocks, len(basis), places), np.float32)
    used = _source_weights(axis, scale, support, basis, stride, margin, pixels, weights)
    return pixels, weights, used + 3 & -4


@_inner
def _sum_rows_2(weights: Any, a: Any, b: Any, c: Any, d: Any, begin: bool, out: Any) -> None:
    """Write two weighted sums of four rows of bytes into two lines; add them unless ``begin``."""
    a0, b0, c0, d0 = weights[0, 0], weights[0, 1], weights[0, 2], weights[0, 3]
    a1, b1, c1, d1 = weights[1, 0], weights[1, 1], weights[1, 2], weights[1, 3]
    p, q = out[0], out[1]
    for x in range(len(a)):
        i, j, k, m = np.float32(a[x]), np.float32(b[x]), np.float32(c[x]), np.float32(d[x])
        first = a0 * i + b0 * j + c0 * k + d0 * m
        second = a1 * i + b1 * j + c1 * k + d1 * m
        p[x] = first if begin else p[x] + first
        q[x] = second if begin else q[x] + second


@_inner
def _sum_rows_4(weights: Any, a: Any, b: Any, c: Any, d: Any, begin: bool, out: Any) -> None:
    """Do the same as :func:`_sum_rows_2` for four sums."""
    a0, b0, c0, d0 = weights[0, 0], weights[0, 1], weights[0, 2], weights[0, 3]
    a1, b1, c1, d1 = weights[1, 0], weights[1, 1], weights[1, 2], weights[1, 3]
    a2, b2, c2, d2 = weights[2, 0], weights[2, 1], weights[2, 2], weights[2, 3]
    a3, b3, c3, d3 = weights[3, 0], weights[3, 1], weights[3, 2], weights[3, 3]
    p, q, r, s = out[0], out[1], out[2], out[3]
    for x in range(len(a)):
        i, j, k, m = np.float32(a[x]), np.float32(b[x]), np.float32(c[x]), np.float32(d[x])
        first = a0 * i + b0 * j + c0 * k + d0 * m
        second = a1 * i + b1 * j + c1 * k + d1 * m
        third = a2 * i + b2 * j + c2 * k + d2 * m
        fourth = a3 * i + b3 * j + c3 * k + d3 * m
        p[x] = first if begin else p[x] + first
        q[x] = second if begin else q[x] + second
        r[x] = third if begin else r[x] + third
        s[x] = fourth if begin else s[x] + fourth


@_inner
def _sum_rows(weights: Any, image: Any, rows: Any, part: Any, out: Any) -> None:
    """Write an even number of weighted sums of 4, 8, ... rows of the image, one sum a line."""
    for j in range(0, weights.shape[1], 4):
        a, b, c, d = (image[rows[j], part], image[rows[j + 1], part], image[rows[j + 2], part],
                      image[rows[j + 3], part])
        for k in range(0, len(weights) - 3, 4):
            _sum_rows_4(weights[k:k + 4, j:j + 4], a, b, c, d, j == 0, out[k:k + 4])
        if len(weights) % 4:
            _sum_rows_2(weights[-2:, j:j + 4], a, b, c, d, j == 0, out[-2:])


@_inner
def _mix_pixels(weights: Any, pixels: Any, out: Any) -> None:
    """Write one component of interleaved pixels."""
    w0, w1, w2 = weights[0], weights[1], weights[2]
    for x in range(len(out)):
        out[x] = w0 * pixels[3 * x] + w1 * pixels[3 * x + 1] + w2 * pixels[3 * x + 2]


@_inner
def _take(values: Any, indices: Any, out: Any, first: int) -> None:
    """Write the values at four lists of indices into four lines, starting at ``first``."""
    a, b, c, d = indices[0], indices[1], indices[2], indices[3]
    p, q, r, s = out[0, first:], out[1, first:], out[2, first:], out[3, first:]
    for x in range(len(a)):
        i, j, k, m = values[a[x]], values[b[x]], values[c[x]], values[d[x]]
        p[x] = i
        q[x] = j
        r[x] = k
        s[x] = m


@_inner
def _sum_columns(weights: Any, samples: Any, scale: Any, bias: Any, out: Any) -> None:
    """Write ``bias + scale * sum(weights[j] * samples[j])`` elementwise; j runs to 4, 8, ..."""
    for j in range(0, len(samples), 4):
        w0, w1, w2, w3 = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        a, b, c, d = samples[j], samples[j + 1], samples[j + 2], samples[j + 3]
        if j == 0:
            for x in range(len(out)):
                out[x] = bias + scale * (w0[x] * a[x] + w1[x] * b[x] + w2[x] * c[x] + w3[x] * d[x])
        else:
            for x in range(len(out)):
                out[x] += scale * (w0[x] * a[x] + w1[x] * b[x] + w2[x] * c[x] + w3[x] * d[x])


@_inner
def _round(values: Any, out: Any) -> None:
    """Write values as int8, as :func:`mmfreq.dct.blocks.to_int8` does."""
    for x in range(len(out)):
        out[x] = np.int8(np.rint(min(max(values[x], np.float32(-INT8_LIMIT)), np.float32(INT8_LIMIT))))


@compiled(types.void(_BYTES, _SCALES, _I2, types.boolean, _F2, _F2, _I1, _F2, _I2, _F2, types.int64,
                     types.int64, _F3, _SIGNED_BYTES))
def block_channels(planes: np.ndarray, scales: tuple[float, float], axes: np.ndarray, antialias: bool,
                   color: np.ndarray, rows: np.ndarray, starts: np.ndarray, columns: np.ndarray,
                   table: np.ndarray, affine: np.ndarray, stride: int, margin: int, out: np.ndarray,
                   rounded: np.ndarray) -> None:
    """Compute weighted sums over the blocks of a lazily resized image.

    Args:
        planes (np.ndarray): uint8 (1, H, 3*W), C order, interleaved source pixels; or (P, H, W), the
            samples of P components.
        scales (tuple[float, float]): Rows and columns of samples for one of pixels.
        axes (np.ndarray): int64 (2, 6), :attr:`mmfreq.dct.lazy_image.LazyImage.axes`.
        antialias (bool): As for :class:`mmfreq.dct.lazy_image.LazyImage`.
        color (np.ndarray): float32 (3, 3), weights of the image's colours for Y, Cb and Cr, or
            (0, 1) for samples of components.
        rows (np.ndarray): float32 (K, window), vertical weights of K frequencies, K even.
        starts (np.ndarray): int64 (M + 1,), channels ``starts[k]`` to ``starts[k + 1] - 1`` have
            vertical frequency k < M <= K.
        columns (np.ndarray): float32 (U, window), horizontal weights of U frequencies.
        table (np.ndarray): int64 (C, 3), for each channel: component, horizontal frequency, index
            in ``out``; components ascending for each vertical frequency.
        affine (np.ndarray): float32 (C, 2), for each channel: factor and constant.
        stride (int): Pixels of the resized image from one block to the next.
        margin (int): Further pixels on either side that a block depends on.
        out (np.ndarray): float32 (channels, h, w), C order; C of the channels are written.
        rounded (np.ndarray): int8, as ``out``: written, if ``out`` is empty, with rounded and
            saturated sums.
    """
    grid_h, grid_w = max(out.shape[1], rounded.shape[1]), max(out.shape[2], rounded.shape[2])
    floats = out.reshape(len(out), out.shape[1] * out.shape[2])
    steps = rounded.reshape(len(out), rounded.shape[1] * rounded.shape[2])
    tops, down, taps = _axis_weights(axes[0], scales[0], antialias, rows, stride, margin, grid_h)
    lefts, across, span = _axis_weights(axes[1], scales[1], antialias, columns, stride, margin, grid_w)
    begin, end = lefts[:, 0].min(), lefts[:, span - 1].max() + 1

    strip = min(grid_h, max(1, _STRIP_BLOCKS // grid_w))  # rows of blocks at a time
    samples = np.empty((span, strip * grid_w), np.float32)
    indices = np.empty((span, grid_w), np.uint32)  # unsigned: never counted from the end
    weights = np.empty((len(columns), span, strip * grid_w), np.float32)
    for j in range(span):
        for x in range(grid_w):
            indices[j, x] = lefts[x, j] - begin
            for u in range(len(columns)):
                for row in range(strip):
                    weights[u, j, row * grid_w + x] = across[x, u, j]
    colors = color.shape[1]
    lines = np.empty((len(planes), strip, len(rows), colors * (end - begin)), np.float32)
    mixed, sums = np.empty(end - begin, np.float32), np.empty(strip * grid_w, np.float32)
    part = slice(colors * begin, colors * end)
    for top in range(0, grid_h, strip):
        count = min(strip, grid_h - top)
        blocks = slice(top * grid_w, (top + count) * grid_w)
        for plane in range(len(planes)):
            for row in range(count):
                y = top + row
                _sum_rows(down[y, :, :taps], planes[plane], tops[y], part, lines[plane, row])
        for k in range(len(starts) - 1):
            component = -1
            for c in range(starts[k], starts[k + 1]):
                if table[c, 0] != component:
                    component = table[c, 0]
                    for row in range(count):
                        if colors == 3:
                            values = mixed
                            _mix_pixels(color[component], lines[0, row, k], mixed)
                        else:
                            values = lines[component, row, k]
                        for j in range(0, span, 4):
                            _take(values, indices[j:j + 4], samples[j:j + 4], row * grid_w)
                target = sums[:count * grid_w] if out.size == 0 else floats[table[c, 2], blocks]
                _sum_columns(weights[table[c, 1]], samples, affine[c, 0], affine[c, 1], target)
                if out.size == 0:
                    _round(target, steps[table[c, 2], blocks])
