"""From photos to normalised DCT channels in one affine map of each block.

Colour conversion, level shift, enlargement, DCT, selection and normalisation are affine (:mod:`mmfreq.dct` has them one
by one). So each chosen channel is a weighted sum of the pixels that its block depends on, plus a constant, and
coefficients that are not chosen need never be computed. Nothing is rounded on the way, whereas
:func:`mmfreq.dct.to_ycbcr` rounds colours to whole levels, which moves a coefficient by 0.29 (standard deviation).
"""
from contextlib import contextmanager
from typing import Callable, Iterator, Sequence

import cv2
import numpy as np
import torch

from mmfreq import dct

INT8_LIMIT = 127
_STRIP_VALUES = 700_000  # a photo of 448x448 in one piece; larger ones stay in the cache



def enlargement_matrix(block_size: int, upscale: int) -> np.ndarray:
    """Weights that make a block of N enlarged pixels from the pixels that it depends on, as bilinear resizing does.

    Args:
        block_size (int): Side N of the block, in enlarged pixels.
        upscale (int): Enlargement, a divisor of N.

    Returns:
        np.ndarray: float64 (N, window): ``N / upscale`` pixels, and if ``upscale > 1`` one more on either side.

    Raises:
        ValueError: ``block_size`` is not a multiple of ``upscale``: blocks would begin inside a pixel.
    """
    n, factor = dct.check_positive_int('block_size', block_size), dct.check_positive_int('upscale', upscale)
    if n % factor:
        raise ValueError(f'block_size: expected a multiple of upscale={factor}, got {n} (YCbCr, BlockDCT, '
                         'ChannelSelect and FreqNormalize, one by one, take other sizes)')
    if factor == 1:
        return np.eye(n)
    matrix = np.zeros((n, n // factor + 2))
    for i in range(n):
        position = (i + 0.5) / factor + 0.5  # in pixels of the window, between the centres of two of them
        left = int(position)
        matrix[i, left:left + 2] = left + 1 - position, position - left
    return matrix


def packed_int8(values: torch.Tensor) -> torch.Tensor:
    """Values rounded, in place, to the nearest integer (halves to even), saturated to -127..127: int8."""
    return values.round_().clamp_(-INT8_LIMIT, INT8_LIMIT).to(torch.int8)


class BlockMap:
    """The affine map from the pixels of a photo to some of its normalised DCT channels.

    It runs as two matrix products, along the rows and then along the columns and colours of each block.

    Args:
        channels (Sequence[int]): The C channels, ``N*N*component + N*vertical + horizontal``.
        mean (np.ndarray): float64 (3*N*N,), subtracted from all coefficients.
        std (np.ndarray): float64 (3*N*N,), they are divided by it.
        block_size (int): Side N of a block in enlarged pixels, a multiple of ``upscale``. Defaults to 8.
        upscale (int): Bilinear enlargement before the DCT. Defaults to 1.
        channel_order (str): ``'bgr'`` or ``'rgb'``. Defaults to ``'bgr'``.

    Attributes:
        stride (int): Pixels of the photo from one block to the next.
        margin (int): Pixels on either side of these that a block depends on, too: 1 if enlarged, else 0.
        kernel (np.ndarray): float64 (C, 3, window, window): channel c of a block is the sum of ``kernel[c]`` times its
            ``window = stride + 2 * margin`` pixels (colour, row, column), plus ``bias[c]``.
        bias (np.ndarray): float64 (C,).

    Raises:
        ValueError: ``block_size`` is not a multiple of ``upscale``.
    """

    def __init__(self, channels: Sequence[int], mean: np.ndarray, std: np.ndarray, block_size: int = 8,
                 upscale: int = 1, channel_order: str = 'bgr') -> None:
        n = block_size
        basis = dct.dct_matrix(n) @ enlargement_matrix(n, upscale)  # (N, window)
        color = dct.color_matrix(channel_order)
        self.block_size, self.upscale = n, upscale
        self.stride, self.margin = n // upscale, int(upscale > 1)
        chosen = np.array(channels)
        component, vertical, horizontal = chosen // n**2, chosen // n % n, chosen % n
        mean, std = np.asarray(mean)[chosen], np.asarray(std)[chosen]
        # horizontal part: (C, window, 3), weights of the columns and colours of a block
        columns = basis[horizontal][:, :, None] * color[component, None, :3] / std[:, None, None]
        self.kernel = np.einsum('cy,cxk->ckyx', basis[vertical], columns)
        level = np.where(chosen % n**2 == 0, n * (color[component, 3] - dct.LEVEL_SHIFT), 0)
        self.bias = (level - mean) / std
        self._factorise(vertical, basis, columns)

    def _factorise(self, vertical: np.ndarray, basis: np.ndarray, columns: np.ndarray) -> None:
        """Sorts the channels by their vertical frequency: one row of the first product, one matrix of the second."""
        used, group = np.unique(vertical, return_inverse=True)
        place = np.array([np.sum(group[:i] == g) for i, g in enumerate(group)])  # of a channel within its group
        size = place.max() + 1
        weight = np.zeros((len(used), size, *columns.shape[1:]))
        bias = np.zeros((len(used), size, 1))
        weight[group, place], bias[group, place, 0] = columns, self.bias
        self._rows = torch.tensor(basis[used], dtype=torch.float32)  # (K, window)
        self._columns = torch.tensor(weight, dtype=torch.float32)  # (K, P, window, 3)
        self._bias = torch.tensor(bias, dtype=torch.float32)  # (K, P, 1)
        self._order = torch.tensor(group * size + place)  # (C,)

    def grid_shape(self, image_shape: Sequence[int]) -> tuple[int, int]:
        """Blocks (rows, columns) of a photo of ``image_shape`` pixels (H, W)."""
        return dct.grid_shape(image_shape, self.block_size, self.upscale)

    def photo(self, image: np.ndarray) -> torch.Tensor:
        """Channels of one photo.

        Args:
            image (np.ndarray): uint8 (H, W, 3). Edges are replicated up to a whole block.

        Returns:
            torch.Tensor: float32 (C, h, w) with ``h = ceil(H * upscale / N)``, ``w = ceil(W * upscale / N)``. Computed
            on one thread, so that a data loader's workers and the main process give the same bits.
        """
        grid = self.grid_shape(dct.check_image(image).shape)
        pixels = torch.from_numpy(self._padded(_forward(image), grid))
        lines = pixels.unfold(0, self._window, self.stride).permute(3, 0, 1, 2)  # (window, h, W', 3)
        columns = self._columns.flatten(2)  # (K, P, window * 3)

        def mix(rows: torch.Tensor, out: torch.Tensor) -> None:
            windows = rows.flatten(2).unfold(2, 3 * self._window, 3 * self.stride).flatten(1, 2)
            torch.baddbmm(self._bias, columns, windows.transpose(1, 2), out=out)

        with _one_thread():
            return self._run(lines, 1, mix, grid)

    def planar(self, pixels: torch.Tensor) -> torch.Tensor:
        """Channels of one photo whose edges are replicated already: (3, H', W') on the CPU to float32 (C, h, w)."""
        grid = tuple((side - 2 * self.margin) // self.stride for side in pixels.shape[1:])
        lines = pixels.unfold(1, self._window, self.stride).permute(3, 0, 1, 2)  # (window, 3, h, W')

        def mix(rows: torch.Tensor, out: torch.Tensor) -> None:
            windows = rows.unfold(3, self._window, self.stride).flatten(2, 3)  # (K, 3, h * w, window)
            out.copy_(self._bias.expand_as(out))
            for color in range(3):
                out.baddbmm_(self._columns[..., color], windows[:, color].transpose(1, 2))

        return self._run(lines, 2, mix, grid)

    @property
    def _window(self) -> int:
        return self.stride + 2 * self.margin

    def _run(self, lines: torch.Tensor, axis: int, mix: Callable[[torch.Tensor, torch.Tensor], None],
             grid: tuple[int, int]) -> torch.Tensor:
        """Both products, a strip of block rows at a time, so that what lies between stays in the processor's cache.

        Args:
            lines (torch.Tensor): Rows of pixels, of any dtype; axis 0 is their place in the block, ``axis`` the block.
            axis (int): Axis of the h block rows.
            mix (Callable): The second product: takes a strip (K, ...) and writes (K, P, strip * w).
            grid (tuple[int, int]): Blocks (h, w).
        """
        # Memory fresh from the allocator: what the decoder just freed is still in the cache, our own buffers are not.
        out = torch.empty(*self._bias.shape[:2], grid[0] * grid[1], dtype=torch.float32)
        done = 0
        for strip in lines.chunk(-(-lines.numel() // _STRIP_VALUES), axis):
            levels = torch.empty(strip.shape, dtype=torch.float32).copy_(strip)
            rows = (self._rows @ levels.flatten(1)).view(-1, *strip.shape[1:])
            width = strip.shape[axis] * grid[1]
            mix(rows, out.narrow(2, done, width))
            done += width
        return out.flatten(0, 1).index_select(0, self._order).view(-1, *grid)

    def _padded(self, image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        bottom, right = (cells * self.stride + self.margin - side for cells, side in zip(grid, image.shape))
        if not (bottom or right or self.margin):
            return image
        return cv2.copyMakeBorder(image, self.margin, bottom, self.margin, right, cv2.BORDER_REPLICATE)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keeps torch's operations of this thread to one core, as they are inside a data loader's worker anyway."""
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)


def _forward(image: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) in an array that torch takes: writable, no axis backwards. OpenCV flips fastest."""
    flipped = [axis for axis in (0, 1) if image.strides[axis] < 0]
    if flipped and image.strides[2] > 0:
        return cv2.flip(np.flip(image, flipped), {(0, ): 0, (1, ): 1, (0, 1): -1}[tuple(flipped)])
    return image if image.flags.writeable and image.strides[2] > 0 else image.copy()
