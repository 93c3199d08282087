"""Mixins that take the stem off a stock backbone and feed C DCT channels to the layers after it.

They serve the backbones of mmpretrain and mmdet alike: :class:`StemlessResNetMixin` for residual
networks (Xu et al. 2020, Fig. 3), :class:`StemlessMobileNetV2Mixin` for MobileNetV2 (Table 2),
:class:`ProjectionMixin` for networks whose stem becomes one 1x1 convolution, :class:`PatchMixin`
for those that start with a patch embedding. To add a backbone, see docs/new_backbone.md.
"""
import logging
import math
from typing import Any, Optional, Sequence

import torch
from mmcv.cnn import ConvModule
from mmengine.logging import print_log
from mmengine.registry import Registry
from torch import nn

from mmfreq.config.pipelines import check_same
from mmfreq.dct.blocks import check_positive_int
from mmfreq.errors import RefusedError
from mmfreq.input_spec import InputSpec
from mmfreq.models.pixels import PixelsMixin
from mmfreq.models.pretrained import StateDict, drop_stem, renumber_shortcuts
from mmfreq.selection.gate import ChannelGate


class FreqMixin:
    """Check, gate and load: the work of every frequency-domain backbone on its channels.

    A derived mixin makes the stock class take C channels, names the weight that they meet
    (:attr:`first_weight`), and either lists the modules that it removes (``stem_modules``) or
    overrides :meth:`fit_stock_state_dict`.

    Args:
        in_channels (int): Number of DCT channels C >= 1.
        gate (dict | None): Arguments of :class:`~mmfreq.selection.gate.ChannelGate` except
            ``channels``; ``dict()`` for its defaults. The gate precedes the backbone, and
            ``frozen_stages`` does not freeze it. Defaults to None: no gate.
        *args: Arguments of the stock class.
        **kwargs: Arguments of the stock class.

    Raises:
        ValueError: ``in_channels`` is not an integer >= 1; a checkpoint that is not a stock one takes
            another number of channels, which the hosts would only log.
    """
    prefix: str = 'Freq'  # of the names of derived classes
    input_stride: int = 4  # pixels of the stock network's image that one cell (DCT block) covers
    stem_modules: tuple[str, ...] = ()  # modules of the stock class that are gone
    channel_axis: int = 1  # axis of the first weight that counts the channels
    unfrozen: int = -1  # frozen_stages of the stock class that freezes nothing
    input_spec: Optional[InputSpec] = None  # the input of this network, if InputSpecHook is used
    source_specs: tuple[Optional[InputSpec], ...] = ()  # the inputs of the checkpoints that are loaded next
    keeps_stock_weights: bool = False  # whether stock weights keep their function: no training

    def __init__(self, *args: Any, in_channels: int, gate: Optional[dict[str, Any]] = None,
                 **kwargs: Any) -> None:
        self.dct_channels = check_positive_int(f'{type(self).__name__}: in_channels', in_channels)
        super().__init__(*args, **self.stock_arguments(in_channels), **kwargs)
        self.gate = None if gate is None else ChannelGate(in_channels, **gate)

    def stock_arguments(self, in_channels: int) -> dict[str, Any]:
        """Return the arguments that tell the stock class the number of channels."""
        return dict(in_channels=in_channels)

    @property
    def first_weight(self) -> str:
        """Name of the weight that takes the channels."""
        raise NotImplementedError

    @property
    def first_is_frozen(self) -> bool:
        """Whether ``frozen_stages`` keeps this weight from being trained."""
        return not self.get_parameter(self.first_weight).requires_grad

    def fit_stock_state_dict(self, state_dict: StateDict, prefix: str) -> str:
        """Fit a stock RGB state dict to this backbone, in place; see :func:`drop_stem`.

        Returns:
            str: A report; empty if ``state_dict`` is not that of a stock backbone.
        """
        return drop_stem(state_dict, prefix, self.state_dict(), self.stem_modules,
                         self.first_weight, self.channel_axis)

    def channel_axes(self) -> dict[str, int]:
        """Return the axis that counts the channels, by the name of each tensor that has one."""
        return {self.first_weight: self.channel_axis}

    def take_channels(self, state_dict: StateDict, prefix: str) -> None:
        """Take the columns of this network's channels from a checkpoint of other ones, in place.

        Channels that the checkpoint lacks keep their initialisation. Without :attr:`input_spec` and
        :attr:`source_specs`, nothing is changed.

        Raises:
            RefusedError: The block size differs, so that equal numbers are other channels; or the checkpoint
                is of other pixels than those whose function this network keeps.
        """
        own, (source, *rest) = self.input_spec, self.source_specs or (None, )
        self.source_specs = tuple(rest)
        if source and not source.channels and self.keeps_stock_weights:
            check_same('the checkpoint', source, 'pixels of the backbone', self.block_pixels.pixels)
        if not own or not source or not source.channels:
            return
        if own.block_size != source.block_size:
            raise RefusedError(f'block_size: the checkpoint has {source.block_size}, but the config '
                               f'has {own.block_size}; expected the same')
        if own.channels == source.channels:
            return
        positions = [(i, source.channels.index(channel)) for i, channel in enumerate(own.channels)
                     if channel in source.channels]
        targets, origins = map(list, zip(*positions)) if positions else ([], [])
        for name, axis in self.channel_axes().items():
            tensor = state_dict.get(prefix + name)
            if tensor is not None and tensor.shape[axis] == len(source.channels):
                fitted = self.state_dict()[name].clone().movedim(axis, 0)
                fitted[targets] = tensor.movedim(axis, 0)[origins].to(fitted)
                state_dict[prefix + name] = fitted.movedim(0, axis).contiguous()
        print_log(f'{type(self).__name__}: {len(targets)} of {len(own.channels)} channels taken from '
                  f'the {len(source.channels)} of the checkpoint', logger='current')

    def __getstate__(self) -> dict[str, Any]:
        # a copy, such as EMAHook's, does not load the checkpoints that this network loads next
        return {**self.__dict__, 'source_specs': ()}

    def init_weights(self) -> None:
        """Initialise as the stock class; restore the gate's weights, which some classes reset."""
        super().init_weights()
        if self.gate is not None and self.init_cfg is None:
            self.gate.init_weights()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the stock forward pass on the input (N, C, h, w), gated if there is a gate."""
        return super().forward(self.enter(x))

    def enter(self, x: torch.Tensor) -> torch.Tensor:
        """Return the stock network's input: the channels, gated if there is a gate."""
        return x if self.gate is None else self.gate(x)

    def _load_from_state_dict(self, state_dict: StateDict, prefix: str, *args: Any) -> None:
        name, own = type(self).__name__, self.get_parameter(self.first_weight)
        self.take_channels(state_dict, prefix)
        report = self.fit_stock_state_dict(state_dict, prefix)
        weight = state_dict.get(prefix + self.first_weight)
        if report and self.keeps_stock_weights:
            print_log(f'{name}: stock RGB weights carried over to {self.dct_channels} DCT channels; '
                      f'{report}', logger='current')
        elif report:
            if self.first_is_frozen:
                report = (f'frozen_stages={self.frozen_stages} keeps {self.first_weight} from '
                          f'being trained: set it to -1; {report}')
            print_log(f'{name}: stock RGB weights loaded into {self.dct_channels} DCT channels, to '
                      f'be trained before use; {report}', logger='current', level=logging.WARNING)
        elif weight is not None and weight.shape != own.shape:
            raise ValueError(
                f'{name}: expected a checkpoint of this backbone for in_channels={self.dct_channels}, '
                f'or a stock one with its stem or patch embedding; {prefix}{self.first_weight} has shape '
                f'{tuple(weight.shape)}, {weight.shape[self.channel_axis]} input channels, instead '
                f'of {tuple(own.shape)}')
        super()._load_from_state_dict(state_dict, prefix, *args)


