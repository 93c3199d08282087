"""From a file's input to the network's input: test pipeline and preprocessor as a graph."""
from typing import Any, Callable, Sequence

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmfreq.apis.export.resize import center_crop, geometry, resize, whole_levels
from mmfreq.config.pipelines import input_spec, iter_dicts, pipelines
from mmfreq.dct.blocks import INT8_LIMIT
from mmfreq.errors import RefusedError
from mmfreq.input_spec import META_KEY, InputSpec
from mmfreq.models.dct_layer import BlockConvolution

_STEPS = {'ResizeEdge': resize, 'Resize': resize, 'CenterCrop': center_crop}


def affine(spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return the convolution that computes an input from pixels in the order of its colours.

    Returns:
        tuple[np.ndarray, np.ndarray]: Kernel, float64 (C, 3, window, window), and bias (C, ).
    """
    if spec.channels:
        blocks = spec.block_map()
        return blocks.kernel, blocks.bias
    if spec.colors not in ('rgb', 'bgr'):
        raise RefusedError(f'the test pipeline: {spec} cannot be exported')
    std = np.ones(3) * (spec.std or 1.)
    return np.diag(1 / std)[:, :, None, None], -np.array(spec.mean or [0.] * 3) / std


def metadata(pipeline: Sequence[dict], spec: InputSpec) -> dict[str, Any]:
    """Return ``steps``, configs of the transforms before the DCT, and ``input_spec``."""
    return dict(steps=geometry(pipeline), **{META_KEY: spec.to_dict()})


class ImageInput(BlockConvolution):
    """Images, uint8 (N, H, W, 3) in the ``order`` 'rgb' or 'bgr', to the input of a config's network.

    ``about`` has the :func:`metadata`.
    """

    def __init__(self, cfg: Config, order: str) -> None:
        pipeline = pipelines(cfg, 'test_dataloader')[0]
        spec = input_spec(cfg, pipeline)
        kernel, bias = affine(spec)
        margin = (kernel.shape[-1] - spec.stride) // 2
        super().__init__(kernel, bias, spec.stride, margin, (order == 'rgb') != spec.colors.endswith('rgb'))
        self.about, self.int8_scale = metadata(pipeline, spec), spec.scale

    def converted(self, images: Tensor) -> Tensor:
        """Return the input, float32 (N, C, h, w), for resized images, float32 (N, 3, H, W).

        Where the pipeline rounds to int8, the input is rounded, too.
        """
        inputs = super().forward(images)
        if self.int8_scale is None:
            return inputs
        return inputs.round().clamp(-INT8_LIMIT, INT8_LIMIT) / self.int8_scale


class ClassifierInput(ImageInput):
    """The pipeline of a classifier; arguments as of :class:`ImageInput`."""

    def __init__(self, cfg: Config, order: str) -> None:
        super().__init__(cfg, order)
        for step in self.about['steps']:
            if step['type'] not in _STEPS:
                raise RefusedError(f'the test pipeline: {step["type"]} cannot be exported, only '
                                   f'{", ".join(_STEPS)} and the DCT; --input channels leaves the '
                                   'pipeline out of the file')
        self.steps: list[Callable] = [_STEPS[step['type']](step) for step in self.about['steps']]

    def resized(self, images: Tensor) -> Tensor:
        """Return uint8 images (N, H, W, 3) in the size to which the first steps resize them."""
        images = images.permute(0, 3, 1, 2).float()
        for step, about in zip(self.steps, self.about['steps']):
            if about['type'] == 'CenterCrop':
                break
            images = step(images)
        return whole_levels(images).permute(0, 2, 3, 1).to(torch.uint8)

    def forward(self, images: Tensor) -> Tensor:
        """Return the input, float32 (N, C, h, w)."""
        images = images.permute(0, 3, 1, 2).float()
        for step in self.steps:
            images = step(images)
        return self.converted(images)


class ChannelInput(nn.Module):
    """DCT channels of the test pipeline, float32 or int8 (N, C, h, w), to the network's input.

    ``about`` has the :func:`metadata`, in which ``input_spec`` describes the file's input.
    """

    def __init__(self, cfg: Config, preprocessor: Any) -> None:
        super().__init__()
        pipeline = pipelines(cfg, 'test_dataloader')[0]
        spec = InputSpec.from_steps(iter_dicts(pipeline))
        if not spec.channels:
            raise RefusedError('--input channels: expected a test pipeline that computes DCT '
                               'channels; export this config with --input image')
        self.about = metadata(pipeline, spec)
        normalizes = preprocessor._enable_normalize
        self.mean, self.std = (preprocessor.mean, preprocessor.std) if normalizes else (0., 1.)

    def forward(self, channels: Tensor) -> Tensor:
        """Return float32 (N, C, h, w) as the preprocessor does."""
        return (channels.float() - self.mean) / self.std
