"""What mmfreq registers in mmdet: modified backbones, and the preprocessor that keeps geometry in pixels.

Name this module under ``custom_imports`` in a config. Importing it also makes mmdet run where mmcv has no compiled ops
(:mod:`mmfreq.ops`).
"""
from typing import Any

from mmfreq.ops import provide_ops

provide_ops()  # before mmdet imports mmcv.ops

from mmdet.models.backbones import ResNet, ResNetV1d  # noqa: E402
from mmdet.models.data_preprocessors import DetDataPreprocessor  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402

from mmfreq.models.stem import StemlessMixin  # noqa: E402


@MODELS.register_module()
class FreqResNet(StemlessMixin, ResNet):
    """mmdet's ResNet without its stem, for C DCT channels; see :class:`~mmfreq.models.stem.StemlessMixin`.

    Args:
        depth (int): Depth of the network, from {18, 34, 50, 101, 152}.
        in_channels (int): Number of DCT channels C.
        **kwargs: Every other argument of :class:`mmdet.models.backbones.ResNet`.

    Example:
        >>> import torch
        >>> from mmfreq.models.det import FreqResNet
        >>> model = FreqResNet(50, in_channels=24)
        >>> [tuple(level.shape) for level in model(torch.rand(1, 24, 64, 80))]
        [(1, 256, 64, 80), (1, 512, 32, 40), (1, 1024, 16, 20), (1, 2048, 8, 10)]
    """


@MODELS.register_module()
class FreqResNetV1d(StemlessMixin, ResNetV1d):
    """mmdet's ResNetV1d without its deep stem, for C DCT channels; arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqDetDataPreprocessor(DetDataPreprocessor):
    """Batches DCT inputs of different sizes; everything but the input tensor stays in pixels.

    A cell of the input covers ``stride`` pixels. ``pad_shape`` and ``batch_input_shape`` of the data samples are the
    padded input's size in pixels, those of the stock preprocessor with the same ``pad_size_divisor``; masks are padded
    to it. ``img_shape``, ``scale_factor`` and boxes are left alone. The inputs come normalised from the pipeline, and
    are padded with 0, each channel's mean.

    Args:
        pad_size_divisor (int): Pixels that the padded image is a multiple of, as in the stock config; a multiple of
            ``stride``. Defaults to 32.
        stride (int): Pixels of the resized image that one DCT block covers: block size / upscale. Defaults to 4.
        **kwargs: ``pad_mask``, ``mask_pad_value``, ``pad_seg``, ``seg_pad_value``, ``boxtype2tensor``,
            ``non_blocking`` and ``batch_augments`` of :class:`mmdet.models.DetDataPreprocessor`.

    Raises:
        ValueError: ``pad_size_divisor`` is not a multiple of ``stride``, or a pixel normalisation or colour conversion
            is asked for.
    """

    def __init__(self, pad_size_divisor: int = 32, stride: int = 4, **kwargs: Any) -> None:
        if stride < 1 or pad_size_divisor % stride:
            raise ValueError(f'pad_size_divisor: expected a multiple of stride={stride} pixels, got {pad_size_divisor}')
        for key in ('mean', 'std', 'bgr_to_rgb', 'rgb_to_bgr'):
            if kwargs.get(key):
                raise ValueError(f'{key}: expected none, since FreqNormalize normalises DCT channels in the pipeline; '
                                 f'got {kwargs[key]!r}')
        super().__init__(pad_size_divisor=pad_size_divisor // stride, **kwargs)
        self.stride = stride

    def forward(self, data: dict, training: bool = False) -> dict:
        """Stacks and pads the inputs (N, C, h, w); sets the samples' shapes in pixels.

        Args:
            data (dict): ``inputs`` (list of (C, h, w) tensors, or one (N, C, h, w)) and ``data_samples``.
            training (bool): Whether to pad masks and run the batch augmentations. Defaults to False.

        Returns:
            dict: ``inputs`` (float32 (N, C, h, w)) and ``data_samples``.
        """
        data = super().forward(data, training=False)  # leaves masks and batch augmentations to us
        inputs, samples = data['inputs'], data['data_samples']
        if samples is not None:
            batch_input_shape = tuple(self.stride * side for side in inputs.shape[-2:])
            for sample in samples:
                sample.set_metainfo(dict(batch_input_shape=batch_input_shape))
            if training and self.pad_mask:
                self.pad_gt_masks(samples)
            if training and self.pad_seg:
                self.pad_gt_sem_seg(samples)
        if training and self.batch_augments is not None:
            for augment in self.batch_augments:
                inputs, samples = augment(inputs, samples)
        return dict(inputs=inputs, data_samples=samples)

    def _get_pad_shape(self, data: dict) -> list[tuple[int, int]]:
        return [tuple(self.stride * side for side in shape) for shape in super()._get_pad_shape(data)]
