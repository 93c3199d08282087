"""The browser of data sets: photos rebuilt from inputs against the augmented photos, and frames at known places."""
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmpretrain.datasets import BaseDataset
from numpy.testing import assert_allclose, assert_array_equal
from skimage import data

from mmfreq.apis.browse import Browser, beside, truth_in_original_pixels
from mmfreq.config.pipelines import pipelines, stock_resize, transform_type

ROOT = Path(__file__).parents[2]
CLASSIFICATION, DETECTION = 'configs/demo/resnet18-dct24s_demo.py', 'configs/demo/mask-rcnn_r18-dct24s_demo.py'
PLACES = {(250, 200): (60, 90, 150, 170), (333, 500): (280, 40, 420, 260)}  # (H, W) of photos, a box (x0, y0, x1, y1)
BACKGROUND, BLUE, RED = (90, 90, 90), (40, 60, 200), (255, 0, 0)  # RGB


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmengine'):
        yield


@pytest.fixture(scope='module')
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of a photograph in class folders, the same in train and val."""
    root = tmp_path_factory.mktemp('browse') / 'folders'
    rng = np.random.default_rng(0)
    for index in range(12):
        y, x = rng.integers(0, 512 - np.array([300, 320]))
        crop = data.astronaut()[y:y + 300, x:x + 320, ::-1]
        for split in ('train', 'val'):
            path = root / split / ('early' if index < 6 else 'late') / f'{index}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), crop)
    return root


@pytest.fixture(scope='module')
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gray photos with a blue rectangle, whose box is annotated, with a smaller mask inside."""
    root = tmp_path_factory.mktemp('browse') / 'coco'
    content: dict[str, list] = dict(images=[], annotations=[], categories=[
        dict(id=i, name=name) for i, name in enumerate(('box', 'disc', 'star'), 1)])
    for number, ((height, width), (x0, y0, x1, y1)) in enumerate(PLACES.items(), 1):
        photo = np.full((height, width, 3), BACKGROUND, np.uint8)
        photo[y0:y1, x0:x1] = BLUE
        content['images'].append(dict(id=number, file_name=f'{number}.png', height=height, width=width))
        inner = [x0 + 30, y0 + 30, x1 - 30, y0 + 30, x1 - 30, y1 - 30, x0 + 30, y1 - 30]
        content['annotations'].append(dict(
            id=number, image_id=number, category_id=1, bbox=[x0, y0, x1 - x0, y1 - y0], iscrowd=0,
            area=(x1 - x0) * (y1 - y0), segmentation=[inner]))
        for split in ('train', 'val'):
            (root / split).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / split / f'{number}.png'), photo[:, :, ::-1])
    (root / 'annotations').mkdir()
    for split in ('train', 'val'):
        (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))
    return root


def config(path: str, root: Path, channels: str = '24S', upscale: int = 1) -> Config:
    """A demo config on the data under ``root``, red frames, and flips for certain."""
    cfg = Config.fromfile(str(ROOT / path))
    for name in ('train_dataloader', 'val_dataloader'):
        cfg[name].dataset.data_root = f'{root}/'
        for step in pipelines(cfg, name)[0]:
            step.update(dict(FusedBlockDCT=dict(channels=channels, upscale=upscale),
                             RandomFlip=dict(prob=1.0)).get(transform_type(step), {}))
    if path == DETECTION:
        cfg.visualizer.update(bbox_color=RED, mask_color=(0, 255, 0), line_width=2)
    return cfg


def augmented(cfg: Config, loader: str, index: int) -> np.ndarray:
    """What the pipeline has before mmfreq's first transform: uint8 BGR."""
    kinds = [transform_type(step) for step in pipelines(cfg, loader)[0]]
    steps = pipelines(cfg, loader)[0][:kinds.index('FusedBlockDCT')]
    return DATASETS.build(dict(cfg[loader].dataset, pipeline=steps))[index]['img']


