"""What mmfreq registers in mmpretrain: modified backbones and their visualization hook.

Name this module under ``custom_imports`` in a config.
"""
from pathlib import Path
from typing import Any, Sequence

import torch

from mmfreq.ops import provide_ops

provide_ops()  # mmpretrain imports parts of mmdet, which would do without ops from then on

from mmpretrain.engine.hooks import VisualizationHook  # noqa: E402
from mmpretrain.models.backbones import ResNet, ResNetV1c, ResNetV1d  # noqa: E402
from mmpretrain.models.utils import ClsDataPreprocessor  # noqa: E402
from mmpretrain.registry import HOOKS, MODELS  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402

from mmfreq.image_files import read_image_file  # noqa: E402
from mmfreq.models.preprocess import PlacementMixin  # noqa: E402
from mmfreq.models.stem import StemlessMixin  # noqa: E402


@MODELS.register_module()
class FreqResNet(StemlessMixin, ResNet):
    """mmpretrain's ResNet without its stem, for C DCT channels; see :class:`~mmfreq.models.stem.StemlessMixin`.

    Args:
        depth (int): Depth of the network, from {18, 34, 50, 101, 152}.
        in_channels (int): Number of DCT channels C.
        **kwargs: Every other argument of :class:`mmpretrain.models.ResNet`.

    Example:
        >>> import torch
        >>> from mmfreq.models.cls import FreqResNet
        >>> model = FreqResNet(50, in_channels=24)
        >>> tuple(model(torch.rand(1, 24, 56, 56))[0].shape)
        (1, 2048, 7, 7)
    """


@MODELS.register_module()
class FreqResNetV1c(StemlessMixin, ResNetV1c):
    """mmpretrain's ResNetV1c without its deep stem, for C DCT channels; keyword arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqResNetV1d(StemlessMixin, ResNetV1d):
    """mmpretrain's ResNetV1d without its deep stem, for C DCT channels; keyword arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqDataPreprocessor(PlacementMixin, ClsDataPreprocessor):
    """mmpretrain's ClsDataPreprocessor that can make DCT channels of photos on the network's device.

    The batch augmentations work on the channels with either placement.

    Args:
        placement (str): See :class:`~mmfreq.models.preprocess.PlacementMixin`. Defaults to ``'cpu'``.
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
