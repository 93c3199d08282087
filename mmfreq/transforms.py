"""Transforms from pixels to normalised DCT channels, for both hosts' pipelines.

mmengine's root ``TRANSFORMS`` holds them, so that either host finds them without a prefix::

    LoadImageFromFile -> spatial augmentation -> YCbCr -> BlockDCT -> ChannelSelect -> FreqNormalize
        -> PackInputs
    LoadImageFromFile -> spatial augmentation -> FusedBlockDCT -> PackInputs
    LoadImageFromFile -> LazyResize -> crop, flip -> FusedBlockDCT -> PackInputs
    LoadYCbCrFromFile -> LazyResize -> crop, flip -> FusedBlockDCT -> PackInputs

The four single transforms of the first pipeline are the definition. :class:`FusedBlockDCT` computes
the same in one step, an order of magnitude faster; after a :class:`LazyResize` it also resizes, and
is twice as fast again. :class:`LoadYCbCrFromFile` leaves out the colours between a JPEG file and the
channels. Only ``results['img']`` changes: ``img_shape``, boxes and masks stay in
pixels. :mod:`mmfreq.dct` defines the words and has the maths.
"""
import logging
from functools import cache
from typing import Any, Optional, Sequence, Union

import numpy as np
from mmcv.image import rescale_size
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmcv.transforms.utils import cache_randomness
from mmengine import fileio
from mmengine.logging import print_log
from mmengine.registry import TRANSFORMS

from mmfreq.dct.blocks import (
    block_dct,
    check_image,
    color_matrix,
    to_int8,
    to_ycbcr,
    upscale_image,
)
from mmfreq.dct.channels import ChannelSpec, channel_indices, check_positive_int
from mmfreq.dct.lazy_image import LAZY_RESIZES, LazyImage
from mmfreq.dct.planes import decoder, jpeg_image
from mmfreq.dct.stats import block_stats
from mmfreq.input_spec import InputSpec


def _check_dtype(dtype: str, scale: Optional[float]) -> None:
    """Raise ValueError unless int8 comes with a scale > 0, and float32 without one."""
    numbers = isinstance(scale, (int, float)) and 0 < scale < float('inf')
    if not (dtype == 'int8' and numbers or dtype == 'float32' and scale is None):
        raise ValueError("dtype: expected 'float32' without a scale, or 'int8' with a scale > 0 "
                         f'(such as 6), got {dtype!r}, scale={scale!r}')


class FreqTransform(BaseTransform):
    """Base class: errors name the transform and the file; repr() shows the public attributes."""

    def __call__(self, results: dict) -> dict:
        """Transform ``results['img']``."""
        try:
            return self.transform(results)
        except ValueError as error:
            origin = f' (img_path: {results["img_path"]})' if 'img_path' in results else ''
            raise ValueError(f'{type(self).__name__}: {error}{origin}') from error

    def __repr__(self) -> str:
        args = ', '.join(f'{k}={v!r}' for k, v in vars(self).items() if not k.startswith('_'))
        return f'{type(self).__name__}({args})'


@TRANSFORMS.register_module()
class RoundPixels(FreqTransform):
    """Round pixels to whole levels 0..255, which the DCT expects and some stock transforms leave.

    Required Keys:
        - img (any number type, (H, W, 3), levels as of uint8)

    Modified Keys:
        - img (np.uint8, (H, W, 3))
    """

    def transform(self, results: dict) -> dict:
        """Round and clip ``results['img']``; uint8 stays as it is."""
        if results['img'].dtype != np.uint8:
            results['img'] = np.clip(np.rint(results['img']), 0, 255).astype(np.uint8)
        return results


@TRANSFORMS.register_module()
class YCbCr(FreqTransform):
    """Convert colours to full-range JFIF YCbCr.

    Required Keys:
        - img (np.uint8, (H, W, 3))

    Modified Keys:
        - img (np.uint8, (H, W, 3), components Y, Cb, Cr, levels 0..255)

    Args:
        channel_order (str): Order of the input's colours, ``'bgr'`` (as the stock loader returns
            them) or ``'rgb'``. Defaults to ``'bgr'``.

    Raises:
        ValueError: Unknown ``channel_order``; another image than uint8 (H, W, 3).
    """

    def __init__(self, channel_order: str = 'bgr') -> None:
        color_matrix(channel_order)  # validates
        self.channel_order = channel_order

    def transform(self, results: dict) -> dict:
        """Convert ``results['img']``."""
        results['img'] = to_ycbcr(results['img'], self.channel_order)
        return results


