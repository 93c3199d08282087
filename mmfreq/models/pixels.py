"""The pixels that the DCT channels of a block stand for, as a stock network takes them.

Every step from pixels to channels is affine (:mod:`mmfreq.dct.block_map`), and so is the way back.
That is how a network that was trained on RGB pixels takes channels without training: the way back
is folded into its patch embedding, or it unpacks the channels in front of the network.
"""
from typing import Any, Optional

import numpy as np
import torch

from mmfreq.config.pipelines import COLOR_CONVERSIONS, transform_type
from mmfreq.dct.block_map import upscale_matrix
from mmfreq.dct.blocks import LEVEL_SHIFT, check_positive_int, color_matrix, dct_matrix
from mmfreq.dct.stats import block_stats
from mmfreq.input_spec import InputSpec

# Prior of an image that the DCT upscales: the correlation of neighbouring pixels, and the variance
# of noise in a coefficient in units of the pixels' variance.
CORRELATION, NOISE = 0.97, 1e-6


class BlockPixels:
    """Affine map from the C channels of a block to the S x S pixels of the stock image under it.

    Channels that are not selected count as their mean. Blocks of S x S pixels are inverted exactly.
    Larger blocks of a larger image are inverted and averaged down to S x S pixels. If the DCT itself
    upscales the image (``upscale``), the map is the linear estimate of least mean squared error,
    with the stationary prior of ``CORRELATION`` and ``NOISE``: it also undoes the blur of upscaling.

    Args:
        freq (dict): Config of the pipeline's FusedBlockDCT.
        pixels (dict): Config of the stock preprocessor. ``mean``, ``std``, ``to_rgb`` (mmpretrain)
            or ``bgr_to_rgb`` and ``rgb_to_bgr`` (mmdet) count, and ``pad_value`` (mmseg's ``pad_val``) if
            it pads: with the type of a detector's or of mmseg's, or with a ``pad_size_divisor``.
        stride (int): Side S in pixels of the stock network's image.

    Attributes:
        freq (InputSpec): The channels.
        pixels (InputSpec): The stock network's input.
        stride (int): S.
        weight (torch.Tensor): float64 (3, S, S, C). Normalised pixels, in the stock network's order
            of colours, are this times the normalised channels, plus ``bias``.
        bias (torch.Tensor): float64 (3, S, S).
        pad_value (float | None): Pixels of the stock network's padding, None if there is none.

    Raises:
        ValueError: Unknown channels or statistics; ``block_size`` is not a multiple of S, nor with
            ``upscale`` the product of both.
    """

    def __init__(self, freq: dict[str, Any], pixels: dict[str, Any], stride: int) -> None:
        self.freq, self.stride = InputSpec.of(freq), stride
        size, order = self.freq.block_size, freq.get('channel_order', 'bgr')
        if self.freq.stride != stride if self.freq.upscale > 1 else size % stride:
            raise ValueError(f'input_stride: expected a block of {size}x{size} pixels, upscaled '
                             f'{self.freq.upscale} times, to cover {stride}x{stride} pixels')
        stats = block_stats(freq['stats'], size)
        gain, level = _ycbcr_of_channels(self.freq, stride, stats.mean, stats.std)
        matrix = color_matrix(order)
        level += LEVEL_SHIFT - matrix[:, 3:]
        inverse = np.linalg.inv(matrix[:, :3])
        if any(pixels.get(key) for key in COLOR_CONVERSIONS):
            inverse, order = inverse[::-1], order[::-1]
        mean, std = (np.reshape(pixels.get(key) or default, (-1, 1)).astype(float)
                     for key, default in (('mean', 0), ('std', 1)))
        gain = np.einsum('oc,cpk->opk', inverse, gain) / std[..., None]
        level = (inverse @ level - mean) / std
        self.weight = torch.from_numpy(gain).view(3, stride, stride, -1)
        self.bias = torch.from_numpy(level).view(3, stride, stride)
        self.pixels = InputSpec(mean=tuple(pixels.get('mean') or ()),
                                std=tuple(pixels.get('std') or ()), colors=order)
        pads = any(name in transform_type(pixels) for name in ('Det', 'Seg')) or pixels.get('pad_size_divisor', 1) > 1
        self.pad_value = float(pixels.get('pad_value', pixels.get('pad_val', 0))) if pads else None

    def padding(self) -> torch.Tensor:
        """Return the channels (C, 1, 1) that come nearest to a block of the stock padding."""
        missing = (self.pad_value - self.bias).flatten()[:, None]
        padding = torch.linalg.lstsq(self.weight.flatten(0, 2), missing).solution
        return padding[..., None].float()

    def fold(self, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compose a convolution of patches that do not overlap with this map.

        Args:
            weight (torch.Tensor): (O, 3, k * S, k * S) of the stock convolution.
            bias (torch.Tensor): (O,).

        Returns:
            tuple[torch.Tensor, torch.Tensor]: The weight (O, C, k, k) and the bias (O,) of a
            convolution of channels, in the dtype of ``weight``.
        """
        rows, columns = (side // self.stride for side in weight.shape[2:])
        blocks = weight.double().reshape(len(weight), 3, rows, self.stride, columns, self.stride)
        folded = torch.einsum('opaubv,puvc->ocab', blocks, self.weight.to(blocks))
        constant = torch.einsum('opaubv,puv->o', blocks, self.bias.to(blocks))
        return folded.to(weight), (bias.double() + constant).to(weight)


class PixelsMixin:
    """Mixin for a frequency-domain backbone that may keep the function of stock RGB weights.

    Blocks of padding, whose channels are all 0, then become the padding of the stock network. Where
    an image ends inside a block, the rest of the block repeats the edge.

    Args:
        freq (dict, optional): Config of the pipeline's FusedBlockDCT, to keep the stock weights.
            Defaults to None: they are trained anew where they take the channels.
        pixels (dict, optional): Config of the stock preprocessor, needed with ``freq``.
        input_stride (int): Pixels of the stock network's image that one block covers: 4 for blocks
            of 4x4 pixels, or of 8x8 pixels if the image is upscaled twofold. Defaults to 4.
        *args: Arguments of :class:`~mmfreq.models.stem.FreqMixin` and of the stock class.
        **kwargs: As well.

    Raises:
        ValueError: As :class:`BlockPixels`; ``input_stride`` is not an integer >= 1; ``freq`` or
            ``pixels`` lacks the other.
    """
    block_pixels: Optional[BlockPixels] = None

    def __init__(self, *args: Any, freq: Optional[dict[str, Any]] = None,
                 pixels: Optional[dict[str, Any]] = None, input_stride: int = 4,
                 **kwargs: Any) -> None:
        name = type(self).__name__
        self.input_stride = check_positive_int(f'{name}: input_stride', input_stride)
        if (freq is None) != (pixels is None):
            raise ValueError(f'{name}: expected both of freq and pixels or none, got freq={freq!r}, '
                             f'pixels={pixels!r}')
        if freq is not None:
            self.block_pixels = BlockPixels(freq, pixels, input_stride)
            self.keeps_stock_weights = True
        super().__init__(*args, **kwargs)

    def with_padding(self, channels: torch.Tensor, values: torch.Tensor,
                     padding: Any) -> torch.Tensor:
        """Return the ``values`` of blocks, and ``padding`` where all ``channels`` are 0."""
        if self.block_pixels is None or self.block_pixels.pad_value is None:
            return values
        return torch.where(channels.abs().amax(1, keepdim=True) > 0, values, padding)


def _ycbcr_of_channels(freq: InputSpec, stride: int, mean: np.ndarray,
                       std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the affine map from normalised channels to the YCbCr pixels of a block.

    Returns:
        tuple[np.ndarray, np.ndarray]: float64 (3, S*S, C) and (3, S*S), level-shifted.
    """
    size = freq.block_size
    forward, prior, inner = _upscaled(size, freq.upscale) if freq.upscale > 1 else (
        dct_matrix(size), np.eye(size), _averages(size, stride))
    forward, prior, inner = (np.kron(matrix, matrix) for matrix in (forward, prior, inner))
    channels = np.array(freq.channels)
    gain, level = np.zeros((3, stride**2, len(channels))), np.zeros((3, stride**2))
    for component, means in enumerate(mean.reshape(3, -1)):
        own = np.flatnonzero(channels // size**2 == component)
        rows, numbers = forward[channels[own] % size**2], channels[own]
        noise = NOISE * (freq.upscale > 1) * np.eye(len(own))
        estimate = np.linalg.solve(rows @ prior @ rows.T + noise, rows @ prior @ inner.T).T
        average = np.linalg.pinv(forward) @ means
        gain[component][:, own] = estimate * std[numbers]
        level[component] = inner @ average + estimate @ (mean[numbers] - rows @ average)
    return gain, level


def _averages(size: int, stride: int) -> np.ndarray:
    """Return the weights (S, N) that average a side of N pixels down to S."""
    return np.kron(np.eye(stride), np.full((1, size // stride), stride / size))


def _upscaled(size: int, upscale: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the DCT (N, window) of an upscaled side, the prior and the selection of inner pixels."""
    forward = dct_matrix(size) @ upscale_matrix(size, upscale)
    pixels = np.arange(forward.shape[1])
    prior = CORRELATION**np.abs(np.subtract.outer(pixels, pixels))
    return forward, prior, np.eye(len(pixels))[1:-1]
