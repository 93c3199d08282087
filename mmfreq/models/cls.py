"""What mmfreq registers in mmpretrain: backbones and a preprocessor.

Name this module under ``custom_imports`` in a config.
"""
from typing import Any, Sequence

from mmpretrain.models.backbones import (
    PCPVT,
    SVT,
    VAN,
    VGG,
    BEiTViT,
    Conformer,
    ConvNeXt,
    CSPDarkNet,
    CSPResNet,
    CSPResNeXt,
    DaViT,
    DeiT3,
    DenseNet,
    DistilledVisionTransformer,
    EdgeNeXt,
    EfficientFormer,
    EfficientNet,
    EfficientNetV2,
    HiViT,
    HorNet,
    HRNet,
    LeViT,
    MixMIMTransformer,
    MobileNetV2,
    MobileNetV3,
    MobileOne,
    MobileViT,
    MViT,
    PoolFormer,
    PyramidVig,
    RegNet,
    RepLKNet,
    RepMLPNet,
    RepVGG,
    Res2Net,
    ResNeSt,
    ResNet,
    ResNetV1c,
    ResNetV1d,
    ResNeXt,
    RevVisionTransformer,
    RIFormer,
    SEResNet,
    SEResNeXt,
    ShuffleNetV2,
    SwinTransformer,
    SwinTransformerV2,
    TinyViT,
    Vig,
    VisionTransformer,
    ViTEVA02,
    XCiT,
)
from mmpretrain.models.utils import ClsDataPreprocessor
from mmpretrain.registry import MODELS

import mmfreq.hosts.drawing  # noqa: F401  the hook that configs name
from mmfreq.hosts.hub import provide_models
from mmfreq.models.dct_layer import PlacementMixin
from mmfreq.models.pretrained import StateDict
from mmfreq.models.stem import (
    PatchMixin,
    PlainStemMixin,
    ProjectionMixin,
    StemlessMobileNetV2Mixin,
    StemlessResNetMixin,
)

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


@MODELS.register_module()
class FreqMobileNetV2(StemlessMobileNetV2Mixin, MobileNetV2):
    """mmpretrain's MobileNetV2: :class:`~mmfreq.models.stem.StemlessMobileNetV2Mixin`."""


@MODELS.register_module()
class FreqSEResNeXt(StemlessResNetMixin, SEResNeXt):
    """mmpretrain's SEResNeXt without its stem; arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqBEiTViT(PatchMixin, BEiTViT):
    """mmpretrain's BEiTViT, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""


@MODELS.register_module()
class FreqDaViT(PatchMixin, DaViT):
    """mmpretrain's DaViT, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""


@MODELS.register_module()
class FreqDeiT3(PatchMixin, DeiT3):
    """mmpretrain's DeiT3, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""


@MODELS.register_module()
class FreqDistilledVisionTransformer(PatchMixin, DistilledVisionTransformer):
    """mmpretrain's DistilledVisionTransformer: :class:`~mmfreq.models.stem.PatchMixin`."""


@MODELS.register_module()
class FreqMixMIMTransformer(PatchMixin, MixMIMTransformer):
    """mmpretrain's MixMIMTransformer, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""


@MODELS.register_module()
class FreqMViT(PatchMixin, MViT):
    """mmpretrain's MViT, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""


@MODELS.register_module()
class FreqRepMLPNet(PatchMixin, RepMLPNet):
    """mmpretrain's RepMLPNet, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.img_size = tuple(side // self.input_stride for side in self.img_size)  # of the grid


@MODELS.register_module()
class FreqRevVisionTransformer(PatchMixin, RevVisionTransformer):
    """mmpretrain's RevVisionTransformer: :class:`~mmfreq.models.stem.PatchMixin`."""


