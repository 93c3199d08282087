"""The detection demo: annotations against other geometry, images against their sources, mmdet.

Every check of an image starts from the JPEG, the annotations as pycocotools reads them, and the
source images on disk.
"""
import importlib.util
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

pytest.importorskip('skimage')

from skimage.draw import polygon2mask

from demo import detection, make_demo_data
from demo.images import IMAGES

SOURCE_FOLDER = Path(importlib.util.find_spec('skimage').origin).parent / 'data'
CLASSES = ('box', 'disc', 'star')
COUNTS = {'train': 30, 'val': 15}
Annotations = list[tuple[dict[str, Any], np.ndarray]]


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    make_demo_data(out, 'detection', **COUNTS)
    return out


@pytest.fixture(scope='module')
def files(made: Path) -> list[dict[str, Any]]:
    return json.loads((made / 'manifest.json').read_text(encoding='utf-8'))['files']


@pytest.fixture(scope='module')
def cocos(made: Path) -> dict[str, COCO]:
    return {split: COCO(str(made / f'annotations/{split}.json')) for split in COUNTS}


@pytest.fixture(scope='module')
def sources() -> dict[str, np.ndarray]:
    return {name: cv2.imread(str(SOURCE_FOLDER / file)) for name, (file, _) in IMAGES.items()}


@pytest.fixture(scope='module')
def annotations(cocos: dict[str, COCO]) -> Annotations:
    """Every annotation of both splits with its mask."""
    found = []
    for coco in cocos.values():
        found += [(annotation, coco.annToMask(annotation)) for annotation in coco.anns.values()]
    return found


def corners_of(annotation: dict[str, Any]) -> np.ndarray:
    """The corners (x, y) of an annotation that must be one polygon: (N, 2)."""
    (polygon,) = annotation['segmentation']
    return np.reshape(polygon, (-1, 2))


def perimeter(annotation: dict[str, Any]) -> float:
    corners = corners_of(annotation)
    return float(np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1).sum())


def cut_again(source: np.ndarray, entry: dict[str, Any], width: int, height: int) -> np.ndarray:
    """What the manifest says of a background or an object, with OpenCV alone."""
    x0, y0, x1, y1 = entry['box']
    crop = source[y0:y1, x0:x1]
    assert crop.shape[:2] == (y1 - y0, x1 - x0)
    crop = cv2.flip(crop, 1) if entry['flip'] else crop
    method = cv2.INTER_AREA if width < x1 - x0 else cv2.INTER_CUBIC
    return cv2.resize(crop, (width, height), interpolation=method)


def test_train_and_val_use_other_sources(files: list[dict[str, Any]],
                                         sources: dict[str, np.ndarray]) -> None:
    used = {split: set() for split in COUNTS}
    for split, names in used.items():
        entries = [entry for entry in files if entry['path'].startswith(split)]
        assert [entry['path'] for entry in entries] == [
            f'{split}/{number:03d}.jpg' for number in range(COUNTS[split])]
        names.update(entry['source'] for entry in entries)
        assert {item['source'] for entry in entries for item in entry['objects']} == names
        assert {np.ptp(sources[name], axis=2).max() == 0 for name in names} == {False, True}
    assert used['train'] | used['val'] == set(IMAGES)
    assert not used['train'] & used['val']
    for entry in files:
        assert all(item['source'] != entry['source'] for item in entry['objects'])


@pytest.mark.parametrize('split', ['train', 'val'])
def test_coco_files(split: str, made: Path, cocos: dict[str, COCO]) -> None:
    coco = cocos[split]
    assert set(coco.dataset) == {'info', 'licenses', 'images', 'annotations', 'categories'}
    assert [(c['id'], c['name']) for c in coco.dataset['categories']] == list(enumerate(CLASSES, 1))
    assert list(coco.imgs) == list(range(1, COUNTS[split] + 1))
    assert list(coco.anns) == list(range(1, len(coco.dataset['annotations']) + 1))
    for image in coco.imgs.values():
        picture = cv2.imread(str(made / split / image['file_name']))
        assert picture.shape == (image['height'], image['width'], 3)
        assert 1 <= len(coco.getAnnIds(image['id'])) <= 5
    assert all(annotation['iscrowd'] == 0 for annotation in coco.anns.values())


