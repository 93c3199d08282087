"""Decoding image files so that failures say which file and why."""
import io
import warnings
from typing import Optional

import mmcv
import numpy as np
from PIL import Image

_JPEG_START, _START_OF_SCAN, _END_OF_IMAGE = b'\xff\xd8', b'\xff\xda', b'\xff\xd9'
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
    try:
        image, error = mmcv.imfrombytes(data, flag=color_type, backend=backend), None
    except Exception as decoder_error:  # cv2.error, PIL.UnidentifiedImageError, ...: every backend has its own
        image, error = None, decoder_error
    if image is None:
        reason = undecodable_reason(data) or str(error or f'the {backend} decoder gave no image')
        raise ValueError(f'{path}: cannot be decoded as an image: {reason}') from error
    if is_truncated_jpeg(data):
        warnings.warn(f'{path}: the JPEG file ends before the image does; the rest is what the decoder made of it',
                      TruncatedImageWarning, stacklevel=2)
    return image


def is_truncated_jpeg(data: bytes) -> bool:
    """Whether a JPEG has no end-of-image marker behind its last start of scan (inside a scan, FF is always escaped)."""
    return data[:2] == _JPEG_START and data.find(_END_OF_IMAGE, data.rfind(_START_OF_SCAN) + 2) < 0


def jpeg_precision(data: bytes) -> Optional[int]:
    """Bits per sample that a JPEG's frame header states, or None if there is no frame header."""
    position = 2
    while data[:2] == _JPEG_START and position + 5 <= len(data) and data[position] == 0xff:
        if data[position + 1] in _START_OF_FRAME:
            return data[position + 4]
        position += 2 + int.from_bytes(data[position + 2:position + 4], 'big')
    return None


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
        return f'no known image format (the file starts with {data[:8]!r})'
    except Exception as error:  # Pillow names what is broken, in exceptions of many classes
        return str(error)
    return None