@MODELS.register_module()
class FreqSwinTransformerV2(PatchMixin, SwinTransformerV2):
    """mmpretrain's SwinTransformerV2, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""


@MODELS.register_module()
class FreqViTEVA02(PatchMixin, ViTEVA02):
    """mmpretrain's ViTEVA02, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`.

    Its patches of 14 pixels need ``input_stride=2``.
    """


@MODELS.register_module()
class FreqEdgeNeXt(PatchMixin, EdgeNeXt):
    """mmpretrain's EdgeNeXt, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""
    projection = 'downsample_layers.0.0'


@MODELS.register_module()
class FreqHorNet(PatchMixin, HorNet):
    """mmpretrain's HorNet, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""
    projection = 'downsample_layers.0.0'


@MODELS.register_module()
class FreqPCPVT(PatchMixin, PCPVT):
    """mmpretrain's PCPVT, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""
    projection = 'patch_embeds.0.projection'


@MODELS.register_module()
class FreqSVT(PatchMixin, SVT):
    """mmpretrain's SVT, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""
    projection = 'patch_embeds.0.projection'


@MODELS.register_module()
class FreqPoolFormer(PatchMixin, PoolFormer):
    """mmpretrain's PoolFormer, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""
    projection = 'patch_embed.proj'

    def __init__(self, *args: Any, frozen_stages: int = -1, **kwargs: Any) -> None:
        # The stock default freezes the patch embedding, even in training from scratch.
        super().__init__(*args, frozen_stages=frozen_stages, **kwargs)


@MODELS.register_module()
class FreqRIFormer(PatchMixin, RIFormer):
    """mmpretrain's RIFormer, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""
    projection = 'patch_embed.proj'


@MODELS.register_module()
class FreqVAN(PatchMixin, VAN):
    """mmpretrain's VAN, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""
    projection = 'patch_embed1.projection'


@MODELS.register_module()
class FreqHiViT(PatchMixin, HiViT):
    """mmpretrain's HiViT, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""
    projection = 'patch_embed.proj'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.patch_size //= self.input_stride  # in cells
        self.patch_embed.patch_size = [self.patch_size] * 2


@MODELS.register_module()
class FreqEfficientNet(ProjectionMixin, EfficientNet):
    """mmpretrain's EfficientNet, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    input_stride = 2
    unfrozen = 0
    projection = 'layers.0.conv'


@MODELS.register_module()
class FreqEfficientNetV2(ProjectionMixin, EfficientNetV2):
    """mmpretrain's EfficientNetV2: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    input_stride = 2
    unfrozen = 0
    projection = 'layers.0.conv'


@MODELS.register_module()
class FreqMobileNetV3(ProjectionMixin, MobileNetV3):
    """mmpretrain's MobileNetV3, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    input_stride = 2
    projection = 'layer0.conv'


@MODELS.register_module()
class FreqMobileViT(ProjectionMixin, MobileViT):
    """mmpretrain's MobileViT, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    input_stride = 2
    projection = 'stem.conv'


@MODELS.register_module()
class FreqCSPDarkNet(ProjectionMixin, CSPDarkNet):
    """mmpretrain's CSPDarkNet, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    input_stride = 2
    projection = 'stages.0.downsample_conv.conv'
    stem_modules = ('stem', )


@MODELS.register_module()
class FreqCSPResNet(ProjectionMixin, CSPResNet):
    """mmpretrain's CSPResNet, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    projection = 'stem.0.conv'
    stem_modules = ('stem.1', )


@MODELS.register_module()
class FreqCSPResNeXt(ProjectionMixin, CSPResNeXt):
    """mmpretrain's CSPResNeXt, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    projection = 'stem.0.conv'
    stem_modules = ('stem.1', )


@MODELS.register_module()
class FreqConformer(ProjectionMixin, Conformer):
    """mmpretrain's Conformer, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    projection = 'conv1'
    stem_modules = ('maxpool', )


@MODELS.register_module()
class FreqDenseNet(ProjectionMixin, DenseNet):
    """mmpretrain's DenseNet, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    projection = 'stem.0'
    stem_modules = ('stem.3', )