@TRANSFORMS.register_module()
class BlockDCT(FreqTransform):
    """Compute the level-shifted, orthonormal DCT-II of every block (Xu et al. 2020, Fig. 2).

    Edges are replicated up to a whole block.

    Required Keys:
        - img (np.uint8, (H, W, 3), Y, Cb, Cr)

    Modified Keys:
        - img (np.float32, (h, w, 3*N*N), channels as in :mod:`mmfreq.dct.blocks`)

    Args:
        block_size (int): Side N of a block in upscaled pixels. Defaults to 8.
        upscale (int): Bilinear upscaling before the DCT; detection uses 2. Defaults to 1.

    Raises:
        ValueError: An argument is not an integer >= 1; another image than uint8 (H, W, 3).
    """

    def __init__(self, block_size: int = 8, upscale: int = 1) -> None:
        self.block_size = check_positive_int('block_size', block_size)
        self.upscale = check_positive_int('upscale', upscale)

    def transform(self, results: dict) -> dict:
        """Transform ``results['img']``."""
        image = check_image(results['img'])
        if self.upscale > 1:
            image = upscale_image(image, self.upscale)
        results['img'] = block_dct(image, self.block_size)
        return results


@TRANSFORMS.register_module()
class ChannelSelect(FreqTransform):
    """Keep some of the DCT channels.

    Required Keys:
        - img (np.float32, (h, w, 3*N*N))

    Modified Keys:
        - img (np.float32, (h, w, C))

    Added Keys:
        - freq_channels (list[int], the C channel numbers in 0..3*N*N-1)

    Args:
        channels (str | Sequence): The selection; see :func:`mmfreq.dct.channels.channel_indices`.
        block_size (int): Side N of the blocks. Defaults to 8.

    Raises:
        ValueError: An invalid selection; an image without all 3*N*N channels.
    """

    def __init__(self, channels: ChannelSpec, block_size: int = 8) -> None:
        self.channels, self.block_size = channels, block_size
        self._indices = channel_indices(channels, block_size)

    def transform(self, results: dict) -> dict:
        """Select the channels of ``results['img']``."""
        image, expected = results['img'], 3 * self.block_size**2
        if image.shape[2:] != (expected, ):
            raise ValueError(f'expected all {expected} channels of BlockDCT, got {image.shape}')
        results['img'] = np.ascontiguousarray(image[:, :, self._indices])
        results['freq_channels'] = list(self._indices)
        return results


@TRANSFORMS.register_module()
class FreqNormalize(FreqTransform):
    """Subtract the mean of each DCT channel and divide by its standard deviation.

    Required Keys:
        - img (np.float32, (h, w, C))
        - freq_channels (list[int], optional; without it, all 3*N*N channels in order)

    Modified Keys:
        - img (np.float32 or np.int8, (h, w, C))

    Args:
        stats (str | dict): A named set (:func:`mmfreq.dct.stats.named_sets`), the path of a JSON
            file from ``tools/dataset_stats.py``, or ``dict(mean=[...], std=[...])`` with one value
            for each of the 3*N*N channels.
        block_size (int): Side N of the blocks. Defaults to 8.
        dtype (str): ``'float32'`` (default), or ``'int8'``: multiplied by ``scale``, rounded and
            saturated to -127..127, so that each value takes one byte on its way to the network's
            device, where the preprocessor divides by the scale (``mean=[0], std=[scale]``).
        scale (float, optional): Steps of int8 for one standard deviation; required for ``'int8'``.

    Raises:
        ValueError: Invalid statistics, ``dtype`` or ``scale``; an image with another number of
            channels.
    """

    def __init__(self, stats: Union[str, dict], block_size: int = 8, dtype: str = 'float32',
                 scale: Optional[float] = None) -> None:
        _check_dtype(dtype, scale)
        self.stats, self.block_size = stats, block_size
        self.dtype, self.scale = dtype, scale
        loaded = block_stats(stats, block_size)
        self._mean, self._std = loaded.mean.astype(np.float32), loaded.std.astype(np.float32)

    def transform(self, results: dict) -> dict:
        """Normalise ``results['img']``."""
        image, channels = results['img'], results.get('freq_channels', range(len(self._mean)))
        image = (image - self._mean[channels]) / self._std[channels]
        results['img'] = to_int8(image * np.float32(self.scale)) if self.scale else image
        return results

    def inverse(self, image: np.ndarray, channels: Sequence[int]) -> np.ndarray:
        """Return the coefficients (h, w, C) of a normalised image of these channels."""
        image = image / np.float32(self.scale or 1)
        return image * self._std[channels] + self._mean[channels]


