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
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

from mmfreq.dct.blocks import INT8_LIMIT

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


class _Lanes(types.Type):
    """Sixteen float32 values, with which the processor computes at once."""


_LANES = 16
_lanes = _Lanes('lanes')
_vector = ir.VectorType(ir.FloatType(), _LANES)


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    """Lanes are a vector of LLVM."""

    def __init__(self, manager: Any, kind: types.Type) -> None:
        super().__init__(manager, kind, _vector)


def _place(context: Any, builder: Any, kind: types.Array, array: Any, index: Any) -> Any:
    """Return the pointer to 16 items of a contiguous array and the bytes of an item."""
    data = context.make_array(kind)(context, builder, array).data
    item = data.type.pointee
    return builder.bitcast(builder.gep(data, [index]), ir.VectorType(item, _LANES).as_pointer())


def _splat(builder: Any, value: Any) -> Any:
    """Return 16 times the same value."""
    first = builder.insert_element(ir.Constant(_vector, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES))


def _read(builder: Any, pointer: Any) -> Any:
    values = builder.load(pointer, align=1)
    return values if values.type == _vector else builder.uitofp(values, _vector)


def _call(builder: Any, name: str, *values: Any) -> Any:
    """Call LLVM's intrinsic function of this name for vectors."""
    kind = ir.FunctionType(_vector, [_vector] * len(values))
    return builder.call(builder.module.declare_intrinsic(f'llvm.{name}.v{_LANES}f32', fnty=kind), values)


def _write(builder: Any, values: Any, pointer: Any) -> None:
    """Write float32, or round and saturate for int8 as :func:`mmfreq.dct.blocks.to_int8` does."""
    kind = pointer.type.pointee
    if kind != _vector:
        for name, limit in (('maxnum', -INT8_LIMIT), ('minnum', INT8_LIMIT)):
            values = _call(builder, name, values, ir.Constant(_vector, [limit] * _LANES))
        values = builder.fptosi(_call(builder, 'rint', values), kind)
    builder.store(values, pointer, align=1)


@intrinsic
def _load(context: Any, array: Any, index: Any) -> Any:
    """Return lanes from 16 items of a contiguous array, which begin at a flat index."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _read(builder, _place(context, builder, signature.args[0], *values))

    return _lanes(array, types.intp), generate


@intrinsic
def _load_pixels(context: Any, array: Any, index: Any) -> Any:
    """Return lanes of three colours from 16 interleaved pixels of a contiguous float32 array."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        whole = ir.VectorType(ir.FloatType(), 3 * _LANES)
        pointer = _place(context, builder, signature.args[0], *values)
        pixels = builder.load(builder.bitcast(pointer, whole.as_pointer()), align=4)
        order = [[3 * i + color for i in range(_LANES)] for color in range(3)]
        colors = [builder.shuffle_vector(pixels, pixels, ir.Constant(ir.VectorType(ir.IntType(32), _LANES), mask))
                  for mask in order]
        return context.make_tuple(builder, signature.return_type, colors)

    return types.UniTuple(_lanes, 3)(array, types.intp), generate


@intrinsic
def _store(context: Any, array: Any, index: Any, lanes: Any) -> Any:
    """Write lanes to a contiguous array."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _write(builder, values[2], _place(context, builder, signature.args[0], *values[:2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, _lanes), generate


@intrinsic
def _fill(context: Any, value: Any) -> Any:
    """Return lanes with the same value."""
    return _lanes(types.float32), lambda context, builder, signature, values: _splat(builder, values[0])


@intrinsic
def _add(context: Any, lanes: Any, weight: Any, others: Any) -> Any:
    """Return ``lanes + weight * others``."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        product = builder.fmul(_splat(builder, values[1]), values[2], flags=['fast'])
        return builder.fadd(values[0], product, flags=['fast'])

    return _lanes(_lanes, types.float32, _lanes), generate


