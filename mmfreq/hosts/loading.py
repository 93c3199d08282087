"""Name the file in every error of the stock image loader."""
from functools import wraps

from mmcv.transforms import LoadImageFromFile


def name_unreadable_images() -> None:
    """Add the path to errors of ``LoadImageFromFile`` that lack it, such as those of empty files.

    The stock loader asserts that a file can be decoded; OpenCV's error for an empty file and
    Pillow's errors pass through it as they are. All of them become a ValueError.
    """
    stock = LoadImageFromFile.transform

    @wraps(stock)
    def transform(self: LoadImageFromFile, results: dict) -> dict:
        try:
            return stock(self, results)
        except Exception as error:
            if isinstance(error, OSError) and error.filename:
                raise
            empty = '!buf.empty()' in str(error)  # what OpenCV says
            reason = 'the file is empty' if empty else ' '.join(str(error).split())
            raise ValueError(
                f'{results["img_path"]}: cannot be decoded as an image: {reason}') from error

    LoadImageFromFile.transform = transform
