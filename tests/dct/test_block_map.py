"""The fused transform and its compiled loop against a float64 chain that rounds nothing."""
import errno
import pickle
from typing import Any

import numba
import numpy as np
import pytest
from mmengine.dataset import Compose
from numpy.testing import assert_allclose, assert_array_equal
from references import FACE, exact, noise

from mmfreq.dct import kernel
from mmfreq.dct.block_map import BlockMap
from mmfreq.dct.channels import CHANNEL_NAMES, channel_indices
from mmfreq.dct.stats import load_stats
from mmfreq.transforms import BlockDCT, ChannelSelect, FreqNormalize, FusedBlockDCT, YCbCr

STATS = 'photos-448'


def grey(height: int, width: int) -> np.ndarray:
    return np.repeat(noise(height, width, components=1), 3, axis=2)


def check(image: np.ndarray, channels: Any, stats: Any = STATS, n: int = 8, upscale: int = 1,
          order: str = 'bgr') -> None:
    results = FusedBlockDCT(channels, stats, n, upscale, order)({'img': image})
    assert results['img'].dtype == np.float32
    assert results['freq_channels'] == channel_indices(channels, n)
    assert_allclose(results['img'], exact(image, channels, stats, n, upscale, order), rtol=0, atol=1e-3)


@pytest.mark.parametrize('channels', CHANNEL_NAMES)
@pytest.mark.parametrize(('shape', 'upscale', 'stats'), [
    ((160, 220), 1, STATS), ((37, 61), 1, STATS), ((1, 1), 1, STATS), ((53, 87), 2, 'photos-1333x800')])
def test_every_named_selection(channels: str, shape: tuple[int, int], upscale: int, stats: str) -> None:
    check(FACE[:shape[0], :shape[1]], channels, stats, upscale=upscale)


@pytest.mark.parametrize('image', [noise(41, 56), grey(41, 56), np.zeros((41, 56, 3), np.uint8),
                                   np.full((41, 56, 3), 255, np.uint8)], ids=['noise', 'grey', 'black', 'white'])
@pytest.mark.parametrize('order', ['bgr', 'rgb'])
@pytest.mark.parametrize('channels', ['24D', '192', [130, 0, 65], [191], [[], [3], []], [[63, 9, 0], [], [1, 2]]],
                         ids=str)
def test_contents_orders_and_lists(channels: Any, order: str, image: np.ndarray) -> None:
    check(image, channels, order=order)


@pytest.mark.parametrize(('block_size', 'upscale'), [(8, 2), (8, 4), (8, 8), (4, 1), (16, 1), (4, 2), (2, 2), (1, 1)])
@pytest.mark.parametrize('shape', [(48, 64), (37, 61), (3, 5), (1, 1)])
def test_block_sizes_and_upscales(shape: tuple[int, int], block_size: int, upscale: int) -> None:
    total = 3 * block_size**2
    stats = dict(mean=np.linspace(-9, 9, total).tolist(), std=[2.] * total)
    check(noise(*shape), range(total), stats, block_size, upscale)


@pytest.mark.parametrize('upscale', [1, 2])
def test_large_images_pass_in_strips(upscale: int) -> None:
    check(noise(203, 1333), '24S', upscale=upscale)


@pytest.mark.parametrize(('channels', 'upscale'), [('24S', 1), ('192', 1), ('64T', 2)])
def test_the_four_transforms_differ_only_by_the_rounding_of_colours(channels: str, upscale: int) -> None:
    """A colour rounded by up to 0.5 moves one of 64 orthonormal coefficients by up to 4, by sqrt(1/12) rms."""
    std = 1 + np.arange(192) % 13.
    stats = dict(mean=np.linspace(-30, 30, 192).tolist(), std=std.tolist())
    chain = Compose([YCbCr(), BlockDCT(upscale=upscale), ChannelSelect(channels), FreqNormalize(stats)])
    fused = FusedBlockDCT(channels, stats, upscale=upscale)
    expected, results = chain({'img': FACE, 'key': 'kept'}), fused({'img': FACE, 'key': 'kept'})
    assert results.keys() == expected.keys()
    assert results['freq_channels'] == expected['freq_channels']
    moved = (results['img'] - expected['img']) * std[expected['freq_channels']]
    assert np.abs(moved).max() <= 4
    assert 0.01 < np.sqrt(np.mean(moved**2)) < 0.35
    plain = grey(24, 40)  # whole levels without colours: there is nothing to round
    assert_allclose(fused({'img': plain})['img'], chain({'img': plain})['img'], rtol=0, atol=1e-3)