class StemlessResNetMixin(FreqMixin):
    """Mixin for a stock ResNet class whose first stage takes the DCT channels directly.

    The stem (convolutions, norm, ReLU, max-pool) becomes identities, so the state dict has no new
    keys. Only the first block changes shape: its first convolution and its shortcut have C input
    channels.

    Stock RGB checkpoints load through ``init_cfg``, ``load_from`` and ``load_state_dict``. The
    first block takes the first C input channels of the stock weights (as the authors do for C <=
    64); any further channels keep their initialisation. So does a shortcut convolution that the
    stock block lacks (ResNet-18/34); one that this block lacks is dropped. One log line
    reports it. A checkpoint without stem weights loads unchanged, and is refused if its first block
    takes another number of channels. Shortcuts may be numbered as in either host.

    With ``entry_stage=2`` the channels enter one stage later (Gueguen et al. 2018): stage 1 becomes
    an identity too, and stage 2 takes the channels at stride 1. A cell then covers 8x8 pixels of
    the stock network's image at the usual strides. ``out_indices`` starts with that stage.

    Args:
        in_channels (int): Number of DCT channels C >= 1.
        entry_stage (int): Stage that takes the channels, from 1 on. Defaults to 1.
        *args: Arguments of :class:`FreqMixin` and of the stock class.
        **kwargs: Arguments of :class:`FreqMixin` and of the stock class. ``stem_channels``, which
            an inherited config may hold, has no meaning without a stem and is ignored.

    Raises:
        ValueError: As :class:`FreqMixin`; ``entry_stage`` is not an integer >= 1, or ``out_indices``
            names a stage before it.

    Example:
        >>> import torch
        >>> from mmfreq.models.cls import FreqResNet
        >>> model = FreqResNet(50, in_channels=24)
        >>> tuple(model(torch.rand(1, 24, 56, 56))[0].shape)
        (1, 2048, 7, 7)
    """
    stem_modules = ('conv1', 'bn1', 'gn1', 'stem')

    def __init__(self, *args: Any, in_channels: int, entry_stage: int = 1, **kwargs: Any) -> None:
        self.entry_stage = check_positive_int('entry_stage', entry_stage)
        kwargs['stem_channels'] = in_channels
        super().__init__(*args, in_channels=in_channels, **kwargs)
        if min(self.out_indices) < entry_stage - 1:  # the channels themselves would be an output
            raise ValueError(f'entry_stage={entry_stage}: expected out_indices of {entry_stage - 1} or more, '
                             f'got {self.out_indices}')
        if entry_stage > 1:
            self.input_stride = FreqMixin.input_stride * math.prod(self.strides[:entry_stage])

    @property
    def first_weight(self) -> str:
        """Name of the first convolution of the first block."""
        return f'{self.res_layers[self.entry_stage - 1]}.0.conv1.weight'

    def channel_axes(self) -> dict[str, int]:
        """Return the axes of the first convolution and of the shortcut's."""
        shortcut = f'{self.first_weight.removesuffix("conv1.weight")}downsample.'
        return {**super().channel_axes(), **{name: 1 for name, weight in self.named_parameters()
                                             if name.startswith(shortcut) and weight.ndim == 4}}

    def make_res_layer(self, **kwargs: Any) -> nn.Module:
        """Make the next stage as the stock class does; one before ``entry_stage`` is an identity."""
        stage = len(self.res_layers) + 1
        if stage < self.entry_stage:
            return nn.Identity()
        if stage == self.entry_stage > 1:
            width = 'in_channels' if 'in_channels' in kwargs else 'inplanes'  # mmpretrain, mmdet
            kwargs.update({width: self.dct_channels, 'stride': 1})
        return super().make_res_layer(**kwargs)

    def fit_stock_state_dict(self, state_dict: StateDict, prefix: str) -> str:
        """Fit a stock state dict as :class:`FreqMixin` does; drop the stages before the entry."""
        report = super().fit_stock_state_dict(state_dict, prefix)
        for stage in self.res_layers[:self.entry_stage - 1] if report else ():
            skipped = [key for key in state_dict if key.startswith(f'{prefix}{stage}.')]
            for key in skipped:
                del state_dict[key]
            report += f', {stage} dropped ({len(skipped)} tensors)'
        return report

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        if self.deep_stem:
            self.stem = nn.Identity()
        else:
            self.conv1 = nn.Identity()
            self.norm1_name = 'bn1'
            self.add_module(self.norm1_name, nn.Identity())
            self.relu = nn.Identity()
        self.maxpool = nn.Identity()

    def _load_from_state_dict(self, state_dict: StateDict, prefix: str, *args: Any) -> None:
        renumber_shortcuts(state_dict, prefix, self.state_dict())
        super()._load_from_state_dict(state_dict, prefix, *args)


