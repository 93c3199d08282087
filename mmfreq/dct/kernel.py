"""The compiled loop of :class:`mmfreq.dct.block_map.BlockMap`; numba compiles it on import.

Bilinear resizing, cropping, flipping and the block DCT are linear and separable, and the colour
conversion is linear. Along either axis, a coefficient of a block is therefore a weighted sum of the
source pixels that the block depends on. The loop sums over rows of the source, then over colours,
then over columns, and the resized image never exists. Without resizing, each pixel of a block
depends on one source pixel.

Array libraries pass over the whole image for each operation, which costs more than the arithmetic.
This loop takes 16 rows of blocks through all steps before it reads the next ones, so that
intermediate results stay in the processor's cache. It computes with vectors of 16 numbers: of 16
columns for the sums over rows, and of the 16 rows of blocks for the sums over columns. Between them,
it transposes squares of 16x16 numbers, because reading each block's pixels one by one would take
longer than the sums. numba keeps the machine code for later processes, beside this file or in
``NUMBA_CACHE_DIR``.
"""
from typing import Any, Callable, Iterator

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

from mmfreq.dct.blocks import INT8_LIMIT

LANES = 16  # numbers of a vector

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


class _Vector(types.Type):
    """The type of 16 float32 numbers that one instruction takes, where the processor has such instructions."""


_vector = _Vector('vector')
_FLOATS, _INTEGERS = (ir.VectorType(kind, LANES) for kind in (ir.FloatType(), ir.IntType(32)))


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):

    def __init__(self, manager: Any, kind: types.Type) -> None:
        super().__init__(manager, kind, _FLOATS)


def _pointer(context: Any, builder: Any, kind: types.Array, array: Any, index: Any, count: int = LANES) -> Any:
    """Return the pointer to the vector that begins at a flat index of a contiguous array."""
    data = context.make_array(kind)(context, builder, array).data
    vector = ir.VectorType(context.get_data_type(kind.dtype), count)
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _shuffle(builder: Any, first: Any, second: Any, order: Any) -> Any:
    """Return the numbers at these places of two vectors, one after the other."""
    return builder.shuffle_vector(first, second, ir.Constant(_INTEGERS, [*order]))


def _repeat(builder: Any, value: Any) -> Any:
    vector = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.IntType(32)(0))
    return _shuffle(builder, vector, vector, LANES * [0])


def _read(builder: Any, pointer: Any) -> Any:
    """Read float32, or bytes as float32."""
    values = builder.load(pointer, align=1)
    return values if values.type == _FLOATS else builder.uitofp(values, _FLOATS)


def _write(builder: Any, values: Any, pointer: Any, kind: types.Array) -> None:
    """Write float32, or int8 that is rounded and saturated as :func:`mmfreq.dct.blocks.to_int8` does it."""

    def call(name: str, *arguments: Any) -> Any:
        function = ir.FunctionType(_FLOATS, [_FLOATS] * len(arguments))
        return builder.call(builder.module.declare_intrinsic(f'llvm.{name}.v{LANES}f32', fnty=function), arguments)

    if kind.dtype == types.int8:
        low, high = (ir.Constant(_FLOATS, LANES * [limit]) for limit in (-INT8_LIMIT, INT8_LIMIT))
        values = call('rint', call('minnum', call('maxnum', values, low), high))
        values = builder.fptosi(values, ir.VectorType(ir.IntType(8), LANES))
    builder.store(values, pointer, align=1)


@intrinsic
def _fill(context: Any, value: Any) -> Any:
    """Return 16 times the same number."""
    return _vector(types.float32), lambda context, builder, signature, values: _repeat(builder, *values)


@intrinsic
def _load(context: Any, array: Any, index: Any) -> Any:
    """Return 16 items of a contiguous array from a flat index on."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _read(builder, _pointer(context, builder, signature.args[0], *values))

    return _vector(array, types.intp), generate


@intrinsic
def _load_pixels(context: Any, array: Any, index: Any) -> Any:
    """Return the three colours of 16 interleaved pixels of a contiguous float32 array."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pixels = builder.load(_pointer(context, builder, signature.args[0], *values, 3 * LANES), align=4)
        colors = [_shuffle(builder, pixels, pixels, range(color, 3 * LANES, 3)) for color in range(3)]
        return context.make_tuple(builder, signature.return_type, colors)

    return types.UniTuple(_vector, 3)(array, types.intp), generate