@MODELS.register_module()
class FreqEfficientFormer(ProjectionMixin, EfficientFormer):
    """mmpretrain's EfficientFormer: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    projection = 'patch_embed.1.conv'
    stem_modules = ('patch_embed.0', )


@MODELS.register_module()
class FreqPyramidVig(ProjectionMixin, PyramidVig):
    """mmpretrain's PyramidVig, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    projection = 'stem.3'
    stem_modules = ('stem.0', 'stem.1', 'stem.2')


@MODELS.register_module()
class FreqVig(ProjectionMixin, Vig):
    """mmpretrain's Vig, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    projection = 'stem.3'
    stem_modules = ('stem.0', 'stem.1', 'stem.2')


@MODELS.register_module()
class FreqRepLKNet(ProjectionMixin, RepLKNet):
    """mmpretrain's RepLKNet, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    projection = 'stem.0.conv'
    stem_modules = ('stem.1', 'stem.2', 'stem.3')


@MODELS.register_module()
class FreqShuffleNetV2(ProjectionMixin, ShuffleNetV2):
    """mmpretrain's ShuffleNetV2, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    projection = 'conv1.conv'
    stem_modules = ('maxpool', )


@MODELS.register_module()
class FreqTinyViT(ProjectionMixin, TinyViT):
    """mmpretrain's TinyViT, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    projection = 'patch_embed.seq.2.conv2d'
    stem_modules = ('patch_embed.seq.0', 'patch_embed.seq.1')


@MODELS.register_module()
class FreqXCiT(ProjectionMixin, XCiT):
    """mmpretrain's XCiT, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    projection = 'patch_embed.proj.1.conv'
    stem_modules = ('patch_embed.proj.0', )


@MODELS.register_module()
class FreqHRNet(ProjectionMixin, HRNet):
    """mmpretrain's HRNet, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    projection = 'conv1'
    stem_modules = ('conv2', )  # its norm stays: in place, ReLU cannot follow itself


@MODELS.register_module()
class FreqLeViT(ProjectionMixin, LeViT):
    """mmpretrain's LeViT, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    stem_modules = ('patch_embed.patch_embed.0', 'patch_embed.patch_embed.1')

    @property
    def projection(self) -> str:
        """Name of the second convolution; ``deploy=True`` fuses it with its norm."""
        return 'patch_embed.patch_embed.2' if self.deploy else 'patch_embed.patch_embed.2.conv'


@MODELS.register_module()
class FreqVGG(ProjectionMixin, VGG):
    """mmpretrain's VGG, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    input_stride = 2

    @property
    def projection(self) -> str:
        """Name of the last convolution of the first stage."""
        return f'features.{self.stage_blocks[0] - 1}.conv'

    @property
    def stem_modules(self) -> tuple[str, ...]:
        """Names of the other layers of the first stage: its first convolution and its max-pool."""
        count = self.stage_blocks[0]
        return tuple(f'features.{i}' for i in range(count + 1) if i != count - 1)


@MODELS.register_module()
class FreqMobileOne(PlainStemMixin, MobileOne):
    """mmpretrain's MobileOne, for DCT channels: :class:`~mmfreq.models.stem.PlainStemMixin`."""
    projection = 'stage0'


@MODELS.register_module()
class FreqRepVGG(PlainStemMixin, RepVGG):
    """mmpretrain's RepVGG, for DCT channels: :class:`~mmfreq.models.stem.PlainStemMixin`."""
    projection = 'stem'


@MODELS.register_module()
class FreqDataPreprocessor(PlacementMixin, ClsDataPreprocessor):
    """mmpretrain's ClsDataPreprocessor that can compute DCT channels on the network's device.

    Batch augmentations work on the channels. Arguments are those of
    :class:`~mmfreq.models.dct_layer.PlacementMixin` and of the stock class.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Return ``inputs``, float32 (N, C, h, w), and ``data_samples``."""
        return super().forward(self.placed(data), training)
