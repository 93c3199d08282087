"""Transforms of ``results['img']`` from pixels to normalised DCT channels, usable in mmpretrain and mmdet pipelines.

They are registered in mmengine's root ``TRANSFORMS``, so that either host finds them without a prefix::

    LoadImageFromFile -> spatial augmentation -> FusedBlockDCT -> PackInputs
    LoadImageFromFile -> spatial augmentation -> YCbCr -> BlockDCT -> ChannelSelect -> FreqNormalize -> PackInputs

Only ``results['img']`` changes: ``img_shape``, boxes and masks stay in pixels. The maths is in :mod:`mmfreq.dct.blocks`, the
channel lists in :mod:`mmfreq.dct.channels`. The four of the second line are the definition; :class:`FusedBlockDCT` does the
same at once, an order of magnitude faster.
"""
from typing import Any, Optional, Sequence, Union

import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.registry import TRANSFORMS

from mmfreq.dct import blocks as dct
from mmfreq.dct.block_map import INT8_LIMIT, BlockMap
from mmfreq.dct.channels import ChannelSpec, channel_indices
from mmfreq.dct.stats import block_stats
from mmfreq.image_files import decode_image_file

_DTYPES = ('float32', 'int8')


def _check_dtype(dtype: str, scale: Optional[float]) -> str:
    """The argument ``dtype``, or ValueError unless it is known and ``scale`` is there for int8, and for it alone."""
    if dtype not in _DTYPES:
        raise ValueError(f'dtype: expected one of {", ".join(_DTYPES)}, got {dtype!r}')
    if dtype == 'float32' and scale is not None:
        raise ValueError(f"scale: expected none for dtype='float32', got {scale!r}")
    if dtype == 'int8' and (isinstance(scale, (bool, str)) or scale is None or not 0 < scale < float('inf')):
        raise ValueError("scale: expected a number > 0 for dtype='int8' (tools/dataset_stats.py proposes one), got "
                         f'{scale!r}')
    return dtype


class FreqTransform(BaseTransform):
    """Base of the transforms here: prints its public attributes."""

    def __repr__(self) -> str:
        args = ', '.join(f'{k}={v!r}' for k, v in vars(self).items() if not k.startswith('_'))
        return f'{type(self).__name__}({args})'


