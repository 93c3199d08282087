"""From JPEG planes to channels, against NumPy's interpolation and scipy's DCT of the planes, and the stock way."""
import io
from fractions import Fraction
from typing import Any, Optional, Sequence

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from references import FACE, exact, exact_dct, noise

from mmfreq.dct.block_map import BlockMap
from mmfreq.dct.lazy_image import LazyImage
from mmfreq.dct.planes import decoder, jpeg_image

pytestmark = pytest.mark.skipif(decoder() is None, reason='PyTurboJPEG or libturbojpeg is missing')
SUBSAMPLINGS = {'4:4:4': (1, 1), '4:2:2': (1, 2), '4:2:0': (2, 2), '4:4:0': (2, 1), '4:1:1': (1, 4), 'grey': (1, 1)}
subsamplings = pytest.mark.parametrize('subsampling', SUBSAMPLINGS)
FACTORS = {name: 0x111111 + 0x100000 * (columns - 1) + 0x10000 * (rows - 1)
           for name, (rows, columns) in SUBSAMPLINGS.items()}
SMOOTH = cv2.GaussianBlur(FACE, (0, 0), 2) // 2 + 64  # no colour is clipped


def jpeg(image: np.ndarray, subsampling: str = '4:2:0', *flags: int) -> bytes:
    image = image[:, :, 1] if subsampling == 'grey' else image
    arguments = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, FACTORS[subsampling], *flags]
    return cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 95, *arguments])[1].tobytes()


def with_exif(image: np.ndarray, orientation: int) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(image[:, :, ::-1]).save(file, 'JPEG', quality=95, exif=exif)
    return file.getvalue()


def coefficients(image: Any, block_size: int = 8, upscale: int = 1) -> np.ndarray:
    """All channels (h, w, 3*N*N)."""
    total = 3 * block_size**2
    block_map = BlockMap(range(total), np.zeros(total), np.ones(total), block_size, upscale)
    return block_map.channels(image).transpose(1, 2, 0)


