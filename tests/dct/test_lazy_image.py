"""The one pass from a decoded image to channels, against torch's resize and the unfused maths in float64."""
import copy
from typing import Sequence

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmfreq.dct import blocks as dct
from mmfreq.dct.block_map import BlockMap
from mmfreq.dct.channels import channel_indices
from mmfreq.dct.lazy_image import LazyImage
from mmfreq.dct.moments import ImageBlocks

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (61, 83, 3), dtype=np.uint8)


def unrounded(lazy: LazyImage) -> np.ndarray:
    """float64 pixels (H, W, 3) of a lazy image, resized by torch."""
    top, left, height, width = lazy.crop
    source = torch.tensor(lazy.pixels[top:top + height, left:left + width].copy()).double()
    resized = F.interpolate(source.permute(2, 0, 1)[None], lazy.size, mode='bilinear', antialias=lazy.antialias)
    return resized[0].permute(1, 2, 0).numpy()[list(lazy.rows)][:, list(lazy.columns)]


def expected_channels(pixels: np.ndarray, channels: Sequence[int], block_size: int, upscale: int) -> np.ndarray:
    """The chosen coefficients (C, h, w) of float64 BGR pixels, without rounding."""
    matrix = dct.color_matrix()
    ycbcr = pixels @ matrix[:, :3].T + matrix[:, 3]
    if upscale > 1:
        size = [side * upscale for side in ycbcr.shape[:2]]
        wide = F.interpolate(torch.tensor(ycbcr).permute(2, 0, 1)[None], size, mode='bilinear')
        ycbcr = wide[0].permute(1, 2, 0).numpy()
    return dct.block_dct(ycbcr, block_size)[:, :, channels].transpose(2, 0, 1)


def coefficients(lazy: LazyImage, channels: Sequence[int], block_size: int = 8, upscale: int = 1) -> np.ndarray:
    total = 3 * block_size**2
    return BlockMap(channels, np.zeros(total), np.ones(total), block_size, upscale).channels(lazy)


@pytest.mark.parametrize('antialias', [False, True], ids=['opencv', 'pillow'])
@pytest.mark.parametrize('factor', [0.25, 0.37, 0.5, 0.71, 1, 1.3, 2, 2.6, 4])
def test_every_scale(factor: float, antialias: bool) -> None:
    lazy = LazyImage(IMAGE, (round(61 * factor), round(83 * factor)), antialias=antialias)
    found = coefficients(lazy, range(192))
    np.testing.assert_allclose(found, expected_channels(unrounded(lazy), range(192), 8, 1), rtol=0, atol=1e-3)


