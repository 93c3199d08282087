"""A CocoDataset that checks its annotations and counts those in use."""
import logging
from collections import Counter
from typing import Any, Sequence

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """mmdet's CocoDataset that logs what it leaves out and refuses annotations it cannot train on.

    Arguments and samples are those of :class:`mmdet.datasets.CocoDataset`. One log line counts the
    images and annotations in use. Not in use are: images without instances or too small
    (``filter_cfg``), crowds and annotations marked as ``ignore``, and annotations without area, of
    other categories or, if the pipeline loads masks, without a polygon that has an area. The last
    group makes the line a warning.

    Raises:
        ValueError: The classes are not the annotation file's categories in its order, which labels
            follow; an id of an image or annotation is there twice; an entry is not as COCO has it;
            an annotation has no segmentation and the pipeline loads masks; no image is left, or for
            training (``test_mode=False``) none of the annotations. The message names the file.
    """

    def COCOAPI(self, annotation_file: str) -> Any:
        """Read the annotation file, as the stock attribute of this name; check its categories."""
        steps = self.pipeline.transforms
        self._with_mask = any(getattr(step, 'with_mask', False) for step in steps)
        try:
            coco = super().COCOAPI(annotation_file)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            what = f'an entry without {error}' if isinstance(error, KeyError) else str(error)
            raise ValueError(f'{self.ann_file}: cannot be read as annotations in COCO\'s format: '
                             f'{what}') from error
        classes = self.metainfo['classes']
        found = [category['name'] for category in coco.dataset.get('categories', [])]
        if [name for name in found if name in classes] != list(classes):
            raise ValueError(
                f'{self.ann_file}: expected a category for each of the {len(classes)} classes '
                f'{", ".join(classes)}, in this order, found {", ".join(found) or "none"}; set '
                "metainfo=dict(classes=...) to the file's own category names in the file's order, "
                'and num_classes of the heads with it')
        images = Counter(image['id'] for image in coco.dataset.get('images', []))
        annotations = Counter(entry['id'] for entry in coco.dataset.get('annotations', []))
        for what, ids in (('image', images), ('annotation', annotations)):
            repeated = [key for key, count in ids.items() if count > 1]
            if repeated:
                raise ValueError(f'{self.ann_file}: expected every {what} id once, got '
                                 f'{repeated[:6]} more than once ({len(repeated)} such ids)')
        self._beyond = 0
        self._annotations = self._wanted = sum(
            annotation['image_id'] not in images for annotation in coco.anns.values())
        return coco

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse an image's annotations one by one, so that an error names the one at fault."""
        annotations = raw_data_info['raw_ann_info']
        sample = self._parse(raw_data_info, [])
        for annotation in annotations:
            instances = self._parse(raw_data_info, [annotation])['instances']
            sample['instances'] += instances
            for instance in instances:
                self._beyond += reaches_beyond(instance['bbox'], sample['width'], sample['height'])
            self._wanted += not (annotation.get('iscrowd') or annotation.get('ignore'))
        self._annotations += len(annotations)
        return sample

    def _parse(self, raw: dict, annotations: list[dict]) -> dict:
        try:
            sample = super().parse_data_info({**raw, 'raw_ann_info': annotations})
            for instance in sample['instances']:
                if self._with_mask:
                    has_area(instance['mask'])
        except (KeyError, TypeError, ValueError) as error:
            where = ''.join(f'annotation {a["id"]} of ' for a in annotations)
            what = f'no {error}' if isinstance(error, KeyError) else str(error)
            raise ValueError(
                f'{self.ann_file}: {where}image {raw["raw_img_info"]["id"]} has {what}; expected '
                "COCO's format with a segmentation if the pipeline has with_mask=True") from error
        return sample

    def filter_data(self) -> list[dict]:
        """Filter images as ``filter_cfg`` says; log how much stays."""
        kept, used = super().filter_data(), 0
        for sample in kept:
            for instance in sample['instances']:
                usable = not self._with_mask or has_area(instance['mask'])
                used += usable and not instance['ignore_flag']
        dropped = self._wanted - used
        summary = (
            f'{self.ann_file}: {len(kept)} of {len(self.data_list)} images and {used} of '
            f'{self._annotations} annotations in use (filter_cfg={self.filter_cfg}, '
            f'test_mode={self.test_mode}), {self._annotations - self._wanted} crowds or ignored'
            f', {dropped} dropped (no area, a side under a pixel, outside the image, of a category '
            'that is none of the classes, or of an image left out or unknown)')
        if not kept or self._annotations and not used and not self.test_mode:
            raise ValueError(f'{summary}; expected something to use')
        if self._beyond:
            summary += (f'; {self._beyond} boxes reach beyond their image: expected x, y, width, '
                        'height in pixels, and the width and height of the image')
        warn = dropped or self._beyond
        print_log(summary, 'current', logging.WARNING if warn else logging.INFO)
        return kept


def reaches_beyond(bbox: Sequence[float], width: float, height: float) -> bool:
    """Return whether a box (x1, y1, x2, y2) reaches beyond an image by more than 2 pixels."""
    x1, y1, x2, y2 = bbox
    return min(x1, y1) < -2 or x2 > width + 2 or y2 > height + 2


def has_area(segmentation: Any) -> bool:
    """Return whether a COCO segmentation is RLE or has a polygon of three points and some extent.

    Raises:
        TypeError: It is something else, such as a flat list of coordinates.
    """
    if isinstance(segmentation, dict) and {'counts', 'size'} <= set(segmentation):
        return True
    if not isinstance(segmentation, list):
        raise TypeError(f'{segmentation!r:.40} as segmentation instead of a list of polygons or RLE')
    for polygon in segmentation:
        if isinstance(polygon, (int, float)):
            raise TypeError('a flat list as segmentation instead of a list of polygons')
        xs, ys = polygon[::2], polygon[1::2]
        if len(xs) == len(ys) >= 3 and max(xs) > min(xs) and max(ys) > min(ys):
            return True
    return False