@intrinsic
def _transpose(context: Any, source: Any, start: Any, step: Any, target: Any, first: Any, pace: Any) -> Any:
    """Transpose 16x16 items: rows from ``start`` on, ``step`` apart, to rows from ``first`` on, ``pace`` apart."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kinds = signature.args[0], signature.args[3]

        def places(kind: Any, array: Any, index: Any, step: Any) -> Any:
            for _ in range(_LANES):
                yield _place(context, builder, kind, array, index)
                index = builder.add(index, step)

        rows = [_read(builder, pointer) for pointer in places(kinds[0], *values[:3])]
        for side in (8, 4, 2, 1):  # exchange quarters of squares of twice that side
            low = [i // side % 2 * (_LANES - side) + i for i in range(_LANES)]
            masks = [ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [i + shift for i in low]) for shift in (0, side)]
            for i in range(_LANES):
                if not i & side:
                    pair = rows[i], rows[i + side]
                    rows[i], rows[i + side] = (builder.shuffle_vector(*pair, mask) for mask in masks)
        for row, pointer in zip(rows, places(kinds[1], *values[3:])):
            _write(builder, row, pointer)
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
    lows, totals = np.empty(count, np.int64), np.zeros(count, np.float32)
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
def _source_weights(lows: Any, parts: Any, ascending: bool, basis: Any, stride: int, margin: int, pixels: Any,
                    weights: Any) -> int:
    """Write the source pixels that each block depends on along one axis, and their weights.

    ``basis``, float32 (window, K), are the weights of a block's resized pixels. The function writes
    into ``pixels``, int64 (blocks, T), whose spare places repeat the last pixel, and adds to
    ``weights``, float32 (blocks, T, K). It returns the largest number of source pixels of a block.
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
                    for k in range(0, frequencies, _LANES):
                        sums = _add(_load(weights, target + k), parts[tap, kept], _load(basis, j * frequencies + k))
                        _store(weights, target + k, sums)
        pixels[block, place + 1:] = last
        most = max(most, place + 1)
    return most


@_inner
def _axis_weights(axis: Any, scale: float, antialias: bool, basis: Any, stride: int, margin: int,
                  blocks: int) -> Any:
    """Return pixels and weights (blocks, K, T) of :func:`_source_weights`, and their places in use."""
    support = np.float32(max(scale * axis[1] / axis[2], 1.)) if antialias else np.float32(1)
    lows, parts = _resized_pixels(axis, scale, support)
    window, frequencies = basis.shape
    apart = abs(scale * axis[1] / axis[2] * axis[4])  # source pixels from one resized pixel to the next
    places = min(window * len(parts), int((window - 1) * apart) + len(parts) + 1) + _LANES - 1 & -_LANES
    pixels = np.empty((blocks, places), np.int64)
    weights = np.zeros((blocks, places, frequencies), np.float32)
    used = _source_weights(lows, parts, axis[4] > 0, basis, stride, margin, pixels, weights)
    across = np.empty((blocks, frequencies, places), np.float32)
    for block in range(blocks):
        for place in range(0, places, _LANES):
            for k in range(0, frequencies, _LANES):
                _transpose(weights, (block * places + place) * frequencies + k, frequencies, across,
                           (block * frequencies + k) * places + place, places)
    return pixels, across, used


@_inner
def _sum_rows(weights: Any, y: int, image: Any, rows: Any, taps: int, start: int, lines: Any, k: int, first: int,
              second: int, length: int) -> None:
    """Write two weighted sums of rows of the image."""
    for place in range(0, length, _LANES):
        x = min(place, length - _LANES)
        a, b = _fill(np.float32(0)), _fill(np.float32(0))
        for j in range(taps):
            values = _load(image, rows[y, j] + start + x)
            a, b = _add(a, weights[y, k, j], values), _add(b, weights[y, k + 1, j], values)
        _store(lines, first + x, a)
        _store(lines, second + x, b)


@_inner
def _mix_pixels(weights: Any, component: int, pixels: Any, start: int, out: Any, first: int, length: int) -> None:
    """Write one component of interleaved pixels."""
    for place in range(0, length, _LANES):
        x = min(place, length - _LANES)
        mixed = _fill(np.float32(0))
        b, g, r = _load_pixels(pixels, start + 3 * x)
        mixed = _add(mixed, weights[component, 0], b)
        mixed = _add(mixed, weights[component, 1], g)
        mixed = _add(mixed, weights[component, 2], r)
        _store(out, first + x, mixed)


