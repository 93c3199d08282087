"""The maths of mmfreq.dct.blocks against scipy, Pillow, OpenCV and the coefficients inside JPEG files."""
import io
from typing import Callable, Optional

import cv2
import numpy as np
import pytest
from jpeg_coefficients import read_coefficients
from PIL import Image
from scipy.fft import dctn, idctn
from skimage import data

from mmfreq.dct import blocks as dct


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def checkerboard(height: int, width: int) -> np.ndarray:
    rows, cols = np.mgrid[:height, :width]
    return np.repeat(((rows + cols) % 2 * 255)[:, :, None], 3, axis=2).astype(np.uint8)


def constant(height: int, width: int) -> np.ndarray:
    return np.broadcast_to(np.array([0, 128, 255], dtype=np.uint8), (height, width, 3)).copy()


def smooth_image(height: int, width: int) -> np.ndarray:
    """BGR of slow waves: nearly nothing above the lowest frequencies of a block."""
    rows, cols = np.mgrid[:height, :width] / 60
    waves = [np.sin(rows), np.cos(cols), np.sin(rows + cols)]
    return np.rint(128 + 60 * np.stack(waves, axis=2)).astype(np.uint8)


def photograph(name: str, height: int, width: int) -> np.ndarray:
    """RGB upper left corner of a photograph that ships with scikit-image."""
    return np.ascontiguousarray(getattr(data, name)()[:height, :width])


