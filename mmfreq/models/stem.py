"""Backbone modifier: takes the stem off a stock residual network and feeds C DCT channels to its first stage.

Framework-free: the same mixin serves the ResNets of mmpretrain and mmdet (Xu et al. 2020, Fig. 3).
"""
import logging
from typing import Any, Optional

import torch
from mmengine.logging import print_log
from torch import nn

from mmfreq.models.gate import ChannelGate

# Modules of the stems that this mixin removes, as a stock state dict names them.
_STEM_MODULES = ('conv1', 'bn1', 'gn1', 'stem')


class FreqInput(nn.Module):
    """Where DCT channels enter a backbone: passes (N, C, h, w) on as it is, after checking C.

    Args:
        in_channels (int): Expected number of channels C.
        owner (str): Name of the backbone, for the error message.
    """

    def __init__(self, in_channels: int, owner: str) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.owner = owner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns ``x``; raises ValueError unless it has ``in_channels`` channels."""
        if x.shape[1] != self.in_channels:
            raise ValueError(f'{self.owner}: expected an input with in_channels={self.in_channels} channels, got '
                             f'{tuple(x.shape)}; compare the channels of ChannelSelect in the pipeline')
        return x


class StemlessMixin:
    """Mixin for a stock ResNet class whose first stage takes the DCT channels directly.

    The stem (7x7 or deep 3x3 convolutions, norm, ReLU, max-pool) becomes identities, so that no key of the state dict
    is new. Only the first block changes shape: its first convolution and its shortcut have C input channels. Every
    other argument is the stock class's.

    Stock RGB checkpoints load, through whichever way weights come in (``init_cfg``, ``load_from``,
    ``load_state_dict``). In the first block, the first C input channels of the stock weights are taken (as the authors
    do for C <= 64); for C > 64 the further input channels keep this model's initialisation. A shortcut convolution
    that the stock block does not have (ResNet-18/34) keeps its initialisation too. One log line says what was done. A
    checkpoint without stem weights is loaded as it stands, and refused if its first block takes another number of
    channels.

    Args:
        in_channels (int): Number of DCT channels C >= 1.
        gate (dict | None): Arguments of :class:`~mmfreq.models.gate.ChannelGate` besides ``channels``; ``dict()``
            for its defaults. The gate is the first thing that the input meets. ``frozen_stages`` does not freeze it.
            Defaults to None: no gate.
        *args: Arguments of the stock class.
        **kwargs: Arguments of the stock class. ``stem_channels``, which an inherited config may hold, means nothing
            without a stem and is dropped.

    Raises:
        ValueError: ``in_channels`` is not an integer >= 1; on loading, a checkpoint without a stem takes another number
            of channels (hosts would only warn, and leave the first block, perhaps a frozen one, at random).
    """

    def __init__(self, *args: Any, in_channels: int, gate: Optional[dict[str, Any]] = None, **kwargs: Any) -> None:
        if isinstance(in_channels, bool) or not isinstance(in_channels, int) or in_channels < 1:
            raise ValueError(f'{type(self).__name__}: expected in_channels to be an integer >= 1 (the number of DCT '
                             f'channels), got {in_channels!r}')
        kwargs['stem_channels'] = in_channels
        super().__init__(*args, in_channels=in_channels, **kwargs)
        self.gate = None if gate is None else ChannelGate(in_channels, **gate)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The stock forward pass over the input (N, C, h, w), gated if there is a gate."""
        return super().forward(x if self.gate is None else self.gate(x))

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        entry = FreqInput(in_channels, type(self).__name__)
        if self.deep_stem:
            self.stem = entry
        else:
            self.conv1 = entry
            self.norm1_name = 'bn1'
            self.add_module(self.norm1_name, nn.Identity())
            self.relu = nn.Identity()
        self.maxpool = nn.Identity()

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *args: Any) -> None:
        channels = self.conv_in.in_channels
        report = adapt_stock_state_dict(state_dict, prefix, self.state_dict(), self.res_layers[0])
        if report:
            frozen = (f'frozen_stages={self.frozen_stages} keeps the first stage from being trained: set it to 0 or '
                      '-1; ' if self.frozen_stages >= 1 else '')
            print_log(f'{type(self).__name__}: stock RGB weights loaded into {channels} DCT channels, to be trained '
                      f'before use; {frozen}{report}', logger='current', level=logging.WARNING)
        key = f'{prefix}{self.res_layers[0]}.0.conv1.weight'
        weight = state_dict.get(key)
        if not report and weight is not None and weight.shape[1] != channels:
            raise ValueError(f'{type(self).__name__}: expected a checkpoint for in_channels={channels}, or a stock one '
                             f'with its stem; {key} has shape {tuple(weight.shape)}, {weight.shape[1]} input channels')
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def conv_in(self) -> nn.Module:
        """The module through which DCT channels enter."""
        return self.stem if self.deep_stem else self.conv1


def adapt_stock_state_dict(state_dict: dict[str, torch.Tensor], prefix: str, own: dict[str, torch.Tensor],
                           first_stage: str) -> str:
    """Fits a stock RGB state dict to a stemless backbone, in place.

    Args:
        state_dict (dict): Weights by name; changed only if they have a stem.
        prefix (str): What the backbone's names start with in ``state_dict``.
        own (dict): The backbone's present weights, names without prefix.
        first_stage (str): Name of the first stage, e.g. ``'layer1'``.

    Returns:
        str: What was dropped, sliced, padded and newly made; empty if ``state_dict`` has no stem.
    """
    stem = [key for key in state_dict if key.startswith(tuple(f'{prefix}{name}.' for name in _STEM_MODULES))]
    if not stem:
        return ''
    for key in stem:
        del state_dict[key]
    shortcut = f'{first_stage}.0.downsample.'
    has_shortcut = any(key.startswith(prefix + shortcut) for key in state_dict)
    notes = [f'stem dropped ({len(stem)} tensors)']
    for name, weight in own.items():
        if not name.startswith(f'{first_stage}.0.'):
            continue
        stock = state_dict.get(prefix + name)
        if stock is None and name.startswith(shortcut) and not has_shortcut:
            state_dict[prefix + name] = weight
            if weight.ndim:  # not worth a note: num_batches_tracked
                notes.append(f'{name} newly made')
        elif stock is not None and stock.ndim == weight.ndim == 4 and stock.shape != weight.shape:
            state_dict[prefix + name], note = fit_input_channels(stock, weight)
            notes.append(f'{name} {note}')
    return ', '.join(notes)


def fit_input_channels(stock: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, str]:
    """A convolution weight with the input channels of ``own``: the first ones from ``stock``, any further from ``own``.

    Args:
        stock (torch.Tensor): (out, in_stock, kh, kw).
        own (torch.Tensor): (out, in_own, kh, kw).

    Returns:
        tuple[torch.Tensor, str]: The weight, shape of ``own``, and what was done. Where the shapes differ otherwise,
        ``stock`` itself: loading then reports the mismatch.
    """
    if stock.shape[0] != own.shape[0] or stock.shape[2:] != own.shape[2:]:
        return stock, 'does not fit'
    shared = min(stock.shape[1], own.shape[1])
    fitted = own.detach().clone().to(stock.dtype)
    fitted[:, :shared] = stock[:, :shared]
    if shared == own.shape[1]:
        return fitted, f'sliced to the first {shared} of {stock.shape[1]} input channels'
    return fitted, f'first {shared} input channels from the checkpoint, {own.shape[1] - shared} newly made'
