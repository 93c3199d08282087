"""Backbone modifier: takes the stem off a stock MobileNetV2 and feeds C DCT channels to its first block.

Framework-free: the same mixin serves mmpretrain and mmdet (Xu et al. 2020, Table 2).
"""
from typing import Any

import torch
from torch import nn

from mmfreq.models.stem import FreqMixin

_STEM, _BLOCK = 'conv1.', 'layer1.0.'


class StemlessMobileNetV2Mixin(FreqMixin):
    """Mixin for a stock MobileNetV2 class whose first inverted-residual block takes the DCT channels directly.

    The stem, a 3x3 convolution of stride 2, is gone, so that a cell of the input covers 2 pixels of what the RGB
    network sees: 112x112 cells stand for its 224x224 pixels. No key of the state dict is new. Only the first block
    changes shape: its depthwise convolution and norm have C channels, its projection C input channels.

    Stock RGB checkpoints load, through whichever way weights come in (``init_cfg``, ``load_from``,
    ``load_state_dict``). In the first block, the first C of the stock network's 32 channels are taken; for C > 32 the
    further channels keep this model's initialisation. One log line says what was done. A checkpoint without stem
    weights is loaded as it stands, and refused if its first block takes another number of channels.

    Arguments and errors are those of :class:`~mmfreq.models.stem.FreqMixin`.
    """
    input_stride = 2
    stem_name = 'stem'
    frozen_advice = 'the first stage from being trained: set it to 0 or -1'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conv1 = nn.Identity()

    def stock_arguments(self, in_channels: int) -> dict[str, Any]:
        """None: the stock class knows RGB alone."""
        return {}

    def make_layer(self, *args: Any, **kwargs: Any) -> nn.Sequential:
        """The stock layer; the first one takes the DCT channels."""
        if not self.layers:
            self.in_channels = self.dct_channels
        return super().make_layer(*args, **kwargs)

    @property
    def first_weight(self) -> str:
        """The depthwise convolution of the first block."""
        return next(name for name, weight in self.named_parameters() if name.startswith(_BLOCK) and weight.ndim == 4)

    @property
    def first_is_frozen(self) -> bool:
        """Whether ``frozen_stages`` freezes the first block: the stock class does so when training starts."""
        return self.frozen_stages >= 1

    def fit_stock_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str) -> str:
        """Drops the stem, and fits the first block's channels; see :func:`adapt_stock_state_dict`."""
        return adapt_stock_state_dict(state_dict, prefix, self.state_dict(), self.dct_channels)


def adapt_stock_state_dict(state_dict: dict[str, torch.Tensor], prefix: str, own: dict[str, torch.Tensor],
                           channels: int) -> str:
    """Fits a stock RGB state dict to a stemless MobileNetV2, in place.

    Args:
        state_dict (dict): Weights by name; changed only if they have a stem.
        prefix (str): What the backbone's names start with in ``state_dict``.
        own (dict): The backbone's present weights, names without prefix.
        channels (int): Number of DCT channels.

    Returns:
        str: What was dropped, and how many channels come from where; empty if ``state_dict`` has no stem.
    """
    stem = {key: state_dict[key] for key in state_dict if key.startswith(prefix + _STEM)}
    if not stem:
        return ''
    for key in stem:
        del state_dict[key]
    stock_channels = next((weight.shape[0] for weight in stem.values() if weight.ndim == 4), 0)
    if stock_channels != channels:
        for name, weight in own.items():
            key = prefix + name
            if name.startswith(_BLOCK) and key in state_dict:
                state_dict[key] = fit_channels(state_dict[key], weight, stock_channels, channels)
    shared = min(stock_channels, channels)
    notes = [f'stem dropped ({len(stem)} tensors)', f'first {shared} of {stock_channels} channels of the first block']
    return ', '.join(notes + ([f'{channels - shared} newly made'] if channels > shared else []))


def fit_channels(stock: torch.Tensor, own: torch.Tensor, stock_channels: int, channels: int) -> torch.Tensor:
    """A tensor of the first block with ``channels`` channels: the first ones from ``stock``, any further from ``own``.

    Args:
        stock (torch.Tensor): Of a network whose first block takes ``stock_channels`` channels.
        own (torch.Tensor): The same tensor of a network whose first block takes ``channels`` channels.
        stock_channels (int): Length of the axis of ``stock`` that counts channels.
        channels (int): Length of this axis in ``own``.

    Returns:
        torch.Tensor: Shape of ``own``, dtype of ``stock``. Where the shapes differ in another way, ``stock`` itself:
        loading then reports the mismatch.
    """
    axes = [axis for axis, sizes in enumerate(zip(stock.shape, own.shape)) if sizes[0] != sizes[1]]
    if stock.ndim != own.ndim or any((stock.shape[i], own.shape[i]) != (stock_channels, channels) for i in axes):
        return stock
    shared = tuple(slice(min(sizes)) for sizes in zip(stock.shape, own.shape))
    fitted = own.detach().clone().to(stock.dtype)
    fitted[shared] = stock[shared]
    return fitted
