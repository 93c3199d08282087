"""What mmfreq registers in mmpretrain: backbones and a preprocessor.

Name this module under ``custom_imports`` in a config.
"""
from typing import Any, Sequence

from mmpretrain.models.backbones import (
    ConvNeXt,
    MobileNetV2,
    RegNet,
    Res2Net,
    ResNeSt,
    ResNet,
    ResNetV1c,
    ResNetV1d,
    ResNeXt,
    SEResNet,
    SwinTransformer,
    VisionTransformer,
)
from mmpretrain.models.utils import ClsDataPreprocessor
from mmpretrain.registry import MODELS

import mmfreq.hosts.drawing  # noqa: F401  the hook that configs name
from mmfreq.hosts.hub import provide_models
from mmfreq.models.dct_layer import PlacementMixin
from mmfreq.models.pretrained import StateDict
from mmfreq.models.stem import PatchMixin, StemlessMobileNetV2Mixin, StemlessResNetMixin

provide_models()


@MODELS.register_module()
class FreqResNet(StemlessResNetMixin, ResNet):
    """mmpretrain's ResNet without its stem; see :class:`~mmfreq.models.stem.StemlessResNetMixin`.

    Args:
        depth (int): Depth of the network, from {18, 34, 50, 101, 152}.
        in_channels (int): Number of DCT channels C.
        entry_stage (int): Stage that takes the channels, 1 or 2. Defaults to 1.
        **kwargs: Every other argument of :class:`mmpretrain.models.ResNet`.

    Example:
        >>> import torch
        >>> from mmfreq.models.cls import FreqResNet
        >>> model = FreqResNet(50, in_channels=24)
        >>> tuple(model(torch.rand(1, 24, 56, 56))[0].shape)
        (1, 2048, 7, 7)
    """


@MODELS.register_module()
class FreqResNetV1c(StemlessResNetMixin, ResNetV1c):
    """mmpretrain's ResNetV1c without its stem; keyword arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqResNetV1d(StemlessResNetMixin, ResNetV1d):
    """mmpretrain's ResNetV1d without its stem; keyword arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqResNeXt(StemlessResNetMixin, ResNeXt):
    """mmpretrain's ResNeXt without its stem; arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqSEResNet(StemlessResNetMixin, SEResNet):
    """mmpretrain's SEResNet without its stem; arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqRes2Net(StemlessResNetMixin, Res2Net):
    """mmpretrain's Res2Net without its stem; keyword arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqResNeSt(StemlessResNetMixin, ResNeSt):
    """mmpretrain's ResNeSt without its stem; arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqRegNet(StemlessResNetMixin, RegNet):
    """mmpretrain's RegNet without its stem; arguments as the stock class, except for ``strides``.

    The default (1, 2, 2, 2) keeps the grid in the first stage, which a stock RegNet halves.
    """

    def __init__(self, *args: Any, strides: Sequence[int] = (1, 2, 2, 2), **kwargs: Any) -> None:
        super().__init__(*args, strides=strides, **kwargs)


@MODELS.register_module()
class FreqConvNeXt(PatchMixin, ConvNeXt):
    """mmpretrain's ConvNeXt (V1, V2), for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""
    projection = 'downsample_layers.0.0'


@MODELS.register_module()
class FreqSwinTransformer(PatchMixin, SwinTransformer):
    """mmpretrain's SwinTransformer, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""
    projection = 'patch_embed.projection'

    def _load_from_state_dict(self, state_dict: StateDict, prefix: str, *args: Any) -> None:
        # The stock class translates the names of old checkpoints for itself, not for subclasses.
        for key in list(state_dict):
            if key.startswith(f'{prefix}norm.'):
                leaf = key.rpartition('.')[2]
                state_dict[f'{prefix}norm{len(self.stages) - 1}.{leaf}'] = state_dict.pop(key)
            elif key.startswith(f'{prefix}stages.') and key.endswith('.attn_mask'):
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)


@MODELS.register_module()
class FreqVisionTransformer(PatchMixin, VisionTransformer):
    """mmpretrain's VisionTransformer, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`.

    Sizes are in pixels: ``img_size=224`` and ``patch_size=16`` give 14x14 tokens of 4x4 cells each.
    """
    projection = 'patch_embed.projection'


@MODELS.register_module()
class FreqMobileNetV2(StemlessMobileNetV2Mixin, MobileNetV2):
    """mmpretrain's MobileNetV2: :class:`~mmfreq.models.stem.StemlessMobileNetV2Mixin`."""


@MODELS.register_module()
class FreqDataPreprocessor(PlacementMixin, ClsDataPreprocessor):
    """mmpretrain's ClsDataPreprocessor that can compute DCT channels on the network's device.

    Batch augmentations work on the channels. Arguments are those of
    :class:`~mmfreq.models.dct_layer.PlacementMixin` and of the stock class.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Return ``inputs``, float32 (N, C, h, w), and ``data_samples``."""
        return super().forward(self.placed(data), training)
