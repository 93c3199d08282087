"""The maths of mmfreq.dct.blocks against scipy, Pillow, OpenCV and the coefficients inside JPEG files."""
import io
from typing import Any, Callable

import cv2
import numpy as np
import pytest
from jpeg_coefficients import read_coefficients
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from references import exact_dct, exact_ycbcr, noise, resized
from scipy.fft import dctn, idctn
from skimage import data

from mmfreq.dct.blocks import (
    block_basis,
    block_dct,
    block_idct,
    coefficients_to_bgr,
    dct_matrix,
    from_ycbcr,
    grid_shape,
    to_ycbcr,
    upscale_image,
)


def smooth_image(height: int, width: int) -> np.ndarray:
    """BGR of slow waves: nearly nothing above the lowest frequencies of a block."""
    rows, cols = np.mgrid[:height, :width] / 60
    return np.rint(128 + 60 * np.stack([np.sin(rows), np.cos(cols), np.sin(rows + cols)], axis=2)).astype(np.uint8)


def photograph(name: str, height: int, width: int) -> np.ndarray:
    """RGB upper left corner of a photograph that ships with scikit-image."""
    return np.ascontiguousarray(getattr(data, name)()[:height, :width])


def jpeg(image: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', **options)
    return buffer.getvalue()


LEVELS = np.minimum(np.arange(33) * 8, 255)  # 33^3 colours: 0, 8, ..., 248, 255 in each component
COLORS = {'corners': (np.indices((2, 2, 2)).reshape(3, 1, 8) * 255).transpose(1, 2, 0).astype(np.uint8),
          'random': noise(97, 131),
          'grid': np.stack(np.meshgrid(*[LEVELS] * 3), axis=-1).reshape(33, 33 * 33, 3).astype(np.uint8)}
over_colors = pytest.mark.parametrize('rgb', COLORS.values(), ids=COLORS)


# The transform and its inverse


@pytest.mark.parametrize('block_size', [2, 4, 8, 16])
@pytest.mark.parametrize('shape', [(64, 96), (1, 1), (3, 3), (7, 9), (17, 17), (107, 160)])
def test_block_dct_and_its_inverse(shape: tuple[int, int], block_size: int) -> None:
    image = noise(*shape)
    result = block_dct(image, block_size)
    assert result.dtype == np.float32
    assert result.shape[:2] == grid_shape(shape, block_size)
    assert_allclose(result, exact_dct(image, block_size), rtol=0, atol=1e-4)
    back = block_idct(result, block_size)
    assert back.dtype == np.float32
    assert_allclose(back[:shape[0], :shape[1]], image, rtol=0, atol=1e-3)


@pytest.mark.parametrize('components', [1, 2, 4])
def test_float64_stays_exact_with_any_number_of_components(components: int) -> None:
    image = np.random.default_rng(1).uniform(0, 255, (16, 24, components))
    result = block_dct(image)
    assert_allclose(result, exact_dct(image), rtol=0, atol=1e-10)
    assert_allclose(block_idct(result), image, rtol=0, atol=1e-10)
    assert block_dct(image.astype(np.float32)).dtype == np.float32


def test_a_mirrored_view_is_read_as_its_copy() -> None:
    image = noise(40, 50)
    assert_array_equal(block_dct(image[:, ::-1]), block_dct(image[:, ::-1].copy()))
    assert_array_equal(to_ycbcr(image[:, ::-1]), to_ycbcr(image)[:, ::-1])


@pytest.mark.parametrize('component', [0, 1, 2])
@pytest.mark.parametrize(('vertical', 'horizontal'), [(0, 1), (1, 0), (2, 5), (7, 7), (6, 0)])
def test_one_cosine_is_one_channel(component: int, vertical: int, horizontal: int) -> None:
    image = np.full((24, 16, 3), 128, dtype=np.float64)
    rows, cols = ((2 * np.arange(side) + 1) * np.pi / 16 for side in (24, 16))
    image[:, :, component] += 50 * np.outer(np.cos(rows * vertical), np.cos(cols * horizontal))
    expected = np.zeros((3, 2, 192))
    # The sum of cos^2 over 8 samples is 4, or 8 at frequency 0, and 1/2 or 1/sqrt(8) normalises it.
    amplitude = 50 * (2 if vertical else np.sqrt(8)) * (2 if horizontal else np.sqrt(8))
    expected[:, :, 64 * component + 8 * vertical + horizontal] = amplitude
    # From one block to the next the cosine turns by frequency * pi.
    expected[1::2] *= (-1)**vertical
    expected[:, 1::2] *= (-1)**horizontal
    assert_allclose(block_dct(image), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize('block_size', [1, 2, 5, 8, 16])
def test_dct_matrix(block_size: int) -> None:
    matrix = dct_matrix(block_size)
    assert_allclose(matrix @ matrix.T, np.eye(block_size), rtol=0, atol=1e-14)
    assert_allclose(matrix, dctn(np.eye(block_size), axes=[0], norm='ortho'), rtol=0, atol=1e-14)
    for cached in (matrix, block_basis(block_size)):
        with pytest.raises(ValueError, match='read-only'):
            cached[0, 0] = 1


@pytest.mark.parametrize(('shape', 'block_size', 'upscale', 'expected'), [
    ((448, 448, 3), 8, 1, (56, 56)), ((800, 1333), 8, 2, (200, 334)), ((800, 1333), 8, 1, (100, 167)),
    ((1, 1), 8, 1, (1, 1)), ((8, 9), 8, 1, (1, 2)), ((427, 640), 16, 1, (27, 40)), ((1, 3), 2, 3, (2, 5))])
def test_grid_shape(shape: tuple, block_size: int, upscale: int, expected: tuple[int, int]) -> None:
    assert grid_shape(shape, block_size, upscale) == expected


@pytest.mark.parametrize('factor', [1, 2, 3])
def test_upscale_image(factor: int) -> None:
    image = noise(9, 14)
    assert_allclose(upscale_image(image, factor), resized(image, (9 * factor, 14 * factor)), rtol=0, atol=1e-3)


# Colours


@over_colors
def test_to_ycbcr_is_the_rounded_formula_and_within_one_level_of_pillow_and_opencv(rgb: np.ndarray) -> None:
    result, pillow = to_ycbcr(rgb, 'rgb'), np.asarray(Image.fromarray(rgb).convert('YCbCr'))
    assert result.dtype == np.uint8
    expected = np.clip(np.rint(exact_ycbcr(rgb, 'rgb')), 0, 255)
    opencv = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[:, :, [0, 2, 1]]
    for reference in (pillow, opencv, expected):
        assert_allclose(result.astype(int), reference, rtol=0, atol=1)
    assert np.mean(result == expected) > 0.9


def test_to_ycbcr_worked_example() -> None:
    """Red, green, blue, white, black, mid-grey by the formula of JFIF, rounded and clipped by hand."""
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255] * 3, [0] * 3, [128] * 3]], dtype=np.uint8)
    expected = [[[76, 85, 255], [150, 44, 21], [29, 255, 107], [255, 128, 128], [0, 128, 128], [128] * 3]]
    assert_array_equal(to_ycbcr(rgb, 'rgb'), expected)
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert_array_equal(to_ycbcr(greys)[0], np.stack([greys[0, :, 0], *[np.full(256, 128)] * 2], axis=1))


