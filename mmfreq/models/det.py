"""Backbones and a preprocessor for mmdet.

Name this module under ``custom_imports`` in a config. Where mmcv has no compiled ops, importing it
lets mmdet use torchvision's (:mod:`mmfreq.models.ops`), and it registers
:class:`~mmfreq.datasets.coco.CheckedCocoDataset`.
"""
from collections import OrderedDict
from functools import partial
from typing import Any, Optional, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from mmfreq.models.ops import provide_ops

provide_ops()  # before mmdet looks for them

from mmdet.models import backbones  # noqa: E402
from mmdet.models.data_preprocessors import BatchFixedSizePad, DetDataPreprocessor  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402

from mmfreq.config.pipelines import DEFAULT_STRIDE, transform_type  # noqa: E402
from mmfreq.datasets import coco  # noqa: E402, F401  configs name its data set
from mmfreq.dct.blocks import grid_shape  # noqa: E402
from mmfreq.errors import RefusedError  # noqa: E402
from mmfreq.models.dct_layer import PlacementMixin  # noqa: E402
from mmfreq.models.stem import (  # noqa: E402
    PatchMixin,
    ProjectionMixin,
    StemlessMobileNetV2Mixin,
    StemlessRegNetMixin,
    StemlessResNetMixin,
    register_backbone,
)
from mmfreq.models.unpack import register_unpacked  # noqa: E402

register = partial(register_backbone, MODELS, __name__)

FreqResNet = register(StemlessResNetMixin, backbones.ResNet)
FreqResNetV1d = register(StemlessResNetMixin, backbones.ResNetV1d)
FreqResNeXt = register(StemlessResNetMixin, backbones.ResNeXt)
FreqRes2Net = register(StemlessResNetMixin, backbones.Res2Net)
FreqResNeSt = register(StemlessResNetMixin, backbones.ResNeSt)
FreqDetectoRS_ResNet = register(StemlessResNetMixin, backbones.DetectoRS_ResNet)
FreqTridentResNet = register(StemlessResNetMixin, backbones.TridentResNet)
FreqRegNet = register(StemlessRegNetMixin, backbones.RegNet)
# A cell covers 2 pixels: FusedBlockDCT(..., upscale=4), and stride=2 in FreqDetDataPreprocessor.
FreqMobileNetV2 = register(StemlessMobileNetV2Mixin, backbones.MobileNetV2)

FreqSwinTransformer = register(PatchMixin, backbones.SwinTransformer)
FreqPyramidVisionTransformer = register(PatchMixin, backbones.PyramidVisionTransformer,
                                        projection='layers.0.0.projection')
FreqPyramidVisionTransformerV2 = register(PatchMixin, backbones.PyramidVisionTransformerV2,
                                          projection='layers.0.0.projection')

# conv2's norm stays: in place, ReLU cannot follow itself
FreqHRNet = register(ProjectionMixin, backbones.HRNet, projection='conv1', stem_modules=('conv2', ))
FreqEfficientNet = register(ProjectionMixin, backbones.EfficientNet, input_stride=2, unfrozen=0,
                            projection='layers.0.conv')
FreqHourglassNet = register(ProjectionMixin, backbones.HourglassNet, input_stride=2,
                            projection='stem.0.conv')
FreqCSPNeXt = register(ProjectionMixin, backbones.CSPNeXt, input_stride=2,
                       projection='stem.2.conv', stem_modules=('stem.0', 'stem.1'))
FreqDarknet = register(ProjectionMixin, backbones.Darknet, input_stride=2,
                       projection='conv_res_block1.conv.conv', stem_modules=('conv1', ))
FreqSSDVGG = register(ProjectionMixin, backbones.SSDVGG, input_stride=2, projection='features.2',
                      stem_modules=('features.0', 'features.1', 'features.4'))  # depth 13, 16, 19


@MODELS.register_module()
class FreqCSPDarknet(ProjectionMixin, backbones.CSPDarknet):
    """mmdet's CSPDarknet, for DCT channels: :class:`~mmfreq.models.stem.ProjectionMixin`."""
    input_stride = 2
    projection = 'stem.conv.conv'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stem = nn.Sequential(OrderedDict(conv=self.stem.conv))  # no slices of pixels


# Any backbone, with its stem, behind a layer that makes pixels of the channels: UnpackedResNet, ...
globals().update(register_unpacked(MODELS, __name__, vars(backbones).values()))