def test_areas_and_boxes_are_those_of_the_polygons(annotations: Annotations) -> None:
    for annotation, _ in annotations:
        corners = corners_of(annotation)
        area = cv2.contourArea(corners.astype(np.float32))
        np.testing.assert_allclose(annotation['area'], area, rtol=1e-3)
        x, y, width, height = annotation['bbox']
        bounds = [*corners.min(axis=0), *corners.max(axis=0)]
        np.testing.assert_allclose([x, y, x + width, y + height], bounds, atol=1e-9)


def test_masks_are_the_polygons_to_rasterisation(annotations: Annotations) -> None:
    errors = []
    for annotation, mask in annotations:
        errors.append((int(mask.sum()) - annotation['area']) / perimeter(annotation))
        # polygon2mask has pixel centres at whole numbers, COCO has their corners there
        other = polygon2mask(mask.shape, corners_of(annotation)[:, ::-1] - 0.5)
        assert np.count_nonzero(other != mask) < 0.3 * perimeter(annotation)
    assert np.abs(errors).max() < 0.5
    assert np.abs(np.mean(errors)) < 0.01


def test_objects_lie_in_their_boxes_and_pictures(annotations: Annotations) -> None:
    for annotation, mask in annotations:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x, y, width, height = annotation['bbox']
        assert x - 0.5 <= columns[0] <= columns[-1] + 1 <= x + width + 0.5
        assert y - 0.5 <= rows[0] <= rows[-1] + 1 <= y + height + 0.5
        corners = corners_of(annotation)
        assert corners.min() >= 3
        assert (corners.max(axis=0) <= (mask.shape[1] - 3, mask.shape[0] - 3)).all()


def test_objects_keep_clear_of_each_other(cocos: dict[str, COCO]) -> None:
    for coco in cocos.values():
        for image_id in coco.imgs:
            annotations = coco.loadAnns(coco.getAnnIds(image_id))
            masks = [coco.annToMask(annotation) for annotation in annotations]
            for index, mask in enumerate(masks):
                near = cv2.dilate(mask, np.ones((7, 7), np.uint8))
                assert not any((near & other).any() for other in masks[:index] + masks[index + 1 :])


Scenes = list[tuple[dict[str, Any], np.ndarray, list[np.ndarray]]]


@pytest.fixture(scope='module')
def scenes(files: list[dict[str, Any]], cocos: dict[str, COCO],
           sources: dict[str, np.ndarray]) -> Scenes:
    """Every entry with its image before JPEG, as manifest and masks say, and its objects' masks."""
    found = []
    for entry in files:
        split, name = entry['path'].split('/')
        image_id, = [i for i, image in cocos[split].imgs.items() if image['file_name'] == name]
        annotations = cocos[split].loadAnns(cocos[split].getAnnIds(image_id))
        masks = [cocos[split].annToMask(annotation) for annotation in annotations]
        picture = cut_again(sources[entry['source']], entry, *entry['size'])
        for item, mask in zip(entry['objects'], masks, strict=True):
            x0, y0, x1, y1 = item['place']
            texture = cut_again(sources[item['source']], item, x1 - x0, y1 - y0).astype(int)
            inside = mask[y0:y1, x0:x1] == 1
            assert inside.sum() == mask.sum()
            picture[y0:y1, x0:x1][inside] = np.clip(texture + item['shift'], 0, 255)[inside]
        found.append((entry, picture, masks))
    return found


def test_images_are_what_manifest_and_masks_say(made: Path, scenes: Scenes) -> None:
    for entry, picture, _ in scenes:
        encoded = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        assert (made / entry['path']).read_bytes() == encoded.tobytes(), entry['path']


