"""Backbones and a preprocessor for mmseg.

Name this module under ``custom_imports`` in a config. The backbones keep their stock stem, behind a
layer from channels to pixels. A whole config::

    _base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'
    custom_imports = dict(imports=['mmfreq.models.seg'])
    freq = dict(type='FusedBlockDCT', channels='24N', stats='imagenette-224-4x4', block_size=4)
    data_preprocessor = dict(type='FreqSegDataPreProcessor', mean=None, std=None, bgr_to_rgb=False)
    model = dict(data_preprocessor=data_preprocessor, pretrained=None, backbone=dict(
        type='UnpackedResNetV1c', freq=freq, pixels=_base_.model.data_preprocessor))
    train_pipeline = [*_base_.train_pipeline[:-1], dict(type='RoundPixels'), freq, _base_.train_pipeline[-1]]
    test_pipeline = [*_base_.test_pipeline[:-1], freq, _base_.test_pipeline[-1]]
    train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
    val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
    test_dataloader, tta_pipeline = val_dataloader, None
    default_hooks = dict(input_spec=dict(type='InputSpecHook'))
"""
from typing import Any

import torch
from mmengine.structures import PixelData
from torch.nn import functional as F  # noqa: N812

from mmfreq.models.ops import provide_ops

provide_ops()  # before mmseg looks for them

from mmseg.models import SegDataPreProcessor, backbones  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402

from mmfreq.config.pipelines import DEFAULT_STRIDE  # noqa: E402
from mmfreq.dct.blocks import grid_shape  # noqa: E402
from mmfreq.models.unpack import register_unpacked  # noqa: E402

# UnpackedResNetV1c, UnpackedSwinTransformer, ...
globals().update(register_unpacked(MODELS, __name__, vars(backbones).values()))


@MODELS.register_module()
class FreqSegDataPreProcessor(SegDataPreProcessor):
    """Batch DCT inputs; keep labels and shapes in pixels.

    The inputs come normalised from the pipeline. They are padded with 0, each channel's mean, to the
    size to which mmseg pads the image and its labels. Predictions are those of ``mode='whole'``:
    mmseg's sliding window would cut cells as if they were pixels.

    Args:
        stride (int): Pixels that one cell covers. Defaults to 4.
        mean (Sequence[float], optional): ``[0]`` to undo ``FreqNormalize(..., dtype='int8', scale=s)``.
            Defaults to None.
        std (Sequence[float], optional): ``[s]`` to undo that transform. Defaults to None.
        **kwargs: ``size``, ``size_divisor``, ``seg_pad_val`` and ``test_cfg`` of
            :class:`mmseg.models.SegDataPreProcessor`, in pixels. It has no ``batch_augments``, which
            are for pixels.
    """

    def __init__(self, stride: int = DEFAULT_STRIDE, **kwargs: Any) -> None:
        super().__init__(batch_augments=None, **kwargs)
        self.stride = stride

    def forward(self, data: dict, training: bool = False) -> dict:
        """Stack and pad the inputs.

        Args:
            data (dict): ``inputs`` (list of (C, h, w) tensors) and ``data_samples``, with ``img_shape``.
            training (bool): Whether to pad the labels.

        Returns:
            dict: ``inputs`` (float32 (N, C, h, w)) and ``data_samples``.

        Raises:
            ValueError: An input does not have the cells of its sample's ``img_shape``.
        """
        data = self.cast_data(data)
        shapes = [sample.img_shape[:2] for sample in data['data_samples']]
        for cells, shape in zip(data['inputs'], shapes):
            if cells.shape[1:] != grid_shape(shape, self.stride):
                raise ValueError(f'FreqSegDataPreProcessor: expected {grid_shape(shape, self.stride)} cells for '
                                 f'img_shape={shape} at stride={self.stride}, got {tuple(cells.shape)}')
        images = [torch.empty(1, *shape, device=self.device) for shape in shapes]
        batch = super().forward(dict(data, inputs=images), training)
        rows, columns = grid_shape(batch['inputs'].shape[2:], self.stride)
        mean, std = (self.mean, self.std) if self._enable_normalize else (0, 1)
        inputs = [F.pad((cells - mean) / std, (0, columns - cells.shape[2], 0, rows - cells.shape[1]))
                  for cells in data['inputs']]
        height, width = rows * self.stride, columns * self.stride
        for sample, shape in zip(batch['data_samples'], shapes):
            padding = [0, width - shape[1], 0, height - shape[0]]  # mmseg crops logits by it
            sample.set_metainfo(dict(pad_shape=(height, width), padding_size=padding, img_padding_size=padding))
            for name in sample.keys() if training else ():  # labels, to whole cells
                labels = sample.get(name).data
                missing = 0, width - labels.shape[-1], 0, height - labels.shape[-2]
                sample.set_data({name: PixelData(data=F.pad(labels, missing, value=self.seg_pad_val))})
        return dict(inputs=torch.stack(inputs), data_samples=batch['data_samples'])