@intrinsic
def _store(context: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write 16 items of a contiguous array from a flat index on."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _write(builder, values[2], _pointer(context, builder, signature.args[0], *values[:2]), signature.args[0])
        return context.get_dummy_value()

    return types.void(array, types.intp, _vector), generate


@intrinsic
def _add(context: Any, vector: Any, weight: Any, values: Any) -> Any:
    """Return ``vector + weight * values``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, weight, values = arguments
        product = builder.fmul(_repeat(builder, weight), values, flags=['fast'])
        return builder.fadd(vector, product, flags=['fast'])

    return _vector(_vector, types.float32, _vector), generate


@intrinsic
def _transpose(context: Any, source: Any, start: Any, step: Any, target: Any, first: Any, pace: Any) -> Any:
    """Transpose 16x16 items of contiguous arrays.

    Flat indices: row i of the source begins at ``start + i * step``, of the target at
    ``first + i * pace``.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kinds = signature.args[0], signature.args[3]

        def pointers(kind: types.Array, array: Any, index: Any, step: Any) -> Iterator[Any]:
            for _ in range(LANES):
                yield _pointer(context, builder, kind, array, index)
                index = builder.add(index, step)

        rows = [_read(builder, pointer) for pointer in pointers(kinds[0], *values[:3])]
        for side in (8, 4, 2, 1):  # in each square of twice that side, exchange two of the four quarters
            order = [i + i // side % 2 * (LANES - side) for i in range(LANES)]
            for i in range(LANES):
                if not i & side:
                    pair = rows[i], rows[i + side]
                    rows[i], rows[i + side] = (
                        _shuffle(builder, *pair, [j + shift for j in order]) for shift in (0, side))
        for row, pointer in zip(rows, pointers(kinds[1], *values[3:])):
            _write(builder, row, pointer, kinds[1])
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate


@_inner
def _resized_pixels(axis: Any, scale: float, support: float) -> Any:
    """Return the first source pixel of each resized pixel along an axis, and the weights from it on.

    ``axis`` and ``scale`` describe one axis of a lazy image as in :func:`block_channels`. A resized
    pixel depends on the source pixels up to ``support`` from its centre, with linearly falling weights:
    float32 (T, pixels).
    """
    start, length, size, first, step, count = axis
    begin, end = int(start * scale), int(np.ceil((start + length) * scale))
    pace = length / size * scale
    origin, pace = start * scale + (first + 0.5) * pace, step * pace
    lows, totals = np.empty(count, np.int64), np.zeros(count)
    parts = np.empty((int(np.ceil(2 * support)), count), np.float32)
    for i in range(count):
        lows[i] = max(int(origin + pace * i - support + 0.5), begin)
    for tap in range(len(parts)):
        for i in range(count):
            x = lows[i] + tap
            parts[tap, i] = max(support - abs(x + 0.5 - (origin + pace * i)), 0.) if x < end else 0.
            totals[i] += parts[tap, i]
    for tap in range(len(parts)):
        for i in range(count):
            parts[tap, i] /= totals[i]
    return lows, parts


@_inner
def _source_weights(lows: Any, parts: Any, ascending: bool, basis: Any, stride: int, margin: int,
                    pixels: Any, weights: Any) -> int:
    """Write the source pixels that each block depends on along one axis, and their weights.

    ``basis``, float32 (window, K), are the weights of a block's resized pixels, K a multiple of 16.
    The function writes into ``pixels``, int64 (blocks, T), whose spare places repeat the last pixel,
    and adds to ``weights``, float32 (blocks, T, K). It returns the largest number of source pixels
    of a block.
    """
    window, frequencies = basis.shape
    most = 0
    for block in range(len(pixels)):
        place, last = -1, -1
        for i in range(window):
            j = i if ascending else window - 1 - i  # in the order of the source
            kept = min(max(block * stride - margin + j, 0), len(lows) - 1)
            for tap in range(len(parts)):
                if parts[tap, kept] > 0:
                    x = lows[kept] + tap
                    place += x > last
                    last = max(x, last)
                    pixels[block, place] = last
                    target = (block * pixels.shape[1] + place - (last - x)) * frequencies
                    for k in range(0, frequencies, LANES):
                        values = _load(basis, j * frequencies + k)
                        _store(weights, target + k, _add(_load(weights, target + k), parts[tap, kept], values))
        pixels[block, place + 1:] = last
        most = max(most, place + 1)
    return most


@_inner
def _axis_weights(axis: Any, scale: float, antialias: bool, basis: Any, stride: int, margin: int,
                  blocks: int) -> Any:
    """Return pixels (blocks, T) and weights (blocks, K, T) of :func:`_source_weights`, and the places in use.

    ``basis`` is float32 (K, window), K any number.
    """
    apart = scale * axis[1] / axis[2]  # source pixels from one resized pixel to the next
    support = np.float32(max(apart, 1.)) if antialias else np.float32(1)
    lows, parts = _resized_pixels(axis, scale, support)
    window = basis.shape[1]
    padded = np.zeros((window, len(basis) + LANES - 1 & -LANES), np.float32)
    padded[:, :len(basis)] = basis.T
    most = min(window * len(parts), int((window - 1) * abs(apart * axis[4])) + len(parts) + 1)
    pixels = np.empty((blocks, most + LANES - 1 & -LANES), np.int64)
    places, frequencies = pixels.shape[1], padded.shape[1]
    sums = np.zeros((blocks, places, frequencies), np.float32)
    used = _source_weights(lows, parts, axis[4] > 0, padded, stride, margin, pixels, sums)
    weights = np.empty((blocks, frequencies, places), np.float32)
    for block in range(blocks):
        for place in range(0, places, LANES):
            for k in range(0, frequencies, LANES):
                _transpose(sums, (block * places + place) * frequencies + k, frequencies,
                           weights, (block * frequencies + k) * places + place, places)
    return pixels, weights, used


@_inner
def _sum_rows(weights: Any, k: int, image: Any, rows: Any, start: int, out: Any, first: int, second: int,
              length: int) -> None:
    """Write two weighted sums of rows of the image, whose flat indices are ``rows + start``."""
    for place in range(0, length, LANES):
        x = min(place, length - LANES)
        a, b = _fill(np.float32(0)), _fill(np.float32(0))
        for j in range(len(rows)):
            values = _load(image, rows[j] + start + x)
            a, b = _add(a, weights[k, j], values), _add(b, weights[k + 1, j], values)
        _store(out, first + x, a)
        _store(out, second + x, b)


@_inner
def _mix_pixels(weights: Any, pixels: Any, start: int, out: Any, first: int, length: int) -> None:
    """Write one component of interleaved pixels."""
    for place in range(0, length, LANES):
        x = min(place, length - LANES)
        a, b, c = _load_pixels(pixels, start + 3 * x)
        _store(out, first + x, _add(_add(_add(_fill(np.float32(0)), weights[0], a), weights[1], b), weights[2], c))


@_inner
def _sum_columns(weights: Any, columns: Any, span: int, samples: Any, table: Any, affine: Any, c: int, d: int,
                 out: Any) -> None:
    """Write channels c and d, ``constant + factor * sum`` over the samples of each block in 16 rows of blocks."""
    u, v = table[c, 0], table[d, 0]
    for block in range(len(columns)):
        a, b = _fill(np.float32(0)), _fill(np.float32(0))
        for j in range(span):
            values = _load(samples, columns[block, j])
            a, b = _add(a, weights[block, u, j], values), _add(b, weights[block, v, j], values)
        _store(out, block * LANES, _add(_fill(affine[c, 1]), affine[c, 0], a))
        _store(out, (len(columns) + block) * LANES, _add(_fill(affine[d, 1]), affine[d, 0], b))


@compiled(types.void(_BYTES, _SCALES, _I2, types.boolean, _F2, _F2, _F2, _I2, _I1, _I2, _F2, types.int64,
                     types.int64, _F3, _SIGNED_BYTES))
def block_channels(planes: np.ndarray, scales: tuple[float, float], axes: np.ndarray, antialias: bool,
                   color: np.ndarray, rows: np.ndarray, columns: np.ndarray, lines: np.ndarray,
                   starts: np.ndarray, table: np.ndarray, affine: np.ndarray, stride: int, margin: int,
                   out: np.ndarray, rounded: np.ndarray) -> None:
    """Compute weighted sums over the blocks of a lazily resized image.

    Args:
        planes (np.ndarray): uint8 (1, H, 3*W), C order, interleaved source pixels; or (P, H, W), the
            samples of P components. W is at least :data:`LANES`.
        scales (tuple[float, float]): Rows and columns of samples for one of pixels.
        axes (np.ndarray): int64 (2, 6), :attr:`mmfreq.dct.lazy_image.LazyImage.axes`.
        antialias (bool): As for :class:`mmfreq.dct.lazy_image.LazyImage`.
        color (np.ndarray): float32 (3, 3), weights of the image's colours for Y, Cb and Cr, or
            (0, 1) for samples of components.
        rows (np.ndarray): float32 (K, window), vertical weights of K frequencies, K even.
        columns (np.ndarray): float32 (U, window), horizontal weights of U frequencies.
        lines (np.ndarray): int64 (M, 2), pairs of a component and a vertical frequency.
        starts (np.ndarray): int64 (M + 1,), channels ``starts[m]`` to ``starts[m + 1] - 1`` have
            component and vertical frequency ``lines[m]``.
        table (np.ndarray): int64 (C, 2), for each channel: horizontal frequency, index in ``out``.
        affine (np.ndarray): float32 (C, 2), for each channel: factor and constant.
        stride (int): Pixels of the resized image from one block to the next.
        margin (int): Further pixels on either side that a block depends on.
        out (np.ndarray): float32 (channels, h, w), C order, h and w at least :data:`LANES`; C of the
            channels are written.
        rounded (np.ndarray): int8, as ``out``: written, if ``out`` is empty, with rounded and
            saturated sums.
    """
    grid_h, grid_w = max(out.shape[1], rounded.shape[1]), max(out.shape[2], rounded.shape[2])
    tops, down, taps = _axis_weights(axes[0], scales[0], antialias, rows, stride, margin, grid_h)
    lefts, across, span = _axis_weights(axes[1], scales[1], antialias, columns, stride, margin, grid_w)
    colors, row_size = max(1, len(color)), planes.shape[2]
    begin = min(lefts[:, 0].min(), row_size // colors - LANES)
    width = max(lefts[:, span - 1].max() + 1 - begin, LANES)
    tops *= row_size
    lefts[:] = (lefts - begin) * LANES

    frequencies, length = len(rows), colors * width
    sums = np.empty(len(planes) * frequencies * LANES * length, np.float32)  # (plane, frequency, row of blocks, pixel)
    mixed, samples = np.empty(LANES * width, np.float32), np.empty(width * LANES, np.float32)
    results = np.empty(2 * grid_w * LANES, np.float32)
    for strip in range(0, grid_h, LANES):
        top = min(strip, grid_h - LANES)  # the last strip begins earlier: its first rows are computed again
        for plane in range(len(planes)):
            for k in range(0, frequencies, 2):
                for row in range(LANES):
                    first = ((plane * frequencies + k) * LANES + row) * length
                    _sum_rows(down[top + row], k, planes, tops[top + row, :taps],
                              plane * planes.shape[1] * row_size + colors * begin, sums, first,
                              first + LANES * length, length)
        for line in range(len(lines)):
            component, k = lines[line]
            source, first = sums, (component * frequencies + k) * LANES * length
            if colors == 3:
                source, first = mixed, 0
                for row in range(LANES):
                    _mix_pixels(color[component], sums, (k * LANES + row) * length, mixed, row * width, width)
            for place in range(0, width, LANES):
                x = min(place, width - LANES)
                _transpose(source, first + x, width, samples, x * LANES, LANES)
            for c in range(starts[line], starts[line + 1], 2):
                d = min(c + 1, starts[line + 1] - 1)
                _sum_columns(across, lefts, span, samples, table, affine, c, d, results)
                for i in range(2):
                    target = (table[d if i else c, 1] * grid_h + top) * grid_w
                    for place in range(0, grid_w, LANES):
                        x = min(place, grid_w - LANES)
                        if out.size == 0:
                            _transpose(results, (i * grid_w + x) * LANES, LANES, rounded, target + x, grid_w)
                        else:
                            _transpose(results, (i * grid_w + x) * LANES, LANES, out, target + x, grid_w)
