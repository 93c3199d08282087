"""Backbones and a preprocessor for mmpretrain.

Name this module under ``custom_imports`` in a config.
"""
from functools import partial
from typing import Any

from mmfreq.models.ops import provide_ops

provide_ops()  # before mmpretrain imports mmdet, if it is installed

from mmpretrain.models import backbones  # noqa: E402
from mmpretrain.models.utils import ClsDataPreprocessor  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402

from mmfreq.models.dct_layer import PlacementMixin  # noqa: E402
from mmfreq.models.pretrained import StateDict  # noqa: E402
from mmfreq.models.stem import (  # noqa: E402
    PatchMixin,
    PlainStemMixin,
    ProjectionMixin,
    StemlessMobileNetV2Mixin,
    StemlessRegNetMixin,
    StemlessResNetMixin,
    register_backbone,
)
from mmfreq.models.unpack import register_unpacked  # noqa: E402

register = partial(register_backbone, MODELS, __name__)

# ResNets and MobileNetV2, whose stem goes
FreqResNet = register(StemlessResNetMixin, backbones.ResNet)
FreqResNetV1c = register(StemlessResNetMixin, backbones.ResNetV1c)
FreqResNetV1d = register(StemlessResNetMixin, backbones.ResNetV1d)
FreqResNeXt = register(StemlessResNetMixin, backbones.ResNeXt)
FreqSEResNet = register(StemlessResNetMixin, backbones.SEResNet)
FreqSEResNeXt = register(StemlessResNetMixin, backbones.SEResNeXt)
FreqRes2Net = register(StemlessResNetMixin, backbones.Res2Net)
FreqResNeSt = register(StemlessResNetMixin, backbones.ResNeSt)
FreqRegNet = register(StemlessRegNetMixin, backbones.RegNet)
FreqMobileNetV2 = register(StemlessMobileNetV2Mixin, backbones.MobileNetV2)

# Patch embeddings become projections
FreqBEiTViT = register(PatchMixin, backbones.BEiTViT)
FreqDaViT = register(PatchMixin, backbones.DaViT)
FreqDeiT3 = register(PatchMixin, backbones.DeiT3)
FreqDistilledVisionTransformer = register(PatchMixin, backbones.DistilledVisionTransformer)
FreqMixMIMTransformer = register(PatchMixin, backbones.MixMIMTransformer)
FreqMViT = register(PatchMixin, backbones.MViT)
FreqRevVisionTransformer = register(PatchMixin, backbones.RevVisionTransformer)
FreqSwinTransformerV2 = register(PatchMixin, backbones.SwinTransformerV2)
FreqVisionTransformer = register(PatchMixin, backbones.VisionTransformer)
FreqViTEVA02 = register(PatchMixin, backbones.ViTEVA02)  # patches of 14 pixels need input_stride=2
FreqConvNeXt = register(PatchMixin, backbones.ConvNeXt, projection='downsample_layers.0.0')
FreqEdgeNeXt = register(PatchMixin, backbones.EdgeNeXt, projection='downsample_layers.0.0')
FreqHorNet = register(PatchMixin, backbones.HorNet, projection='downsample_layers.0.0')
FreqPCPVT = register(PatchMixin, backbones.PCPVT, projection='patch_embeds.0.projection')
FreqSVT = register(PatchMixin, backbones.SVT, projection='patch_embeds.0.projection')
FreqRIFormer = register(PatchMixin, backbones.RIFormer, projection='patch_embed.proj')
FreqVAN = register(PatchMixin, backbones.VAN, projection='patch_embed1.projection')


class SwinTransformer(backbones.SwinTransformer):
    """mmpretrain's SwinTransformer that translates old checkpoints for derived classes too."""

    def _load_from_state_dict(self, state_dict: StateDict, prefix: str, *args: Any) -> None:
        for key in list(state_dict):
            if key.startswith(f'{prefix}norm.'):
                leaf = key.rpartition('.')[2]
                state_dict[f'{prefix}norm{len(self.stages) - 1}.{leaf}'] = state_dict.pop(key)
            elif key.startswith(f'{prefix}stages.') and key.endswith('.attn_mask'):
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)


FreqSwinTransformer = register(PatchMixin, SwinTransformer)


@MODELS.register_module()
class FreqRepMLPNet(PatchMixin, backbones.RepMLPNet):
    """mmpretrain's RepMLPNet, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.img_size = tuple(side // self.input_stride for side in self.img_size)  # of the grid


@MODELS.register_module()
class FreqPoolFormer(PatchMixin, backbones.PoolFormer):
    """mmpretrain's PoolFormer, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""
    projection = 'patch_embed.proj'

    def __init__(self, *args: Any, frozen_stages: int = -1, **kwargs: Any) -> None:
        # The stock default freezes the patch embedding, even in training from scratch.
        super().__init__(*args, frozen_stages=frozen_stages, **kwargs)


