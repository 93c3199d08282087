"""What mmfreq registers in mmpretrain: modified backbones and their visualization hook.

Name this module under ``custom_imports`` in a config.
"""
from pathlib import Path
from typing import Any, Sequence

import torch

from mmfreq.hosts.ops import provide_ops

provide_ops()  # mmpretrain imports parts of mmdet, which would do without ops from then on

from mmpretrain.engine.hooks import VisualizationHook  # noqa: E402
from mmpretrain.models.backbones import (  # noqa: E402
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
from mmpretrain.models.utils import ClsDataPreprocessor  # noqa: E402
from mmpretrain.registry import HOOKS, MODELS  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402

from mmfreq.image_files import read_image_file  # noqa: E402
from mmfreq.models.mobilenet_v2_stem import StemlessMobileNetV2Mixin  # noqa: E402
from mmfreq.models.preprocessor import PlacementMixin  # noqa: E402
from mmfreq.models.stem import PatchMixin, StemlessResNetMixin  # noqa: E402


@MODELS.register_module()
class FreqResNet(StemlessResNetMixin, ResNet):
    """mmpretrain's ResNet without its stem, for C DCT channels; see :class:`~mmfreq.models.stem.StemlessResNetMixin`.

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
    """mmpretrain's ResNetV1c without its deep stem, for C DCT channels; keyword arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqResNetV1d(StemlessResNetMixin, ResNetV1d):
    """mmpretrain's ResNetV1d without its deep stem, for C DCT channels; keyword arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqResNeXt(StemlessResNetMixin, ResNeXt):
    """mmpretrain's ResNeXt without its stem, for C DCT channels; arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqSEResNet(StemlessResNetMixin, SEResNet):
    """mmpretrain's SEResNet without its stem, for C DCT channels; arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqRes2Net(StemlessResNetMixin, Res2Net):
    """mmpretrain's Res2Net without its stem, for C DCT channels; keyword arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqResNeSt(StemlessResNetMixin, ResNeSt):
    """mmpretrain's ResNeSt without its deep stem, for C DCT channels; arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqRegNet(StemlessResNetMixin, RegNet):
    """mmpretrain's RegNet without its stem, for C DCT channels; see :class:`~mmfreq.models.stem.StemlessResNetMixin`.

    Args:
        arch (str | dict): As :class:`mmpretrain.models.RegNet`.
        in_channels (int): Number of DCT channels C.
        strides (Sequence[int]): Strides of the stages. Defaults to (1, 2, 2, 2): a stock RegNet halves the grid in its
            first stage, to the size at which the DCT channels come.
        **kwargs: Every other argument of :class:`mmpretrain.models.RegNet`.
    """

    def __init__(self, *args: Any, strides: Sequence[int] = (1, 2, 2, 2), **kwargs: Any) -> None:
        super().__init__(*args, strides=strides, **kwargs)


@MODELS.register_module()
class FreqConvNeXt(PatchMixin, ConvNeXt):
    """mmpretrain's ConvNeXt (V1 and V2) for C DCT channels; see :class:`~mmfreq.models.stem.PatchMixin`.

    Args:
        arch (str | dict): As :class:`mmpretrain.models.ConvNeXt`.
        in_channels (int): Number of DCT channels C.
        **kwargs: Every other argument of :class:`mmpretrain.models.ConvNeXt`.

    Example:
        >>> import torch
        >>> from mmfreq.models.cls import FreqConvNeXt
        >>> model = FreqConvNeXt('atto', in_channels=24, out_indices=(0, 3), gap_before_final_norm=False)
        >>> [tuple(level.shape) for level in model(torch.rand(1, 24, 56, 56))]
        [(1, 40, 56, 56), (1, 320, 7, 7)]
    """
    projection = 'downsample_layers.0.0'


@MODELS.register_module()
class FreqSwinTransformer(PatchMixin, SwinTransformer):
    """mmpretrain's SwinTransformer for C DCT channels; see :class:`~mmfreq.models.stem.PatchMixin`.

    Args:
        arch (str | dict): As :class:`mmpretrain.models.SwinTransformer`.
        in_channels (int): Number of DCT channels C.
        **kwargs: Every other argument of :class:`mmpretrain.models.SwinTransformer`; sizes in pixels.
    """
    projection = 'patch_embed.projection'

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *args: Any) -> None:
        # names of old checkpoints, which the stock class translates for itself but not for its subclasses
        for key in [key for key in state_dict if key.startswith((f'{prefix}norm.', f'{prefix}stages.'))]:
            if key.startswith(f'{prefix}norm.'):
                state_dict[f'{prefix}norm{len(self.stages) - 1}.{key.rpartition(".")[2]}'] = state_dict.pop(key)
            elif key.endswith('.attn_mask'):
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)


@MODELS.register_module()
class FreqVisionTransformer(PatchMixin, VisionTransformer):
    """mmpretrain's VisionTransformer for C DCT channels; see :class:`~mmfreq.models.stem.PatchMixin`.

    Args:
        arch (str | dict): As :class:`mmpretrain.models.VisionTransformer`.
        in_channels (int): Number of DCT channels C.
        **kwargs: Every other argument of :class:`mmpretrain.models.VisionTransformer`; sizes in pixels: with
            ``img_size=224`` and ``patch_size=16`` there are 14x14 tokens of 4x4 cells each.

    Example:
        >>> import torch
        >>> from mmfreq.models.cls import FreqVisionTransformer
        >>> model = FreqVisionTransformer('deit-tiny', in_channels=24, out_type='featmap')
        >>> tuple(model(torch.rand(1, 24, 56, 56))[0].shape)
        (1, 192, 14, 14)
    """
    projection = 'patch_embed.projection'


@MODELS.register_module()
class FreqMobileNetV2(StemlessMobileNetV2Mixin, MobileNetV2):
    """mmpretrain's MobileNetV2 without its stem, for C DCT channels.

    See :class:`~mmfreq.models.mobilenet_v2_stem.StemlessMobileNetV2Mixin`.

    Args:
        in_channels (int): Number of DCT channels C.
        **kwargs: Every other argument of :class:`mmpretrain.models.MobileNetV2`.

    Example:
        >>> import torch
        >>> from mmfreq.models.cls import FreqMobileNetV2
        >>> model = FreqMobileNetV2(in_channels=12)
        >>> tuple(model(torch.rand(1, 12, 112, 112))[0].shape)
        (1, 1280, 7, 7)
    """


@MODELS.register_module()
class FreqDataPreprocessor(PlacementMixin, ClsDataPreprocessor):
    """mmpretrain's ClsDataPreprocessor that can make DCT channels of photos on the network's device.

    The batch augmentations work on the channels with either placement.

    Args:
        placement (str): See :class:`~mmfreq.models.preprocessor.PlacementMixin`. Defaults to ``'cpu'``.
        freq (dict, optional): See there; needed with ``placement='device'``.
        **kwargs: Every argument of :class:`mmpretrain.models.ClsDataPreprocessor`.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """As the stock preprocessor, on DCT channels: ``inputs`` float32 (N, C, h, w) and ``data_samples``."""
        return super().forward(self.placed(data), training)


class _Photos:
    """The photos behind a batch, each read when it is asked for: ``photos[i]`` is uint8 RGB (3, H, W)."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(read_image_file(self.paths[index])[:, :, ::-1].copy()).permute(2, 0, 1)


@HOOKS.register_module()
class FreqVisualizationHook(VisualizationHook):
    """mmpretrain's VisualizationHook, drawing on the photo files instead of the network's input.

    Pictures are named after the photo and its folder, so that class-per-folder data sets with equal file names do not
    overwrite each other's. Arguments as :class:`mmpretrain.engine.hooks.VisualizationHook`. The pipeline's packer must
    keep ``img_path``, as it does by default.
    """

    def _draw_samples(self, batch_idx: int, data_batch: dict[str, Any], data_samples: Sequence[DataSample],
                      step: int = 0) -> None:
        if not self.enable:
            return
        paths = [sample.img_path for sample in data_samples]
        named = [sample.new(metainfo={**sample.metainfo, 'img_path': '-'.join(Path(path).parts[-2:])})
                 for sample, path in zip(data_samples, paths)]
        super()._draw_samples(batch_idx, dict(data_batch, inputs=_Photos(paths)), named, step)