def interpolation(kept: Sequence[int], start: int, length: int, size: int, scale: float,
                  antialias: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples of a plane on which pixels of a resized crop depend, and the weights: float64."""
    samples = np.arange(int(np.floor(start * scale)), int(np.ceil((start + length) * scale)))
    centres = (start + (np.array(kept) + 0.5) * length / size) * scale - 0.5
    if not antialias:
        return samples, np.stack([np.interp(centres, samples, unit) for unit in np.eye(len(samples))], axis=1)
    weights = np.maximum(max(scale * length / size, 1) - np.abs(samples - centres[:, None]), 0)
    return samples, weights / weights.sum(axis=1, keepdims=True)


def expected(content: bytes, subsampling: str, lazy: LazyImage, eighths: int = 8) -> np.ndarray:
    """Return Y, Cb and Cr (H, W, 3) of a lazily resized image from the planes of PyTurboJPEG."""
    turbo, size, planes = decoder(), Fraction(eighths, 8).as_integer_ratio(), []
    if subsampling == 'grey':
        sources = [turbo.decode(content, 6, size)[:, :, 0]]
    else:
        sources = turbo.decode_to_yuv_planes(content, size)
    for i, plane in enumerate(sources):
        (ys, down), (xs, across) = (
            interpolation(kept, start, length, size, eighths / 8 / (step if i else 1), lazy.antialias)
            for kept, start, length, size, step in zip((lazy.rows, lazy.columns), lazy.crop, lazy.crop[2:], lazy.size,
                                                       SUBSAMPLINGS[subsampling]))
        planes.append(down @ plane[np.ix_(ys, xs)] @ across.T)
    while len(planes) < 3:
        planes.append(np.full_like(planes[0], 128))
    return np.stack(planes, axis=2)


def decibels(error: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean(np.square(error)), 1e-9))


@subsamplings
@pytest.mark.parametrize('shape', [(160, 220), (37, 61), (17, 17), (2, 3), (1, 1)], ids=str)
def test_channels_are_those_of_the_planes(subsampling: str, shape: tuple[int, int]) -> None:
    """Every crop and scale, at 1e-3 of a coefficient."""
    content, (height, width) = jpeg(noise(*shape), subsampling), shape
    image = jpeg_image(content)
    assert image.shape == (*shape, 3)
    part = height // 3, width // 4, height - height // 2, width - width // 2
    for lazy in (image, image[:, ::-1], image.resized((48, 40)), image.resized((50, 70), part)[::-1][:24, 3:],
                 image.resized((24, 40), antialias=True), image[::-1].resized((9, 17), part, True)):
        assert_allclose(coefficients(lazy), exact_dct(expected(content, subsampling, lazy)), rtol=0, atol=1e-3)
    samples = expected(content, subsampling, image.resized((33, 21)))
    assert_allclose(coefficients(image.resized((33, 21)), 4), exact_dct(samples, 4), rtol=0, atol=1e-3)


@pytest.mark.parametrize('channels', [[3, 0, 17], [130, 64, 66], [70], [191, 5, 64, 128]], ids=str)
@pytest.mark.parametrize('subsampling', ['4:2:0', 'grey'])
def test_selections_without_luma_or_chroma(subsampling: str, channels: list[int]) -> None:
    content = jpeg(noise(37, 61), subsampling)
    lazy, mean, std = jpeg_image(content).resized((50, 70)), np.linspace(-9, 9, 192), np.linspace(1, 4, 192)
    reference = ((exact_dct(expected(content, subsampling, lazy)) - mean) / std)[:, :, channels].transpose(2, 0, 1)
    block_map = BlockMap(channels, mean, std)
    assert_allclose(block_map.channels(lazy), reference, rtol=0, atol=1e-3)
    assert np.abs(block_map.channels(lazy, 'int8') - np.clip(reference, -127, 127)).max() < 0.501


@subsamplings
@pytest.mark.parametrize('flags', [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 1)],
                         ids=['baseline', 'progressive', 'restarts'])
def test_the_stock_decoder_differs_by_rounding_and_upsampling(subsampling: str, flags: tuple) -> None:
    content = jpeg(SMOOTH, subsampling, *flags)
    stock = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    moved = coefficients(jpeg_image(content)) - exact(stock, range(192))
    luma, chroma = (np.sqrt(np.mean(np.square(part))) for part in (moved[:, :, :64], moved[:, :, 64:]))
    assert luma < 0.5  # three colours rounded to whole levels: 0.2 in luma
    assert chroma < 0.5 if subsampling in ('4:4:4', 'grey') else chroma < 1
    assert decibels(np.asarray(jpeg_image(content)).astype(float) - stock) > 45


@pytest.mark.parametrize('subsampling', ['4:2:0', '4:2:2'])
def test_chroma_lies_where_the_stock_decoder_has_it(subsampling: str) -> None:
    """Chroma that is a ramp: the stock decoder's filter is bilinear, too, and a shift of half a pixel would show."""
    y, x = np.mgrid[:64, :96]
    ramp = np.stack([60 + 1.5 * x, 200 - x, 90 + 2 * y], axis=2).astype(np.uint8)
    content = jpeg(ramp, subsampling)
    stock = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    lazy, pixels = jpeg_image(content).resized((128, 192)), LazyImage(stock, (128, 192))
    inner = (coefficients(lazy) - coefficients(pixels))[2:-2, 2:-2, 64::64]  # DC of Cb and Cr, 8 for a level
    assert np.abs(inner.mean(axis=(0, 1))).max() < 0.8


@pytest.mark.parametrize('shape', [(161, 220), (18, 33), (1, 2)], ids=str)
@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientations_are_those_of_the_stock_decoder(orientation: int, shape: tuple[int, int]) -> None:
    content = with_exif(cv2.resize(SMOOTH, shape[::-1], interpolation=cv2.INTER_AREA), orientation)
    for orient, flag in ((True, cv2.IMREAD_COLOR), (False, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)):
        stock, image = cv2.imdecode(np.frombuffer(content, np.uint8), flag), jpeg_image(content, orient)
        assert image.shape == stock.shape
        assert decibels(np.asarray(image).astype(float) - stock) > 38
        part = 0, 0, -(-stock.shape[0] // 2), -(-stock.shape[1] // 3)
        moved = coefficients(image.resized((30, 50), part)) - coefficients(LazyImage(stock, (30, 50), part))
        assert decibels(moved) > 40
        reduced = jpeg_image(content, orient, True).resized((30, 50), part)
        assert decibels(coefficients(reduced) - coefficients(image.resized((30, 50), part, True))) > 30


@pytest.mark.parametrize('damage', [b'Exif\0\0', b'Exif\0\0II*\0\xff\xff\xff\xff', b'Exif\0\0MM\0*\0\0\0\x08\xff\xff'])
def test_damaged_exif_is_no_orientation(damage: bytes) -> None:
    content = jpeg(FACE)
    segment = b'\xff\xe1' + (len(damage) + 2).to_bytes(2, 'big') + damage
    image = jpeg_image(content[:2] + segment + content[2:])
    assert_array_equal(np.asarray(image), np.asarray(jpeg_image(content)))


def other_files() -> dict[str, bytes]:
    files = {}
    for name, image, arguments in (('cmyk', Image.new('CMYK', (9, 7), 'red'), dict(format='JPEG')),
                                   ('png', Image.new('RGB', (9, 7), 'red'), dict(format='PNG'))):
        file = io.BytesIO()
        image.save(file, **arguments)
        files[name] = file.getvalue()
    rgb = io.BytesIO()
    Image.fromarray(FACE).save(rgb, 'JPEG', keep_rgb=True)
    whole = with_exif(FACE, 6)
    return {**files, 'rgb': rgb.getvalue(), 'empty': b'', 'text': b'\xff\xd8\xff\xd9', 'cut': whole[:len(whole) // 2],
            'end is missing': whole[:-2], 'header': whole[:300]}


@pytest.mark.parametrize('name', other_files())
def test_other_files_are_left_to_the_stock_decoder(name: str) -> None:
    assert jpeg_image(other_files()[name]) is None


@pytest.mark.filterwarnings('ignore')
def test_damage_has_the_same_pixels_as_with_the_stock_decoder() -> None:
    content = bytearray(jpeg(SMOOTH, 'grey'))
    content[len(content) // 2:len(content) // 2 + 4] = b'\x12\x34\x56\x78'
    stock = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert_array_equal(np.asarray(jpeg_image(bytes(content))), stock)


def test_rgb_order_takes_pixels_as_it_does_of_other_files() -> None:
    image = jpeg_image(jpeg(SMOOTH))
    block_map = BlockMap(range(192), np.zeros(192), np.ones(192), channel_order='rgb')
    assert_array_equal(block_map.channels(image), block_map.channels(np.asarray(image)))


@pytest.mark.parametrize(('crop', 'size', 'eighths'), [
    (None, (160, 220), 8), (None, (161, 2), 8), (None, (81, 110), 8), (None, (80, 110), 4), (None, (41, 55), 4),
    (None, (40, 55), 2), (None, (20, 28), 2), (None, (20, 27), 1), (None, (1, 1), 1), ((20, 30, 40, 60), (20, 25), 4)])
@subsamplings
def test_reduced_decoding(subsampling: str, crop: Optional[tuple], size: tuple[int, int], eighths: int) -> None:
    """The crop is decoded at n/8, no smaller than its target, and no less exact."""
    content = jpeg(SMOOTH, subsampling)
    lazy = jpeg_image(content, reduce=True)[:, ::-1].resized(size, crop)
    assert lazy.eighths == eighths
    reference = expected(content, subsampling, lazy, eighths)
    assert_allclose(coefficients(lazy), exact_dct(reference), rtol=0, atol=1e-3)
    whole = jpeg_image(content)[:, ::-1]
    averaged = whole.resized(size, crop, antialias=True)
    assert eighths == 8 or decibels(coefficients(lazy) - coefficients(averaged)) > 30
    assert_array_equal(np.asarray(lazy), np.asarray(whole.resized(size, crop)))
