"""A resized image whose pixels are not computed until something asks for them."""
from typing import Any, Optional, Sequence

import cv2
import numpy as np
from PIL import Image

from mmfreq.dct.blocks import check_image

# The stock transforms whose resizing LazyResize leaves to FusedBlockDCT.
LAZY_RESIZES = ('RandomResizedCrop', 'EfficientNetRandomCrop', 'ResizeEdge', 'Resize')


class LazyImage:
    """A crop of an image, resized bilinearly, cropped again and flipped, without its pixels.

    Slicing the first two axes gives another lazy image, so that stock transforms that crop or flip
    by slicing work on it. :meth:`mmfreq.dct.block_map.BlockMap.channels` goes from the original
    pixels to DCT channels in one pass. ``np.asarray(image)`` computes the pixels as OpenCV or Pillow does.

    Args:
        pixels (np.ndarray): uint8 (H, W, 3).
        size (Sequence[int]): Rows and columns of the resized crop.
        crop (Sequence[int], optional): Top, left, height and width of what is resized, in pixels.
            Defaults to None: the whole image.
        antialias (bool): Whether a smaller image averages over all pixels, as Pillow does, instead
            of interpolating between the nearest, as OpenCV does. Defaults to False.

    Attributes:
        rows, columns (range): Rows and columns of the resized crop that this image consists of.

    Raises:
        ValueError: Another dtype or shape; an empty size or crop, or a crop that leaves the image.
    """
    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, pixels: np.ndarray, size: Sequence[int],
                 crop: Optional[Sequence[int]] = None, antialias: bool = False) -> None:
        height, width = check_image(pixels).shape[:2]
        self.pixels, self.antialias = pixels, antialias
        self.crop = tuple(map(int, (0, 0, height, width) if crop is None else crop))
        top, left, rows, columns = self.crop
        if not (0 <= top < top + rows <= height and 0 <= left < left + columns <= width):
            raise ValueError(f'crop: expected rows and columns of {height}x{width} pixels, got '
                             f'{self.crop}')
        self.size = int(size[0]), int(size[1])
        if min(self.size) < 1:
            raise ValueError(f'size: expected at least one row and column, got {self.size}')
        self.rows, self.columns = range(self.size[0]), range(self.size[1])

    @classmethod
    def of(cls, image: Any) -> 'LazyImage':
        """Return ``image`` if it is lazy; else a lazy one with the same pixels, not resized."""
        return image if isinstance(image, cls) else cls(image, image.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and colours."""
        return len(self.rows), len(self.columns), 3

    @property
    def axes(self) -> np.ndarray:
        """How either axis is made: int64 (2, 6), rows first.

        First source pixel, number of source pixels, pixels after resizing, and of these the first,
        the step to the next (negative if flipped) and the number of those that are kept.
        """
        top, left, height, width = self.crop
        return np.array([[top, height, self.size[0], *_numbers(self.rows)],
                         [left, width, self.size[1], *_numbers(self.columns)]])

    @property
    def supports(self) -> np.ndarray:
        """Source pixels around either axis's resized pixels that these depend on: float32 (2,)."""
        ratios = [self.crop[2] / self.size[0], self.crop[3] / self.size[1]]
        return np.maximum(ratios if self.antialias else 1, [1, 1]).astype(np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        """Return a lazy image for slices of rows and columns, pixels for any other key."""
        keys = key if isinstance(key, tuple) else (key, )
        whole = (Ellipsis, slice(None))
        if not (all(isinstance(k, slice) for k in keys[:2]) and all(k in whole for k in keys[2:])):
            return np.asarray(self)[key]
        part = LazyImage(self.pixels, self.size, self.crop, self.antialias)
        part.rows = self.rows[keys[0]]
        part.columns = self.columns[keys[1]] if len(keys) > 1 else self.columns
        return part

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a lazy image has no {name!r}: slices, FusedBlockDCT and np.asarray() "
                             'take it; what needs pixels needs the stock resize, not LazyResize')

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray:
        """Compute the pixels: uint8 (H, W, 3)."""
        top, left, height, width = self.crop
        source = np.ascontiguousarray(self.pixels[top:top + height, left:left + width])
        if self.antialias:
            image = Image.fromarray(source).resize(self.size[::-1], Image.Resampling.BILINEAR)
            resized = np.asarray(image)
        else:
            resized = cv2.resize(source, self.size[::-1], interpolation=cv2.INTER_LINEAR)
        return resized[np.ix_(self.rows, self.columns)].astype(dtype or np.uint8, copy=False)


def _numbers(kept: range) -> tuple[int, int, int]:
    return kept.start, kept.step, len(kept)
