"""The DCT on the network's device: a module, and the preprocessors' choice of where it happens."""
from typing import Any, Optional, Sequence, Union

import torch
from torch import nn

from mmfreq.dct.block_map import BlockMap
from mmfreq.dct.channels import ChannelSpec, channel_indices
from mmfreq.dct.stats import block_stats


class BlockDCTLayer(nn.Module):
    """Convert batches of images to normalised DCT channels.

    Arguments and errors are those of :class:`~mmfreq.transforms.FusedBlockDCT`, without int8. It
    computes in float32, also under autocast and whatever torch's switches say about TF32 and
    bfloat16. The state dict stays empty.
    """

    def __init__(self, channels: ChannelSpec, stats: Union[str, dict], block_size: int = 8,
                 upscale: int = 1, channel_order: str = 'bgr') -> None:
        super().__init__()
        indices, loaded = channel_indices(channels, block_size), block_stats(stats, block_size)
        self.map = BlockMap(indices, loaded.mean, loaded.std, block_size, upscale, channel_order)
        rest, parts = torch.tensor(self.map.kernel, dtype=torch.float32).flatten(1).t(), []
        for _ in range(3):  # float32 as a sum of bfloat16: reduced precision multiplies it exactly
            parts.append(rest.bfloat16().float())
            rest = rest - parts[-1]
        bias = torch.tensor(self.map.bias, dtype=torch.float32)
        self.register_buffer('weights', torch.stack(parts), persistent=False)
        self.register_buffer('bias', bias, persistent=False)

    @classmethod
    def of(cls, freq: dict[str, Any]) -> 'BlockDCTLayer':
        """Build from a preprocessor's ``freq``, which may be a FusedBlockDCT's config."""
        unused = ('type', '_scope_', 'dtype', 'scale')
        return cls(**{key: value for key, value in freq.items() if key not in unused})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Convert images.

        Args:
            images (torch.Tensor): uint8 (N, 3, H, W). Edges are replicated up to a whole block.

        Returns:
            torch.Tensor: float32 (N, C, h, w), on the device of the images.

        Raises:
            ValueError: Another dtype or shape.
        """
        if (images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3
                or 0 in images.shape[2:]):
            raise ValueError("placement='device': expected images, uint8 (N, 3, H, W), got "
                             f'{images.dtype} {tuple(images.shape)}; the pipeline must not '
                             'have DCT transforms')
        grid = self.map.grid_shape(images.shape[2:])
        window, stride = self.map.stride + 2 * self.map.margin, self.map.stride
        blocks = self._padded(images, grid).unfold(2, window, stride).unfold(3, window, stride)
        # (N, 3, h, w, window, window) -> (N * h * w, 3 * window * window)
        blocks = blocks.permute(0, 2, 3, 1, 4, 5).reshape(-1, self.weights.shape[1]).float()
        channels = self.bias
        with torch.autocast(images.device.type, enabled=False):
            for weights in self.weights:
                channels = torch.addmm(channels, blocks, weights)
        return channels.view(len(images), *grid, -1).permute(0, 3, 1, 2).contiguous()

    def _padded(self, images: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
        """Replicate edges up to whole blocks, and by the margin on every side."""
        stride, margin = self.map.stride, self.map.margin
        for axis, cells in zip((2, 3), grid):
            side = images.shape[axis]
            if margin or cells * stride != side:
                index = torch.arange(-margin, cells * stride + margin, device=images.device)
                images = images.index_select(axis, index.clamp_(0, side - 1))
        return images


class PlacementMixin:
    """Mixin for a data preprocessor that can compute the DCT on the network's device.

    Args:
        placement (str): ``'cpu'``: the pipeline computes the DCT. ``'device'``: the pipeline packs
            uint8 images, and the preprocessor converts them. Defaults to ``'cpu'``.
        freq (dict, optional): Arguments of :class:`BlockDCTLayer` for ``'device'``, or a
            FusedBlockDCT's config (``type``, ``dtype`` and ``scale`` are ignored).

    Raises:
        ValueError: Unknown ``placement``; ``freq`` missing with ``'device'`` or given without it;
            ``mean``, ``std`` or a colour conversion with ``'device'``, which ``freq`` stands for.
    """

    def __init__(self, placement: str = 'cpu', freq: Optional[dict[str, Any]] = None,
                 **kwargs: Any) -> None:
        if placement not in ('cpu', 'device'):
            raise ValueError(f'placement: expected one of cpu, device, got {placement!r}')
        if (freq is not None) != (placement == 'device'):
            raise ValueError("freq: expected dict(channels=..., stats=...) with placement='device' "
                             f'and none without it; got {freq!r} with placement={placement!r}')
        for key in ('mean', 'std', 'to_rgb', 'bgr_to_rgb', 'rgb_to_bgr'):
            if placement == 'device' and kwargs.get(key):
                raise ValueError(f"{key}: expected none with placement='device', where freq says "
                                 f'the colour order and the normalisation; got {kwargs[key]!r}')
        super().__init__(**kwargs)
        self.placement = placement
        self.to_channels = None if freq is None else BlockDCTLayer.of(freq)

    def placed(self, data: dict) -> dict:
        """Return the batch with DCT channels as its ``inputs``, converted here if need be."""
        if self.to_channels is None:
            return data
        inputs = self.cast_data(data['inputs'])
        with torch.no_grad():
            if isinstance(inputs, torch.Tensor):
                channels = self.to_channels(inputs)
            else:
                channels = [self.to_channels(image[None])[0] for image in inputs]
        return {**data, 'inputs': channels}