class StemlessRegNetMixin(StemlessResNetMixin):
    """Mixin for a stock RegNet class, whose own strides would halve the grid in the first stage.

    The default is ``strides=(1, 2, 2, 2)``; arguments and errors otherwise are those of
    :class:`StemlessResNetMixin` and of the stock class.
    """

    def __init__(self, *args: Any, strides: Sequence[int] = (1, 2, 2, 2), **kwargs: Any) -> None:
        super().__init__(*args, strides=strides, **kwargs)


class StemlessMobileNetV2Mixin(FreqMixin):
    """Mixin for a stock MobileNetV2 class whose first block takes the DCT channels directly.

    The stem, a 3x3 convolution of stride 2, becomes an identity, so a cell covers 2 pixels of the
    RGB network's image: 112x112 cells stand for 224x224 pixels. The state dict has no new keys.
    Only the first block changes shape: its depthwise convolution and norm have C channels, its
    projection C input channels. Stock checkpoints load as in :class:`StemlessResNetMixin`.
    Arguments and errors are those of :class:`FreqMixin` and of the stock class.
    """
    input_stride = 2
    stem_modules = ('conv1', )
    channel_axis = 0  # of a depthwise convolution

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conv1 = nn.Identity()

    def stock_arguments(self, in_channels: int) -> dict[str, Any]:
        """Return no arguments: the stock class only knows RGB."""
        return {}

    def make_layer(self, *args: Any, **kwargs: Any) -> nn.Sequential:
        """Build a stock layer; the first one takes the DCT channels."""
        if not self.layers:
            self.in_channels = self.dct_channels
        return super().make_layer(*args, **kwargs)

    @property
    def first_weight(self) -> str:
        """Name of the depthwise convolution of the first block."""
        parameters = self.layer1[0].named_parameters(prefix='layer1.0')
        return next(name for name, weight in parameters if weight.ndim == 4)

    def channel_axes(self) -> dict[str, int]:
        """Return the axes of the depthwise convolution, of its norm and of the projection."""
        depthwise = self.first_weight.removesuffix('conv.weight')
        axes = {}
        for name, value in self.state_dict().items():
            if name.startswith(depthwise) and value.ndim:
                axes[name] = 0
            elif name.startswith('layer1.0.') and value.ndim == 4:
                axes[name] = 1
        return axes

    @property
    def first_is_frozen(self) -> bool:
        """Whether ``frozen_stages`` freezes the first block, as the stock ``train`` does."""
        return self.frozen_stages >= 1