def test_channel_orders() -> None:
    rgb = COLORS['random']
    ycbcr = to_ycbcr(rgb, 'rgb')
    difference = np.abs(to_ycbcr(np.ascontiguousarray(rgb[:, :, ::-1])).astype(int) - ycbcr)
    assert difference.max() <= 1  # values half-way between two levels
    assert np.mean(difference) < 1e-3
    assert_array_equal(from_ycbcr(ycbcr, 'rgb'), from_ycbcr(ycbcr)[:, :, ::-1])
    assert np.any(to_ycbcr(rgb) != ycbcr)


@over_colors
def test_from_ycbcr_is_the_inverse(rgb: np.ndarray) -> None:
    result = from_ycbcr(to_ycbcr(rgb, 'rgb'), 'rgb')
    assert result.dtype == np.uint8
    assert_allclose(result.astype(int), rgb, rtol=0, atol=2)
    assert_array_equal(from_ycbcr(exact_ycbcr(rgb, 'rgb'), 'rgb'), rgb)


def test_from_ycbcr_clips() -> None:
    ycbcr = np.array([[[300, 128, 128], [-20, 128, 128], [128, 300, -40]]], dtype=np.float64)
    # Third by hand: R = 128 - 1.402 * 168 < 0, B = 128 + 1.772 * 172 > 255,
    # G = 128 - 0.344136 * 172 + 0.714136 * 168 = 188.8
    assert_array_equal(from_ycbcr(ycbcr, 'rgb'), [[[255] * 3, [0] * 3, [0, 189, 255]]])


# Against the coefficients inside JPEG files


def assert_close(coefficients: np.ndarray, encoded: bytes, most: float = 1.5) -> None:
    difference = np.abs(coefficients - read_coefficients(encoded))
    assert difference.max() <= most
    assert difference.mean() < 0.3


