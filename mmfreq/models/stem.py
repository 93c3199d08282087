"""Backbone modifiers: take the stem off a stock backbone, and feed C DCT channels to what comes behind it.

Framework-free: the same mixins serve the backbones of mmpretrain and mmdet. :class:`StemlessResNetMixin` is for residual
networks (Xu et al. 2020, Fig. 3), :class:`PatchMixin` for networks that start with a patch embedding. A backbone of
your own takes a few lines: docs/new_backbone.md.
"""
import logging
import math
from typing import Any, Optional, Sequence

import torch
from mmengine.logging import print_log
from torch import nn

from mmfreq.selection.gate import ChannelGate

# Modules of the stems that StemlessResNetMixin removes, as a stock state dict names them.
_STEM_MODULES = ('conv1', 'bn1', 'gn1', 'stem')


class FreqMixin:
    """What every frequency-domain backbone does with its channels: check them, gate them, fit checkpoints to them.

    The mixins that derive from it say where the channels go in (``first_weight``, ``stem_name``, ``frozen_advice``), how
    large the photo must be (``input_stride``), and how a stock checkpoint is fitted to that place
    (:meth:`fit_stock_state_dict`).

    Args:
        in_channels (int): Number of DCT channels C >= 1.
        gate (dict | None): Arguments of :class:`~mmfreq.selection.gate.ChannelGate` besides ``channels``; ``dict()``
            for its defaults. The gate is the first thing that the input meets. ``frozen_stages`` does not freeze it.
            Defaults to None: no gate.
        *args: Arguments of the stock class.
        **kwargs: Arguments of the stock class.

    Raises:
        ValueError: ``in_channels`` is not an integer >= 1; an input has another number of channels; on loading, a
            checkpoint that is not a stock one takes another number of channels (hosts would only warn, and leave the
            first layer, perhaps a frozen one, at random).
    """
    input_stride: int = 4  # pixels of the stock network's image that a cell (one DCT block) of the input covers
    stem_name: str  # what a stock checkpoint has in this place
    frozen_advice: str  # what frozen_stages keeps from being trained, and the value that does not

    def __init__(self, *args: Any, in_channels: int, gate: Optional[dict[str, Any]] = None, **kwargs: Any) -> None:
        if isinstance(in_channels, bool) or not isinstance(in_channels, int) or in_channels < 1:
            raise ValueError(f'{type(self).__name__}: expected in_channels to be an integer >= 1 (the number of DCT '
                             f'channels), got {in_channels!r}')
        self.dct_channels = in_channels
        super().__init__(*args, **self.stock_arguments(in_channels), **kwargs)
        self.gate = None if gate is None else ChannelGate(in_channels, **gate)

    def stock_arguments(self, in_channels: int) -> dict[str, Any]:
        """What the stock class is told of the channels."""
        return dict(in_channels=in_channels)

    @property
    def first_weight(self) -> str:
        """Name of the weight that takes the channels."""
        raise NotImplementedError

    @property
    def first_is_frozen(self) -> bool:
        """Whether ``frozen_stages`` keeps this weight from being trained."""
        return not self.get_parameter(self.first_weight).requires_grad

    def fit_stock_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str) -> str:
        """Fits a stock RGB state dict to this backbone, in place.

        Args:
            state_dict (dict): Weights by name; not changed unless they are a stock backbone's.
            prefix (str): What the backbone's names start with in ``state_dict``.

        Returns:
            str: What was done; empty if ``state_dict`` is not a stock backbone's.
        """
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The stock forward pass over the input (N, C, h, w), gated if there is a gate."""
        if x.shape[1] != self.dct_channels:
            raise ValueError(f'{type(self).__name__}: expected an input with in_channels={self.dct_channels} channels, '
                             f'got {tuple(x.shape)}; compare the channels that the pipeline selects')
        return super().forward(x if self.gate is None else self.gate(x))

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *args: Any) -> None:
        name, own = type(self).__name__, self.get_parameter(self.first_weight)
        report = self.fit_stock_state_dict(state_dict, prefix)
        weight = state_dict.get(prefix + self.first_weight)
        if report:
            frozen = f'frozen_stages={self.frozen_stages} keeps {self.frozen_advice}; ' if self.first_is_frozen else ''
            print_log(f'{name}: stock RGB weights loaded into {self.dct_channels} DCT channels, to be trained before '
                      f'use; {frozen}{report}', logger='current', level=logging.WARNING)
        elif weight is not None and weight.shape != own.shape:
            axis = 1 if own.shape[1] == self.dct_channels else 0  # a depthwise convolution counts its channels there
            raise ValueError(f'{name}: expected a checkpoint for in_channels={self.dct_channels}, or a stock one with '
                             f'its {self.stem_name}; {prefix}{self.first_weight} has shape {tuple(weight.shape)}, '
                             f'{weight.shape[axis]} input channels, instead of {tuple(own.shape)}')
        super()._load_from_state_dict(state_dict, prefix, *args)


class StemlessResNetMixin(FreqMixin):
    """Mixin for a stock ResNet class whose first stage takes the DCT channels directly.

    The stem (7x7 or 3x3 convolutions, norm, ReLU, max-pool) becomes identities, so that no key of the state dict is
    new. Only the first block changes shape: its first convolution and its shortcut have C input channels. Every other
    argument is the stock class's.

    Stock RGB checkpoints load, through whichever way weights come in (``init_cfg``, ``load_from``,
    ``load_state_dict``). In the first block, the first C input channels of the stock weights are taken (as the authors
    do for C <= 64); any further input channels keep this model's initialisation. A shortcut convolution that the stock
    block does not have (ResNet-18/34) keeps its initialisation too, and one that this block does not have is dropped.
    One log line says what was done. A checkpoint without stem weights is loaded as it stands, and refused if its first
    block takes another number of channels. Either host's numbering of the shortcuts' layers will do.

    With ``entry_stage=2`` the channels enter one stage later ("late" entry of Gueguen et al. 2018): stage 1 becomes an
    identity too, and stage 2 takes the channels at stride 1. A cell of the input then stands for a pixel of stage 2's
    output: 8x8 pixels of the stock network's image at the usual strides.

    Args:
        in_channels (int): Number of DCT channels C >= 1.
        entry_stage (int): Stage that takes the channels, 1 or 2. Defaults to 1.
        *args: Arguments of :class:`FreqMixin` and of the stock class.
        **kwargs: Arguments of :class:`FreqMixin` and of the stock class; ``stem_channels``, which an inherited config
            may hold, means nothing without a stem and is dropped.

    Raises:
        ValueError: As :class:`FreqMixin`; ``entry_stage`` is neither 1 nor 2, the network has no such stage, or
            ``out_indices`` asks for the output of a stage that is skipped, as a detector's FPN does.
    """
    stem_name = 'stem'

    def __init__(self, *args: Any, in_channels: int, entry_stage: int = 1, **kwargs: Any) -> None:
        if isinstance(entry_stage, bool) or entry_stage not in (1, 2):
            raise ValueError(f'{type(self).__name__}: expected entry_stage to be 1 or 2, got {entry_stage!r}')
        if kwargs.get('num_stages', 4) < entry_stage:
            raise ValueError(f'{type(self).__name__}: expected num_stages >= entry_stage={entry_stage}, got '
                             f'{kwargs["num_stages"]}')
        self.entry_stage = entry_stage
        kwargs['stem_channels'] = in_channels
        super().__init__(*args, in_channels=in_channels, **kwargs)
        if min(self.out_indices) < entry_stage - 1:
            raise ValueError(f'{type(self).__name__}: expected out_indices >= {entry_stage - 1}, since entry_stage='
                             f'{entry_stage} leaves out what comes before, got {tuple(self.out_indices)}')
        if entry_stage > 1:
            self.input_stride = FreqMixin.input_stride * math.prod(self.strides[:entry_stage])

    @property
    def frozen_advice(self) -> str:
        """What ``frozen_stages`` keeps from being trained, and the values that do not."""
        if self.entry_stage == 1:
            return 'the first stage from being trained: set it to 0 or -1'
        return f'stage {self.entry_stage} from being trained: set it to {self.entry_stage - 1} or less'

    @property
    def first_weight(self) -> str:
        """The first convolution of the first block."""
        return f'{self.res_layers[self.entry_stage - 1]}.0.conv1.weight'

    def make_res_layer(self, **kwargs: Any) -> nn.Module:
        """Make the next stage as the stock class does; one before ``entry_stage`` is an identity."""
        stage = len(self.res_layers) + 1
        if stage < self.entry_stage:
            return nn.Identity()
        if stage == self.entry_stage > 1:
            width = 'in_channels' if 'in_channels' in kwargs else 'inplanes'  # mmpretrain's name, mmdet's
            kwargs.update({width: self.dct_channels, 'stride': 1})
        return super().make_res_layer(**kwargs)

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        if self.deep_stem:
            self.stem = nn.Identity()
        else:
            self.conv1 = nn.Identity()
            self.norm1_name = 'bn1'
            self.add_module(self.norm1_name, nn.Identity())
            self.relu = nn.Identity()
        self.maxpool = nn.Identity()

    def fit_stock_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str) -> str:
        """Drops what comes before the first block, and fits its input channels; see :func:`adapt_stock_state_dict`."""
        *skipped, first = self.res_layers[:self.entry_stage]
        return adapt_stock_state_dict(state_dict, prefix, self.state_dict(), first, skipped)

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *args: Any) -> None:
        renumber_shortcuts(state_dict, prefix, self.state_dict())
        super()._load_from_state_dict(state_dict, prefix, *args)


class PatchMixin(FreqMixin):
    """Mixin for a stock backbone that starts with a patch embedding, such as ConvNeXt, Swin or ViT.

    The embedding's convolution becomes a projection of the C channels of a cell, 1x1 where a patch is as large as a
    cell (ConvNeXt and Swin: 4 pixels). A larger patch takes a group of cells: 4x4 of them for ViT's 16 pixels, so that
    a 56x56 grid gives the 14x14 tokens of a 224x224 crop. Norms and position embeddings behind it stay the stock ones,
    and all stock arguments (``img_size``, ``patch_size``, ...) stay in pixels, as the inherited config has them.

    Stock RGB checkpoints load, through whichever way weights come in. The projection's weight keeps this model's
    initialisation, since coefficients have nothing in common with pixels; its bias is the stock one, since both inputs
    have zero mean. One log line says so. A checkpoint whose projection has another shape is refused.

    A class that uses this mixin names its convolution in ``projection``, e.g. ``'patch_embed.projection'``.

    Args:
        in_channels (int): Number of DCT channels C >= 1.
        input_stride (int): Pixels of the stock network's image that a cell (one DCT block) covers: 4 where the image is twice
            as large before the DCT, 8 where it is not. Defaults to 4.
        *args: Arguments of :class:`FreqMixin` and of the stock class.
        **kwargs: Arguments of :class:`FreqMixin` and of the stock class.

    Raises:
        ValueError: As :class:`FreqMixin`; ``input_stride`` is not an integer >= 1, or patches are not a whole number of cells
            apart.
    """
    stem_name = 'patch embedding'
    frozen_advice = 'the patch embedding from being trained: set it to -1'
    projection: str

    def __init__(self, *args: Any, in_channels: int, input_stride: int = FreqMixin.input_stride, **kwargs: Any) -> None:
        if isinstance(input_stride, bool) or not isinstance(input_stride, int) or input_stride < 1:
            raise ValueError(f'{type(self).__name__}: expected input_stride to be an integer >= 1 (pixels that a DCT block '
                             f'covers), got {input_stride!r}')
        self.input_stride = input_stride
        super().__init__(*args, in_channels=in_channels, **kwargs)
        parent_name, _, name = self.projection.rpartition('.')
        parent = self.get_submodule(parent_name)
        stock = getattr(parent, name)
        if any(step % input_stride for step in stock.stride):
            raise ValueError(f'{type(self).__name__}: expected patches a multiple of input_stride={input_stride} pixels apart, got '
                             f'{stock.stride}')
        self.stock_kernel = stock.kernel_size
        setattr(parent, name, grid_projection(stock, input_stride))
        for module in parent.children():
            if hasattr(module, 'get_pad_shape'):  # pads the grid to whole patches: now in cells
                module.kernel_size = module.stride = getattr(parent, name).stride
        self.train(self.training)  # Swin freezes its stages here only

    @property
    def first_weight(self) -> str:
        """The projection."""
        return f'{self.projection}.weight'

    def fit_stock_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str) -> str:
        """Replaces the weight of a stock patch embedding by this model's own."""
        key, own = prefix + self.first_weight, self.get_parameter(self.first_weight).detach()
        stock = state_dict.get(key)
        if stock is None or stock.shape[2:] == own.shape[2:] or stock.shape[2:] != self.stock_kernel:
            return ''
        state_dict[key] = own.clone()
        return f'{self.first_weight} newly made, {tuple(own.shape)} instead of {tuple(stock.shape)}'