@TRANSFORMS.register_module()
class FusedBlockDCT(FreqTransform):
    """Do the work of YCbCr, BlockDCT, ChannelSelect and FreqNormalize in one step.

    The result is that of one affine map of each block (:mod:`mmfreq.dct.block_map`), equal to 1e-3
    except that YCbCr rounds colours to whole levels. Coefficients outside the selection are never
    computed.

    Required Keys:
        - img (np.uint8, (H, W, 3), or the lazy image of :class:`LazyResize`)

    Modified Keys:
        - img (np.float32 or np.int8, (h, w, C), in memory (C, h, w), as packers need it)

    Added Keys:
        - freq_channels (list[int], the C channel numbers in 0..3*N*N-1)

    Arguments and errors are those of the four transforms, but ``block_size`` has to be a multiple
    of ``upscale``.
    """

    def __init__(self, channels: ChannelSpec, stats: Union[str, dict], block_size: int = 8,
                 upscale: int = 1, channel_order: str = 'bgr', dtype: str = 'float32',
                 scale: Optional[float] = None) -> None:
        _check_dtype(dtype, scale)
        self.channels, self.stats, self.block_size = channels, stats, block_size
        self.upscale, self.channel_order = upscale, channel_order
        self.dtype, self.scale = dtype, scale
        spec = InputSpec.of(self)
        self._indices, self._map = list(spec.channels), spec.block_map()

    def transform(self, results: dict) -> dict:
        """Transform ``results['img']``."""
        results['img'] = self._map.channels(results['img'], self.dtype).transpose(1, 2, 0)
        results['freq_channels'] = list(self._indices)
        return results


@TRANSFORMS.register_module()
class ChannelDrop(FreqTransform):
    """Keep one of several selections, drawn for each image, and set the other channels to their mean.

    A network that is trained with it accepts any of these selections at test time
    (``tools/test.py --channels``). It comes after the normalisation, where the mean is 0.

    Required Keys:
        - img (np.float32 or np.int8, (h, w, C))
        - freq_channels (list[int], optional; without it, all 3*N*N channels in order)

    Modified Keys:
        - img (in place)

    Args:
        keep (Sequence[str | Sequence]): The selections; see
            :func:`mmfreq.dct.channels.channel_indices`. Each is drawn equally often.
        block_size (int): Side N of the blocks. Defaults to 8.

    Raises:
        ValueError: An invalid selection, or one with channels that the image lacks.
    """

    def __init__(self, keep: Sequence[ChannelSpec], block_size: int = 8) -> None:
        self.keep, self.block_size = keep, block_size
        self._selections = [channel_indices(channels, block_size) for channels in keep]

    @cache_randomness
    def _draw(self) -> int:
        return np.random.randint(len(self.keep))

    def transform(self, results: dict) -> dict:
        """Set the channels of ``results['img']`` outside the drawn selection to 0."""
        channels = results.get('freq_channels', range(3 * self.block_size**2))
        number = self._draw()
        kept = np.isin(channels, self._selections[number])
        if kept.sum() < len(self._selections[number]):
            raise ValueError(f'expected an image with all channels of {self.keep[number]}, got {list(channels)}')
        results['img'][..., ~kept] = 0
        return results