class ProjectionMixin(FreqMixin):
    """Mixin for a stock backbone whose stem becomes a projection, a 1x1 convolution of C channels.

    Such a stem has a known stride in pixels, which a derived class states as ``input_stride``: 2 in
    EfficientNet, 4 in HRNet. The class names the convolution that becomes the projection
    (``projection``) and the other modules of the stem, which become identities (``stem_modules``).
    The norm and the activation after the projection stay, and so does all that follows.

    Stock RGB checkpoints load as in :class:`StemlessResNetMixin`, except for the projection. Its
    weight keeps its initialisation, since coefficients are not pixels; its bias and the norm after
    it are the stock ones. A checkpoint whose projection has another shape is refused. Arguments and
    errors are those of :class:`FreqMixin` and of the stock class.
    """
    projection: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stock = self.get_submodule(self.projection)
        self.stock_kernel = getattr(stock, 'kernel_size', None)
        self._replace(self.projection, self.make_projection(stock))
        for name in self.stem_modules:
            self._replace(name, nn.Identity())
        self.train(self.training)  # Swin freezes its stages only here

    def stock_arguments(self, in_channels: int) -> dict[str, Any]:
        """Return no arguments: the layer that takes the pixels is replaced."""
        return {}

    def make_projection(self, stock: nn.Module) -> nn.Module:
        """Return the module that replaces ``stock`` and takes the channels."""
        return grid_projection(stock, self.dct_channels, (1, 1))

    @property
    def first_weight(self) -> str:
        """Name of the projection's weight."""
        return f'{self.projection}.weight'

    def fit_stock_state_dict(self, state_dict: StateDict, prefix: str) -> str:
        """Drop the stem of a stock state dict; give the projection this model's own weights."""
        own = self.state_dict()
        entrance = tuple(f'{prefix}{name}.' for name in (self.projection, *self.stem_modules))
        stem = [key for key in state_dict
                if key.startswith(entrance) and key[len(prefix):] not in own]
        stock = state_dict.get(prefix + self.first_weight)
        is_rgb = stem or stock is not None and stock.shape[2:] == self.stock_kernel != (
            own[self.first_weight].shape[2:])
        if not is_rgb:
            return ''
        shapes = f' instead of {tuple(stock.shape)}' if stock is not None else ''
        report = f'{self.first_weight} newly made, {tuple(own[self.first_weight].shape)}{shapes}'
        for key in stem:
            del state_dict[key]
        state_dict[prefix + self.first_weight] = own[self.first_weight].clone()
        for name, value in own.items():
            if name.startswith(f'{self.projection}.'):
                state_dict.setdefault(prefix + name, value.clone())
        return f'stem dropped ({len(stem)} tensors), {report}' if stem else report

    def _replace(self, name: str, module: nn.Module) -> None:
        parent, _, child = name.rpartition('.')
        setattr(self.get_submodule(parent), child, module)


