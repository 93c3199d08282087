"""A resized image that computes its pixels only on request."""
from typing import Any, Optional, Sequence

import cv2
import numpy as np
from PIL import Image

from mmfreq.dct.blocks import check_image

# The stock transforms whose resizing LazyResize can leave to FusedBlockDCT.
LAZY_RESIZES = ('RandomResizedCrop', 'EfficientNetRandomCrop', 'ResizeEdge', 'Resize')


class LazyImage:
    """A crop of an image, resized bilinearly, cropped again and flipped, without its pixels.

    A slice of the first two axes is another lazy image, so that stock transforms that crop or flip
    by slicing work on it. :meth:`mmfreq.dct.block_map.BlockMap.channels` computes the DCT channels
    from the original pixels in one pass. ``np.asarray(image)`` computes the resized pixels as
    OpenCV or Pillow does.

    Args:
        pixels (np.ndarray | JpegPlanes): uint8 (H, W, 3), or :class:`mmfreq.dct.planes.JpegPlanes`.
        size (Sequence[int]): Rows and columns of the resized crop.
        crop (Sequence[int], optional): Top, left, height and width of the crop to resize, in
            pixels. Defaults to None: the whole image.
        antialias (bool): Whether a smaller image averages over all pixels, as Pillow does, instead
            of interpolating between the nearest, as OpenCV does. Defaults to False.

    Attributes:
        rows, columns (range): The rows and columns of the resized crop that make up this image.

    Raises:
        ValueError: Another dtype or shape; an empty size or crop, or a crop that leaves the image.
    """
    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, pixels: np.ndarray, size: Sequence[int],
                 crop: Optional[Sequence[int]] = None, antialias: bool = False) -> None:
        self.pixels, self.antialias = pixels, antialias
        self.crop = _checked_crop(crop, check_image(pixels).shape)
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

    def resized(self, size: Sequence[int], crop: Optional[Sequence[int]] = None,
                antialias: bool = False) -> 'LazyImage':
        """Return a lazy crop of this image, resized; arguments and errors are those of the class.

        If this image is only cropped and flipped, its own pixels are never computed.
        """
        steps = self.rows.step, self.columns.step
        if self.size != self.crop[2:] or {*steps} - {1, -1}:
            return LazyImage(np.asarray(self), size, crop, antialias)
        top, left, height, width = _checked_crop(crop, self.shape)
        rows, columns = self.rows[top:top + height], self.columns[left:left + width]
        crop = [start + min(kept[0], kept[-1]) for start, kept in zip(self.crop, (rows, columns))]
        image = LazyImage(self.pixels, size, (*crop, height, width), antialias)
        return image if steps == (1, 1) else image[::steps[0], ::steps[1]]

    @property
    def eighths(self) -> int:
        """Smallest n of 1, 2, 4 and 8 at which n/8 of the crop still covers the resized crop."""
        return next((n for n in (1, 2, 4) if all(
            n * side >= 8 * size for size, side in zip(self.size, self.crop[2:]))), 8)

    @property
    def axes(self) -> np.ndarray:
        """Source and target of both axes: int64 (2, 6), rows first.

        For each axis: the first source pixel, the number of source pixels and of resized pixels;
        then the first resized pixel that is kept, the step to the next one (negative if flipped)
        and the number of pixels that are kept.
        """
        return np.array([[*place, kept.start, kept.step, len(kept)] for *place, kept in zip(
            self.crop[:2], self.crop[2:], self.size, (self.rows, self.columns))])

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
        raise AttributeError(f'a lazy image has no {name!r}: only slices, FusedBlockDCT and '
                             'np.asarray() accept it; other steps need the stock loader and '
                             'resize, not LoadYCbCrFromFile and LazyResize')

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray:
        """Compute the pixels: uint8 (H, W, 3)."""
        top, left, height, width = self.crop
        source = np.ascontiguousarray(np.asarray(self.pixels)[top:top + height, left:left + width])
        if self.antialias:
            image = Image.fromarray(source).resize(self.size[::-1], Image.Resampling.BILINEAR)
            resized = np.asarray(image)
        else:
            resized = cv2.resize(source, self.size[::-1], interpolation=cv2.INTER_LINEAR)
        return resized[np.ix_(self.rows, self.columns)].astype(dtype or np.uint8, copy=False)


def _checked_crop(crop: Optional[Sequence[int]], shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Return a crop of an image of this shape as integers, by default all of it."""
    height, width = shape[:2]
    top, left, rows, columns = crop = tuple(map(int, (0, 0, height, width) if crop is None else crop))
    if not (0 <= top < top + rows <= height and 0 <= left < left + columns <= width):
        raise ValueError(f'crop: expected rows and columns of {height}x{width} pixels, got {crop}')
    return crop
