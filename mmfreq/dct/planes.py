"""JPEG files as the planes of Y, Cb and Cr that they hold, each at its own resolution.

A JPEG decoder upsamples chroma and mixes it to colours, which the DCT takes apart again.
libjpeg-turbo, through PyTurboJPEG, returns the planes before that.
"""
from fractions import Fraction
from functools import cache
from struct import error, unpack_from
from typing import Any, Optional

import cv2
import numpy as np

from mmfreq.dct.lazy_image import LazyImage

# Rows and columns of pixels for one sample of chroma, by libjpeg-turbo's TJSAMP: 4:4:4, 4:2:2, 4:2:0, grey, ...
_SUBSAMPLINGS = ((1, 1), (1, 2), (2, 2), (1, 1), (2, 1), (1, 4), (4, 1))
_YCBCR, _GREY = 1, 2  # its TJCS
_ORIENTATION = 0x0112  # tag of EXIF
_TURNED = range(5, 9)  # EXIF orientations with rows for columns
_UPSIDE_DOWN, _MIRRORED = (3, 4, 7, 8), (2, 3, 6, 7)  # after that


@cache
def decoder() -> Any:
    """Return the TurboJPEG of this process; None without PyTurboJPEG or libturbojpeg."""
    try:
        from turbojpeg import TurboJPEG
        return TurboJPEG()
    except (ImportError, AttributeError, OSError, RuntimeError):  # neither, or of other versions
        return None


class JpegPlanes:
    """The source of a :class:`~mmfreq.dct.lazy_image.LazyImage` that holds Y, Cb and Cr.

    ``np.asarray(planes)`` computes pixels: uint8 BGR (H, W, 3), chroma upsampled bilinearly.

    Args:
        content (bytes): A JPEG file of YCbCr or grey.
        turned (bool): Whether rows become columns. Defaults to False.
        reduce (bool): Whether to wait with decoding until :meth:`planes` says at which size.
            Defaults to False.

    Attributes:
        shape (tuple): Rows and columns of the image in pixels, and 3.

    Raises:
        OSError: Another format or colour space.
    """
    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, content: bytes, turned: bool = False, reduce: bool = False) -> None:
        width, height, subsampling, space = decoder().decode_header(content)
        if space not in (_YCBCR, _GREY) or subsampling not in range(len(_SUBSAMPLINGS)):
            raise OSError(f'expected YCbCr or grey, got colour space {space}, subsampling {subsampling}')
        self.shape = (width, height, 3) if turned else (height, width, 3)
        self._size = height, width  # before turning
        self._content, self._turned, self._grey = content, turned, space == _GREY
        self._step = _SUBSAMPLINGS[subsampling]
        self._decoded = [] if reduce else self._decode(8)

    def planes(self, eighths: int = 8) -> list[tuple[np.ndarray, tuple[float, float]]]:
        """Return luma, and chroma unless the file is grey.

        Args:
            eighths (int): n of the n/8 of its size at which an image decoded only now is decoded.
                Defaults to 8.

        Returns:
            list: Samples of Y, uint8 (1, h, w), and of Cb and Cr, uint8 (2, h, w), in C order, each
            with its rows and columns of samples for one of pixels. The last row or column of
            samples may lie beyond the image.
        """
        return self._decoded or self._decode(eighths)

    def _decode(self, eighths: int) -> list[tuple[np.ndarray, tuple[float, float]]]:
        buffer, _ = decoder().decode_to_yuv(self._content, Fraction(eighths, 8).as_integer_ratio(), 1)
        # libjpeg-turbo returns as many pixels as belong to whole samples of chroma
        rows, columns = (-(-side * eighths // (8 * step)) * step for side, step in zip(self._size, self._step))
        planes = [(buffer[:rows * columns].reshape(1, rows, columns), (eighths / 8, eighths / 8))]
        if not self._grey:
            shape = [2, rows // self._step[0], columns // self._step[1]]
            scales = eighths / 8 / self._step[0], eighths / 8 / self._step[1]
            planes.append((buffer[rows * columns:].reshape(shape), scales))
        if self._turned:
            return [(np.stack([*map(cv2.transpose, plane)]), scales[::-1]) for plane, scales in planes]
        return planes

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray:
        """Compute the pixels."""
        height, width = self.shape[:2]
        whole = [cv2.resize(plane, None, fx=1 / columns, fy=1 / rows)[:height, :width]
                 for planes, (rows, columns) in self.planes() for plane in planes]
        if self._grey:
            whole += 2 * [np.full((height, width), 128, np.uint8)]
        luma, blue, red = whole
        pixels = cv2.cvtColor(cv2.merge([luma, red, blue]), cv2.COLOR_YCrCb2BGR)
        return pixels.astype(dtype or np.uint8, copy=False)


def jpeg_image(content: bytes, orient: bool = True, reduce: bool = False) -> Optional[LazyImage]:
    """Return the image in a JPEG file, not resized.

    Args:
        content (bytes): A file.
        orient (bool): Whether to turn and flip it as its EXIF orientation says. Defaults to True.
        reduce (bool): As for :class:`JpegPlanes`. Defaults to False.

    Returns:
        LazyImage, optional: None if the file needs another decoder: another format, colours other
        than YCbCr and grey, a truncated file, or any file without libturbojpeg.
    """
    if decoder() is None or not _is_complete(content):
        return None
    orientation = _orientation(content) if orient else 1
    try:
        image = LazyImage.of(JpegPlanes(content, orientation in _TURNED, reduce))
    except (OSError, Warning):  # PyTurboJPEG warns of damage, and a warning may be an error
        return None
    steps = -1 if orientation in _UPSIDE_DOWN else 1, -1 if orientation in _MIRRORED else 1
    return image if orientation == 1 else image[::steps[0], ::steps[1]]


def _is_complete(content: bytes) -> bool:
    """Return whether an end of image follows the last start of a scan; a thumbnail has both, too."""
    end = content.rfind(b'\xff\xd9')
    return end > 0 and content.find(b'\xff\xda', end) < 0


def _orientation(content: bytes) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none or EXIF is damaged, as OpenCV does."""
    start = content.find(b'Exif\0\0', 0, content.find(b'\xff\xda')) + 6
    order = {b'II': '<', b'MM': '>'}.get(content[start:start + 2]) if start > 5 else None
    if order is None:
        return 1
    try:
        place = start + unpack_from(f'{order}I', content, start + 4)[0]
        for entry in range(*unpack_from(f'{order}H', content, place)):
            tag, value = unpack_from(f'{order}H6xH', content, place + 2 + 12 * entry)
            if tag == _ORIENTATION and 1 <= value <= 8:
                return value
    except error:  # beyond the file's end
        pass
    return 1
