"""Name the file in every error of the stock image loader and of OpenCV, and where its size is another one."""
import logging
from functools import wraps
from typing import Callable, Optional

import cv2
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose
from mmengine.logging import print_log

_told: set[bool] = set()  # whether an image of another size was seen


def _compare_size(stated: tuple, loaded: Optional[dict]) -> None:
    """Warn, once a process, of an image that is not as large as its annotations say."""
    found = loaded['img'].shape[1::-1] if loaded else stated
    if None not in stated and tuple(stated) != tuple(found) and not _told:
        _told.add(True)
        print_log(f'{loaded["img_path"]}: has {found[0]}x{found[1]} pixels, but the annotation '
                  f'file says {stated[0]}x{stated[1]} (width x height), so that its boxes may not '
                  'fit; it may be turned by its EXIF orientation. Other images are not reported', 'current',
                  logging.WARNING)


def name_unreadable_images() -> None:
    """Add the path to errors of images that lack it, such as those of empty files.

    The stock loader asserts that a file can be decoded; OpenCV's error for an empty file and
    Pillow's errors pass through it as they are. All of them become a ValueError.
    """
    stock = LoadImageFromFile.transform

    @wraps(stock)
    def transform(self: LoadImageFromFile, results: dict) -> dict:
        stated = results.get('width'), results.get('height')
        try:
            loaded = stock(self, results)
        except Exception as error:
            if isinstance(error, OSError) and error.filename:
                raise
            empty = '!buf.empty()' in str(error)  # what OpenCV says
            reason = 'the file is empty' if empty else ' '.join(str(error).split())
            raise ValueError(
                f'{results["img_path"]}: cannot be decoded as an image: {reason}') from error
        _compare_size(stated, loaded)
        return loaded

    LoadImageFromFile.transform = transform
    Compose.__call__ = _named(Compose.__call__)


def _named(call: Callable) -> Callable:
    """Wrap a pipeline's ``__call__``: OpenCV's errors, such as of a resize to no rows, name the file."""
    @wraps(call)
    def named(self: Compose, data: dict) -> Optional[dict]:
        try:
            return call(self, data)
        except cv2.error as error:
            reason = ' '.join(str(error).split())
            raise ValueError(f'the pipeline cannot take the image: {reason} (img_path: '
                             f'{data.get("img_path")})') from error

    return named