def grid_projection(stock: nn.Conv2d, input_stride: int) -> nn.Conv2d:
    """The convolution that takes groups of cells where ``stock`` takes patches of pixels, without overlap.

    Args:
        stock (nn.Conv2d): Patch embedding whose ``stride`` is a multiple of ``input_stride``.
        input_stride (int): Pixels that a cell covers.

    Returns:
        nn.Conv2d: As many input and output channels; kernel and stride ``stock.stride / input_stride``; trained if ``stock``
        is.
    """
    size = tuple(step // input_stride for step in stock.stride)
    projection = type(stock)(stock.in_channels, stock.out_channels, size, stride=size, bias=stock.bias is not None)
    return projection.requires_grad_(stock.weight.requires_grad)


def renumber_shortcuts(state_dict: dict[str, torch.Tensor], prefix: str, own: dict[str, torch.Tensor]) -> None:
    """Gives the layers of shortcuts the numbers that they have in this backbone, in place.

    Where a shortcut averages before its convolution (ResNetV1d, ResNeSt) and the stride is 1, mmdet counts an average
    over one pixel as layer 0, and mmpretrain leaves it out.

    Args:
        state_dict (dict): Weights by name.
        prefix (str): What the backbone's names start with in ``state_dict``.
        own (dict): The backbone's present weights, names without prefix.
    """
    for name, weight in own.items():
        if '.downsample.' not in name or weight.ndim != 4:
            continue
        shortcut, number, _ = name.rsplit('.', 2)
        start = f'{prefix}{shortcut}.'
        given = {key: value for key, value in state_dict.items() if key.startswith(start)}
        shifts = [int(number) - int(key[len(start):].split('.')[0]) for key, value in given.items() if value.ndim == 4]
        if shifts and shifts[0]:
            for key in given:
                del state_dict[key]
            for key, value in given.items():
                layer, _, leaf = key[len(start):].partition('.')
                state_dict[f'{start}{int(layer) + shifts[0]}.{leaf}'] = value


def adapt_stock_state_dict(state_dict: dict[str, torch.Tensor], prefix: str, own: dict[str, torch.Tensor],
                           first_stage: str, skipped: Sequence[str] = ()) -> str:
    """Fits a stock RGB state dict to a stemless backbone, in place.

    Args:
        state_dict (dict): Weights by name; changed only if they have a stem.
        prefix (str): What the backbone's names start with in ``state_dict``.
        own (dict): The backbone's present weights, names without prefix.
        first_stage (str): Name of the first stage that the backbone has, e.g. ``'layer1'``.
        skipped (Sequence[str]): Names of the stages before it.

    Returns:
        str: What was dropped, sliced, padded and newly made; empty if ``state_dict`` has no stem.
    """
    stem = [key for key in state_dict if key.startswith(tuple(f'{prefix}{name}.' for name in _STEM_MODULES))]
    if not stem:
        return ''
    notes = [f'stem dropped ({len(stem)} tensors)']
    for stage in skipped:
        before = [key for key in state_dict if key.startswith(f'{prefix}{stage}.')]
        notes.append(f'{stage} dropped ({len(before)} tensors)')
        stem += before
    for key in stem:
        del state_dict[key]
    shortcut = f'{first_stage}.0.downsample.'
    has_shortcut = any(key.startswith(prefix + shortcut) for key in state_dict)
    if has_shortcut and not any(name.startswith(shortcut) for name in own):
        for key in [key for key in state_dict if key.startswith(prefix + shortcut)]:
            del state_dict[key]
        notes.append(f'{shortcut[:-1]} dropped')
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
