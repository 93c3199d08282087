"""Show what the network gets: images rebuilt from packed inputs, with the ground truth on them."""
from typing import Any, Optional

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, VISUALIZERS, init_default_scope
from torch.utils.data import Dataset

from mmfreq.config.pipelines import (
    dct_channels,
    device_freq,
    iter_dicts,
    network_pipeline,
    pipelines,
    transform_type,
)
from mmfreq.dct import blocks as dct
from mmfreq.engine.hooks.visualization import loaded_image
from mmfreq.models.dct_layer import BlockDCTLayer


class ImageRebuilder:
    """Rebuild images from packed inputs.

    Args:
        pipeline (list[dict]): Configs of the single transforms that made the inputs.
    """

    def __init__(self, pipeline: list[dict]) -> None:
        steps = {transform_type(step): step for step in iter_dicts(pipeline)}
        self._ycbcr, self._dct = 'YCbCr' in steps, dct_channels(pipeline)
        self._upscale = steps.get('BlockDCT', {}).get('upscale', 1)
        normalize = steps.get('FreqNormalize')
        self._normalize = TRANSFORMS.build(normalize) if normalize else None

    def rebuild(self, inputs: torch.Tensor,
                image_shape: Optional[tuple[int, int]]) -> np.ndarray:
        """Rebuild the image behind a packed input.

        Args:
            inputs (torch.Tensor): (C, h, w): DCT channels, or pixels if there is no BlockDCT.
            image_shape (tuple[int, int], optional): Pixels (H, W) of the augmented image,
                ``img_shape``; None if the sample has none: all blocks.

        Returns:
            np.ndarray: uint8 BGR (H, W, 3); channels outside the selection count as zero.
        """
        image = inputs.permute(1, 2, 0).numpy()
        if self._dct is None:
            return dct.from_ycbcr(image) if self._ycbcr else image.astype(np.uint8)
        channels, block_size = self._dct
        if self._normalize:
            image = self._normalize.inverse(image, channels)
        return dct.coefficients_to_bgr(image, channels, image_shape, block_size, self._upscale)


def truth_in_original_pixels(pipeline: list[dict]) -> bool:
    """Return whether annotations are loaded after resizing, as in mmdet's test pipelines."""
    resized = False
    for step in iter_dicts(pipeline):
        kind = transform_type(step)
        if kind.startswith('Load') and kind.endswith('Annotations'):
            return resized
        resized |= 'Resize' in kind
    return False


def original_size(image: np.ndarray, sample: Any) -> np.ndarray:
    """Crop the padding of an augmented image and resize it to its sample's ``ori_shape``."""
    height, width = sample.ori_shape
    x_scale, y_scale = sample.scale_factor
    unpadded = image[:round(height * y_scale), :round(width * x_scale)]
    return cv2.resize(unpadded, (width, height), interpolation=cv2.INTER_AREA)


class Browser:
    """Draw the samples of a config's data set.

    Args:
        cfg (Config): A config of either host.
        dataloader (str): ``'train_dataloader'``, ``'val_dataloader'`` or ``'test_dataloader'``.
    """

    def __init__(self, cfg: Config, dataloader: str) -> None:
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        found = pipelines(cfg, dataloader)
        if not found:
            raise ValueError(f'expected a {dataloader} with a pipeline in the config')
        self.rebuilder = ImageRebuilder(network_pipeline(cfg, found[0]))
        freq = device_freq(cfg)
        self._to_channels = freq and BlockDCTLayer.of(freq)
        self.truth_in_original_pixels = truth_in_original_pixels(found[0])
        self.dataset: Dataset = DATASETS.build(cfg[dataloader].dataset)
        self.visualizer = VISUALIZERS.build(dict(cfg.visualizer, vis_backends=None, name='browse'))
        self.visualizer.dataset_meta = self.dataset.metainfo

    def draw(self, index: int) -> tuple[str, np.ndarray]:
        """Draw one sample.

        Args:
            index (int): Number of the sample in the data set.

        Returns:
            tuple[str, np.ndarray]: Path of the image, or ``'sample 3'`` if it is no file, and uint8
            RGB (H, W, 3). On the left is the image as the data set loads it; in the middle, what
            the network gets; on the right, that with the ground truth on it, at the size that the
            ground truth refers to.
        """
        item = self.dataset[index]
        sample = item['data_samples']
        inputs = self._to_channels(item['inputs'][None])[0] if self._to_channels else item['inputs']
        image = self.rebuilder.rebuild(inputs, sample.get('img_shape'))
        if self.truth_in_original_pixels:
            image = original_size(image, sample)
        path = sample.get('img_path')
        original = loaded_image(self.dataset, index, path)
        rebuilt = image[:, :, ::-1]
        annotated = beside(rebuilt, self._annotated(rebuilt, sample))
        return path or f'sample {index}', beside(original, annotated)

    def _annotated(self, image: np.ndarray, sample: Any) -> np.ndarray:
        image = np.ascontiguousarray(image)
        if hasattr(self.visualizer, 'visualize_cls'):
            classes = self.dataset.metainfo.get('classes')
            return self.visualizer.visualize_cls(image, sample, classes=classes, draw_pred=False)
        boxes = sample.gt_instances.bboxes
        # the visualizer knows no box classes
        sample.gt_instances.bboxes = getattr(boxes, 'tensor', boxes)
        self.visualizer.add_datasample('browse', image, sample, draw_pred=False)
        return self.visualizer.get_image()


def beside(left: np.ndarray, right: np.ndarray, gap: int = 8) -> np.ndarray:
    """Join two uint8 pictures (H, W, 3) on white, the left one scaled to the right one's height."""
    height = right.shape[0]
    width = max(1, round(left.shape[1] * height / left.shape[0]))
    scaled = cv2.resize(left, (width, height), interpolation=cv2.INTER_AREA)
    return np.concatenate((scaled, np.full((height, gap, 3), 255, np.uint8), right), axis=1)
