"""Where photos become DCT channels: in the pipeline, or behind it on the network's device. Framework-free."""
from typing import Any, Optional, Sequence, Union

import torch
from torch import nn

from mmfreq.dct import blocks as dct
from mmfreq.dct.block_map import BlockMap
from mmfreq.dct.channels import ChannelSpec, channel_indices
from mmfreq.dct.stats import block_stats

_PLACEMENTS = ('cpu', 'device')


class BlockDCTLayer(nn.Module):
    """Photos to normalised DCT channels on any device: :class:`~mmfreq.transforms.FusedBlockDCT` for batches.

    On a GPU, and in a graph that torch compiles, one matrix product in float32, also under autocast; on the CPU
    :class:`~mmfreq.dct.block_map.BlockMap`, as in the pipeline. The state dict stays empty.

    Args:
        channels (str | Sequence): As ``FusedBlockDCT``.
        stats (str | dict): As ``FusedBlockDCT``.
        block_size (int): As ``FusedBlockDCT``. Defaults to 8.
        upscale (int): As ``FusedBlockDCT``. Defaults to 1.
        channel_order (str): As ``FusedBlockDCT``. Defaults to ``'bgr'``.

    Raises:
        ValueError: As ``FusedBlockDCT``; in use, photos that are not uint8 with three channels.
    """

    def __init__(self, channels: ChannelSpec, stats: Union[str, dict], block_size: int = 8, upscale: int = 1,
                 channel_order: str = 'bgr') -> None:
        super().__init__()
        dct.check_positive_int('block_size', block_size)
        loaded = block_stats(stats, block_size)
        self.map = BlockMap(channel_indices(channels, block_size), loaded.mean, loaded.std, block_size, upscale,
                            channel_order)
        weight = torch.tensor(self.map.kernel, dtype=torch.float32).flatten(1)  # (C, 3 * window * window)
        self.register_buffer('weight', weight, persistent=False)
        self.register_buffer('bias', torch.tensor(self.map.bias, dtype=torch.float32), persistent=False)

    @classmethod
    def of(cls, freq: dict[str, Any]) -> 'BlockDCTLayer':
        """From a preprocessor's ``freq``, which may be a FusedBlockDCT's config."""
        return cls(**{k: v for k, v in freq.items() if k not in ('type', '_scope_', 'dtype', 'scale')})

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Converts photos.

        Args:
            photos (torch.Tensor): uint8 (N, 3, H, W). Edges are replicated up to a whole block.

        Returns:
            torch.Tensor: float32 (N, C, h, w), on the device of the photos.
        """
        if photos.dtype != torch.uint8 or photos.ndim != 4 or photos.shape[1] != 3 or 0 in photos.shape[2:]:
            raise ValueError("placement='device': expected photos, uint8 (N, 3, H, W), got "
                             f'{photos.dtype} {tuple(photos.shape)}; the pipeline must not have DCT transforms')
        grid = self.map.grid_shape(photos.shape[2:])
        if photos.device.type == 'cpu' and not torch.compiler.is_compiling():
            return torch.from_numpy(self.map.batch(photos.numpy()))
        with torch.autocast(photos.device.type, enabled=False):
            return self._product(self._padded(photos, grid), grid)

    def _product(self, photos: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
        window = self.map.stride + 2 * self.map.margin
        blocks = photos.unfold(2, window, self.map.stride).unfold(3, window, self.map.stride)  # (N, 3, h, w, ., .)
        blocks = blocks.permute(0, 2, 3, 1, 4, 5).reshape(-1, self.weight.shape[1]).float()
        channels = torch.addmm(self.bias, blocks, self.weight.t())  # (N * h * w, C)
        return channels.view(len(photos), *grid, -1).permute(0, 3, 1, 2).contiguous()

    def _padded(self, photos: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
        """The photos with their edges replicated up to whole blocks, and by the margin on every side."""
        stride, margin = self.map.stride, self.map.margin
        for axis, cells in zip((2, 3), grid):
            side = photos.shape[axis]
            if margin or cells * stride != side:
                index = torch.arange(-margin, cells * stride + margin, device=photos.device).clamp_(0, side - 1)
                photos = photos.index_select(axis, index)
        return photos


class PlacementMixin:
    """Mixin for a data preprocessor: photos become DCT channels in the pipeline, or here on the network's device.

    Args:
        placement (str): ``'cpu'``: the pipeline does it, with FusedBlockDCT or the four single transforms.
            ``'device'``: the pipeline packs uint8 photos, and they are converted here. Defaults to ``'cpu'``.
        freq (dict, optional): What to make of the photos with ``'device'``: arguments of :class:`BlockDCTLayer`, so
            that FusedBlockDCT's config can be given as it stands (``type`` and ``dtype`` mean nothing here).

    Raises:
        ValueError: Unknown ``placement``; ``freq`` is missing with ``'device'``, or given without it; with
            ``'device'``, ``mean``, ``std`` or a colour conversion is given too, which ``freq`` stands for.
    """

    def __init__(self, placement: str = 'cpu', freq: Optional[dict[str, Any]] = None, **kwargs: Any) -> None:
        if placement not in _PLACEMENTS:
            raise ValueError(f'placement: expected one of {", ".join(_PLACEMENTS)}, got {placement!r}')
        if (freq is not None) != (placement == 'device'):
            raise ValueError("freq: expected dict(channels=..., stats=...) with placement='device', and none without "
                             f'it; got {freq!r} with placement={placement!r}')
        for key in ('mean', 'std', 'to_rgb', 'bgr_to_rgb', 'rgb_to_bgr'):
            if placement == 'device' and kwargs.get(key):
                raise ValueError(f"{key}: expected none with placement='device', since freq says which colours come "
                                 f'and how channels are normalised; got {kwargs[key]!r}')
        super().__init__(**kwargs)
        self.placement = placement
        self.to_channels = None if freq is None else BlockDCTLayer.of(freq)

    def placed(self, data: dict) -> dict:
        """The batch with DCT channels as its ``inputs``: itself, or on the device converted from photos."""
        if self.to_channels is None:
            return data
        inputs = self.cast_data(data['inputs'])
        with torch.no_grad():
            if isinstance(inputs, torch.Tensor):
                channels = self.to_channels(inputs)
            else:
                channels = [self.to_channels(photo[None])[0] for photo in inputs]
        return {**data, 'inputs': channels}