@pytest.mark.parametrize('channels', ['6S', '24S', '24D', '48T', '64S', '192', [137], [3, 0, 70, 65]], ids=str)
def test_every_selection(channels: object) -> None:
    chosen = channel_indices(channels)
    lazy = LazyImage(IMAGE, (56, 48), (5, 9, 40, 33))
    expected = expected_channels(unrounded(lazy), chosen, 8, 1)
    np.testing.assert_allclose(coefficients(lazy, chosen), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize('crop', [(0, 0, 1, 1), (0, 0, 61, 83), (60, 82, 1, 1), (0, 40, 30, 43), (31, 0, 30, 43),
                                  (3, 5, 1, 77), (3, 5, 57, 2)], ids=str)
@pytest.mark.parametrize(('block_size', 'upscale'), [(8, 1), (8, 2), (8, 4), (4, 1), (6, 3)])
def test_crops_up_to_the_edges(crop: tuple, block_size: int, upscale: int) -> None:
    """The weights of a pixel outside the crop go to the crop's edge, not to the image around it."""
    lazy, channels = LazyImage(IMAGE, (29, 37), crop), range(0, 3 * block_size**2, 5)
    expected = expected_channels(unrounded(lazy), channels, block_size, upscale)
    np.testing.assert_allclose(coefficients(lazy, channels, block_size, upscale), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize('antialias', [False, True], ids=['opencv', 'pillow'])
@pytest.mark.parametrize('key', [
    (slice(None), slice(None, None, -1)), (slice(None, None, -1), ), (slice(3, 40), slice(7, 31), ...),
    (slice(5, 21), slice(2, 30), slice(None)), (slice(4, 44, 2), slice(60, 10, -3))], ids=str)
def test_slices(key: tuple, antialias: bool) -> None:
    """Slices of slices, flips among them, are those of the pixels, and their channels too."""
    whole = LazyImage(IMAGE, (50, 70), (2, 3, 44, 70), antialias)
    lazy = whole[key][:, ::-1][1:, :-2]
    assert isinstance(lazy, LazyImage)
    pixels = np.asarray(whole)[key][:, ::-1][1:, :-2]
    np.testing.assert_array_equal(np.asarray(lazy), pixels)
    assert (lazy.shape, lazy.ndim, lazy.dtype, len(lazy)) == (pixels.shape, 3, np.uint8, len(pixels))
    expected = expected_channels(unrounded(lazy), range(0, 192, 7), 8, 1)
    np.testing.assert_allclose(coefficients(lazy, range(0, 192, 7)), expected, rtol=0, atol=1e-3)


def test_slices_whose_pixels_share_no_source() -> None:
    """With wide steps, averaging needs most source pixels: three for each of the block's, none of them twice."""
    image = RNG.integers(0, 256, (480, 72, 3), dtype=np.uint8)
    lazy = LazyImage(image, (400, 60), antialias=True)[::5]
    expected = expected_channels(unrounded(lazy), range(24), 8, 1)
    np.testing.assert_allclose(coefficients(lazy, range(24)), expected, rtol=0, atol=1e-3)


def test_pixels_are_those_of_opencv_and_pillow() -> None:
    crop = np.ascontiguousarray(IMAGE[4:34, 10:60])
    opencv, pillow = LazyImage(IMAGE, (20, 24), (4, 10, 30, 50)), LazyImage(IMAGE, (20, 24), (4, 10, 30, 50), True)
    np.testing.assert_array_equal(np.asarray(opencv), cv2.resize(crop, (24, 20)))
    np.testing.assert_array_equal(np.asarray(pillow), Image.fromarray(crop).resize((24, 20), Image.Resampling.BILINEAR))
    assert np.abs(np.asarray(opencv).astype(int) - unrounded(opencv)).max() < 1.01
    assert np.abs(np.asarray(pillow).astype(int) - unrounded(pillow)).max() < 1.01


def test_other_keys_give_pixels() -> None:
    lazy = LazyImage(IMAGE, (50, 70))
    pixels = np.asarray(lazy)
    for key in (3, (slice(2, 5), 4), (..., 0), (slice(None), slice(None), 1), pixels > 100):
        np.testing.assert_array_equal(lazy[key], pixels[key])
    assert np.asarray(lazy, dtype=np.float32).dtype == np.float32


def test_what_needs_pixels_is_told_so() -> None:
    with pytest.raises(AttributeError, match="no 'transpose': .* needs the stock resize, not LazyResize"):
        LazyImage(IMAGE, (8, 8)).transpose(2, 0, 1)
    copied = copy.deepcopy(LazyImage(IMAGE, (8, 8)))
    np.testing.assert_array_equal(np.asarray(copied), np.asarray(LazyImage(IMAGE, (8, 8))))


def test_sources_in_any_memory_order() -> None:
    expected = coefficients(LazyImage(IMAGE, (40, 40)), range(24))
    for pixels in (np.asfortranarray(IMAGE), np.flip(np.flip(IMAGE, 1).copy(), 1), np.pad(IMAGE, 2)[2:-2, 2:-2, 2:-2]):
        np.testing.assert_array_equal(coefficients(LazyImage(pixels, (40, 40)), range(24)), expected)


def test_int8_is_rounded_float32() -> None:
    lazy = LazyImage(IMAGE, (48, 64))
    weights = BlockMap(range(24), np.zeros(192), np.full(192, 0.5))
    expected = np.clip(np.rint(weights.channels(lazy)), -127, 127)
    np.testing.assert_array_equal(weights.channels_int8(lazy), expected)
    assert (expected == 127).any()


@pytest.mark.parametrize(('arguments', 'message'), [
    ((IMAGE.astype(np.float32), (8, 8)), 'uint8 image'), ((IMAGE[:, :, 0], (8, 8)), 'uint8 image'),
    ((IMAGE, (0, 8)), 'size: expected at least one row and column'),
    ((IMAGE, (8, 8), (0, 0, 62, 83)), 'crop: expected rows and columns of 61x83 pixels'),
    ((IMAGE, (8, 8), (3, -1, 8, 8)), 'crop: .*-1'), ((IMAGE, (8, 8), (3, 3, 0, 8)), 'crop: '),
])
def test_wrong_arguments(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LazyImage(*arguments)


def assert_statistics(image: np.ndarray, expected: np.ndarray, **blocks: int) -> None:
    """Compare with channels (C, h, w) in float64."""
    lines = expected.reshape(len(expected), -1)
    picked = RNG.integers(lines.shape[1], size=5)
    found, kept = ImageBlocks(image, **blocks).statistics(picked)
    assert found.count == lines.shape[1]
    np.testing.assert_allclose(found.mean, lines.mean(axis=1), rtol=1e-6, atol=2e-4)
    np.testing.assert_allclose(np.sqrt(found.squares / found.count), lines.std(axis=1), rtol=1e-6, atol=2e-4)
    np.testing.assert_allclose(kept, lines[:, picked].T, rtol=0, atol=1e-3)


@pytest.mark.parametrize('antialias', [False, True], ids=['opencv', 'pillow'])
@pytest.mark.parametrize('size', [(15, 20), (40, 100), (61, 83), (200, 150)])
@pytest.mark.parametrize(('block_size', 'upscale'), [(8, 1), (8, 2), (5, 1), (6, 3)])
def test_statistics_of_all_channels(size: tuple, antialias: bool, block_size: int, upscale: int) -> None:
    lazy = LazyImage(IMAGE, size, (5, 9, 50, 43), antialias)[:, ::-1][1:, :-2]
    expected = expected_channels(unrounded(lazy), range(3 * block_size**2), block_size, upscale)
    assert_statistics(lazy, expected, block_size=block_size, upscale=upscale)


@pytest.mark.parametrize('image', [IMAGE, IMAGE[::-1, ::-1], IMAGE[3:4, 7:9], np.full((9, 17, 3), 200, np.uint8),
                                   IMAGE // 100 + np.arange(83, dtype=np.uint8)[:, None] * 3],
                         ids=['upright', 'turned', 'small', 'one colour', 'nearly one colour'])
def test_statistics_of_pixels(image: np.ndarray) -> None:
    """Upright and turned, smaller than a block, of one colour, nearly of one: deviations far smaller than the means."""
    assert_statistics(image, expected_channels(image.astype(np.float64), range(192), 8, 1))


def test_statistics_of_another_order_of_colors() -> None:
    found = [ImageBlocks(IMAGE[..., ::-1], channel_order='rgb'), ImageBlocks(IMAGE)]
    means = [blocks.statistics(np.zeros(0, np.int64))[0].mean for blocks in found]
    np.testing.assert_allclose(*means, atol=1e-4)
