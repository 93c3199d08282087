"""What the network really gets: packed inputs turned back into pictures, with the ground truth on them."""
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, VISUALIZERS, init_default_scope
from torch.utils.data import Dataset

from mmfreq.config.reader import device_freq, iter_dicts, network_pipeline, pipelines, transform_type, unfused
from mmfreq.dct import blocks as dct
from mmfreq.dct.channels import channel_indices
from mmfreq.image_files import read_image_file
from mmfreq.models.preprocessor import BlockDCTLayer
from mmfreq.transforms import FreqNormalize


class PhotoRebuilder:
    """Turns packed inputs back into the photos that they stand for.

    Args:
        pipeline (list[dict]): The configs of the transforms that make the inputs.
    """

    def __init__(self, pipeline: list[dict]) -> None:
        steps = {transform_type(step): step for step in iter_dicts(unfused(pipeline)) if 'type' in step}
        self._ycbcr, self._dct = 'YCbCr' in steps, steps.get('BlockDCT')
        if self._dct is None:
            return
        self._block_size = self._dct.get('block_size', 8)
        select, normalize = steps.get('ChannelSelect'), steps.get('FreqNormalize')
        self._channels = (channel_indices(select['channels'], self._block_size) if select
                          else list(range(3 * self._block_size**2)))
        self._normalize = normalize and FreqNormalize(**{key: value for key, value in normalize.items()
                                                         if key not in ('type', '_scope_')})

    def rebuild(self, inputs: torch.Tensor, image_shape: tuple[int, int]) -> np.ndarray:
        """The photo behind a packed input.

        Args:
            inputs (torch.Tensor): (C, h, w) as the packer gives it: DCT channels, or pixels without BlockDCT.
            image_shape (tuple[int, int]): Pixels (H, W) of the augmented photo, ``img_shape``.

        Returns:
            np.ndarray: uint8 BGR (H, W, 3); frequencies that were not selected are zero.
        """
        image = inputs.permute(1, 2, 0).numpy()
        if self._dct is None:
            return dct.from_ycbcr(image) if self._ycbcr else image.astype(np.uint8)
        if self._normalize:
            image = self._normalize.inverse(image, self._channels)
        return dct.coefficients_to_bgr(image, self._channels, image_shape, self._block_size,
                                       self._dct.get('upscale', 1))


def truth_in_original_pixels(pipeline: list[dict]) -> bool:
    """Whether annotations are loaded behind the resizing, as in mmdet's test pipelines, and so are not resized."""
    kinds = [transform_type(step) for step in iter_dicts(pipeline) if 'type' in step]
    loads = [i for i, kind in enumerate(kinds) if kind.startswith('Load') and kind.endswith('Annotations')]
    return bool(loads) and any('Resize' in kind for kind in kinds[:loads[0]])


def original_size(photo: np.ndarray, sample: Any) -> np.ndarray:
    """An augmented photo at its sample's ``ori_shape``: without padding on the right and below, and resized back."""
    height, width = sample.ori_shape
    x_scale, y_scale = sample.scale_factor
    unpadded = photo[:round(height * y_scale), :round(width * x_scale)]
    return cv2.resize(unpadded, (width, height), interpolation=cv2.INTER_AREA)


class Browser:
    """Draws the samples of a config's data set.

    Args:
        cfg (Config): A config of either host.
        dataloader (str): ``'train_dataloader'``, ``'val_dataloader'`` or ``'test_dataloader'``.
    """

    def __init__(self, cfg: Config, dataloader: str) -> None:
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        found = pipelines(cfg, dataloader)
        if not found:
            raise ValueError(f'expected a {dataloader} with a pipeline in the config')
        self.rebuilder = PhotoRebuilder(network_pipeline(cfg, found[0]))
        freq = device_freq(cfg)
        self._to_channels = freq and BlockDCTLayer.of(freq)
        self.truth_in_original_pixels = truth_in_original_pixels(found[0])
        self.dataset: Dataset = DATASETS.build(cfg[dataloader].dataset)
        self.visualizer = VISUALIZERS.build({**cfg.visualizer, 'vis_backends': None, 'name': 'browse'})
        self.visualizer.dataset_meta = self.dataset.metainfo

    def draw(self, index: int) -> tuple[str, np.ndarray]:
        """One sample as a picture.

        Args:
            index (int): Number of the sample in the data set.

        Returns:
            tuple[str, np.ndarray]: Path of the photo, and uint8 RGB (H, W, 3): the original on the left, what the
            network gets with the ground truth on it on the right, at the size that the ground truth refers to.
        """
        item = self.dataset[index]
        sample = item['data_samples']
        inputs = self._to_channels(item['inputs'][None])[0] if self._to_channels else item['inputs']
        photo = self.rebuilder.rebuild(inputs, sample.img_shape)
        if self.truth_in_original_pixels:
            photo = original_size(photo, sample)
        original = read_image_file(sample.img_path)[:, :, ::-1]
        return sample.img_path, beside(original, self._annotated(photo[:, :, ::-1], sample))

    def _annotated(self, photo: np.ndarray, sample: Any) -> np.ndarray:
        photo = np.ascontiguousarray(photo)
        if hasattr(self.visualizer, 'visualize_cls'):
            return self.visualizer.visualize_cls(photo, sample, classes=self.dataset.metainfo['classes'],
                                                 draw_pred=False)
        boxes = sample.gt_instances.bboxes
        sample.gt_instances.bboxes = getattr(boxes, 'tensor', boxes)  # the visualizer knows no box classes
        self.visualizer.add_datasample('browse', photo, sample, draw_pred=False)
        return self.visualizer.get_image()


def beside(left: np.ndarray, right: np.ndarray, gap: int = 8) -> np.ndarray:
    """Two uint8 pictures (H, W, 3) side by side on white, the left one scaled to the right one's height."""
    height = right.shape[0]
    width = max(1, round(left.shape[1] * height / left.shape[0]))
    scaled = cv2.resize(left, (width, height), interpolation=cv2.INTER_AREA)
    return np.concatenate((scaled, np.full((height, gap, 3), 255, np.uint8), right), axis=1)
