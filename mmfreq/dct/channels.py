"""The one place with channel lists: which of the 192 DCT coefficients a model sees.

A channel is one DCT frequency of one colour component, numbered
``64 * component + 8 * vertical_frequency + horizontal_frequency`` with the components Y, Cb, Cr (0, 1, 2): JPEG's
natural order, not zigzag. The patterns are those of Xu et al., "Learning in the Frequency Domain", CVPR 2020.
"""
import json
from pathlib import Path
from typing import Sequence, Union

ChannelSpec = Union[str, Sequence[int], Sequence[Sequence[int]]]

COMPONENTS = ('Y', 'Cb', 'Cr')

# Square-like patterns (postfix S): how many horizontal frequencies each row of vertical frequency keeps, counted from
# the upper left corner, for Y and for each of Cb and Cr. Source: the lists of the released DCTNet code; for 12S, which
# it lacks, our assumption (Y 8, Cb 2, Cr 2).
_SQUARE_ROWS = {
    6: ((2, 2), (1, )),
    12: ((3, 3, 2), (2, )),
    24: ((4, 4, 4, 4), (2, 2)),
    32: ((5, 5, 5, 4, 3), (3, 2)),
    48: ((6, 6, 6, 6, 4, 4), (3, 3, 2)),
    64: ((7, 7, 6, 6, 6, 6, 6), (3, 3, 2, 2)),
}

# The 24 channels that the paper's learned gate keeps most often (24D). Source: the released DCTNet code.
_DYNAMIC = {24: ((0, 1, 2, 3, 4, 5, 8, 9, 10, 16, 17, 18, 24, 32), (0, 1, 3, 8, 24))}

CHANNEL_NAMES = tuple(f'{n}{p}' for p in 'ST' for n in _SQUARE_ROWS) + ('24D', '192')


def zigzag_order(block_size: int = 8) -> list[int]:
    """Frequencies of one block from low to high along JPEG's zigzag.

    Args:
        block_size (int): Side of the block in pixels. Defaults to 8.

    Returns:
        list[int]: ``order[k]`` is the natural index ``block_size * vertical + horizontal`` of the k-th coefficient
        of the zigzag scan (ITU-T T.81, Figure 5).
    """

    def key(index: int) -> tuple[int, int]:
        v, u = divmod(index, block_size)
        return (v + u, v if (v + u) % 2 else u)

    return sorted(range(block_size**2), key=key)


def _square(rows: Sequence[int]) -> list[int]:
    return [8 * v + u for v, width in enumerate(rows) for u in range(width)]


def _named(name: str) -> list[list[int]]:
    """Per-component index lists (0..63) of a named pattern for 8x8 blocks."""
    if name == '192':
        return [list(range(64))] * 3
    count, pattern = int(name[:-1]), name[-1]
    if pattern == 'D':
        luma, chroma = (list(part) for part in _DYNAMIC[count])
    else:
        luma, chroma = (_square(rows) for rows in _SQUARE_ROWS[count])
    if pattern == 'T':  # as many per component as S keeps, along the zigzag
        zigzag = zigzag_order()
        luma, chroma = sorted(zigzag[:len(luma)]), sorted(zigzag[:len(chroma)])
    return [luma, chroma, chroma]


def channel_indices(channels: ChannelSpec, block_size: int = 8) -> list[int]:
    """Turns any way of naming channels into channel numbers.

    Args:
        channels (str | Sequence[int] | Sequence[Sequence[int]]): One of

            - a name: ``'6S' '12S' '24S' '32S' '48S' '64S'`` (upper-left square), the same with ``T`` (upper-left
              triangle: the first frequencies of the zigzag, as many per component as S keeps), ``'24D'`` (kept by the
              paper's gate), ``'192'`` (all). Names are for 8x8 blocks.
            - the path of a JSON file with a list ``channels``, as ``tools/select_channels.py`` writes it;
            - three lists of frequencies for Y, Cb and Cr, each in ``0 .. block_size**2 - 1``;
            - one list of channels in ``0 .. 3 * block_size**2 - 1``.
        block_size (int): Side of a DCT block in pixels. Defaults to 8.

    Returns:
        list[int]: Channel numbers in ``0 .. 3 * block_size**2 - 1``. Names give them ascending; lists keep their order.

    Raises:
        ValueError: Unknown name; no such file, or blocks of another size in it; empty selection; index that is not an
            integer, out of range or given twice.
    """
    if isinstance(block_size, bool) or not isinstance(block_size, int) or block_size < 1:
        raise ValueError(f'block_size: expected an integer >= 1, got {block_size!r}')
    size = block_size**2
    if isinstance(channels, str) and channels.endswith('.json'):
        return _from_file(channels, block_size)
    if isinstance(channels, str):
        if channels not in CHANNEL_NAMES:
            raise ValueError(f'channels: expected one of {", ".join(CHANNEL_NAMES)}, the path of a JSON file or lists '
                             f'of indices, got {channels!r}')
        if block_size != 8:
            raise ValueError(f'channels={channels!r} names a pattern of 8x8 blocks; with block_size={block_size} '
                             'give the indices')
        return [64 * c + i for c, part in enumerate(_named(channels)) for i in part]
    if not isinstance(channels, Sequence) or isinstance(channels, (bytes, bytearray)):
        raise ValueError(f'channels: expected a name or lists of indices, got {type(channels).__name__}')
    if any(isinstance(part, Sequence) for part in channels):
        return _from_components(channels, size)
    return _checked(channels, 3 * size, 'channels')


def _from_file(path: str, block_size: int) -> list[int]:
    try:
        values = json.loads(Path(path).read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise ValueError(f'channels: no such file: {path}') from None
    except ValueError as error:
        raise ValueError(f'{path}: not a JSON file ({error})') from error
    if not isinstance(values, dict) or not isinstance(values.get('channels'), list):
        raise ValueError(f'{path}: expected a JSON object with a list "channels"')
    if values.get('block_size', 8) != block_size:
        raise ValueError(f'{path}: expected channels of {block_size}x{block_size} blocks, its block_size is '
                         f'{values["block_size"]}')
    return _checked(values['channels'], 3 * block_size**2, path)


def _from_components(parts: Sequence[Sequence[int]], size: int) -> list[int]:
    if len(parts) != 3 or any(isinstance(p, str) or not isinstance(p, Sequence) for p in parts):
        raise ValueError(f'channels: expected three index lists, for Y, Cb and Cr, got {parts!r}')
    indices = [size * c + i for c, part in enumerate(parts) for i in _checked(part, size, COMPONENTS[c], True)]
    if not indices:
        raise ValueError('channels: expected at least one channel, got three empty lists')
    return indices


def _checked(indices: Sequence[int], limit: int, what: str, may_be_empty: bool = False) -> list[int]:
    """The indices as ints, each in ``0 .. limit - 1`` and there once."""
    if not indices and not may_be_empty:
        raise ValueError(f'{what}: expected at least one channel, got an empty list')
    for i in indices:
        if isinstance(i, bool) or not hasattr(i, '__index__') or not 0 <= i < limit:
            raise ValueError(f'{what}: expected integers in 0..{limit - 1}, got {i!r}')
    duplicates = sorted({int(i) for i in indices if list(indices).count(i) > 1})
    if duplicates:
        raise ValueError(f'{what}: expected every index once, got {duplicates} more than once')
    return [int(i) for i in indices]
