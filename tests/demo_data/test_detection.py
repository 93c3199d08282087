"""The detection demo: annotations against other geometry, images against their sources, mmdet.

Every check of an image starts from the JPEG, the annotations as pycocotools reads them, and the
source images on disk.
"""
import importlib.util
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

pytest.importorskip('skimage')

from demo import make_demo_data
from demo.images import IMAGES

SOURCE_FOLDER = Path(importlib.util.find_spec('skimage').origin).parent / 'data'
CLASSES = ('box', 'disc', 'star')
COUNTS = {'train': 30, 'val': 15}


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


def test_areas_and_boxes_are_those_of_the_polygons(cocos: dict[str, COCO]) -> None:
    for annotation in [*cocos['train'].anns.values(), *cocos['val'].anns.values()]:
        polygon, = annotation['segmentation']
        corners = np.reshape(polygon, (-1, 2))
        np.testing.assert_allclose(annotation['area'], cv2.contourArea(corners.astype(np.float32)), rtol=1e-3)
        x, y, width, height = annotation['bbox']
        bounds = [*corners.min(axis=0), *corners.max(axis=0)]
        np.testing.assert_allclose([x, y, x + width, y + height], bounds, atol=1e-9)


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
