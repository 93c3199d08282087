"""The published selections, the zigzag and every way to state channels."""
import json
from pathlib import Path
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
    '48S': ([0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 21, 24, 25, 26, 27, 28, 29, 32, 33, 34, 35,
             40, 41, 42, 43], [0, 1, 2, 8, 9, 10, 16, 17]),
    '64S': ([0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 24, 25, 26, 27, 28, 29, 32, 33, 34,
             35, 36, 37, 40, 41, 42, 43, 44, 45, 48, 49, 50, 51, 52, 53], [0, 1, 2, 8, 9, 10, 16, 17, 24, 25]),
    '24D': ([0, 1, 2, 3, 4, 5, 8, 9, 10, 16, 17, 18, 24, 32], [0, 1, 3, 8, 24]),
    '192': (list(range(64)), list(range(64))),
}
SQUARES = [name for name in PATTERNS if name.endswith('S')]


def flat(luma: list[int], chroma: list[int]) -> list[int]:
    return [*luma, *(64 + i for i in chroma), *(128 + i for i in chroma)]


def test_names() -> None:
    assert sorted(CHANNEL_NAMES) == sorted([*PATTERNS, *(name.replace('S', 'T') for name in SQUARES)])
    for name in CHANNEL_NAMES:
        indices = channel_indices(name)
        assert len(indices) == int(name.rstrip('STD'))
        assert indices == sorted(set(indices))


@pytest.mark.parametrize('name', PATTERNS)
def test_published_patterns_and_triangles(name: str) -> None:
    """A triangle takes as many channels of each component as the square, along the zigzag."""
    assert channel_indices(name) == flat(*PATTERNS[name])
    if name in SQUARES:
        luma, chroma = (sorted(ZIGZAG[:len(part)]) for part in PATTERNS[name])
        assert channel_indices(name.replace('S', 'T')) == flat(luma, chroma)


def test_triangle_worked_example() -> None:
    """24T by hand: 16 luma frequencies are the first five diagonals and one of the sixth."""
    luma = [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 16, 17, 18, 24, 25, 32]
    assert channel_indices('24T') == flat(luma, [0, 1, 8, 16])


@pytest.mark.parametrize(('block_size', 'expected'), [
    (1, [0]), (8, list(ZIGZAG)), (3, [0, 1, 3, 6, 4, 2, 5, 7, 8]),
    (4, [0, 1, 4, 8, 5, 2, 3, 6, 9, 12, 13, 10, 7, 11, 14, 15])])
def test_zigzag(block_size: int, expected: list[int]) -> None:
    assert zigzag_order(block_size) == expected


@pytest.mark.parametrize(('channels', 'block_size', 'expected'), [
    ([5, 0, 191], 8, [5, 0, 191]), ((3, 64), 8, [3, 64]), (range(0, 192, 64), 8, [0, 64, 128]),
    ([np.int64(7), np.uint8(8)], 8, [7, 8]), ([[0, 9], [0], [1]], 8, [0, 9, 64, 129]),
    (((9, 0), (0, ), (1, )), 8, [9, 0, 64, 129]), ([[1], [], []], 8, [1]), ([[], [], range(3)], 8, [128, 129, 130]),
    ([[0, 15], [1], [2]], 4, [0, 15, 17, 34]), ([47, 0], 4, [47, 0]), ([[255], [255], [255]], 16, [255, 511, 767])])
def test_lists_keep_their_order(channels: Any, block_size: int, expected: list[int]) -> None:
    indices = channel_indices(channels, block_size)
    assert indices == expected
    assert all(type(i) is int for i in indices)


@pytest.mark.parametrize(('channels', 'block_size', 'words'), [
    ('24X', 8, "6S, 12S, .*24D, 192, .*got '24X'"), ([], 8, r'got \[\]'), ([[], [], []], 8, r'got \[\]'),
    ([192], 8, r'0\.\.191, got'), ([0, -1], 8, 'distinct'), ([[0], [64], [0]], 8, r'Cb: .*0\.\.63, got'),
    ([[0], [0], [-1]], 8, 'Cr: '), ([3, 4, 3, 4], 8, 'distinct'), ([[0, 5, 5], [0], [0]], 8, 'Y: .*distinct'),
    ([0.0, 1.0], 8, 'integers'), ([True, False], 8, 'integers'), ([[0], [1]], 8, 'three index lists'),
    (['24S'], 8, 'three index lists'), ([[[0]], [[1]], [[2]]], 8, 'Y: .*integers'),
    ('24S', 16, "'24S' is .*8x8 .*block_size is 16"), ('24N', 8, "'24N' is .*4x4"), ([48], 4, r'0\.\.47, got'),
    ([[16], [], []], 4, r'Y: .*0\.\.15, got'), ([0], 0, 'block_size.* got 0')])
def test_bad_channels(channels: Any, block_size: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        channel_indices(channels, block_size)


def test_a_selection_file(tmp_path: Path) -> None:
    path = tmp_path / 'selection.json'
    path.write_text(json.dumps(dict(channels=[190, 0, 64], block_size=8, source='gate.py')))
    assert channel_indices(str(path)) == [190, 0, 64]
    for content, words in (('{"channels": [0, 192]}', r'0\.\.191'), ('{"channels": "24S"}', 'Y: '),
                           ('{"channels": [0], "block_size": 4}', 'for 4x4 blocks'), ('nothing', 'expected a JSON')):
        path.write_text(content)
        with pytest.raises(ValueError, match=words):
            channel_indices(str(path))
