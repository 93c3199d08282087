"""A CocoDataset that checks its annotations and counts those in use."""
import logging
from collections import Counter
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from mmfreq.errors import RefusedError


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """mmdet's CocoDataset that logs what it leaves out and refuses files whose labels would shift.

    Arguments and samples are those of :class:`mmdet.datasets.CocoDataset`. One log line counts the
    images and annotations in use, and the annotations that are left out, by reason. An area is
    usable if it lies in the image, is not smaller than a pixel and, if the pipeline loads masks,
    has a polygon of some extent. The line is a warning if annotations other than crowds are left
    out, or if boxes reach beyond their image, as corners do that are taken for x, y, width, height.

    Raises:
        RefusedError: The classes are not the file's categories in the file's order, which labels
            follow; two images have the same id; no image is left, or, for training
            (``test_mode=False``), none of the annotations. The message names the file.
    """

    def COCOAPI(self, annotation_file: str) -> Any:
        """Read the annotation file, as the stock attribute of this name; check and count."""
        coco = super().COCOAPI(annotation_file)
        classes = self.metainfo['classes']
        categories = {entry['id']: entry['name'] for entry in coco.dataset.get('categories', [])}
        if [name for name in categories.values() if name in classes] != list(classes):
            raise RefusedError(
                f'{self.ann_file}: expected the classes {", ".join(classes)} as categories in this '
                f'order, got {", ".join(categories.values()) or "none"}. Set metainfo=dict('
                "classes=...) to the file's names in its order, and num_classes of the heads")
        images = Counter(image['id'] for image in coco.dataset.get('images', []))
        repeated = [key for key, count in images.items() if count > 1]
        if repeated:
            raise RefusedError(f'{self.ann_file}: {len(repeated)} image ids occur more than once, '
                               f'such as {repeated[0]!r}')
        self._reasons = Counter()
        for entry in coco.dataset.get('annotations', []):
            known = categories.get(entry['category_id']) in classes
            crowd = entry.get('iscrowd') or entry.get('ignore')
            reason = ('of unknown images' if entry['image_id'] not in images else
                      'of other categories' if not known else 'crowds or ignored' if crowd else '')
            self._reasons[reason] += 1
        return coco

    def filter_data(self) -> list[dict]:
        """Filter images as ``filter_cfg`` says; log how much is in use."""
        kept, reasons = super().filter_data(), self._reasons
        masks = any(getattr(step, 'with_mask', False) for step in self.pipeline.transforms)
        used = sum(not instance['ignore_flag'] and (not masks or has_extent(instance['mask']))
                   for sample in kept for instance in sample['instances'])
        beyond = sum(reaches_beyond(instance['bbox'], sample['width'], sample['height'])
                     for sample in self.data_list for instance in sample['instances'])
        total, crowds = reasons.total(), reasons['crowds or ignored']
        reasons['without a usable area or of images left out'] = reasons.pop('', 0) - used
        summary = (f'{self.ann_file}: {len(kept)} of {len(self.data_list)} images and {used} of '
                   f'{total} annotations in use (filter_cfg={self.filter_cfg}, '
                   f'test_mode={self.test_mode})')
        summary += ''.join(f', {count} {reason}' for reason, count in reasons.items() if count)
        if not kept or total and not used and not self.test_mode:
            raise RefusedError(f'{summary}; expected something to use')
        if beyond:
            summary += f', {beyond} boxes reach beyond their image: expected x, y, width, height'
        warns = beyond or used + crowds < total
        print_log(summary, 'current', logging.WARNING if warns else logging.INFO)
        return kept


def reaches_beyond(bbox: list[float], width: float, height: float) -> bool:
    """Return whether a box (x1, y1, x2, y2) reaches beyond an image by more than 2 pixels."""
    return min(bbox) < -2 or bbox[2] > width + 2 or bbox[3] > height + 2


def has_extent(segmentation: Any) -> bool:
    """Return whether a COCO segmentation is RLE or has a polygon that is not a point or line."""
    if isinstance(segmentation, dict):
        return True
    polygons = [np.reshape(polygon, (-1, 2)) for polygon in segmentation if len(polygon) > 4]
    return any(np.ptp(polygon, axis=0).min() > 0 for polygon in polygons)