def test_a_worked_example() -> None:
    """One block: pixels 0 on the left half and 255 on the right half, of blue alone."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:, 0] = 255
    first = np.sqrt(8) * 0.5 * sum(np.cos((2 * x + 1) * np.pi / 16) for x in range(4, 8)) * 255
    expected = [(0.114 * 127.5 - 128) * 8, 0.114 * first, 0, 0.5 * 127.5 * 8, 0.5 * first]
    result = FusedBlockDCT([0, 1, 8, 64, 65], dict(mean=[10.] * 192, std=[4.] * 192))({'img': image})['img']
    assert_allclose(result[0, 0], (np.array(expected) - 10) / 4, rtol=0, atol=1e-3)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('view', [
    lambda image: np.broadcast_to(image, image.shape), lambda image: image[:, ::-1], lambda image: image[::-1],
    lambda image: image[::-1, ::-1], lambda image: image[:, :, ::-1], lambda image: image[::-1, :, ::-1],
    lambda image: image[3:139, 8:104][:, ::-1], lambda image: image[::2, ::3], np.asfortranarray], ids=range(9))
def test_views_are_read_as_their_copies(view: Any) -> None:
    transform, image = FusedBlockDCT('24S', STATS), view(FACE.copy())
    before = image.copy()
    result = transform({'img': image})['img']
    assert_array_equal(result, transform({'img': np.ascontiguousarray(before)})['img'])
    assert_array_equal(image, before)
    assert np.shares_memory(np.ascontiguousarray(result.transpose(2, 0, 1)), result)  # packers need not copy


def test_kernel_is_the_map() -> None:
    """The dense weights, applied pixel by pixel."""
    stats, image = load_stats(STATS), noise(8, 12)
    block_map = BlockMap(channel_indices('24D'), stats.mean, stats.std, 8, 2)
    padded = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode='edge')
    windows = np.lib.stride_tricks.sliding_window_view(padded, (6, 6), axis=(0, 1))[::4, ::4]
    sums = np.einsum('hwkyx,ckyx->hwc', windows, block_map.kernel) + block_map.bias
    assert_allclose(sums, exact(image, '24D', STATS, upscale=2), rtol=0, atol=1e-9)


@pytest.mark.parametrize('error', [RuntimeError('cannot cache function: no locator available'),
                                   OSError(errno.ENOSPC, 'No space left on device')], ids=['folder', 'disk'])
def test_loops_are_compiled_where_nothing_can_be_written(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(signature: Any = None, cache: bool = False, **options: Any) -> Any:
        if cache:
            raise error
        return numba.njit(signature, **options)

    monkeypatch.setattr(kernel, 'njit', njit)
    double = kernel.compiled(numba.int64(numba.int64))(lambda x: 2 * x)
    assert (double(21), len(double.signatures)) == (42, 1)


def test_a_pickled_transform_holds_no_machine_code() -> None:
    """Spawned workers load the code from disk; a pickled dispatcher of numba would compile in each of them."""
    assert b'numba' not in pickle.dumps(FusedBlockDCT('24S', STATS))


@pytest.mark.parametrize(('arguments', 'words'), [
    (dict(upscale=3), 'block_size: .*multiple of upscale=3'), (dict(upscale=0), 'upscale: .*0'),
    (dict(dtype='uint8'), "'uint8'"), (dict(dtype='int8'), 'scale=None'),
    (dict(dtype='int8', scale=0), 'scale=0'), (dict(scale=6.), 'scale=6.0'),
    (dict(dtype='int8', scale=float('inf')), 'scale=inf')])
def test_bad_arguments(arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FusedBlockDCT(**{'channels': '24S', 'stats': STATS, **arguments})


# int8


def test_int8_rounds_and_saturates() -> None:
    values = np.array([[[-400, -12.8, -0.26, -0.25, 0, 0.25, 0.26, 0.75, 12.6, 12.8, 300]]], np.float32)
    results = {'img': values, 'freq_channels': list(range(11))}
    result = FreqNormalize(dict(mean=[0.] * 12, std=[1.] * 12), block_size=2, dtype='int8', scale=10)(results)['img']
    assert result.dtype == np.int8
    assert_array_equal(result, [[[-127, -127, -3, -2, 0, 2, 3, 8, 126, 127, 127]]])  # halves to even


@pytest.mark.parametrize('scale', [6, 16.5])
def test_fused_int8(scale: float) -> None:
    result = FusedBlockDCT('48S', STATS, dtype='int8', scale=scale)({'img': FACE})['img']
    assert result.dtype == np.int8
    steps = np.clip(exact(FACE, '48S', STATS) * scale, -127, 127)
    assert np.abs(result - steps).max() < 0.5 + 1e-3 * scale
    assert np.abs(steps).max() == 127  # some saturate


def test_int8_inverse() -> None:
    transform, channels = FreqNormalize(STATS, dtype='int8', scale=6), channel_indices('24S')
    coefficients = exact(FACE, channels).astype(np.float32)
    packed = transform({'img': coefficients, 'freq_channels': channels})['img']
    error = (transform.inverse(packed, channels) - coefficients) / load_stats(STATS).std[channels]
    assert np.abs(error[np.abs(packed) < 127]).max() < 0.5 / 6 + 1e-4
