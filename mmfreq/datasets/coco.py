"""A CocoDataset that checks its annotations and counts those in use."""
import logging
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from mmfreq.errors import RefusedError


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """mmdet's CocoDataset that logs how much it uses and refuses files whose labels would shift.

    Arguments and samples are those of :class:`mmdet.datasets.CocoDataset`. One log line counts the
    images and annotations in use. It is a warning if annotations other than crowds are left out (of
    unknown images or other categories, outside of the image, smaller than a pixel or, if the pipeline
    loads masks, without a polygon of some extent), or if boxes reach beyond their image, as corners
    do that are taken for x, y, width, height.

    Raises:
        RefusedError: The classes are not the file's categories in the file's order, which labels
            follow; two images have the same id; no image is left, or, for training
            (``test_mode=False``), none of the annotations. The message names the file.
    """

    def COCOAPI(self, annotation_file: str) -> Any:
        """Read the annotation file, as the stock attribute of this name, and check it."""
        coco = super().COCOAPI(annotation_file)
        images, annotations, categories = (
            coco.dataset.get(key, []) for key in ('images', 'annotations', 'categories'))
        names, classes = [entry['name'] for entry in categories], self.metainfo['classes']
        if [name for name in names if name in classes] != list(classes):
            raise RefusedError(
                f'{self.ann_file}: expected the classes {", ".join(classes)} as categories in this '
                f'order, got {", ".join(names) or "none"}. Set metainfo=dict(classes=...) to the '
                "file's names in its order, and num_classes of the heads")
        if len(coco.imgs) < len(images):
            raise RefusedError(f'{self.ann_file}: {len(images)} images have {len(coco.imgs)} ids')
        self._total = len(annotations)
        self._crowds = sum(bool(one.get('iscrowd') or one.get('ignore')) for one in annotations)
        return coco

    def filter_data(self) -> list[dict]:
        """Filter images as ``filter_cfg`` says; log how much is in use."""
        kept = super().filter_data()
        masks = any(getattr(step, 'with_mask', False) for step in self.pipeline.transforms)
        used = sum(not instance['ignore_flag'] and (not masks or has_extent(instance.get('mask', [])))
                   for sample in kept for instance in sample['instances'])
        beyond = sum(reaches_beyond(instance['bbox'], sample['width'], sample['height'])
                     for sample in self.data_list for instance in sample['instances'])
        summary = (f'{self.ann_file}: {len(kept)} of {len(self.data_list)} images and {used} of '
                   f'{self._total} annotations in use, {self._crowds} are crowds or ignored '
                   f'(filter_cfg={self.filter_cfg}, test_mode={self.test_mode})')
        if not kept or self._total and not used and not self.test_mode:
            raise RefusedError(f'{summary}; expected something to use')
        if beyond:
            summary += f', {beyond} boxes reach beyond their image: expected x, y, width, height'
        warns = beyond or used + self._crowds < self._total
        print_log(summary, 'current', logging.WARNING if warns else logging.INFO)
        return kept


def reaches_beyond(bbox: list[float], width: float, height: float) -> bool:
    """Return whether a box (x1, y1, x2, y2) reaches beyond an image by more than 2 pixels."""
    return min(bbox) < -2 or bbox[2] > width + 2 or bbox[3] > height + 2


def has_extent(segmentation: Any) -> bool:
    """Return whether a COCO segmentation is RLE or has a polygon that is not a point or line."""
    if isinstance(segmentation, dict):
        return True
    polygons = [np.reshape(polygon, (-1, 2)) for polygon in segmentation
                if len(polygon) > 4 and len(polygon) % 2 == 0]  # mmdet skips others
    return any(np.ptp(polygon, axis=0).min() > 0 for polygon in polygons)