def local_contrasts(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean absolute difference of the colours inside and outside, at each outermost pixel."""
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8))
    contrasts = []
    for row, column in np.argwhere(mask > inner):
        window = np.s_[row - 3 : row + 4, column - 3 : column + 4]
        near, inside = picture[window].astype(float), mask[window] == 1
        contrasts.append(np.abs(near[inside].mean(axis=0) - near[~inside].mean(axis=0)).mean())
    return np.array(contrasts)


def test_objects_stand_out(made: Path, scenes: Scenes) -> None:
    for entry, picture, masks in scenes:
        jpeg = cv2.imread(str(made / entry['path']))
        for mask in masks:
            exact = local_contrasts(picture, mask)
            assert np.percentile(exact, 10) > detection.MIN_CONTRAST - 1e-3, entry['path']
            assert local_contrasts(jpeg, mask).mean() > detection.MIN_CONTRAST, entry['path']


def test_classes_sizes_and_counts_vary(cocos: dict[str, COCO]) -> None:
    everything = [*cocos['train'].anns.values(), *cocos['val'].anns.values()]
    classes = Counter(annotation['category_id'] for annotation in everything)
    assert min(classes.values()) > 0.2 * len(everything)
    sides = np.array([max(annotation['bbox'][2:]) for annotation in everything])
    assert sides.min() > 23.9
    assert sides.max() < 140.1
    assert (sides < 40).mean() > 0.15
    assert (sides > 80).mean() > 0.1
    for coco in cocos.values():
        per_image = Counter(annotation['image_id'] for annotation in coco.anns.values())
        assert set(per_image.values()) == {1, 2, 3, 4, 5}


def test_image_sizes_vary(files: list[dict[str, Any]]) -> None:
    sizes = np.array([entry['size'] for entry in files])
    assert set(sizes.max(axis=1)) == {320, 333, 352, 375, 384, 400}
    assert 0.2 < (sizes[:, 0] > sizes[:, 1]).mean() < 0.8
    assert 0.2 < (sizes % 8 != 0).any(axis=1).mean() < 0.8


def test_shapes_have_their_form() -> None:
    for seed in range(20):
        box, disc, star = (corners_of_shape(name, seed) for name in CLASSES)
        assert (len(box), len(disc), len(star)) == (4, 36, 10)
        assert abs((box[1] - box[0]) @ (box[2] - box[1])) < 0.03 * cv2.contourArea(box)
        assert cv2.isContourConvex(disc)
        (width, height) = cv2.fitEllipse(disc)[1]
        assert cv2.contourArea(disc) == pytest.approx(np.pi * width * height / 4, rel=0.01)
        assert 1 <= height / width < 1.41
        assert cv2.contourArea(cv2.convexHull(star)) > 1.5 * cv2.contourArea(star)


def corners_of_shape(name: str, seed: int) -> np.ndarray:
    polygon = detection.draw_polygon(name, (400, 300), random.Random(seed))
    return np.reshape(polygon, (-1, 2)).astype(np.float32)


class LargestRandom(random.Random):
    """Its numbers are the largest that random() gives."""

    def random(self) -> float:
        """Return the largest float below 1."""
        return 1 - 2**-53


@pytest.mark.parametrize('size', detection.SIZES)
@pytest.mark.parametrize('name', CLASSES)
def test_largest_objects_in_the_last_corner_fit(name: str, size: tuple[int, int]) -> None:
    polygon = np.reshape(detection.draw_polygon(name, size, LargestRandom()), (-1, 2))
    np.testing.assert_allclose(polygon.max(axis=0), np.array(size) - 3, atol=0.006)
    np.testing.assert_allclose(np.ptp(polygon, axis=0).max(), 140, atol=0.011)
    assert (polygon.max(axis=0) <= np.array(size) - 3).all()


@pytest.mark.parametrize(('zoom', 'expected'),
                         [(1.0, (40, 20)), (2.5, (100, 50)), (9.0, (120, 60))])
def test_crops_are_as_large_as_zoom_and_source_allow(zoom: float, expected: tuple) -> None:
    for seed in range(20):
        box = detection.draw_crop(np.zeros((90, 120, 3)), (40, 20), zoom, random.Random(seed))
        assert (box[2] - box[0], box[3] - box[1]) == expected
        assert min(box) >= 0
        assert box[2] <= 120
        assert box[3] <= 90
