"""Channel selections, by name, list or file.

The named selections are those of Xu et al., "Learning in the Frequency Domain", CVPR 2020. Channels
are numbered as in :mod:`mmfreq.dct.blocks`, in JPEG's natural order, not along the zigzag.
"""
import json
from pathlib import Path
from typing import Any, Sequence, Union

ChannelSpec = Union[str, Sequence[int], Sequence[Sequence[int]]]

COMPONENTS = ('Y', 'Cb', 'Cr')

# Square-like selections (suffix S): the number of horizontal frequencies that each vertical
# frequency keeps, from 0 on, for Y and for each of Cb and Cr. Source: the released DCTNet code. It
# lacks 12S, for which 8 channels of Y and 2 each of Cb and Cr are our assumption.
_SQUARE_ROWS = {
    6: ((2, 2), (1, )),
    12: ((3, 3, 2), (2, )),
    24: ((4, 4, 4, 4), (2, 2)),
    32: ((5, 5, 5, 4, 3), (3, 2)),
    48: ((6, 6, 6, 6, 4, 4), (3, 3, 2)),
    64: ((7, 7, 6, 6, 6, 6, 6), (3, 3, 2, 2)),
}

# The 24 channels that the paper's learned gate keeps most often. Source: the released DCTNet code.
_DYNAMIC = (0, 1, 2, 3, 4, 5, 8, 9, 10, 16, 17, 18, 24, 32), (0, 1, 3, 8, 24)

# Selections for blocks of 4x4 pixels (suffix N, native): these are the blocks of the stock network's
# own image, which no selection for 8x8 blocks of a larger image fits.
_NATIVE_ROWS = {
    '6N': ((2, 2), (1, )),
    '12N': ((4, 3, 2, 1), (1, )),
    '18N': ((4, 4, 4, 4), (1, )),
    '24N': ((4, 4, 4, 4), (2, 2)),
    '48N': ((4, 4, 4, 4), (4, 4, 4, 4)),
}

CHANNEL_NAMES = tuple(f'{n}{p}' for p in 'ST' for n in _SQUARE_ROWS) + ('24D', '192')
NATIVE_NAMES = tuple(_NATIVE_ROWS)


def check_positive_int(name: str, value: int) -> int:
    """Return ``value``; raise ValueError unless it is an integer >= 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'{name}: expected an integer >= 1, got {value!r}')
    return value


def read_json(path: Union[str, Path], what: str) -> dict[str, Any]:
    """Read a JSON object; raise ValueError that names the file and ``what`` it should hold."""
    try:
        return dict(json.loads(Path(path).read_text(encoding='utf-8')))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f'{path}: expected a JSON file with {what}: {error}') from error


def zigzag_order(block_size: int = 8) -> list[int]:
    """List the frequencies ``block_size * vertical + horizontal`` along JPEG's zigzag.

    Source: ITU-T T.81, Figure 5.
    """

    def key(index: int) -> tuple[int, int]:
        v, u = divmod(index, block_size)
        return (v + u, v if (v + u) % 2 else u)

    return sorted(range(block_size**2), key=key)


def _named(name: str) -> list[Sequence[int]]:
    """Return the frequencies of Y, Cb and Cr of a named selection."""
    if name == '192':
        return [range(64)] * 3
    if name == '24D':
        luma, chroma = _DYNAMIC
    else:
        size, kept = (4, _NATIVE_ROWS[name]) if name in NATIVE_NAMES else (
            8, _SQUARE_ROWS[int(name[:-1])])
        luma, chroma = ([size * v + u for v, width in enumerate(rows) for u in range(width)]
                        for rows in kept)
    if name.endswith('T'):  # for each component as many as S keeps, along the zigzag
        zigzag = zigzag_order()
        luma, chroma = sorted(zigzag[:len(luma)]), sorted(zigzag[:len(chroma)])
    return [luma, chroma, chroma]


def channel_indices(channels: ChannelSpec, block_size: int = 8) -> list[int]:
    """Return the channel numbers of a selection.

    Args:
        channels (str | Sequence[int] | Sequence[Sequence[int]]): One of

            - a name, for 8x8 blocks: ``'6S' '12S' '24S' '32S' '48S' '64S'`` (upper left square),
              the same with ``T`` (upper left triangle: the first frequencies of the zigzag, for
              each component as many as S keeps), ``'24D'`` (kept by the paper's gate) or ``'192'``
              (all);
            - a name, for 4x4 blocks: ``'6N' '12N' '18N' '24N' '48N'``, with 4, 10, 16, 16 and 16
              channels of Y and 1, 1, 1, 4 and 16 each of Cb and Cr;
            - the path of a JSON file with a list ``channels``, see ``tools/select_channels.py``;
            - three lists of frequencies for Y, Cb and Cr, each in ``0 .. block_size**2 - 1``;
            - one list of channels in ``0 .. 3 * block_size**2 - 1``.
        block_size (int): Side of a DCT block in pixels. Defaults to 8.

    Returns:
        list[int]: Ascending for names, in the given order for lists.

    Raises:
        ValueError: Unknown name, unreadable file, selection for another block size, empty selection,
            or an index that is not an integer, out of range or repeated.
    """
    size, expected = check_positive_int('block_size', block_size)**2, block_size
    if isinstance(channels, str) and channels.endswith('.json'):
        values = read_json(channels, 'a list "channels"')
        parts, expected = values['channels'], values.get('block_size', 8)
    elif isinstance(channels, str):
        names = (*CHANNEL_NAMES, *NATIVE_NAMES)
        if channels not in names:
            raise ValueError(f'channels: expected one of {", ".join(names)}, the path of a JSON '
                             f'file or lists of indices, got {channels!r}')
        parts, expected = _named(channels), 4 if channels in NATIVE_NAMES else 8
    else:
        parts = channels
    if block_size != expected:
        raise ValueError(f'channels={channels!r} is a selection for {expected}x{expected} blocks, but '
                         f'block_size is {block_size}')
    if not any(isinstance(part, Sequence) for part in parts):
        return _checked(parts, 3 * size, 'channels')
    if len(parts) != 3:
        raise ValueError(f'channels: expected three index lists, for Y, Cb and Cr, got {parts!r}')
    inner = [_checked(part, size, name) if part else [] for part, name in zip(parts, COMPONENTS)]
    return _checked([size * c + i for c, part in enumerate(inner) for i in part], 3 * size, 'channels')


def _checked(indices: Sequence[int], limit: int, what: str) -> list[int]:
    """Return the indices as ints; raise ValueError unless there are some, in range and distinct."""
    integers = [i for i in indices if hasattr(i, '__index__') and not isinstance(i, bool)]
    if not 0 < len(indices) == len(integers) == len({*integers}) or not (
            0 <= min(integers) <= max(integers) < limit):
        raise ValueError(f'{what}: expected distinct integers in 0..{limit - 1}, got {indices!r}')
    return list(map(int, integers))
