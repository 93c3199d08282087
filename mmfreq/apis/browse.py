"""Show the input of the network: images rebuilt from packed inputs, with the ground truth on them."""
from typing import Any, Optional

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, VISUALIZERS, init_default_scope
from torch.utils.data import Dataset

from mmfreq.config.pipelines import device_freq, iter_dicts, pipelines, transform_type
from mmfreq.dct import blocks as dct
from mmfreq.engine.hooks.visualization import loaded_image
from mmfreq.input_spec import InputSpec

TITLE_HEIGHT, GAP = 20, 8  # pixels above and right of each panel
_FONT = cv2.FONT_HERSHEY_SIMPLEX, 0.45


class Browser:
    """Draw the samples of a dataloader such as ``'train_dataloader'`` in a config of either host."""

    def __init__(self, cfg: Config, dataloader: str) -> None:
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        steps, freq = pipelines(cfg, dataloader)[0], device_freq(cfg)
        self.spec = InputSpec.from_steps([freq] if freq else iter_dicts(steps))
        self._device_map = freq and self.spec.block_map()
        self._truth_in_original_pixels = truth_in_original_pixels(steps)
        self.dataset: Dataset = DATASETS.build(cfg[dataloader].dataset)
        self.visualizer = VISUALIZERS.build(dict(cfg.visualizer, vis_backends=None, name='browse'))
        self.visualizer.dataset_meta = self.dataset.metainfo

    def draw(self, index: int) -> tuple[str, np.ndarray]:
        """Draw the sample of this number in the data set.

        Returns:
            tuple[str, np.ndarray]: Path of the image, or ``'sample 3'`` if it is not a file; and
            uint8 RGB (H, W, 3): the image as the data set loads it, the network's input, and that
            with the ground truth, at the size to which the ground truth refers.
        """
        item = self.dataset[index]
        sample = item['data_samples']
        image = self.rebuild(item['inputs'], sample.get('img_shape'))
        if self._truth_in_original_pixels:
            image = original_size(image, sample)
        path, rgb = sample.get('img_path'), np.ascontiguousarray(image[:, :, ::-1])
        panels = {'image': loaded_image(self.dataset, index, path), "network's input": rgb,
                  'with ground truth': self._annotated(rgb, sample)}
        return path or f'sample {index}', side_by_side(panels, len(rgb))

    def rebuild(self, inputs: torch.Tensor, image_shape: Optional[tuple[int, int]]) -> np.ndarray:
        """Rebuild an image, uint8 BGR (H, W, 3), from ``inputs`` (C, h, w), as the pipeline packs them.

        Channels outside the selection count as zero. ``image_shape`` are the pixels (H, W) of the
        augmented image; None stands for all blocks.
        """
        spec, image = self.spec, inputs.permute(1, 2, 0).numpy()
        if self._device_map:
            image = self._device_map.channels(image).transpose(1, 2, 0)
        if not spec.channels:
            return dct.from_ycbcr(image) if spec.colors != 'bgr' else image.astype(np.uint8)
        coefficients = image / (spec.scale or 1) * np.array(spec.std) + np.array(spec.mean)
        return dct.coefficients_to_bgr(coefficients, spec.channels, image_shape, spec.block_size,
                                       spec.upscale)

    def _annotated(self, image: np.ndarray, sample: Any) -> np.ndarray:
        if hasattr(self.visualizer, 'visualize_cls'):
            return self.visualizer.visualize_cls(
                image, sample, self.dataset.metainfo.get('classes'), draw_pred=False)
        boxes = sample.gt_instances.bboxes
        sample.gt_instances.bboxes = getattr(boxes, 'tensor', boxes)  # as the visualizer takes them
        self.visualizer.add_datasample('browse', image, sample, draw_pred=False)
        return self.visualizer.get_image()


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
    image = image[:round(height * y_scale), :round(width * x_scale)]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def side_by_side(panels: dict[str, np.ndarray], height: int) -> np.ndarray:
    """Join uint8 pictures (H, W, 3), scaled to one height, on white, each below its title."""
    columns = []
    for title, picture in panels.items():
        width = max(1, round(picture.shape[1] * height / picture.shape[0]))
        wide = max(width, cv2.getTextSize(title, *_FONT, 1)[0][0])
        column = np.full((TITLE_HEIGHT + height, wide + GAP, 3), 255, np.uint8)
        scaled = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        column[TITLE_HEIGHT:, :width] = scaled
        columns.append(cv2.putText(column, title, (0, 14), *_FONT, (0, 0, 0), 1, cv2.LINE_AA))
    return np.concatenate(columns, axis=1)