@_inner
def _sum_columns(weights: Any, lanes: Any, columns: Any, span: int, table: Any, affine: Any, c: int, d: int,
                 out: Any) -> None:
    """Write two channels of a row of blocks, one after the other."""
    for block in range(len(columns)):
        a, b = _fill(np.float32(0)), _fill(np.float32(0))
        for j in range(span):
            values = _load(lanes, columns[block, j])
            a, b = _add(a, weights[block, table[c, 0], j], values), _add(b, weights[block, table[d, 0], j], values)
        _store(out, block * _LANES, _add(_fill(affine[c, 1]), affine[c, 0], a))
        _store(out, (len(columns) + block) * _LANES, _add(_fill(affine[d, 1]), affine[d, 0], b))


@compiled(types.void(_BYTES, _SCALES, _I2, types.boolean, _F2, _F2, _F2, _I2, _I1, _I2, _F2, types.int64,
                     types.int64, _F3, _SIGNED_BYTES))
def block_channels(planes: np.ndarray, scales: tuple[float, float], axes: np.ndarray, antialias: bool,
                   color: np.ndarray, rows: np.ndarray, columns: np.ndarray, groups: np.ndarray,
                   starts: np.ndarray, table: np.ndarray, affine: np.ndarray, stride: int, margin: int, out: np.ndarray,
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
    tops, down, taps = _axis_weights(axes[0], scales[0], antialias, rows, stride, margin, grid_h)
    lefts, across, span = _axis_weights(axes[1], scales[1], antialias, columns, stride, margin, grid_w)
    colors, height, row_size = color.shape[1], planes.shape[1], planes.shape[2]
    begin = min(lefts[:, 0].min(), row_size // colors - _LANES)
    width = max(lefts[:, span - 1].max() + 1 - begin, _LANES)
    length = colors * width
    for block in range(grid_h):
        for j in range(taps):
            tops[block, j] *= row_size
    for block in range(grid_w):
        for j in range(span):
            lefts[block, j] = (lefts[block, j] - begin) * _LANES

    frequencies = groups[:, 1].max() // 2 * 2 + 2  # an even number
    lines = np.empty(len(planes) * frequencies * _LANES * length, np.float32)
    mixed = np.empty(_LANES * width, np.float32)
    lanes = np.empty(width * _LANES, np.float32)
    sums = np.empty(2 * grid_w * _LANES, np.float32)
    for strip in range(0, grid_h, _LANES):
        top = min(strip, grid_h - _LANES)
        for plane in range(len(planes)):
            for k in range(0, frequencies, 2):
                for row in range(_LANES):
                    line = ((plane * frequencies + k) * _LANES + row) * length
                    _sum_rows(down, top + row, planes, tops, taps, plane * height * row_size + colors * begin, lines,
                              k, line, line + _LANES * length, length)
        for group in range(len(groups)):
            component, k = groups[group]
            if colors == 3:
                for row in range(_LANES):
                    _mix_pixels(color, component, lines, (k * _LANES + row) * length, mixed, row * width, width)
                source, first = mixed, 0
            else:
                source, first = lines, (component * frequencies + k) * _LANES * length
            for place in range(0, width, _LANES):
                x = min(place, width - _LANES)
                _transpose(source, first + x, width, lanes, x * _LANES, _LANES)
            last = starts[group + 1] - 1
            for c in range(starts[group], last + 1, 2):
                d = min(c + 1, last)
                _sum_columns(across, lanes, lefts, span, table, affine, c, d, sums)
                for i in range(2):
                    target = (table[d if i else c, 1] * grid_h + top) * grid_w
                    for place in range(0, grid_w, _LANES):
                        x = min(place, grid_w - _LANES)
                        if out.size == 0:
                            _transpose(sums, (i * grid_w + x) * _LANES, _LANES, rounded, target + x, grid_w)
                        else:
                            _transpose(sums, (i * grid_w + x) * _LANES, _LANES, out, target + x, grid_w)
