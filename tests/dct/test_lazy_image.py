"""The one pass from a decoded image to channels, against torch's resize and the unfused maths in float64."""
import copy
from typing import Any, Sequence

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from references import exact, noise, resized

from mmfreq.dct.block_map import BlockMap
from mmfreq.dct.lazy_image import LazyImage

IMAGE = noise(61, 83)
backends = pytest.mark.parametrize('antialias', [False, True], ids=['opencv', 'pillow'])


def unrounded(lazy: LazyImage) -> np.ndarray:
    """float64 pixels (H, W, 3) of a lazy image, resized by torch."""
    top, left, height, width = lazy.crop
    pixels = resized(lazy.pixels[top:top + height, left:left + width], lazy.size, lazy.antialias)
    return pixels[list(lazy.rows)][:, list(lazy.columns)]


def coefficients(lazy: LazyImage, channels: Sequence[int], block_size: int = 8, upscale: int = 1) -> np.ndarray:
    total = 3 * block_size**2
    return BlockMap(channels, np.zeros(total), np.ones(total), block_size, upscale).channels(lazy)


def check(lazy: LazyImage, channels: Sequence[int], block_size: int = 8, upscale: int = 1) -> None:
    expected = exact(unrounded(lazy), channels, n=block_size, upscale=upscale).transpose(2, 0, 1)
    assert_allclose(coefficients(lazy, channels, block_size, upscale), expected, rtol=0, atol=1e-3)


@backends
@pytest.mark.parametrize('factor', [0.25, 0.37, 0.5, 0.71, 1, 1.3, 2, 2.6, 4])
def test_every_scale(factor: float, antialias: bool) -> None:
    check(LazyImage(IMAGE, (round(61 * factor), round(83 * factor)), antialias=antialias), range(192))


@pytest.mark.parametrize('crop', [(0, 0, 1, 1), (0, 0, 61, 83), (60, 82, 1, 1), (0, 40, 30, 43), (31, 0, 30, 43),
                                  (3, 5, 1, 77), (3, 5, 57, 2)], ids=str)
@pytest.mark.parametrize(('block_size', 'upscale'), [(8, 1), (8, 2), (8, 4), (4, 1), (6, 3)])
def test_crops_up_to_the_edges(crop: tuple, block_size: int, upscale: int) -> None:
    """The weights of a pixel outside the crop belong to the crop's edge, not to the image around it."""
    check(LazyImage(IMAGE, (29, 37), crop), range(0, 3 * block_size**2, 5), block_size, upscale)


@backends
@pytest.mark.parametrize('key', [
    (slice(None), slice(None, None, -1)), (slice(None, None, -1), ), (slice(3, 40), slice(7, 31), ...),
    (slice(5, 21), slice(2, 30), slice(None)), (slice(4, 44, 2), slice(60, 10, -3))], ids=str)
def test_slices(key: tuple, antialias: bool) -> None:
    """Slices of slices, also flips, are those of the pixels, and their channels too."""
    whole = LazyImage(IMAGE, (50, 70), (2, 3, 44, 70), antialias)
    lazy, pixels = (image[key][:, ::-1][1:, :-2] for image in (whole, np.asarray(whole)))
    assert isinstance(lazy, LazyImage)
    assert_array_equal(np.asarray(lazy), pixels)
    assert (lazy.shape, lazy.ndim, lazy.dtype, len(lazy)) == (pixels.shape, 3, np.uint8, len(pixels))
    check(lazy, range(0, 192, 7))


def test_slices_whose_pixels_share_no_source() -> None:
    """With wide steps, averaging needs most source pixels: three for each pixel of a block, none of them twice."""
    check(LazyImage(noise(480, 72), (400, 60), antialias=True)[::5], range(24))


@backends
def test_pixels_are_those_of_opencv_and_pillow(antialias: bool) -> None:
    lazy, crop = LazyImage(IMAGE, (20, 24), (4, 10, 30, 50), antialias), np.ascontiguousarray(IMAGE[4:34, 10:60])
    pillow = np.asarray(Image.fromarray(crop).resize((24, 20), Image.Resampling.BILINEAR))
    pixels = np.asarray(lazy)
    assert_array_equal(pixels, pillow if antialias else cv2.resize(crop, (24, 20)))
    assert np.abs(pixels.astype(int) - unrounded(lazy)).max() < 1.01
    for key in (3, (slice(2, 5), 4), (..., 0), (slice(None), slice(None), 1), pixels > 100):
        assert_array_equal(lazy[key], pixels[key])
    assert np.asarray(lazy, dtype=np.float32).dtype == np.float32
    assert_array_equal(np.asarray(copy.deepcopy(lazy)), pixels)


@backends
@pytest.mark.parametrize('part', [(slice(None), ), (slice(None), slice(None, None, -1)),
                                  (slice(50, 3, -1), slice(9, 80)), (slice(None, None, 2), )], ids=str)
@pytest.mark.parametrize('crop', [None, (3, 5, 20, 31)], ids=str)
def test_a_part_is_resized_as_its_pixels(crop: Any, part: tuple, antialias: bool) -> None:
    lazy, pixels = LazyImage.of(IMAGE)[part], np.ascontiguousarray(IMAGE[part])
    resized, expected = lazy.resized((29, 37), crop, antialias), LazyImage(pixels, (29, 37), crop, antialias)
    assert_allclose(np.asarray(resized).astype(int), np.asarray(expected), rtol=0, atol=1)  # flips round otherwise
    assert_allclose(coefficients(resized, range(24)), coefficients(expected, range(24)), rtol=0, atol=1e-3)
    again = resized.resized((15, 16), antialias=antialias)
    assert_array_equal(np.asarray(again), LazyImage(np.asarray(resized), (15, 16), antialias=antialias))
    with pytest.raises(ValueError, match='crop: '):
        lazy.resized((8, 8), (0, 0, 62, 70))


def test_other_uses_name_the_stock_resize() -> None:
    with pytest.raises(AttributeError, match="no 'transpose': .*not LoadYCbCrFromFile and LazyResize"):
        LazyImage(IMAGE, (8, 8)).transpose(2, 0, 1)


@pytest.mark.parametrize('pixels', [np.asfortranarray(IMAGE), np.flip(np.flip(IMAGE, 1).copy(), 1),
                                    np.pad(IMAGE, 2)[2:-2, 2:-2, 2:-2]], ids=['fortran', 'flipped', 'padded'])
def test_sources_in_any_memory_order(pixels: np.ndarray) -> None:
    expected = coefficients(LazyImage(IMAGE, (40, 40)), range(24))
    assert_array_equal(coefficients(LazyImage(pixels, (40, 40)), range(24)), expected)


@pytest.mark.parametrize(('arguments', 'words'), [
    ((IMAGE.astype(np.float32), (8, 8)), 'uint8 image'), ((IMAGE[:, :, 0], (8, 8)), 'uint8 image'),
    ((IMAGE, (0, 8)), 'size: '), ((IMAGE, (8, 8), (0, 0, 62, 83)), 'crop: .*61x83'),
    ((IMAGE, (8, 8), (3, -1, 8, 8)), 'crop: .*-1'), ((IMAGE, (8, 8), (3, 3, 0, 8)), 'crop: ')])
def test_bad_arguments(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LazyImage(*arguments)