@TRANSFORMS.register_module()
class CheckedLoadImageFromFile(LoadImageFromFile):
    """The stock ``LoadImageFromFile`` with failures that name the file and the reason.

    Same arguments (but the deprecated ``file_client_args``), keys and result as ``mmcv.transforms.LoadImageFromFile``.
    A file that cannot be decoded (empty,
    not an image, 12-bit, broken header) raises ``ValueError``; a JPEG that ends too early gives what could be decoded
    and warns, once per file and process. (Since 4.11, OpenCV decodes such a file from disk but not from memory, which
    is how the stock loader reads; here it is decoded all the same.)

    Required Keys:

    - img_path (str)

    Modified Keys:

    - img (np.uint8, (H, W, 3) BGR)
    - img_shape, ori_shape (tuple[int, int], pixels)

    Raises:
        ValueError: ``file_client_args`` is given (use ``backend_args``), or the file cannot be decoded.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.file_client_args is not None:
            raise ValueError(f'file_client_args: expected backend_args instead, got {self.file_client_args!r}')

    def transform(self, results: dict) -> Optional[dict]:
        """Loads the image of ``results['img_path']``."""
        try:
            data = fileio.get(results['img_path'], backend_args=self.backend_args)
            image = decode_image_file(data, results['img_path'], self.color_type, self.imdecode_backend)
        except (OSError, ValueError):
            if self.ignore_empty:
                return None
            raise
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results


@TRANSFORMS.register_module()
class YCbCr(FreqTransform):
    """Colour conversion to full-range JFIF YCbCr, components in the order Y, Cb, Cr.

    Required Keys:

    - img (np.uint8, (H, W, 3))

    Modified Keys:

    - img (np.uint8, (H, W, 3), levels 0..255)

    Args:
        channel_order (str): Order of the input's channels, ``'bgr'`` (what the stock loader gives) or ``'rgb'``.
            Defaults to ``'bgr'``.

    Raises:
        ValueError: Unknown ``channel_order``; an image that is not uint8 with three channels.
    """

    def __init__(self, channel_order: str = 'bgr') -> None:
        dct.check_channel_order(channel_order)
        self.channel_order = channel_order

    def transform(self, results: dict) -> dict:
        """Converts ``results['img']``."""
        results['img'] = dct.to_ycbcr(results['img'], self.channel_order)
        return results


@TRANSFORMS.register_module()
class BlockDCT(FreqTransform):
    """Level shift and orthonormal block DCT-II: (H, W, 3) samples to (h, w, 3*N*N) coefficients (Xu et al., Fig. 2).

    The grid is ``ceil(H * upscale / N) x ceil(W * upscale / N)`` blocks; edges are replicated up to a whole block. A
    block covers ``N / upscale`` pixels, which is the stride of the network's first stage.

    Required Keys:

    - img (np.uint8, (H, W, 3), Y, Cb, Cr)

    Modified Keys:

    - img (np.float32, (h, w, 3*N*N), channel ``N*N*component + N*vertical + horizontal``; DC in [-1024, 1016] for N=8)

    Args:
        block_size (int): Side N of a block in pixels of the enlarged image. Defaults to 8.
        upscale (int): Bilinear enlargement before the DCT; detection uses 2. Defaults to 1.

    Raises:
        ValueError: ``block_size`` or ``upscale`` not an integer >= 1; an image that is not uint8 with three channels.
    """

    def __init__(self, block_size: int = 8, upscale: int = 1) -> None:
        self.block_size = dct.check_positive_int('block_size', block_size)
        self.upscale = dct.check_positive_int('upscale', upscale)

    def transform(self, results: dict) -> dict:
        """Transforms ``results['img']``."""
        image = dct.check_image(results['img'])
        if self.upscale > 1:
            image = dct.upscale_image(image, self.upscale)
        results['img'] = dct.block_dct(image, self.block_size)
        return results


@TRANSFORMS.register_module()
class ChannelSelect(FreqTransform):
    """Keeps some of the DCT channels.

    Required Keys:

    - img (np.float32, (h, w, 3*N*N))

    Modified Keys:

    - img (np.float32, (h, w, C))

    Added Keys:

    - freq_channels (list[int], the C channel numbers in 0..3*N*N-1)

    Args:
        channels (str | Sequence[int] | Sequence[Sequence[int]]): A name such as ``'24S'``, three lists of frequencies
            for Y, Cb and Cr, or one list of channels; see :func:`mmfreq.dct.channels.channel_indices`.
        block_size (int): Side N of the blocks. Defaults to 8.

    Raises:
        ValueError: Unknown name, index out of range or given twice; an image without all 3*N*N channels.
    """

    def __init__(self, channels: ChannelSpec, block_size: int = 8) -> None:
        self.channels = channels
        self.block_size = dct.check_positive_int('block_size', block_size)
        self._indices = channel_indices(channels, block_size)

    def transform(self, results: dict) -> dict:
        """Selects the channels of ``results['img']``."""
        expected = 3 * self.block_size**2
        image = results['img']
        if image.ndim != 3 or image.shape[2] != expected:
            raise ValueError(f'ChannelSelect: expected all {expected} channels of BlockDCT, got {image.shape}')
        results['img'] = np.ascontiguousarray(image[:, :, self._indices])
        results['freq_channels'] = list(self._indices)
        return results


@TRANSFORMS.register_module()
class FreqNormalize(FreqTransform):
    """Subtracts the mean and divides by the standard deviation of each DCT channel.

    Required Keys:

    - img (np.float32, (h, w, C))
    - freq_channels (list[int], optional; without it, all 3*N*N channels in order)

    Modified Keys:

    - img (np.float32 or np.int8, (h, w, C))

    Args:
        stats (str | dict): A named set shipped with the package (:func:`mmfreq.dct.stats.named_sets`), the path of a JSON
            file that ``tools/dataset_stats.py`` wrote, or ``dict(mean=[...], std=[...])`` with one value for each of
            the 3*N*N channels.
        block_size (int): Side N of the blocks. Defaults to 8.
        dtype (str): ``'float32'``, or ``'int8'``: the normalised values times ``scale``, rounded, those beyond
            -127..127 saturated. One byte a value then goes to the network's device, where the preprocessor undoes it
            with ``mean=[0], std=[scale]``. Defaults to ``'float32'``.
        scale (float, optional): Steps of int8 for one standard deviation; ``127 / scale`` deviations fit. Required for
            ``'int8'``.

    Raises:
        ValueError: Unknown set, statistics of the wrong length, not finite or with std <= 0; unknown ``dtype``, or a
            ``scale`` that does not fit it; an image whose channels are not those of ``freq_channels``.
    """

    def __init__(self, stats: Union[str, dict], block_size: int = 8, dtype: str = 'float32',
                 scale: Optional[float] = None) -> None:
        self.stats = stats
        self.block_size = dct.check_positive_int('block_size', block_size)
        self.dtype = _check_dtype(dtype, scale)
        self.scale = scale
        loaded = block_stats(stats, block_size)
        self._mean, self._std = loaded.mean.astype(np.float32), loaded.std.astype(np.float32)

    def transform(self, results: dict) -> dict:
        """Normalises ``results['img']``."""
        image = results['img']
        channels = results.get('freq_channels', range(len(self._mean)))
        if image.ndim != 3 or image.shape[2] != len(channels):
            raise ValueError(f'FreqNormalize: expected {len(channels)} channels, got an image of shape {image.shape}')
        if max(channels) >= len(self._mean):
            raise ValueError(f'FreqNormalize: expected channels of {self.block_size}x{self.block_size} blocks, '
                             f'0..{len(self._mean) - 1}, got channel {max(channels)}')
        image = (image - self._mean[channels]) / self._std[channels]
        if self.dtype == 'int8':
            image = np.clip(np.rint(image * np.float32(self.scale)), -INT8_LIMIT, INT8_LIMIT).astype(np.int8)
        results['img'] = image
        return results

    def inverse(self, image: np.ndarray, channels: Sequence[int]) -> np.ndarray:
        """The coefficients behind an ``image`` (h, w, C) of these C channels, as :meth:`transform` gives it."""
        if self.dtype == 'int8':
            image = image / np.float32(self.scale)
        return image * self._std[channels] + self._mean[channels]


@TRANSFORMS.register_module()
class FusedBlockDCT(FreqTransform):
    """:class:`YCbCr`, :class:`BlockDCT`, :class:`ChannelSelect` and :class:`FreqNormalize` in one step, for training.

    All that these four do is one affine map of each block (:class:`mmfreq.dct.block_map.BlockMap`), so coefficients that are
    not selected are never computed. The result is theirs to 1e-3 but for one thing: YCbCr rounds colours to whole
    levels, and this does not.

    Required Keys:

    - img (np.uint8, (H, W, 3))

    Modified Keys:

    - img (np.float32 or np.int8, (h, w, C), laid out as (C, h, w) in memory: the hosts' packers need not copy it)

    Added Keys:

    - freq_channels (list[int], the C channel numbers in 0..3*N*N-1)

    Args:
        channels (str | Sequence[int] | Sequence[Sequence[int]]): As :class:`ChannelSelect`.
        stats (str | dict): As :class:`FreqNormalize`.
        block_size (int): Side N of a block in pixels of the enlarged image, a multiple of ``upscale``. Defaults to 8.
        upscale (int): As :class:`BlockDCT`. Defaults to 1.
        channel_order (str): As :class:`YCbCr`. Defaults to ``'bgr'``.
        dtype (str): As :class:`FreqNormalize`. Defaults to ``'float32'``.
        scale (float, optional): As :class:`FreqNormalize`; required for ``dtype='int8'``.

    Raises:
        ValueError: As the four transforms; ``block_size`` is not a multiple of ``upscale``.
    """

    def __init__(self,
                 channels: ChannelSpec,
                 stats: Union[str, dict],
                 block_size: int = 8,
                 upscale: int = 1,
                 channel_order: str = 'bgr',
                 dtype: str = 'float32',
                 scale: Optional[float] = None) -> None:
        self.channels = channels
        self.stats = stats
        self.block_size = dct.check_positive_int('block_size', block_size)
        self.upscale = dct.check_positive_int('upscale', upscale)
        self.channel_order = channel_order
        self.dtype = _check_dtype(dtype, scale)
        self.scale = scale
        self._indices = channel_indices(channels, block_size)
        loaded = block_stats(stats, block_size)
        self._map = BlockMap(self._indices, loaded.mean, loaded.std / (scale or 1), block_size, upscale, channel_order)

    def transform(self, results: dict) -> dict:
        """Transforms ``results['img']``."""
        convert = self._map.photo_int8 if self.dtype == 'int8' else self._map.photo
        results['img'] = convert(results['img']).transpose(1, 2, 0)
        results['freq_channels'] = list(self._indices)
        return results
