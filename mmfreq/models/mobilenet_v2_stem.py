"""Backbone modifier: takes the stem off a stock MobileNetV2 and feeds C DCT channels to its first block.

Framework-free: the same mixin serves mmpretrain and mmdet (Xu et al. 2020, Table 2).
"""
import logging
from typing import Any, Optional

import torch
from mmengine.logging import print_log
from torch import nn

from mmfreq.models.gate import ChannelGate
from mmfreq.models.stem import FreqInput

_STEM, _BLOCK = 'conv1.', 'layer1.0.'


class StemlessMobileNetV2Mixin:
    """Mixin for a stock MobileNetV2 class whose first inverted-residual block takes the DCT channels directly.

    The stem, a 3x3 convolution of stride 2, is gone, so that a cell of the input covers 2 pixels of what the RGB
    network sees: 112x112 cells stand for its 224x224 pixels. No key of the state dict is new. Only the first block
    changes shape: its depthwise convolution and norm have C channels, its projection C input channels.

    Stock RGB checkpoints load, through whichever way weights come in (``init_cfg``, ``load_from``,
    ``load_state_dict``). In the first block, the first C of the stock network's 32 channels are taken; for C > 32 the
    further channels keep this model's initialisation. One log line says what was done. A checkpoint without stem
    weights is loaded as it stands, and refused if its first block takes another number of channels.

    Args:
        in_channels (int): Number of DCT channels C >= 1.
        gate (dict | None): Arguments of :class:`~mmfreq.models.gate.ChannelGate` besides ``channels``; ``dict()``
            for its defaults. The gate is the first thing that the input meets. ``frozen_stages`` does not freeze it.
            Defaults to None: no gate.
        *args: Arguments of the stock class.
        **kwargs: Arguments of the stock class.

    Raises:
        ValueError: ``in_channels`` is not an integer >= 1; on loading, a checkpoint without a stem takes another number
            of channels.
    """

    def __init__(self, *args: Any, in_channels: int, gate: Optional[dict[str, Any]] = None, **kwargs: Any) -> None:
        if isinstance(in_channels, bool) or not isinstance(in_channels, int) or in_channels < 1:
            raise ValueError(f'{type(self).__name__}: expected in_channels to be an integer >= 1 (the number of DCT '
                             f'channels), got {in_channels!r}')
        self._freq_channels = in_channels  # make_layer, which the stock constructor calls, needs it
        super().__init__(*args, **kwargs)
        self.conv1 = FreqInput(in_channels, type(self).__name__)
        self.gate = None if gate is None else ChannelGate(in_channels, **gate)

    def make_layer(self, *args: Any, **kwargs: Any) -> nn.Sequential:
        """The stock layer; the first one takes the DCT channels."""
        if not self.layers:
            self.in_channels = self._freq_channels
        return super().make_layer(*args, **kwargs)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The stock forward pass over the input (N, C, h, w), gated if there is a gate."""
        return super().forward(x if self.gate is None else self.gate(x))

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *args: Any) -> None:
        report = adapt_stock_state_dict(state_dict, prefix, self.state_dict(), self._freq_channels)
        if report:
            frozen = (f'frozen_stages={self.frozen_stages} keeps the first stage from being trained: set it to 0 or '
                      '-1; ' if self.frozen_stages >= 1 else '')
            print_log(f'{type(self).__name__}: stock RGB weights loaded into {self._freq_channels} DCT channels, to be '
                      f'trained before use; {frozen}{report}', logger='current', level=logging.WARNING)
        else:
            self._check_channels(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check_channels(self, state_dict: dict[str, torch.Tensor], prefix: str) -> None:
        """Refuses the first block of a network for another number of channels."""
        depthwise = next(name for name, weight in self.state_dict().items()
                         if name.startswith(_BLOCK) and weight.ndim == 4)
        weight = state_dict.get(prefix + depthwise)
        if weight is not None and weight.shape[0] != self._freq_channels:
            raise ValueError(f'{type(self).__name__}: expected a checkpoint for in_channels={self._freq_channels}, or '
                             f'a stock one with its stem; {prefix}{depthwise} has shape {tuple(weight.shape)}, '
                             f'{weight.shape[0]} input channels')


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