@TRANSFORMS.register_module()
class LazyResize(FreqTransform):
    """Run a stock transform, but leave its bilinear resizing to :class:`FusedBlockDCT`.

    Everything else is the stock transform's: its arguments, its random numbers, boxes, masks and
    the other keys. Only transforms that slice the image (CenterCrop, RandomFlip, ...) and
    FusedBlockDCT accept a lazy image. Its levels are not rounded, unlike those of a resized image.

    Bilinear resizing of either backend can wait, also with Pillow's averaging over larger images.
    Other interpolations, and images that are not uint8 with three colours, are resized at once.

    Required Keys:
        - img (np.uint8, (H, W, 3)), and the keys that the stock transform requires

    Modified Keys:
        - img (:class:`~mmfreq.dct.lazy_image.LazyImage`), and the keys that the stock one modifies

    Args:
        resize (str): The stock transform, one of :data:`mmfreq.dct.lazy_image.LAZY_RESIZES`.
        **kwargs: Its arguments.

    Raises:
        ValueError: Another transform.
    """

    def __init__(self, resize: str, **kwargs: Any) -> None:
        self._stock = TRANSFORMS.build(dict(type=resize, **kwargs))
        kind = type(self._stock).__name__
        if kind not in LAZY_RESIZES:
            raise ValueError(f'LazyResize: expected resize to be one of {", ".join(LAZY_RESIZES)}, '
                             f'got {resize!r}')
        self._crops = hasattr(self._stock, 'rand_crop_params')
        self._bilinear = (self._stock.interpolation == 'bilinear'
                          and self._stock.backend in ('cv2', 'pillow'))
        self._antialias = self._stock.backend == 'pillow'
        if not self._crops:
            self._stock._resize_img = self._resize

    def transform(self, results: dict) -> dict:
        """Run the stock transform, with a lazy image for the resized one."""
        waits = self._can_wait(results['img'])
        if not waits:
            results['img'] = np.asarray(results['img'])  # computes the pixels of a lazy image
        return self._crop(results) if waits and self._crops else self._stock(results)

    def _crop(self, results: dict) -> dict:
        """Do the work of RandomResizedCrop and EfficientNetRandomCrop without computing pixels."""
        top, left, height, width = self._stock.rand_crop_params(results['img'])
        # EfficientNetRandomCrop's crop may end within a pixel, which mmcv cuts off
        crop = top, left, int(top + height - 1) - top + 1, int(left + width - 1) - left + 1
        image = LazyImage.of(results['img'])
        results['img'] = image.resized(self._stock.scale, crop, self._antialias)
        results['img_shape'] = results['img'].shape
        return results

    def _can_wait(self, image: np.ndarray) -> bool:
        return self._bilinear and image.dtype == np.uint8 and image.shape[2:] == (3, )

    def _resize(self, results: dict) -> None:
        """Do the work of ``_resize_img`` of Resize and ResizeEdge, without computing pixels."""
        stock, image = self._stock, results['img']
        if not self._can_wait(image):
            type(stock)._resize_img(stock, results)
            return
        height, width = image.shape[:2]
        size = results['scale']
        if hasattr(stock, 'keep_ratio'):
            size = rescale_size((width, height), size) if stock.keep_ratio else size
            results['keep_ratio'] = stock.keep_ratio
        results['img'] = LazyImage.of(image).resized(size[::-1], antialias=self._antialias)
        results['img_shape'] = results['img'].shape[:2]
        results['scale_factor'] = size[0] / width, size[1] / height

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self._stock!r})'


@cache
def _warn_without_decoder() -> None:
    """Say once how to get the decoder, if it is missing."""
    if decoder() is None:
        print_log("LoadYCbCrFromFile: the stock decoder is used, since PyTurboJPEG or libturbojpeg is missing: pip "
                  "install 'PyTurboJPEG<2' and apt-get install libturbojpeg0, or brew install jpeg-turbo", 'current',
                  logging.WARNING)


@TRANSFORMS.register_module()
class LoadYCbCrFromFile(FreqTransform, LoadImageFromFile):
    """Load a JPEG file as the planes of Y, Cb and Cr that it holds, for :class:`FusedBlockDCT`.

    Chroma remains at its own resolution and colours are never mixed, which takes less time than
    decoding to pixels. Transforms that slice the image (CenterCrop, RandomFlip, ...) and
    :class:`LazyResize` work as after the stock loader. For pixels, use ``np.asarray``.

    The stock loader takes any other file: other formats, CMYK, truncated files, and all files if
    PyTurboJPEG or libturbojpeg is missing.

    Required Keys:
        - img_path

    Modified Keys:
        - img (:class:`~mmfreq.dct.lazy_image.LazyImage` (H, W, 3), or np.uint8 of the stock loader)
        - img_shape (tuple, pixels (H, W))
        - ori_shape (tuple, pixels (H, W))

    Args:
        reduce (bool): Whether to decode a JPEG file at an eighth, a quarter or half of its size
            where the crop of a :class:`LazyResize` is then no smaller than the resized crop. This
            averages pixels, which OpenCV's bilinear interpolation does not. Defaults to False.
        color_type (str): As for the stock loader; ``'color'`` turns the image as its EXIF
            orientation says, ``'color_ignore_orientation'`` does not. Defaults to ``'color'``.
        **kwargs: Other arguments of the stock loader: ``imdecode_backend``, ``ignore_empty``,
            ``backend_args``.
    """

    def __init__(self, reduce: bool = False, color_type: str = 'color', **kwargs: Any) -> None:
        super().__init__(color_type=color_type, **kwargs)
        self.reduce = reduce
        _warn_without_decoder()

    def transform(self, results: dict) -> Optional[dict]:
        """Load ``results['img_path']``."""
        image = None
        if self.color_type.startswith('color') and not (self.to_float32 or self.file_client_args):
            image = self._planes(results['img_path'])
        if image is None:
            return LoadImageFromFile.transform(self, results)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _planes(self, path: str) -> Optional[LazyImage]:
        try:
            content = fileio.get(path, backend_args=self.backend_args)
        except Exception:  # the stock loader raises it again, or ignores it
            return None
        orient = self.color_type == 'color' and self.imdecode_backend != 'turbojpeg'  # as the stock loader
        return jpeg_image(content, orient, self.reduce)
