"""Decoding image files so that failures say which file and why."""
import io
import re
import warnings
from typing import Iterator, Optional

import mmcv
import mmengine.fileio as fileio
import numpy as np
from PIL import Image

_END_OF_IMAGE = 0xd9
# Any marker but stuffed FF00, fill bytes, restart markers and TEM, none of which starts a segment.
_MARKER = re.compile(rb'\xff[\x02-\xcf\xd8-\xfe]')
_SIGNATURES = {b'\xff\xd8': 'JPEG', b'\x89PNG': 'PNG', b'GIF8': 'GIF', b'RIFF': 'WebP', b'BM': 'BMP', b'II*': 'TIFF'}
# Start-of-frame markers (ITU-T T.81, Table B.1): C4, C8 and CC mean other things.
_START_OF_FRAME = frozenset(range(0xc0, 0xd0)) - {0xc4, 0xc8, 0xcc}


class TruncatedImageWarning(UserWarning):
    """An image file ends before its image does; what could be decoded is used."""


def decode_image_file(data: bytes, path: str, color_type: str = 'color', backend: str = 'cv2') -> np.ndarray:
    """Decodes an image as the stock loader does.

    Args:
        data (bytes): The file's content.
        path (str): Its name, for messages.
        color_type (str): ``flag`` of :func:`mmcv.imfrombytes`. Defaults to ``'color'``.
        backend (str): ``backend`` of :func:`mmcv.imfrombytes`. Defaults to ``'cv2'``.

    Returns:
        np.ndarray: uint8, (H, W, 3) BGR for ``'color'``.

    Raises:
        ValueError: The data cannot be decoded. A JPEG that ends too early is no error where the decoder makes an
            image of it: it gives a :class:`TruncatedImageWarning`.
    """
    image, error = _try_to_decode(data, color_type, backend)
    truncated = is_truncated_jpeg(data)
    if image is None and truncated:  # OpenCV >= 4.11 then wants an end marker, and decodes as much as from a file
        image, _ = _try_to_decode(data + bytes((0xff, _END_OF_IMAGE)), color_type, backend)
    if image is None:
        reason = undecodable_reason(data) or str(error or f'the {backend} decoder gave no image')
        raise ValueError(f'{path}: cannot be decoded as an image: {reason}') from error
    if truncated:
        warnings.warn(f'{path}: the JPEG file ends before the image does; the rest is what the decoder made of it',
                      TruncatedImageWarning, stacklevel=2)
    return image


def read_image_file(path: str) -> np.ndarray:
    """Reads and decodes an image: uint8 BGR (H, W, 3); raises as :func:`decode_image_file` and the file system do."""
    return decode_image_file(fileio.get(path), path)


def _try_to_decode(data: bytes, color_type: str, backend: str) -> tuple[Optional[np.ndarray], Optional[Exception]]:
    try:
        return mmcv.imfrombytes(data, flag=color_type, backend=backend), None
    except Exception as error:  # cv2.error, PIL.UnidentifiedImageError, ...: every backend has its own
        return None, error


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Markers of a JPEG up to its end of image: (second byte, position of what follows). Nothing for other data."""
    position = 2 if data.startswith(b'\xff\xd8') else len(data)
    # In entropy-coded data FF is followed by 00 or a restart marker, so the next other marker is the next segment.
    while match := _MARKER.search(data, position):
        code, position = data[match.end() - 1], match.end()
        yield code, position
        if code == _END_OF_IMAGE:
            return
        position += int.from_bytes(data[position:position + 2], 'big')


def is_truncated_jpeg(data: bytes) -> bool:
    """Whether the data begin as a JPEG and have no end-of-image marker. One at the very end is found at once."""
    if not data.startswith(b'\xff\xd8') or data.endswith(bytes((0xff, _END_OF_IMAGE))):
        return False
    return all(code != _END_OF_IMAGE for code, _ in _jpeg_markers(data))


def jpeg_precision(data: bytes) -> Optional[int]:
    """Bits per sample that a JPEG's frame header states, or None if there is no frame header."""
    headers = (data[position + 2:position + 3] for code, position in _jpeg_markers(data) if code in _START_OF_FRAME)
    return next((header[0] for header in headers if header), None)


def undecodable_reason(data: bytes) -> Optional[str]:
    """Why an image file cannot be decoded, in words, or None if the reason cannot be found."""
    if not data:
        return 'the file is empty'
    if (jpeg_precision(data) or 8) != 8:
        return f'a JPEG with {jpeg_precision(data)} bits per sample; only 8 are supported'
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Image.UnidentifiedImageError:
        kind = next((kind for start, kind in _SIGNATURES.items() if data.startswith(start)), None)
        return f'a {kind} file with a broken header' if kind else f'no known image format (it starts with {data[:8]!r})'
    except Exception as error:  # Pillow names what is broken, in exceptions of many classes
        return str(error)
    return None
