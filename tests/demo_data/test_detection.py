"""The detection demo: annotations against other geometry, pictures against the photographs on disk, reuse, mmdet.

Every check of a picture starts from the JPEG, the annotations as pycocotools reads them, and the photographs.
"""

from __future__ import annotations

import importlib.util
import json
import random
import runpy
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

pytest.importorskip('skimage')

from skimage.draw import polygon2mask
from test_classification import ROOT, break_after, hashes

from mmfreq.demo_data import detection, make_demo_data, read_manifest

PHOTO_FOLDER = Path(importlib.util.find_spec('skimage').origin).parent / 'data'
CLASSES = ('box', 'disc', 'star')
COUNTS = {'train_images': 30, 'val_images': 15}
SMALL = {'task': 'detection', 'train_images': 2, 'val_images': 1}


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    make_demo_data(out, 'detection', **COUNTS)
    return out


@pytest.fixture(scope='module')
def manifest(made: Path) -> dict[str, Any]:
    return json.loads((made / 'manifest.json').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def cocos(made: Path) -> dict[str, COCO]:
    return {split: COCO(str(made / f'annotations/{split}.json')) for split in ('train', 'val')}


@pytest.fixture(scope='module')
def photos(manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: cv2.imread(str(PHOTO_FOLDER / photo['file'])) for name, photo in manifest['photos'].items()}


@pytest.fixture(scope='module')
def annotations(cocos: dict[str, COCO]) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Every annotation of both splits with its mask."""
    return [(annotation, coco.annToMask(annotation)) for coco in cocos.values() for annotation in coco.anns.values()]


def corners_of(annotation: dict[str, Any]) -> np.ndarray:
    """The corners (x, y) of an annotation that must be one polygon: (N, 2)."""
    (polygon,) = annotation['segmentation']
    return np.reshape(polygon, (-1, 2))


def perimeter(annotation: dict[str, Any]) -> float:
    corners = corners_of(annotation)
    return float(np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1).sum())


def cut_again(photo: np.ndarray, entry: dict[str, Any], width: int, height: int) -> np.ndarray:
    """What the manifest says of a background or an object, with OpenCV alone."""
    x0, y0, x1, y1 = entry['box']
    assert photo[y0:y1, x0:x1].shape[:2] == (y1 - y0, x1 - x0)
    crop = cv2.flip(photo[y0:y1, x0:x1], 1) if entry['flip'] else photo[y0:y1, x0:x1]
    method = cv2.INTER_AREA if width < x1 - x0 else cv2.INTER_CUBIC
    return cv2.resize(crop, (width, height), interpolation=method)


def test_files_are_those_of_the_manifest(made: Path, manifest: dict[str, Any]) -> None:
    on_disk = {path.relative_to(made).as_posix() for path in made.rglob('*') if path.is_file()}
    pictures = {entry['path'] for entry in manifest['files']}
    assert pictures == {f'train/{i:03d}.jpg' for i in range(30)} | {f'val/{i:03d}.jpg' for i in range(15)}
    assert manifest['annotations'] == ['annotations/train.json', 'annotations/val.json']
    assert on_disk == pictures | set(manifest['annotations']) | {'manifest.json', 'README.txt'}
    assert manifest['version'] == detection.VERSION
    assert manifest['arguments'] == {'task': 'detection', 'train_images': 30, 'val_images': 15, 'seed': 0}


def test_train_and_val_use_other_photographs(manifest: dict[str, Any], photos: dict[str, np.ndarray]) -> None:
    for split in ('train', 'val'):
        files = [entry for entry in manifest['files'] if entry['path'].startswith(split)]
        backgrounds = {entry['photo'] for entry in files}
        textures = {item['photo'] for entry in files for item in entry['objects']}
        allowed = {name for name, photo in manifest['photos'].items() if photo['split'] == split}
        assert backgrounds == textures == allowed
        is_grey = {np.ptp(photos[name], axis=2).max() == 0 for name in allowed}
        assert is_grey == {False, True}
    assert all(item['photo'] != entry['photo'] for entry in manifest['files'] for item in entry['objects'])


def test_readme_names_the_sources_of_each_split(made: Path, manifest: dict[str, Any]) -> None:
    text = (made / 'README.txt').read_text(encoding='utf-8')
    assert [photo['file'] for photo in manifest['photos'].values() if photo['file'] not in text] == []
    assert 'val: camera, chelsea, gravel, rocket' in text


@pytest.mark.parametrize('split', ['train', 'val'])
def test_coco_files(split: str, made: Path, cocos: dict[str, COCO]) -> None:
    coco = cocos[split]
    assert set(coco.dataset) == {'info', 'licenses', 'images', 'annotations', 'categories'}
    assert [(c['id'], c['name']) for c in coco.dataset['categories']] == list(enumerate(CLASSES, 1))
    assert list(coco.imgs) == list(range(1, COUNTS[f'{split}_images'] + 1))
    assert list(coco.anns) == list(range(1, len(coco.dataset['annotations']) + 1))
    for image in coco.imgs.values():
        picture = cv2.imread(str(made / split / image['file_name']))
        assert picture.shape == (image['height'], image['width'], 3)
        assert 1 <= len(coco.getAnnIds(image['id'])) <= 5
    assert all(annotation['iscrowd'] == 0 for annotation in coco.anns.values())


def test_areas_and_boxes_are_those_of_the_polygons(annotations: list[tuple[dict[str, Any], np.ndarray]]) -> None:
    for annotation, _ in annotations:
        corners = corners_of(annotation)
        np.testing.assert_allclose(annotation['area'], cv2.contourArea(corners.astype(np.float32)), rtol=1e-3)
        x, y, width, height = annotation['bbox']
        bounds = [*corners.min(axis=0), *corners.max(axis=0)]
        np.testing.assert_allclose([x, y, x + width, y + height], bounds, atol=1e-9)


def test_masks_are_the_polygons_to_rasterisation(annotations: list[tuple[dict[str, Any], np.ndarray]]) -> None:
    errors = []
    for annotation, mask in annotations:
        errors.append((int(mask.sum()) - annotation['area']) / perimeter(annotation))
        # polygon2mask has pixel centres at whole numbers, COCO has their corners there
        other = polygon2mask(mask.shape, corners_of(annotation)[:, ::-1] - 0.5)
        assert np.count_nonzero(other != mask) < 0.3 * perimeter(annotation)
    assert np.abs(errors).max() < 0.5
    assert np.abs(np.mean(errors)) < 0.01


def test_objects_lie_in_their_boxes_and_pictures(annotations: list[tuple[dict[str, Any], np.ndarray]]) -> None:
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
            masks = [coco.annToMask(annotation) for annotation in coco.loadAnns(coco.getAnnIds(image_id))]
            for index, mask in enumerate(masks):
                near = cv2.dilate(mask, np.ones((7, 7), np.uint8))
                assert not any((near & other).any() for other in masks[:index] + masks[index + 1 :])


def scenes_of(manifest: dict[str, Any], cocos: dict[str, COCO]) -> Iterator[tuple[dict[str, Any], list, list]]:
    """Every manifest entry with the annotations of its picture and their masks."""
    for entry in manifest['files']:
        split, name = entry['path'].split('/')
        coco = cocos[split]
        (image_id,) = [image['id'] for image in coco.imgs.values() if image['file_name'] == name]
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        yield entry, annotations, [coco.annToMask(annotation) for annotation in annotations]


@pytest.fixture(scope='module')
def rebuilt(
    manifest: dict[str, Any], cocos: dict[str, COCO], photos: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The pictures before JPEG, by path, as the manifest and the masks of the annotations say."""
    pictures = {}
    for entry, _, masks in scenes_of(manifest, cocos):
        picture = cut_again(photos[entry['photo']], entry, *entry['size'])
        for item, mask in zip(entry['objects'], masks, strict=True):
            x0, y0, x1, y1 = item['place']
            texture = cut_again(photos[item['photo']], item, x1 - x0, y1 - y0)
            inside = mask[y0:y1, x0:x1] == 1
            assert inside.sum() == mask.sum()
            picture[y0:y1, x0:x1][inside] = np.clip(texture.astype(int) + item['shift'], 0, 255)[inside]
        pictures[entry['path']] = picture
    return pictures


def test_pictures_are_what_manifest_and_masks_say(made: Path, rebuilt: dict[str, np.ndarray]) -> None:
    for path, picture in rebuilt.items():
        encoded = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        assert (made / path).read_bytes() == encoded.tobytes(), path


def local_contrasts(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean absolute difference between the colours inside and outside, at every pixel just inside the outline."""
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8))
    contrasts = []
    for row, column in np.argwhere(mask > inner):
        window = np.s_[row - 3 : row + 4, column - 3 : column + 4]
        near, inside = picture[window].astype(float), mask[window] == 1
        contrasts.append(np.abs(near[inside].mean(axis=0) - near[~inside].mean(axis=0)).mean())
    return np.array(contrasts)


def test_objects_stand_out(
    made: Path, manifest: dict[str, Any], cocos: dict[str, COCO], rebuilt: dict[str, np.ndarray]
) -> None:
    for entry, annotations, masks in scenes_of(manifest, cocos):
        jpeg = cv2.imread(str(made / entry['path']))
        for annotation, mask in zip(annotations, masks):
            exact = local_contrasts(rebuilt[entry['path']], mask)
            assert np.percentile(exact, 10) > detection.MIN_CONTRAST - 1e-3, annotation
            assert local_contrasts(jpeg, mask).mean() > detection.MIN_CONTRAST, annotation


def test_contrast_worked_examples() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 1
    picture = np.full((40, 60, 3), 100, np.uint8)
    assert detection.outline_contrast(picture, mask) == 0
    picture[mask == 1] = (130, 100, 85)  # differs by 30, 0 and 15: by 15 in the mean
    assert detection.outline_contrast(picture, mask) == pytest.approx(15, abs=1e-4)
    picture[:, 20:24] = 7  # a fifth of the object is like what surrounds it: it does not stand out
    picture[:, :20] = 7
    assert detection.outline_contrast(picture, mask) < 5


def test_area_and_bounds_worked_example() -> None:
    polygon = [1.25, 2.0, 5.25, 2.0, 5.25, 4.5]
    assert detection.polygon_area(polygon) == detection.polygon_area(polygon[::-1]) == 5.0
    assert detection.polygon_bounds(polygon) == [1.25, 2.0, 4.0, 2.5]


def test_classes_sizes_and_counts_vary(cocos: dict[str, COCO]) -> None:
    everything = [annotation for coco in cocos.values() for annotation in coco.anns.values()]
    classes = Counter(annotation['category_id'] for annotation in everything)
    assert min(classes.values()) > 0.2 * len(everything)
    sides = np.array([max(annotation['bbox'][2:]) for annotation in everything])
    assert sides.min() > 23.9
    assert sides.max() < 140.1
    assert (sides < 40).mean() > 0.15
    assert (sides > 80).mean() > 0.1
    per_image = Counter((id(coco), a['image_id']) for coco in cocos.values() for a in coco.anns.values())
    assert set(per_image.values()) == {1, 2, 3, 4, 5}


def test_picture_sizes_vary(cocos: dict[str, COCO]) -> None:
    sizes = [(image['width'], image['height']) for coco in cocos.values() for image in coco.imgs.values()]
    assert {max(size) for size in sizes} == {320, 333, 352, 375, 384, 400}
    assert 0.2 < np.mean([width > height for width, height in sizes]) < 0.8
    assert 0.2 < np.mean([width % 8 != 0 or height % 8 != 0 for width, height in sizes]) < 0.8


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
    return np.reshape(detection.draw_polygon(name, (400, 300), random.Random(seed)), (-1, 2)).astype(np.float32)


class LargestRandom(random.Random):
    """Its numbers are the largest that random() gives."""

    def random(self) -> float:
        """The largest float below 1."""
        return 1 - 2**-53


@pytest.mark.parametrize('size', detection.SIZES)
@pytest.mark.parametrize('name', CLASSES)
def test_largest_objects_in_the_last_corner_fit(name: str, size: tuple[int, int]) -> None:
    polygon = np.reshape(detection.draw_polygon(name, size, LargestRandom()), (-1, 2))
    np.testing.assert_allclose(polygon.max(axis=0), np.array(size) - 3, atol=0.006)
    np.testing.assert_allclose(np.ptp(polygon, axis=0).max(), 140, atol=0.011)
    assert (polygon.max(axis=0) <= np.array(size) - 3).all()


@pytest.mark.parametrize(('zoom', 'expected'), [(1.0, (40, 20)), (2.5, (100, 50)), (9.0, (120, 60))])
def test_crops_are_as_large_as_zoom_and_photograph_allow(zoom: float, expected: tuple[int, int]) -> None:
    photo = np.zeros((90, 120, 3), np.uint8)
    for seed in range(20):
        x0, y0, x1, y1 = detection.draw_crop(photo, (40, 20), zoom, random.Random(seed))
        assert (x1 - x0, y1 - y0) == expected
        assert min(x0, y0) >= 0
        assert x1 <= 120
        assert y1 <= 90


def test_object_without_a_place_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([False] * 500 + [True] + [False] * 1000)
    monkeypatch.setattr(detection, '_paste', lambda *_: next(answers))
    photos = {'coins': np.zeros((303, 384, 3), np.uint8)}
    items = detection._add_objects(np.zeros((240, 320, 3), np.uint8), photos, 3, random.Random(0))
    assert len(items) == 1
    assert sum(1 for _ in answers) == 800


def test_same_seed_same_bytes(made: Path, tmp_path: Path) -> None:
    np.random.seed(7)
    make_demo_data(tmp_path / 'again', 'detection', **COUNTS)
    assert hashes(tmp_path / 'again') == hashes(made)


def test_another_seed_other_pictures_more_pictures_same_pictures(made: Path, tmp_path: Path) -> None:
    make_demo_data(tmp_path / 'few', **SMALL)
    make_demo_data(tmp_path / 'other', **SMALL, seed=1)
    few, other, many = hashes(tmp_path / 'few'), hashes(tmp_path / 'other'), hashes(made)
    jpegs = [path for path in few if path.endswith('.jpg')]
    assert len(jpegs) == 3
    assert all(few[path] == many[path] for path in jpegs)
    assert all(few[path] != other[path] for path in jpegs)


def test_second_run_reuses(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first = make_demo_data(tmp_path / 'demo', **SMALL)
    objects = sum(len(entry['objects']) for entry in first['files'])
    assert f'wrote 3 pictures (2 train and 1 val) with {objects} objects of 3 classes' in capsys.readouterr().out
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / 'demo').rglob('*')}
    second = make_demo_data(tmp_path / 'demo', **SMALL)
    assert 'nothing to do' in capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / 'demo').rglob('*')}
    assert first == second


@pytest.mark.parametrize('error', [RuntimeError('full'), KeyboardInterrupt()])
def test_interrupted_run_leaves_nothing(error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        break_after(patch, 2, error)
        with pytest.raises(type(error)):
            make_demo_data(tmp_path / 'demo', **SMALL)
    assert list(tmp_path.iterdir()) == []
    assert len(make_demo_data(tmp_path / 'demo', **SMALL)['files']) == 3


@pytest.mark.parametrize('lost', ['annotations/val.json', 'train/001.jpg'])
def test_incomplete_folder_needs_force(lost: str, tmp_path: Path) -> None:
    make_demo_data(tmp_path / 'demo', **SMALL)
    before = hashes(tmp_path / 'demo')
    (tmp_path / 'demo' / lost).unlink()
    with pytest.raises(FileExistsError, match=f'lacks 1 of its files, such as {lost}'):
        make_demo_data(tmp_path / 'demo', **SMALL)
    make_demo_data(tmp_path / 'demo', **SMALL, force=True)
    assert hashes(tmp_path / 'demo') == before


def test_folder_of_the_other_task_needs_force(tmp_path: Path) -> None:
    make_demo_data(tmp_path / 'demo', 'classification', train_per_class=1, val_per_class=1)
    with pytest.raises(FileExistsError, match="'classification'.*'detection'.*--force"):
        make_demo_data(tmp_path / 'demo', **SMALL)
    make_demo_data(tmp_path / 'demo', **SMALL, force=True)
    assert read_manifest(tmp_path / 'demo')['arguments']['task'] == 'detection'
    assert not (tmp_path / 'demo/train/coins').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'train_images': 0}, 'train_images must be at least 1, got 0'),
        ({'val_images': -2}, 'val_images must be at least 1, got -2'),
        ({'val_images': '7'}, "val_images must be an integer, got '7'"),
        ({'seed': 1.5}, 'seed must be an integer, got 1.5'),
        (
            {'train_per_class': 3, 'val_images': 1},
            'train_per_class: not for task detection, which takes train_images, val_images',
        ),
    ],
)
def test_invalid_arguments(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        make_demo_data(tmp_path / 'demo', 'detection', **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmdet_reads_it(split: str, made: Path, cocos: dict[str, COCO]) -> None:
    from mmdet.datasets import CocoDataset

    dataset = CocoDataset(
        data_root=str(made),
        ann_file=f'annotations/{split}.json',
        data_prefix=dict(img=f'{split}/'),
        metainfo=dict(classes=CLASSES),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[],
    )
    assert len(dataset) == COUNTS[f'{split}_images']
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        assert Path(info['img_path']).is_file()
        expected = cocos[split].loadAnns(cocos[split].getAnnIds(info['img_id']))
        assert [i['bbox_label'] + 1 for i in info['instances']] == [a['category_id'] for a in expected]
        assert [i['mask'] for i in info['instances']] == [a['segmentation'] for a in expected]


def test_tool_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ['--task', 'detection', '--out', str(tmp_path / 'demo'), '--train-images', '2', '--val-images', '1']
    monkeypatch.setattr(sys, 'argv', ['make_demo_data.py', *arguments])
    runpy.run_path(str(ROOT / 'tools/make_demo_data.py'))['main']()
    make_demo_data(tmp_path / 'here', **SMALL)
    assert hashes(tmp_path / 'demo') == hashes(tmp_path / 'here')


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ([], {'task': 'classification', 'out': 'data/demo'}),
        (['--task', 'detection'], {'task': 'detection', 'out': 'data/demo_detection'}),
        (
            ['--task', 'detection', '--out', 'x', '--val-images', '9', '--force'],
            {'task': 'detection', 'out': 'x', 'val_images': 9, 'force': True},
        ),
    ],
)
def test_tool_passes_on_what_was_given(
    arguments: list[str], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, 'argv', ['make_demo_data.py', *arguments])
    assert runpy.run_path(str(ROOT / 'tools/make_demo_data.py'))['parse_args']() == expected


@pytest.mark.parametrize(('task', 'option'), [('detection', 'train-per-class'), ('classification', 'val-images')])
def test_tool_refuses_options_of_the_other_task(
    task: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ['--task', task, '--out', str(tmp_path / 'demo'), f'--{option}', '3']
    monkeypatch.setattr(sys, 'argv', ['make_demo_data.py', *arguments])
    main = runpy.run_path(str(ROOT / 'tools/make_demo_data.py'))['main']
    with pytest.raises(SystemExit, match=f'{option.replace("-", "_")}: not for task {task}, which takes'):
        main()
    assert list(tmp_path.iterdir()) == []