class PlainStemMixin(ProjectionMixin):
    """Mixin for a stock backbone whose stem is a block of parallel convolutions, as RepVGG's.

    The block, which has a stride of 2, becomes a 1x1 convolution of C channels with norm and
    activation. Stock RGB checkpoints load except for the block. Arguments and errors are those of
    :class:`FreqMixin` and of the stock class.
    """
    input_stride = 2

    def make_projection(self, stock: nn.Module) -> nn.Module:
        """Return a 1x1 convolution, norm and activation instead of the block ``stock``."""
        return ConvModule(self.dct_channels, stock.out_channels, 1, norm_cfg=self.norm_cfg,
                          act_cfg=self.act_cfg)

    @property
    def first_weight(self) -> str:
        """Name of the convolution's weight."""
        return f'{self.projection}.conv.weight'


class PatchMixin(PixelsMixin, ProjectionMixin):
    """Mixin for a stock backbone that starts with a patch embedding, such as ConvNeXt, Swin or ViT.

    The embedding's convolution becomes a projection of C channels. Its kernel is 1x1 where a patch
    is as large as a cell (ConvNeXt and Swin: 4 pixels) and a group of cells where it is larger:
    ViT's 16 pixels are 4x4 cells, so a 56x56 grid gives the 14x14 tokens of a 224x224 crop. Norms
    and position embeddings stay, and stock arguments (``img_size``, ``patch_size``) are in pixels.

    Stock RGB checkpoints load as in :class:`ProjectionMixin`, or with ``freq`` and ``pixels`` as a
    whole: the projection takes the stock embedding composed with the inverse DCT, and needs no
    training.

    A derived class names the convolution in ``projection``, unless it is mmcv's patch embedding.
    Arguments and errors are those of :class:`~mmfreq.models.pixels.PixelsMixin` and
    :class:`FreqMixin`. ``input_stride`` must divide the stride of the patches, and patches that
    overlap do not take ``freq``.
    """
    projection = 'patch_embed.projection'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        pads = self.block_pixels is not None and self.block_pixels.pad_value is not None
        self.register_buffer('block_padding', self.block_pixels.padding() if pads else None, False)

    def enter(self, x: torch.Tensor) -> torch.Tensor:
        """Return the channels, gated if there is a gate, with the stock network's padding."""
        return self.with_padding(x, super().enter(x), self.block_padding)

    def make_projection(self, stock: nn.Module) -> nn.Module:
        """Return the projection of groups of cells that replaces the convolution of patches."""
        name = type(self).__name__
        if any(step % self.input_stride for step in stock.stride):
            raise ValueError(f'{name}: expected patches a multiple of input_stride='
                             f'{self.input_stride} pixels apart, got {stock.stride}')
        if self.keeps_stock_weights and stock.kernel_size != stock.stride:
            raise ValueError(f'{name}: expected no freq, since patches of {stock.kernel_size} pixels '
                             f'overlap at a stride of {stock.stride}; {name.replace("Freq", "Unpacked")} '
                             'keeps the stock weights')
        size = tuple(step // self.input_stride for step in stock.stride)
        parent = self.get_submodule(self.projection.rpartition('.')[0])
        for module in parent.children():
            if hasattr(module, 'get_pad_shape'):  # pads the grid to whole patches: now in cells
                module.kernel_size = module.stride = size
        return grid_projection(stock, self.dct_channels, size, self.keeps_stock_weights)

    def fit_stock_state_dict(self, state_dict: StateDict, prefix: str) -> str:
        """Fit a stock state dict as :class:`ProjectionMixin` does, or fold its patch embedding."""
        names = [f'{prefix}{self.projection}.{leaf}' for leaf in ('weight', 'bias')]
        weight, bias = map(state_dict.get, names)
        report = super().fit_stock_state_dict(state_dict, prefix)
        if not report or self.block_pixels is None:
            return report
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        state_dict.update(zip(names, self.block_pixels.fold(weight, bias)))
        return f'{self.projection} folded from {tuple(weight.shape)}'


def grid_projection(stock: nn.Conv2d, channels: int, size: tuple[int, int],
                    bias: bool = False) -> nn.Conv2d:
    """Return the convolution of DCT channels that replaces ``stock``, a convolution of pixels.

    ``size`` is its kernel and stride in cells. It is trainable if ``stock`` is, and has a bias if
    ``stock`` has one or if ``bias`` is True.
    """
    projection = type(stock)(channels, stock.out_channels, size, stride=size,
                             bias=bias or stock.bias is not None)
    return projection.requires_grad_(stock.weight.requires_grad)


def register_backbone(registry: Registry, module: str, mixin: type[FreqMixin], stock: type,
                      **attributes: Any) -> type:
    """Make and register a frequency-domain version of a stock backbone, ``Freq`` and its name.

    ``module`` is the name of the module that will hold the class, and ``attributes`` are the class
    attributes that the mixin asks for.
    """
    attributes['__module__'] = module
    attributes['__doc__'] = (f"{registry.scope}'s {stock.__name__}, for DCT channels: "
                             f':class:`~{mixin.__module__}.{mixin.__name__}`.')
    return registry.register_module(
        module=type(f'{mixin.prefix}{stock.__name__}', (mixin, stock), attributes))