@pytest.mark.parametrize('encoder', ['pillow', 'opencv'])
@pytest.mark.parametrize(('name', 'height', 'width'), [('astronaut', 512, 512), ('coffee', 187, 203)])
def test_luma_is_that_of_a_jpeg(name: str, height: int, width: int, encoder: str) -> None:
    """At quality 100 every quantiser is 1. 187 x 203 has padded blocks, where libjpeg replicates edges too."""
    luma = np.array(Image.fromarray(photograph(name, height, width)).convert('L'))
    if encoder == 'opencv':
        encoded = cv2.imencode('.jpg', luma, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    else:
        encoded = jpeg(Image.fromarray(luma), quality=100)
    assert_close(block_dct(luma[:, :, None]), encoded)


def test_all_channels_are_those_of_a_jpeg() -> None:
    """Pillow hands a YCbCr image to libjpeg unchanged: all 192 channels, in the order Y, Cb, Cr."""
    rgb = photograph('astronaut', 187, 203)
    ycbcr = to_ycbcr(rgb, 'rgb')
    image = Image.merge('YCbCr', [Image.fromarray(np.ascontiguousarray(ycbcr[:, :, c])) for c in range(3)])
    assert_close(block_dct(ycbcr), jpeg(image, quality=100, subsampling=0))
    # with the encoder's own colour conversion, single levels differ by 1 and a coefficient by a little more
    assert_close(block_dct(ycbcr), jpeg(Image.fromarray(rgb), quality=100, subsampling=0), most=4)


def test_the_reference_reads_the_coefficients_that_pillow_decodes() -> None:
    encoded = jpeg(Image.fromarray(photograph('coffee', 64, 88)).convert('L'), quality=75)
    coefficients = read_coefficients(encoded).reshape(8, 11, 8, 8)
    pixels = idctn(coefficients, axes=(2, 3), norm='ortho').transpose(0, 2, 1, 3).reshape(64, 88) + 128
    assert_allclose(np.clip(pixels, 0, 255), np.array(Image.open(io.BytesIO(encoded))), rtol=0, atol=1)


# Images from coefficients


@pytest.mark.parametrize(('height', 'width', 'n'), [(48, 64, 8), (17, 23, 8), (1, 1, 8), (32, 20, 4)])
def test_coefficients_to_bgr_with_all_channels(height: int, width: int, n: int) -> None:
    image = noise(height, width)
    cube = block_dct(to_ycbcr(image), n)
    result = coefficients_to_bgr(cube, image_shape=(height, width), block_size=n)
    assert result.dtype == np.uint8
    assert_allclose(result.astype(int), image, rtol=0, atol=2)
    padded = np.pad(image, ((0, -height % n), (0, -width % n), (0, 0)), mode='edge')
    assert_allclose(coefficients_to_bgr(cube, block_size=n).astype(int), padded, rtol=0, atol=2)


def test_coefficients_to_bgr_with_some_channels() -> None:
    """Missing channels count as zero: the same as the full set with zeros there."""
    image = smooth_image(64, 80)
    cube = block_dct(to_ycbcr(image))
    luma = [8 * v + u for v in range(4) for u in range(4)]
    channels = luma + [64, 65, 72, 73, 128, 129, 136, 137]  # 24S
    result = coefficients_to_bgr(cube[:, :, channels], channels)
    zeroed = np.zeros_like(cube)
    zeroed[:, :, channels] = cube[:, :, channels]
    assert_array_equal(result, coefficients_to_bgr(zeroed))
    assert_array_equal(result, coefficients_to_bgr(cube[:, :, channels], '24S'))
    assert np.abs(result.astype(int) - image).max() <= 5


def test_coefficients_to_bgr_puts_channels_where_they_belong() -> None:
    """DC of Y, Cb and Cr alone, out of order, is one colour."""
    coefficients = np.array([[[8 * (240 - 128), 8 * (76 - 128), 8 * (90 - 128)]]], dtype=np.float32)
    result = coefficients_to_bgr(coefficients, [128, 0, 64])
    # R = 76 + 1.402 * 112, G = 76 - 0.344136 * (90 - 128) - 0.714136 * 112, B = 76 + 1.772 * (90 - 128)
    assert_array_equal(result, np.broadcast_to([9, 9, 233], (8, 8, 3)))


@pytest.mark.parametrize('upscale', [2, 3])
def test_coefficients_to_bgr_undoes_the_upscale(upscale: int) -> None:
    image = smooth_image(61, 90)
    cube = block_dct(upscale_image(to_ycbcr(image), upscale))
    result = coefficients_to_bgr(cube, image_shape=image.shape, upscale=upscale)
    assert result.shape == image.shape
    assert np.abs(result.astype(int) - image).max() <= 4


CUBE = np.zeros((2, 2, 192), dtype=np.float32)


@pytest.mark.parametrize(('call', 'words'), [
    (lambda: to_ycbcr(np.zeros((4, 4), np.uint8)), r'uint8 \(4, 4\)'),
    (lambda: to_ycbcr(np.zeros((4, 4, 3), np.float32)), r'float32 \(4, 4, 3\)'),
    (lambda: to_ycbcr(np.zeros((0, 4, 3), np.uint8)), 'non-empty'),
    (lambda: to_ycbcr(noise(4, 4), 'gbr'), "channel_order: .*'gbr'"),
    (lambda: from_ycbcr(np.zeros((4, 4, 3)), 'BGR'), "channel_order: .*'BGR'"),
    (lambda: upscale_image(noise(4, 4), True), 'upscale: .*True'),
    (lambda: coefficients_to_bgr(CUBE[:, :, :1], [0, 1]), r'\(h, w, 2\), got \(2, 2, 1\)'),
    (lambda: coefficients_to_bgr(CUBE, upscale=0), 'upscale: .*0'),
    (lambda: coefficients_to_bgr(CUBE[:, :, :1], [-1]), 'channels: .*-1'),
    (lambda: coefficients_to_bgr(CUBE, image_shape=(17, 16)), r'image_shape: .*\(17, 16\)')])
def test_bad_input(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
