"""Any stock backbone on DCT channels: a fixed linear layer makes its pixels of them."""
from typing import Any, Iterable

import torch
from mmengine.registry import Registry
from torch import nn
from torch.nn import functional as F

from mmfreq.input_spec import InputSpec
from mmfreq.models.pixels import PixelsMixin
from mmfreq.models.pretrained import StateDict
from mmfreq.models.stem import FreqMixin, register_backbone


class UnpackMixin(PixelsMixin, FreqMixin):
    """Mixin for a whole stock backbone, its stem too, behind a layer from channels to pixels.

    The layer (:class:`~mmfreq.models.pixels.BlockPixels`) is a 1x1 convolution and a pixel shuffle.
    It follows the gate if there is one. The state dict is that of the stock backbone, so that stock
    checkpoints load as they are and need no training.

    Args:
        freq (dict): Config of the pipeline's FusedBlockDCT.
        pixels (dict): Config of the stock preprocessor.
        in_channels (int): Colours of the stock network's image, which must be 3. Defaults to 3.
        train_unpack (bool): Whether the layer is trained and saved, as ``unpack_weight`` and
            ``unpack_bias``. Defaults to False.
        *args: Arguments of :class:`~mmfreq.models.pixels.PixelsMixin`, ``gate`` of
            :class:`~mmfreq.models.stem.FreqMixin`, and those of the stock class.
        **kwargs: As well.

    Raises:
        ValueError: As :class:`~mmfreq.models.pixels.PixelsMixin`; ``in_channels`` is not 3.
    """
    prefix = 'Unpacked'

    def __init__(self, *args: Any, freq: dict[str, Any], pixels: dict[str, Any],
                 in_channels: int = 3, train_unpack: bool = False, **kwargs: Any) -> None:
        if in_channels != 3:
            raise ValueError(f'{type(self).__name__}: expected a stock network of in_channels=3, got {in_channels}')
        super().__init__(*args, freq=freq, pixels=pixels,
                         in_channels=len(InputSpec.of(freq).channels), **kwargs)
        weight = self.block_pixels.weight.flatten(0, 2)[..., None, None]
        for name, value in (('weight', weight), ('bias', self.block_pixels.bias.flatten())):
            if train_unpack:
                self.register_parameter(f'unpack_{name}', nn.Parameter(value.float()))
            else:
                self.register_buffer(f'unpack_{name}', value.float(), persistent=False)

    def stock_arguments(self, in_channels: int) -> dict[str, Any]:
        """Return no arguments: the stock class gets pixels."""
        return {}

    def channel_axes(self) -> dict[str, int]:
        """Return the axis of the layer's weight if it is trained; no other tensor has channels."""
        return {name: 1 for name, _ in self.named_parameters() if name == 'unpack_weight'}

    def enter(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pixels (N, 3, S * h, S * w) of the channels (N, C, h, w)."""
        pixels = F.conv2d(super().enter(x), self.unpack_weight, self.unpack_bias)
        pixels = self.with_padding(x, pixels, self.block_pixels.pad_value)
        return F.pixel_shuffle(pixels, self.input_stride)

    def _load_from_state_dict(self, state_dict: StateDict, prefix: str, *args: Any) -> None:
        self.take_channels(state_dict, prefix)
        for name, value in self.named_parameters():
            if name.startswith('unpack_'):
                state_dict.setdefault(prefix + name, value.detach().clone())
        super(FreqMixin, self)._load_from_state_dict(state_dict, prefix, *args)


def register_unpacked(registry: Registry, module: str, stock: Iterable[Any]) -> dict[str, type]:
    """Make and register the unpacked versions of the backbones in ``stock``, by their names."""
    classes = [item for item in stock if isinstance(item, type) and issubclass(item, nn.Module)]
    unpacked = [register_backbone(registry, module, UnpackMixin, item) for item in classes]
    return {item.__name__: item for item in unpacked}