@MODELS.register_module()
class FreqHiViT(PatchMixin, backbones.HiViT):
    """mmpretrain's HiViT, for DCT channels: :class:`~mmfreq.models.stem.PatchMixin`."""
    projection = 'patch_embed.proj'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.patch_size //= self.input_stride  # in cells
        self.patch_embed.patch_size = [self.patch_size] * 2


# Other stems become projections: first those of stride 2, then of stride 4
FreqMobileOne = register(PlainStemMixin, backbones.MobileOne, projection='stage0')
FreqRepVGG = register(PlainStemMixin, backbones.RepVGG, projection='stem')
FreqEfficientNet = register(ProjectionMixin, backbones.EfficientNet, input_stride=2, unfrozen=0,
                            projection='layers.0.conv')
FreqEfficientNetV2 = register(ProjectionMixin, backbones.EfficientNetV2, input_stride=2, unfrozen=0,
                              projection='layers.0.conv')
FreqMobileNetV3 = register(ProjectionMixin, backbones.MobileNetV3, input_stride=2,
                           projection='layer0.conv')
FreqMobileViT = register(ProjectionMixin, backbones.MobileViT, input_stride=2,
                         projection='stem.conv')
FreqCSPDarkNet = register(ProjectionMixin, backbones.CSPDarkNet, input_stride=2,
                          projection='stages.0.downsample_conv.conv', stem_modules=('stem', ))


@MODELS.register_module()
class FreqVGG(ProjectionMixin, backbones.VGG):
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


FreqCSPResNet = register(ProjectionMixin, backbones.CSPResNet,
                         projection='stem.0.conv', stem_modules=('stem.1', ))
FreqCSPResNeXt = register(ProjectionMixin, backbones.CSPResNeXt,
                          projection='stem.0.conv', stem_modules=('stem.1', ))
FreqConformer = register(ProjectionMixin, backbones.Conformer,
                         projection='conv1', stem_modules=('maxpool', ))
FreqDenseNet = register(ProjectionMixin, backbones.DenseNet,
                        projection='stem.0', stem_modules=('stem.3', ))
FreqEfficientFormer = register(ProjectionMixin, backbones.EfficientFormer,
                               projection='patch_embed.1.conv', stem_modules=('patch_embed.0', ))
# conv2's norm stays: in place, ReLU cannot follow itself
FreqHRNet = register(ProjectionMixin, backbones.HRNet, projection='conv1', stem_modules=('conv2', ))
FreqPyramidVig = register(ProjectionMixin, backbones.PyramidVig,
                          projection='stem.3', stem_modules=('stem.0', 'stem.1', 'stem.2'))
FreqVig = register(ProjectionMixin, backbones.Vig,
                   projection='stem.3', stem_modules=('stem.0', 'stem.1', 'stem.2'))
FreqRepLKNet = register(ProjectionMixin, backbones.RepLKNet,
                        projection='stem.0.conv', stem_modules=('stem.1', 'stem.2', 'stem.3'))
FreqShuffleNetV2 = register(ProjectionMixin, backbones.ShuffleNetV2,
                            projection='conv1.conv', stem_modules=('maxpool', ))
FreqTinyViT = register(ProjectionMixin, backbones.TinyViT, projection='patch_embed.seq.2.conv2d',
                       stem_modules=('patch_embed.seq.0', 'patch_embed.seq.1'))
FreqXCiT = register(ProjectionMixin, backbones.XCiT, projection='patch_embed.proj.1.conv',
                    stem_modules=('patch_embed.proj.0', ))


@MODELS.register_module()
class FreqLeViT(ProjectionMixin, backbones.LeViT):
    """mmpretrain's LeViT, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    stem_modules = ('patch_embed.patch_embed.0', 'patch_embed.patch_embed.1')

    @property
    def projection(self) -> str:
        """Name of the second convolution; ``deploy=True`` fuses it with its norm."""
        return 'patch_embed.patch_embed.2' if self.deploy else 'patch_embed.patch_embed.2.conv'


# Any backbone, with its stem, behind a layer that makes pixels of the channels: UnpackedResNet, ...
globals().update(register_unpacked(
    MODELS, __name__, {**vars(backbones), 'SwinTransformer': SwinTransformer}.values()))


@MODELS.register_module()
class FreqDataPreprocessor(PlacementMixin, ClsDataPreprocessor):
    """mmpretrain's ClsDataPreprocessor that can compute DCT channels on the network's device.

    Batch augmentations work on the channels. Arguments are those of
    :class:`~mmfreq.models.dct_layer.PlacementMixin` and of the stock class.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Return ``inputs``, float32 (N, C, h, w), and ``data_samples``."""
        return super().forward(self.placed(data), training)