def drawn(browser: Browser, index: int, width: int) -> np.ndarray:
    """The annotated photo, RGB, ``width`` pixels on the right of the browser's picture."""
    path, picture = browser.draw(index)
    original = cv2.imread(path)[:, :, ::-1]
    gap, left = 8, round(original.shape[1] * picture.shape[0] / original.shape[0])
    assert abs(picture.shape[1] - (left + 2 * gap + 2 * width)) <= 1  # in the middle what the network gets, unmarked
    assert (picture[:, left:left + gap] == 255).all()
    assert (picture[:, -width - gap:-width] == 255).all()
    if picture.shape[0] == original.shape[0]:
        assert_array_equal(picture[:, :left], original)
    return picture[:, -width:]


# Photos


@pytest.mark.parametrize(('path', 'loader', 'channels', 'upscale', 'most', 'mean'), [
    (CLASSIFICATION, 'train_dataloader', '192', 1, 2, 0.7),  # BGR is rounded
    (CLASSIFICATION, 'val_dataloader', '24S', 1, 255, 6),
    (DETECTION, 'train_dataloader', '24S', 2, 255, 4),
    (DETECTION, 'val_dataloader', '192', 1, 2, 0.7),
])
def test_rebuilt_photo_is_the_augmented_one(path: str, loader: str, channels: str, upscale: int, most: int, mean: float,
                                            folders: Path, coco: Path) -> None:
    cfg = config(path, folders if path == CLASSIFICATION else coco, channels, upscale)
    browser = Browser(cfg, loader)
    np.random.seed(3)
    item = browser.dataset[1]
    np.random.seed(3)
    expected = augmented(cfg, loader, 1)
    assert item['data_samples'].img_shape[:2] == expected.shape[:2]
    photo = browser.rebuilder.rebuild(item['inputs'], expected.shape[:2])
    assert (photo.dtype, photo.shape) == (np.uint8, expected.shape)
    difference = np.abs(photo.astype(int) - expected)
    assert difference.max() <= most
    assert difference.mean() < mean
    assert np.abs(photo[:, ::-1].astype(int) - expected).mean() > 2 * mean  # the photos have a left and a right


@pytest.mark.parametrize(('own', 'tolerance'), [([dict(type='YCbCr')], 2), ([], 0)])
def test_pixels_are_shown_without_dct(own: list[dict], tolerance: int, folders: Path) -> None:
    cfg = config('configs/demo/resnet18_demo.py', folders)
    steps = pipelines(cfg, 'val_dataloader')[0]
    cfg.val_dataloader.dataset.pipeline = [*steps[:-1], *own, steps[-1]]
    browser = Browser(cfg, 'val_dataloader')
    photo = browser.rebuilder.rebuild(browser.dataset[0]['inputs'], (112, 112))
    expected = DATASETS.build(dict(cfg.val_dataloader.dataset, pipeline=steps[:-1]))[0]['img']
    assert_allclose(photo.astype(int), expected, atol=tolerance)