def scipy_block_dct(image: np.ndarray, n: int = 8) -> np.ndarray:
    """Block by block with scipy, padded by numpy: the reference for block_dct."""
    height, width, components = image.shape
    padded = np.pad(image.astype(np.float64), ((0, -height % n), (0, -width % n), (0, 0)), mode='edge')
    result = np.empty((padded.shape[0] // n, padded.shape[1] // n, components * n * n))
    for row in range(result.shape[0]):
        for col in range(result.shape[1]):
            block = padded[row * n:row * n + n, col * n:col * n + n] - 128
            result[row, col] = np.concatenate([dctn(block[..., c], norm='ortho').ravel() for c in range(components)])
    return result


def exact_ycbcr(rgb: np.ndarray) -> np.ndarray:
    """JFIF 1.02, section 7, from RGB, in float64, not rounded."""
    r, g, b = np.moveaxis(rgb.astype(np.float64), -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    cb = -0.299 / 1.772 * r - 0.587 / 1.772 * g + 0.5 * b + 128
    cr = 0.5 * r - 0.587 / 1.402 * g - 0.114 / 1.402 * b + 128
    return np.stack([y, cb, cr], axis=-1)


def corner_colors() -> np.ndarray:
    return (np.indices((2, 2, 2)).reshape(3, 1, 8) * 255).transpose(1, 2, 0).astype(np.uint8)


def color_grid() -> np.ndarray:
    """33^3 RGB colours, 0, 8, ..., 248, 255 in each component."""
    levels = np.minimum(np.arange(33) * 8, 255)
    return np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(33, 33 * 33, 3).astype(np.uint8)


def jpeg(image: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', **options)
    return buffer.getvalue()


COLORS = {'corners': corner_colors(), 'random': random_image(97, 131), 'grid': color_grid()}


@pytest.mark.parametrize('block_size', [2, 4, 8, 16])
@pytest.mark.parametrize(('make', 'height', 'width'), [
    (random_image, 64, 96), (checkerboard, 64, 96), (constant, 64, 96), (random_image, 1, 1),
    (random_image, 3, 3), (random_image, 7, 9), (random_image, 17, 17), (random_image, 107, 160)])
def test_block_dct_is_scipys(make: Callable, height: int, width: int, block_size: int) -> None:
    image = make(height, width)
    result = dct.block_dct(image, block_size)
    assert result.dtype == np.float32
    assert result.shape == (-(-height // block_size), -(-width // block_size), 3 * block_size**2)
    np.testing.assert_allclose(result, scipy_block_dct(image, block_size), rtol=0, atol=1e-4)


@pytest.mark.parametrize('components', [1, 2, 4])
def test_block_dct_of_other_component_counts(components: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (16, 24, components), dtype=np.uint8)
    np.testing.assert_allclose(dct.block_dct(image), scipy_block_dct(image), rtol=0, atol=1e-4)


def test_block_dct_of_a_mirrored_view() -> None:
    image = random_image(40, 50)
    np.testing.assert_array_equal(dct.block_dct(image[:, ::-1]), dct.block_dct(image[:, ::-1].copy()))
    np.testing.assert_array_equal(dct.to_ycbcr(image[:, ::-1]), dct.to_ycbcr(image)[:, ::-1])


@pytest.mark.parametrize('component', [0, 1, 2])
@pytest.mark.parametrize(('vertical', 'horizontal'), [(0, 1), (1, 0), (2, 5), (7, 7), (6, 0)])
def test_one_cosine_is_one_channel(component: int, vertical: int, horizontal: int) -> None:
    image = np.full((24, 16, 3), 128, dtype=np.float64)
    for row in range(24):
        for col in range(16):
            image[row, col, component] += 50 * np.cos((2 * row + 1) * vertical * np.pi / 16) * np.cos(
                (2 * col + 1) * horizontal * np.pi / 16)
    expected = np.zeros((3, 2, 192))
    # The sum of cos^2 over 8 samples is 4, or 8 at frequency 0, and 1/2 or 1/sqrt(8) normalises it.
    amplitude = 50 * (2 if vertical else np.sqrt(8)) * (2 if horizontal else np.sqrt(8))
    expected[:, :, 64 * component + 8 * vertical + horizontal] = amplitude
    # From one block to the next the cosine turns by frequency * pi.
    expected[1::2] *= (-1)**vertical
    expected[:, 1::2] *= (-1)**horizontal
    np.testing.assert_allclose(dct.block_dct(image), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize('block_size', [1, 2, 5, 8, 16])
def test_dct_matrix_is_orthonormal_and_scipys(block_size: int) -> None:
    matrix = dct.dct_matrix(block_size)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(block_size), rtol=0, atol=1e-14)
    np.testing.assert_allclose(matrix, dctn(np.eye(block_size), axes=[0], norm='ortho'), rtol=0, atol=1e-14)


def test_cached_matrices_are_read_only() -> None:
    for cached in (dct.dct_matrix(8), dct.block_basis(8)):
        with pytest.raises(ValueError, match='read-only'):
            cached[0, 0] = 1


@pytest.mark.parametrize('block_size', [2, 4, 8, 16])
def test_block_idct_is_the_inverse(block_size: int) -> None:
    image = random_image(48, 32)
    result = dct.block_idct(dct.block_dct(image, block_size), block_size)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, image, rtol=0, atol=1e-3)


def test_block_idct_is_scipys() -> None:
    coefficients = np.random.default_rng(2).normal(0, 50, (3, 5, 192))
    expected = np.empty((24, 40, 3))
    for row, col, c in np.ndindex(3, 5, 3):
        block = coefficients[row, col, 64 * c:64 * c + 64].reshape(8, 8)
        expected[8 * row:8 * row + 8, 8 * col:8 * col + 8, c] = idctn(block, norm='ortho') + 128
    np.testing.assert_allclose(dct.block_idct(coefficients), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(('given', 'expected'), [(np.uint8, np.float32), (np.float32, np.float32),
                                                 (np.float64, np.float64)])
def test_result_dtypes(given: type, expected: type) -> None:
    image = random_image(11, 10).astype(given)
    result = dct.block_dct(image)
    assert result.dtype == expected
    np.testing.assert_allclose(result, scipy_block_dct(image), rtol=0, atol=1e-4 if expected == np.float32 else 1e-10)
    assert dct.block_idct(result).dtype == expected


@pytest.mark.parametrize(('shape', 'block_size', 'upscale', 'expected'), [
    ((448, 448), 8, 1, (56, 56)),
    ((448, 448, 3), 8, 1, (56, 56)),
    ((800, 1333), 8, 2, (200, 334)),
    ((800, 1333), 8, 1, (100, 167)),
    ((1, 1), 8, 1, (1, 1)),
    ((8, 9), 8, 1, (1, 2)),
    ((427, 640), 16, 1, (27, 40)),
    ((1, 3), 2, 3, (2, 5)),
])
def test_grid_shape(shape: tuple, block_size: int, upscale: int, expected: tuple[int, int]) -> None:
    assert dct.grid_shape(shape, block_size, upscale) == expected


def test_upscale_image_worked_example() -> None:
    """Half-pixel centres: each output lies 1/4 of a pixel beside an input."""
    image = np.array([[[0], [100]], [[40], [200]]], dtype=np.uint8)
    row = [[0, 25, 75, 100], [40, 80, 160, 200]]
    expected = [row[0], np.add(np.multiply(row[0], 0.75), np.multiply(row[1], 0.25)),
                np.add(np.multiply(row[0], 0.25), np.multiply(row[1], 0.75)), row[1]]
    result = dct.upscale_image(image, 2)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[:, :, 0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize('factor', [1, 2, 3])
def test_upscale_image_is_bilinear(factor: int) -> None:
    image = random_image(9, 14)
    positions = [np.clip((np.arange(side * factor) + 0.5) / factor - 0.5, 0, side - 1) for side in image.shape[:2]]
    across = np.stack([[np.interp(positions[1], np.arange(14), line[:, c]) for line in image] for c in range(3)], -1)
    expected = np.stack([[np.interp(positions[0], np.arange(9), column[:, c]) for column in across.transpose(1, 0, 2)]
                         for c in range(3)], -1).transpose(1, 0, 2)
    np.testing.assert_allclose(dct.upscale_image(image, factor), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize('colors', COLORS)
def test_to_ycbcr_is_the_rounded_formula_and_within_one_level_of_pillow_and_opencv(colors: str) -> None:
    rgb = COLORS[colors]
    result, pillow = dct.to_ycbcr(rgb, 'rgb'), np.asarray(Image.fromarray(rgb).convert('YCbCr'))
    assert result.dtype == np.uint8
    expected = np.clip(np.rint(exact_ycbcr(rgb)), 0, 255)
    opencv = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[:, :, [0, 2, 1]]
    for reference in (pillow, opencv, expected):
        np.testing.assert_allclose(result.astype(int), reference, rtol=0, atol=1)
    assert np.mean(result == expected) > 0.9


def test_to_ycbcr_worked_example() -> None:
    """Red, green, blue, white, black, mid-grey by the formula of JFIF, rounded and clipped by hand."""
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255] * 3, [0] * 3, [128] * 3]], dtype=np.uint8)
    expected = [[[76, 85, 255], [150, 44, 21], [29, 255, 107], [255, 128, 128], [0, 128, 128], [128] * 3]]
    np.testing.assert_array_equal(dct.to_ycbcr(rgb, 'rgb'), expected)


def test_grey_has_no_chroma() -> None:
    levels = np.arange(256, dtype=np.uint8)
    result = dct.to_ycbcr(np.repeat(levels[None, :, None], 3, axis=2))
    np.testing.assert_array_equal(result[0], np.stack([levels, np.full(256, 128), np.full(256, 128)], axis=1))


def test_channel_orders_agree() -> None:
    rgb = COLORS['random']
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    ycbcr = dct.to_ycbcr(rgb, 'rgb')
    np.testing.assert_array_equal(dct.to_ycbcr(bgr), dct.to_ycbcr(bgr, 'bgr'))
    difference = np.abs(dct.to_ycbcr(bgr, 'bgr').astype(int) - ycbcr)
    assert difference.max() <= 1  # values half-way between two levels
    assert np.mean(difference) < 1e-3
    np.testing.assert_array_equal(dct.from_ycbcr(ycbcr, 'rgb'), dct.from_ycbcr(ycbcr)[:, :, ::-1])
    assert np.any(dct.to_ycbcr(rgb) != ycbcr)


@pytest.mark.parametrize('order', ['bgr', 'rgb'])
@pytest.mark.parametrize('colors', COLORS)
def test_from_ycbcr_round_trip(colors: str, order: str) -> None:
    image = COLORS[colors]
    result = dct.from_ycbcr(dct.to_ycbcr(image, order), order)
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result.astype(int), image, rtol=0, atol=2)
    assert np.mean(np.abs(result.astype(int) - image)) < 0.7


def test_from_ycbcr_inverts_the_formula() -> None:
    """On exact, unrounded components the inverse is exact."""
    rgb = COLORS['random']
    np.testing.assert_array_equal(dct.from_ycbcr(exact_ycbcr(rgb), 'rgb'), rgb)


def test_from_ycbcr_clips() -> None:
    ycbcr = np.array([[[300, 128, 128], [-20, 128, 128], [128, 300, -40]]], dtype=np.float64)
    # Third by hand: R = 128 - 1.402 * 168 < 0, B = 128 + 1.772 * 172 > 255,
    # G = 128 - 0.344136 * 172 + 0.714136 * 168 = 188.8
    np.testing.assert_array_equal(dct.from_ycbcr(ycbcr, 'rgb'), [[[255] * 3, [0] * 3, [0, 189, 255]]])


@pytest.mark.parametrize('encoder', ['pillow', 'opencv'])
@pytest.mark.parametrize(('name', 'height', 'width'), [('astronaut', 512, 512), ('coffee', 187, 203)])
def test_luma_is_what_a_jpeg_holds(name: str, height: int, width: int, encoder: str) -> None:
    """At quality 100 every quantiser is 1; 187 x 203 has padded blocks, where libjpeg replicates edges too."""
    luma = np.array(Image.fromarray(photograph(name, height, width)).convert('L'))
    if encoder == 'opencv':
        encoded = cv2.imencode('.jpg', luma, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    else:
        encoded = jpeg(Image.fromarray(luma), quality=100)
    difference = np.abs(dct.block_dct(luma[:, :, None]) - read_coefficients(encoded))
    assert difference.max() <= 1.5
    assert difference.mean() < 0.3


def test_all_channels_are_what_a_jpeg_holds() -> None:
    """Pillow hands a YCbCr image to libjpeg as it is: all 192 channels, in the order Y, Cb, Cr."""
    ycbcr = dct.to_ycbcr(photograph('astronaut', 187, 203), 'rgb')
    image = Image.merge('YCbCr', [Image.fromarray(np.ascontiguousarray(ycbcr[:, :, c])) for c in range(3)])
    encoded = jpeg(image, quality=100, subsampling=0)
    difference = np.abs(dct.block_dct(ycbcr) - read_coefficients(encoded))
    assert difference.max() <= 1.5
    assert difference.mean() < 0.3


def test_image_to_coefficients_as_a_jpeg_encoder_does() -> None:
    """Colour conversion included, where single levels may differ by 1 and a coefficient by a little more."""
    rgb = photograph('coffee', 187, 203)
    expected = read_coefficients(jpeg(Image.fromarray(rgb), quality=100, subsampling=0))
    difference = np.abs(dct.block_dct(dct.to_ycbcr(rgb, 'rgb')) - expected)
    assert difference.max() <= 4
    assert difference.mean() < 0.3


def test_jpeg_coefficients_reads_what_pillow_decodes() -> None:
    """The reference itself: coefficients of a quantised JPEG, through scipy's inverse, are Pillow's pixels."""
    encoded = jpeg(Image.fromarray(photograph('coffee', 64, 88)).convert('L'), quality=75)
    coefficients = read_coefficients(encoded).reshape(8, 11, 8, 8)
    pixels = idctn(coefficients, axes=(2, 3), norm='ortho').transpose(0, 2, 1, 3).reshape(64, 88) + 128
    np.testing.assert_allclose(np.clip(pixels, 0, 255), np.array(Image.open(io.BytesIO(encoded))), rtol=0, atol=1)


@pytest.mark.parametrize(('height', 'width', 'n'), [(48, 64, 8), (17, 23, 8), (1, 1, 8), (32, 20, 4)])
def test_coefficients_to_bgr_with_all_channels(height: int, width: int, n: int) -> None:
    image = random_image(height, width)
    cube = dct.block_dct(dct.to_ycbcr(image), n)
    result = dct.coefficients_to_bgr(cube, image_shape=(height, width), block_size=n)
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result.astype(int), image, rtol=0, atol=2)


def test_coefficients_to_bgr_without_a_shape_gives_all_blocks() -> None:
    image = random_image(17, 23)
    result = dct.coefficients_to_bgr(dct.block_dct(dct.to_ycbcr(image)))
    expected = np.pad(image, ((0, 7), (0, 1), (0, 0)), mode='edge')
    np.testing.assert_allclose(result.astype(int), expected, rtol=0, atol=2)


def test_coefficients_to_bgr_with_some_channels() -> None:
    """Left-out channels count as zero: the same as the full set with zeros there."""
    image = smooth_image(64, 80)
    cube = dct.block_dct(dct.to_ycbcr(image))
    luma = [8 * v + u for v in range(4) for u in range(4)]
    channels = luma + [64, 65, 72, 73, 128, 129, 136, 137]  # 24S
    result = dct.coefficients_to_bgr(cube[:, :, channels], channels)
    zeroed = np.zeros_like(cube)
    zeroed[:, :, channels] = cube[:, :, channels]
    np.testing.assert_array_equal(result, dct.coefficients_to_bgr(zeroed))
    assert np.abs(result.astype(int) - image).mean() < 1
    assert np.abs(result.astype(int) - image).max() <= 5


def test_coefficients_to_bgr_puts_channels_where_they_belong() -> None:
    """Y, Cb and Cr constants alone, given out of order, are one colour."""
    coefficients = np.array([[[8 * (240 - 128), 8 * (76 - 128), 8 * (90 - 128)]]], dtype=np.float32)
    result = dct.coefficients_to_bgr(coefficients, [128, 0, 64])
    # R = 76 + 1.402 * 112, G = 76 - 0.344136 * (90 - 128) - 0.714136 * 112, B = 76 + 1.772 * (90 - 128)
    np.testing.assert_array_equal(result, np.broadcast_to([9, 9, 233], (8, 8, 3)))


@pytest.mark.parametrize('upscale', [2, 3])
def test_coefficients_to_bgr_undoes_the_upscale(upscale: int) -> None:
    image = smooth_image(61, 90)
    cube = dct.block_dct(dct.upscale_image(dct.to_ycbcr(image), upscale))
    result = dct.coefficients_to_bgr(cube, image_shape=image.shape, upscale=upscale)
    assert result.shape == image.shape
    assert np.abs(result.astype(int) - image).max() <= 4
    assert np.abs(result.astype(int) - image).mean() < 1


def test_coefficients_to_bgr_averages_upscaled_pixels() -> None:
    ycbcr = np.random.default_rng(4).uniform(0, 255, (32, 48, 3))
    expected = dct.from_ycbcr(ycbcr.reshape(16, 2, 24, 2, 3).mean(axis=(1, 3)))
    result = dct.coefficients_to_bgr(dct.block_dct(ycbcr), upscale=2)
    np.testing.assert_allclose(result.astype(int), expected, rtol=0, atol=1)


CUBE = np.zeros((2, 2, 192), dtype=np.float32)


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: dct.to_ycbcr(np.zeros((4, 4), np.uint8)), r'uint8 image \(H, W, 3\), got uint8 \(4, 4\)'),
    (lambda: dct.to_ycbcr(np.zeros((4, 4, 3), np.float32)), r'got float32 \(4, 4, 3\)'),
    (lambda: dct.to_ycbcr(np.zeros((0, 4, 3), np.uint8)), r'non-empty.*got uint8 \(0, 4, 3\)'),
    (lambda: dct.to_ycbcr(random_image(4, 4), 'gbr'), "channel_order: expected 'bgr' or 'rgb', got 'gbr'"),
    (lambda: dct.from_ycbcr(np.zeros((4, 4))), r'\(H, W, 3\), got \(4, 4\)'),
    (lambda: dct.from_ycbcr(np.zeros((4, 4, 3)), 'BGR'), "got 'BGR'"),
    (lambda: dct.block_dct(np.zeros((4, 4), np.uint8)), r'\(H, W, C\), got \(4, 4\)'),
    (lambda: dct.block_dct(np.zeros((4, 0, 3), np.uint8)), r'non-empty.*got \(4, 0, 3\)'),
    (lambda: dct.block_dct(random_image(8, 8), 0), 'block_size: expected an integer >= 1, got 0'),
    (lambda: dct.block_dct(random_image(8, 8), '8'), "block_size: .*got '8'"),
    (lambda: dct.block_idct(CUBE[:, :, :100]), r'\(h, w, C\*64\), got \(2, 2, 100\)'),
    (lambda: dct.block_idct(CUBE[0]), r'\(h, w, C\*64\), got \(2, 192\)'),
    (lambda: dct.block_idct(CUBE, 0), 'block_size: expected an integer >= 1, got 0'),
    (lambda: dct.upscale_image(random_image(4, 4), True), 'upscale: .*got True'),
    (lambda: dct.coefficients_to_bgr(CUBE[:, :, :24]), r'\(h, w, 192\), got \(2, 2, 24\)'),
    (lambda: dct.coefficients_to_bgr(CUBE, [0, 1]), r'\(h, w, 2\), got \(2, 2, 192\)'),
    (lambda: dct.coefficients_to_bgr(CUBE, upscale=0), 'upscale: expected an integer >= 1, got 0'),
    (lambda: dct.coefficients_to_bgr(CUBE[:, :, :1], [192]), 'channels: .*192'),
    (lambda: dct.coefficients_to_bgr(CUBE[:, :, :1], [-1]), 'channels: .*-1'),
    (lambda: dct.coefficients_to_bgr(CUBE, image_shape=(17, 16)),
     r'image_shape: expected \(1, 1\) to \(16, 16\), got \(17, 16\)'),
], ids=lambda value: value if isinstance(value, str) else '')
def test_bad_input(call: Callable[[], Optional[np.ndarray]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize('name', ['dct_matrix', 'block_basis'])
@pytest.mark.parametrize('block_size', [8.0, True])
def test_cache_does_not_let_other_types_in(name: str, block_size: object) -> None:
    """8 == 8.0 and 1 == True, so a cache filled by the one must not answer for the other."""
    function = getattr(dct, name)
    function(int(block_size))
    with pytest.raises(ValueError, match=f'block_size: expected an integer >= 1, got {block_size}'):
        function(block_size)
