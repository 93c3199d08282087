"""Mean and squared deviations of all DCT channels of an image, without the channels."""
import threading
from functools import cache

import cv2
import numpy as np

from mmfreq.dct import blocks as dct
from mmfreq.dct.block_map import BlockMap, forward
from mmfreq.dct.lazy_image import LazyImage
from mmfreq.dct.stats import RunningStats


@cache
def _all_channels(block_size: int, upscale: int, channel_order: str) -> BlockMap:
    """Return the map to all channels, not normalised."""
    count = 3 * dct.check_positive_int('block_size', block_size)**2
    return BlockMap(range(count), np.zeros(count), np.ones(count), block_size, upscale, channel_order)


_kept = threading.local()


def _scratch(size: int) -> np.ndarray:
    """Return float32 (size,), which the thread's next call gets again: fresh memory costs more."""
    if size > len(getattr(_kept, 'values', ())):
        _kept.values = np.empty(size, np.float32)
    return _kept.values[:size]


class ImageBlocks:
    """The blocks of an image, for the statistics of all their DCT channels.

    Args:
        image (np.ndarray | LazyImage): uint8 (H, W, 3). Edges are replicated up to a whole block.
        block_size (int): Side N of a block in upscaled pixels, a multiple of ``upscale``. Defaults
            to 8.
        upscale (int): Bilinear upscaling before the DCT. Defaults to 1.
        channel_order (str): ``'bgr'`` or ``'rgb'``. Defaults to ``'bgr'``.

    Attributes:
        shape (tuple[int, int, int]): Blocks (rows, columns), and the 3*N*N channels.

    Raises:
        ValueError: Another dtype or shape; ``block_size`` is not a multiple of ``upscale``.
    """

    def __init__(self, image: np.ndarray, block_size: int = 8, upscale: int = 1,
                 channel_order: str = 'bgr') -> None:
        self._image = LazyImage.of(dct.check_image(image))
        self._map = _all_channels(block_size, upscale, channel_order)
        self.shape = *self._map.grid_shape(image.shape), len(self._map.bias)

    def statistics(self, picked: np.ndarray) -> tuple[RunningStats, np.ndarray]:
        """Return the statistics of all channels, and the channels of some blocks.

        Args:
            picked (np.ndarray): int64 (n,), numbers of blocks, row by row.

        Returns:
            tuple[RunningStats, np.ndarray]: The statistics, and float32 (n, 3*N*N).
        """
        from mmfreq.dct.moments_kernel import column_sums, row_moments
        top, left, height, width = self._image.crop
        pixels = forward(self._image.pixels)[top:top + height, left:left + width]
        axes, supports = self._image.axes, self._image.supports
        axes[:, 0] = 0  # the crop's pixels alone
        rows, columns, channels = self.shape
        basis, where = self._map.rows, (self._map.stride, self._map.margin)
        k = len(basis)
        size = 3 * height * columns * k
        scratch = _scratch(2 * size + 3 * height * width)
        sums = scratch[:size].reshape(columns, k, -1)
        lines = scratch[size:2 * size].reshape(-1, columns * k)
        totals = np.zeros((k, 3 * height))
        column_sums(cv2.transpose(pixels).reshape(width, -1), axes[1], supports[1],
                    self._map.color, basis, *where, scratch[2 * size:].reshape(width, -1), sums, totals)
        cv2.transpose(sums.reshape(columns * k, -1), lines)
        moments, blocks = np.zeros((2, 3, k, k)), np.empty((len(picked), 3, k, k), np.float32)
        row_moments(lines, totals, axes[0], supports[0], basis, *where, rows, picked, moments,
                    blocks)
        n = self._map.block_size
        level = self._map.bias[::n**2]
        moments[0, :, 0, 0] += level
        blocks[:, :, 0, 0] += level
        mean, squares = moments[:, :, :n, :n].reshape(2, channels)
        return (RunningStats(rows * columns, mean, squares),
                blocks[:, :, :n, :n].reshape(len(picked), channels))