def test_statistics_are_read_once(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = Browser(config(CLASSIFICATION, folders), 'val_dataloader')

    def fail(name: str) -> None:
        raise AssertionError(f'{name} was read again')

    monkeypatch.setattr('mmfreq.dct.stats.load_stats', fail)
    browser.draw(0)


# Ground truth


def frame(picture: np.ndarray) -> list[float]:
    """Box (x0, y0, x1, y1) in the middle of the red lines."""
    red = (np.abs(picture.astype(int) - RED).max(axis=2) < 90)
    rows, columns = (np.flatnonzero(red.sum(axis=axis) > 0.4 * red.sum(axis=axis).max()) for axis in (1, 0))
    middle = (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
    return [columns[columns < middle[1]].mean() + 0.5, rows[rows < middle[0]].mean() + 0.5,
            columns[columns > middle[1]].mean() + 0.5, rows[rows > middle[0]].mean() + 0.5]


def assert_on_the_rectangles_edges(picture: np.ndarray, box: list[float]) -> None:
    """The frame is where the box is, and there the photo changes from gray to blue."""
    assert_allclose(frame(picture), box, atol=1.5)
    x0, y0, x1, y1 = map(round, box)
    middle_y, middle_x = slice((y0 + y1) // 2, (y0 + y1) // 2 + 5), slice((x0 + x1) // 2, (x0 + x1) // 2 + 5)
    for inside, outside in (((middle_y, x0 + 4), (middle_y, x0 - 5)), ((middle_y, x1 - 5), (middle_y, x1 + 4)),
                            ((y1 - 5, middle_x), (y1 + 4, middle_x))):
        assert_allclose(picture[inside].mean(axis=0), BLUE, atol=25)
        assert_allclose(picture[outside].mean(axis=0), BACKGROUND, atol=25)


@pytest.mark.parametrize('masks', [True, False])
@pytest.mark.parametrize('index', [0, 1])
def test_frames_of_val_lie_on_the_original_photo(index: int, masks: bool, coco: Path) -> None:
    cfg = config(DETECTION, coco, upscale=2)
    next(step for step in pipelines(cfg, 'val_dataloader')[0] if step.type == 'LoadAnnotations').with_mask = masks
    (height, width), box = list(PLACES.items())[index]
    picture = drawn(Browser(cfg, 'val_dataloader'), index, width)
    assert picture.shape == (height, width, 3)
    assert_on_the_rectangles_edges(picture, box)


@pytest.mark.parametrize('index', [0, 1])
def test_frames_of_train_lie_on_the_augmented_photo(index: int, coco: Path) -> None:
    cfg = config(DETECTION, coco, upscale=2)
    (height, width), (x0, y0, x1, y1) = list(PLACES.items())[index]
    new_height, new_width = [(240, 192), (170, 256)][index]  # within 256 x 192
    picture = drawn(Browser(cfg, 'train_dataloader'), index, new_width)
    assert picture.shape == (new_height, new_width, 3)
    x_scale, y_scale = new_width / width, new_height / height
    flipped = [new_width - x_scale * x1, y_scale * y0, new_width - x_scale * x0, y_scale * y1]
    assert_on_the_rectangles_edges(picture, flipped)


def test_padding_of_a_test_pipeline_is_taken_off(coco: Path) -> None:
    """RTMDet's test pipeline: Resize, Pad, LoadAnnotations."""
    cfg = config(DETECTION, coco, upscale=2)
    steps = pipelines(cfg, 'val_dataloader')[0]
    steps.insert(2, dict(type='Pad', size=(256, 256), pad_val=dict(img=(114, 114, 114))))
    (height, width), box = list(PLACES.items())[1]
    picture = drawn(Browser(cfg, 'val_dataloader'), 1, width)
    assert picture.shape == (height, width, 3)
    assert_on_the_rectangles_edges(picture, box)


@pytest.mark.parametrize(('kinds', 'original'), [
    (['LoadImageFromFile', 'LoadAnnotations', 'Resize', 'PackDetInputs'], False),
    (['LoadImageFromFile', 'Resize', 'LoadAnnotations', 'PackDetInputs'], True),
    (['LoadImageFromFile', 'mmdet.FixScaleResize', 'mmdet.LoadPanopticAnnotations'], True),
    (['LoadImageFromFile', 'ResizeEdge', 'CenterCrop', 'PackInputs'], False),
])
def test_where_ground_truth_lies(kinds: list[str], original: bool) -> None:
    assert truth_in_original_pixels([dict(type=kind) for kind in kinds]) is original


def test_labels_are_written_on_the_photo(folders: Path) -> None:
    browser = Browser(config(CLASSIFICATION, folders), 'val_dataloader')
    picture = drawn(browser, 7, 224)
    item = browser.dataset[7]
    photo = browser.rebuilder.rebuild(item['inputs'], (224, 224))[:, :, ::-1]
    assert picture.shape == photo.shape
    changed = np.argwhere((picture != photo).any(axis=2))
    assert len(changed) > 50
    assert changed[:, 0].max() < 40  # one line of text at the top


def test_pictures_side_by_side() -> None:
    left, right = np.full((10, 40, 3), 10, np.uint8), np.full((5, 7, 3), 70, np.uint8)
    picture = beside(left, right, gap=3)
    assert picture.shape == (5, 20 + 3 + 7, 3)
    assert picture[0, :, 0].tolist() == [10] * 20 + [255] * 3 + [70] * 7


# The tool


def browse(run_tool: Any, path: str, root: Path, *arguments: Any) -> None:
    options = [f'{name}_dataloader.dataset.data_root={root}/' for name in ('train', 'val')]
    run_tool('browse_dataset', ROOT / path, *arguments, '--cfg-options', *options)


@pytest.mark.parametrize('phase', ['train', 'val'])
@pytest.mark.parametrize('path', [CLASSIFICATION, DETECTION])
def test_tool_writes_pictures(path: str, phase: str, folders: Path, coco: Path, tmp_path: Path,
                              run_tool: Any, capsys: pytest.CaptureFixture) -> None:
    root, names = (folders, ['0', '1', '2', '3']) if path == CLASSIFICATION else (coco, ['1', '2'])
    browse(run_tool, path, root, '--phase', phase, '--number', 4, '--out', tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [f'{i:05d}-{name}.png' for i, name in enumerate(names)]
    for file in tmp_path.iterdir():
        assert cv2.imread(str(file)).std() > 5
    assert f'{len(names)} pictures in {tmp_path}' in capsys.readouterr().out


def test_shuffled_samples_come_from_all_classes_and_stay_the_same(folders: Path, tmp_path: Path, run_tool: Any) -> None:
    shown = []
    for run, flags in enumerate(([], ['--shuffle'], ['--shuffle'], ['--shuffle', '--seed', 1])):
        browse(run_tool, CLASSIFICATION, folders, '--number', 5, '--out', tmp_path / str(run), *flags)
        shown.append({int(file.name.split('-')[0]) for file in (tmp_path / str(run)).iterdir()})
    first, shuffled, again, other = shown
    assert first == set(range(5))
    assert shuffled == again != other
    assert {index < 6 for index in shuffled} == {True, False}
    assert len(shuffled) == len(other) == 5


def test_the_left_image_is_what_the_data_set_loads(folders: Path) -> None:
    cfg = config(CLASSIFICATION, folders)
    pipelines(cfg, 'val_dataloader')[0][0].imdecode_backend = 'pillow'
    browser = Browser(cfg, 'val_dataloader')
    path, picture = browser.draw(0)
    original = cv2.imread(path)[:, :, ::-1]
    expected = beside(original, picture[:, -2 * 224 - 8:])
    assert_array_equal(picture, expected)


def test_int8_of_the_pipeline_does_not_count_on_the_device(folders: Path) -> None:
    """FusedBlockDCT's config as freq of the preprocessor: dtype and scale are of no use there."""
    cfg = config(CLASSIFICATION, folders)
    steps = pipelines(cfg, 'val_dataloader')[0]
    fused = steps.pop(-2)
    steps[1] = stock_resize(steps[1])  # the device takes pixels
    shown = []
    for transport in ({}, dict(dtype='int8', scale=16.)):
        cfg.model.data_preprocessor = dict(type='FreqDataPreprocessor', placement='device',
                                           freq=dict(fused, **transport))
        shown.append(Browser(cfg, 'val_dataloader').draw(0)[1])
    assert_array_equal(*shown)


@pytest.mark.parametrize('classes', [None, ('x', 'y')])
def test_images_that_are_no_files(classes: Any) -> None:
    """A data set of arrays, as CIFAR, with colours in the order RGB; it may have no names of classes."""
    cfg = Config.fromfile(str(ROOT / CLASSIFICATION))
    fused = pipelines(cfg, 'val_dataloader')[0][-2]
    cfg.val_dataloader.dataset = dict(
        type=Arrays, ann_file='', metainfo=dict(classes=classes) if classes else None,
        pipeline=[dict(fused, channel_order='rgb', channels='64S'), dict(type='PackInputs')])
    path, picture = Browser(cfg, 'val_dataloader').draw(0)
    assert path == 'sample 0'
    assert_array_equal(picture[:, :160], Arrays.image)
    assert_allclose(picture[80:, 168:328].astype(int), Arrays.image[80:], atol=12)


class Arrays(BaseDataset):
    """One image of one colour."""

    image = np.full((160, 160, 3), (200, 60, 20), np.uint8)

    def load_data_list(self) -> list[dict]:
        return [dict(img=self.image, gt_label=1)]
