"""Check the published selections, the zigzag and every way of naming channels."""
from typing import Any

import numpy as np
import pytest
from jpeg_coefficients import ZIGZAG

from mmfreq.dct.channels import CHANNEL_NAMES, channel_indices, zigzag_order

# Frequencies 8 * vertical + horizontal of Y and of each of Cb and Cr, as listed in the released DCTNet code
# (Xu et al., "Learning in the Frequency Domain", CVPR 2020). 12S has no published list; see mmfreq/dct/channels.py.
PATTERNS = {
    '6S': ([0, 1, 8, 9], [0]),
    '12S': ([0, 1, 2, 8, 9, 10, 16, 17], [0, 1]),
    '24S': ([0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27], [0, 1, 8, 9]),
    '32S': ([0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 16, 17, 18, 19, 20, 24, 25, 26, 27, 32, 33, 34], [0, 1, 2, 8, 9]),
    '48S': ([
        0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 21, 24, 25, 26, 27, 28, 29, 32, 33, 34, 35, 40, 41,
        42, 43
    ], [0, 1, 2, 8, 9, 10, 16, 17]),
    '64S': ([
        0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 24, 25, 26, 27, 28, 29, 32, 33, 34, 35,
        36, 37, 40, 41, 42, 43, 44, 45, 48, 49, 50, 51, 52, 53
    ], [0, 1, 2, 8, 9, 10, 16, 17, 24, 25]),
    '24D': ([0, 1, 2, 3, 4, 5, 8, 9, 10, 16, 17, 18, 24, 32], [0, 1, 3, 8, 24]),
    '192': (list(range(64)), list(range(64))),
}
SQUARES = [name for name in PATTERNS if name.endswith('S')]


def flat(luma: list[int], chroma: list[int]) -> list[int]:
    return [*luma, *(64 + i for i in chroma), *(128 + i for i in chroma)]


def test_names() -> None:
    triangles = [name.replace('S', 'T') for name in SQUARES]
    assert sorted(CHANNEL_NAMES) == sorted([*PATTERNS, *triangles])


@pytest.mark.parametrize('name', PATTERNS)
def test_published_patterns(name: str) -> None:
    indices = channel_indices(name)
    assert indices == flat(*PATTERNS[name])
    assert all(type(i) is int for i in indices)


@pytest.mark.parametrize('name', SQUARES)
def test_triangles_take_as_many_from_the_zigzag(name: str) -> None:
    luma, chroma = (sorted(ZIGZAG[:len(part)]) for part in PATTERNS[name])
    assert channel_indices(name.replace('S', 'T')) == flat(luma, chroma)


def test_triangle_worked_example() -> None:
    """24T by hand: 16 luma frequencies are the first five diagonals and one of the sixth."""
    luma = [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 16, 17, 18, 24, 25, 32]
    assert channel_indices('24T') == flat(luma, [0, 1, 8, 16])


@pytest.mark.parametrize('name', CHANNEL_NAMES)
def test_names_say_how_many_and_ascend(name: str) -> None:
    indices = channel_indices(name)
    assert len(indices) == int(name.rstrip('STD'))
    assert indices == sorted(set(indices))


@pytest.mark.parametrize(('block_size', 'expected'), [
    (1, [0]),
    (8, list(ZIGZAG)),
    (3, [0, 1, 3, 6, 4, 2, 5, 7, 8]),
    (4, [0, 1, 4, 8, 5, 2, 3, 6, 9, 12, 13, 10, 7, 11, 14, 15]),
])
def test_zigzag(block_size: int, expected: list[int]) -> None:
    assert zigzag_order(block_size) == expected


@pytest.mark.parametrize(('channels', 'expected'), [
    ([5, 0, 191], [5, 0, 191]),
    ((3, 64), [3, 64]),
    (range(0, 192, 64), [0, 64, 128]),
    ([np.int64(7), np.uint8(8)], [7, 8]),
    ([[0, 9], [0], [1]], [0, 9, 64, 129]),
    (((9, 0), (0, ), (1, )), [9, 0, 64, 129]),
    ([[1], [], []], [1]),
    ([[], [], range(3)], [128, 129, 130]),
    (list(PATTERNS['24S'][:1]) + [PATTERNS['24S'][1]] * 2, flat(*PATTERNS['24S'])),
])
def test_lists_keep_their_order(channels: Any, expected: list[int]) -> None:
    indices = channel_indices(channels)
    assert indices == expected
    assert all(type(i) is int for i in indices)


@pytest.mark.parametrize(('channels', 'block_size', 'expected'), [
    ([[0, 15], [1], [2]], 4, [0, 15, 17, 34]),
    ([47, 0], 4, [47, 0]),
    ([[255], [255], [255]], 16, [255, 511, 767]),
    ([767], 16, [767]),
    ([[3], [2], [1]], 2, [3, 6, 9]),
])
def test_lists_for_other_blocks(channels: Any, block_size: int, expected: list[int]) -> None:
    assert channel_indices(channels, block_size) == expected


@pytest.mark.parametrize(('channels', 'message'), [
    ('24X', "expected one of 6S, 12S, .*24D, 192, the path of a JSON file or lists of indices, got '24X'"),
    ('12D', "got '12D'"),
    (24, 'a name or lists of indices, got int'),
    (None, 'a name or lists of indices, got NoneType'),
    (np.arange(3), 'a name or lists of indices, got ndarray'),
    (b'24S', 'a name or lists of indices, got bytes'),
    ([], 'at least one channel, got an empty list'),
    ([[], [], []], 'at least one channel, got three empty lists'),
    ([192], r'integers in 0\.\.191, got 192'),
    ([0, -1], r'integers in 0\.\.191, got -1'),
    ([[0], [64], [0]], r'Cb: expected integers in 0\.\.63, got 64'),
    ([[0], [0], [-1]], r'Cr: expected integers in 0\.\.63, got -1'),
    ([3, 4, 3, 4], r'every index once, got \[3, 4\] more than once'),
    ([[0, 5, 5], [0], [0]], r'Y: expected every index once, got \[5\] more than once'),
    ([0.0, 1.0], r'integers in 0\.\.191, got 0\.0'),
    ([True, False], 'integers in .*got True'),
    ([[0], [True], [0]], 'Cb: expected integers in .*got True'),
    ([[0], [1]], r'three index lists, for Y, Cb and Cr, got \[\[0\], \[1\]\]'),
    (['0', '1', '2'], 'three index lists'),
    (['24S'], 'three index lists'),
    ([[[0]], [[1]], [[2]]], r'Y: expected integers in 0\.\.63, got \[0\]'),
])
def test_bad_channels(channels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        channel_indices(channels)


@pytest.mark.parametrize('block_size', [1, 16])
@pytest.mark.parametrize('name', ['6S', '24T', '24D', '192'])
def test_names_are_for_blocks_of_eight(name: str, block_size: int) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is a selection for 8x8 blocks; with block_size={block_size}"):
        channel_indices(name, block_size)


@pytest.mark.parametrize(('channels', 'block_size', 'message'), [
    ([48], 4, r'integers in 0\.\.47, got 48'),
    ([[16], [], []], 4, r'Y: expected integers in 0\.\.15, got 16'),
    ([0], 0, 'block_size.* got 0'),
    ([0], 8.0, r'block_size.* got 8\.0'),
])
def test_ranges_follow_the_block_size(channels: Any, block_size: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        channel_indices(channels, block_size)