@MODELS.register_module()
class FreqDetDataPreprocessor(PlacementMixin, DetDataPreprocessor):
    """Batch DCT inputs of different sizes; keep everything but the input tensor in pixels.

    ``pad_shape`` and ``batch_input_shape`` of the data samples are the padded input's size in
    pixels, as the stock preprocessor sets them; masks are padded to it. ``img_shape``,
    ``scale_factor`` and boxes stay as they are. The inputs come normalised from the pipeline, as
    float32 or int8, or are images that become DCT channels here; they are padded with 0, each
    channel's mean.

    Args:
        pad_size_divisor (int): The padded image is a multiple of so many pixels, as in the stock
            config; a multiple of ``stride``. Defaults to 32.
        stride (int): Pixels of the resized image that one cell covers: block_size / upscale.
            Defaults to 4.
        mean (Sequence[float], optional): ``[0]`` to undo ``FreqNormalize(..., dtype='int8',
            scale=s)``. Defaults to None.
        std (Sequence[float], optional): ``[s]`` to undo that transform. Defaults to None.
        placement (str): Where images become DCT channels; see
            :class:`~mmfreq.models.dct_layer.PlacementMixin`. Defaults to ``'cpu'``.
        freq (dict, optional): See there; needed with ``placement='device'``.
        batch_augments (list[dict], optional): ``BatchFixedSizePad`` with a ``size`` in pixels.
            Defaults to None.
        **kwargs: ``pad_mask``, ``mask_pad_value``, ``pad_seg``, ``seg_pad_value``,
            ``boxtype2tensor`` and ``non_blocking`` of :class:`mmdet.models.DetDataPreprocessor`.

    Raises:
        RefusedError: ``pad_size_divisor`` is not a multiple of ``stride``, or ``batch_augments`` do
            anything but pad with 0 to a multiple of ``stride``.
    """

    def __init__(self, pad_size_divisor: int = 32, stride: int = DEFAULT_STRIDE,
                 batch_augments: Optional[Sequence[dict]] = None, **kwargs: Any) -> None:
        if pad_size_divisor % stride:
            raise RefusedError(f'pad_size_divisor: expected a multiple of stride={stride} pixels, '
                               f'got {pad_size_divisor}')
        for augment in batch_augments or ():
            fixed = transform_type(augment) == 'BatchFixedSizePad' and not augment.get('img_pad_value')
            if not fixed or any(side % stride for side in augment['size']):
                raise RefusedError('batch_augments: expected BatchFixedSizePad(img_pad_value=0) to a '
                                   f'multiple of stride={stride} pixels, got {dict(augment)}')
        super().__init__(pad_size_divisor=pad_size_divisor // stride,
                         batch_augments=batch_augments, **kwargs)
        self.stride = stride

    def forward(self, data: dict, training: bool = False) -> dict:
        """Stack and pad the inputs; set the samples' shapes in pixels.

        Args:
            data (dict): ``inputs`` (list of (C, h, w) tensors, or one (N, C, h, w); with
                ``placement='device'`` uint8 images (3, H, W)) and ``data_samples``.
            training (bool): Whether to pad masks and to apply ``batch_augments``.

        Returns:
            dict: ``inputs`` (float32 (N, C, h, w)) and ``data_samples``.

        Raises:
            ValueError: An input does not have the cells of its sample's ``img_shape`` at this
                ``stride``.
        """
        data = self.placed(data)
        self._check_cells(data)
        data = super().forward(data, training=False)  # leaves padding the masks to us
        inputs, samples = data['inputs'], data['data_samples']
        if samples is not None:
            batch_input_shape = tuple(self.stride * side for side in inputs.shape[-2:])
            for sample in samples:
                sample.set_metainfo(dict(batch_input_shape=batch_input_shape))
            if training and self.pad_mask:
                self.pad_gt_masks(samples)
            if training and self.pad_seg:
                self.pad_gt_sem_seg(samples)
        for pad in (self.batch_augments or ()) if training else ():
            inputs = self._pad_to_fixed_size(pad, inputs, samples)
        return dict(inputs=inputs, data_samples=samples)

    def _pad_to_fixed_size(self, pad: BatchFixedSizePad, inputs: torch.Tensor,
                           samples: Optional[list]) -> torch.Tensor:
        """Let the stock module pad ``samples`` for the images' size; return padded ``inputs``."""
        height, width = inputs.shape[-2:]
        pad(torch.empty(1, self.stride * height, self.stride * width, device='meta'), samples)
        rows, columns = (side // self.stride for side in pad.size)
        return F.pad(inputs, (0, max(columns - width, 0), 0, max(rows - height, 0)))

    def _check_cells(self, data: dict) -> None:
        for cells, sample in zip(data['inputs'], data.get('data_samples') or ()):
            pixels = sample.get('img_shape')
            expected = pixels and grid_shape(pixels, self.stride)
            if expected and tuple(cells.shape[-2:]) != expected:
                raise ValueError(
                    f'FreqDetDataPreprocessor: expected {expected} cells for img_shape={pixels} at '
                    f'stride={self.stride}, got an input of shape {tuple(cells.shape)}; stride '
                    'must be block_size / upscale of the DCT in the pipeline')

    def _get_pad_shape(self, data: dict) -> list[tuple[int, int]]:
        shapes = super()._get_pad_shape(data)
        return [(self.stride * height, self.stride * width) for height, width in shapes]
