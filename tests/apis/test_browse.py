"""The browser of data sets: rebuilt images against augmented ones, frames at known places."""
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

from mmfreq.apis.browse import GAP, TITLE_HEIGHT, Browser
from mmfreq.config.pipelines import pipelines, stock_resize, transform_type

ROOT = Path(__file__).parents[2]
CLASSIFICATION = 'configs/demo/resnet18-dct24s_demo.py'
DETECTION = 'configs/demo/mask-rcnn_r18-dct24s_demo.py'
PLACES = {(250, 200): (60, 90, 150, 170), (333, 500): (280, 40, 420, 260)}  # (H, W), x0 y0 x1 y1
BACKGROUND, BLUE, RED = (90, 90, 90), (40, 60, 200), (255, 0, 0)  # RGB


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmengine'):
        yield


@pytest.fixture(scope='module')
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of a photograph in class folders, the same in train and val."""
    root = tmp_path_factory.mktemp('browse')
    for index in range(12):
        crop = data.astronaut()[10 * index:10 * index + 300, 12 * index:12 * index + 320, ::-1]
        for split in ('train', 'val'):
            path = root / split / ('early' if index < 6 else 'late') / f'{index}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), crop)
    return root


@pytest.fixture(scope='module')
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey images with a blue rectangle, whose box is annotated, with a smaller mask inside."""
    root = tmp_path_factory.mktemp('browse')
    content: dict[str, list] = dict(images=[], annotations=[], categories=[
        dict(id=i, name=name) for i, name in enumerate(('box', 'disc', 'star'), 1)])
    for number, ((height, width), (x0, y0, x1, y1)) in enumerate(PLACES.items(), 1):
        image = np.full((height, width, 3), BACKGROUND, np.uint8)
        image[y0:y1, x0:x1] = BLUE
        content['images'].append(
            dict(id=number, file_name=f'{number}.png', height=height, width=width))
        inner = [x0 + 30, y0 + 30, x1 - 30, y0 + 30, x1 - 30, y1 - 30, x0 + 30, y1 - 30]
        content['annotations'].append(dict(
            id=number, image_id=number, category_id=1, bbox=[x0, y0, x1 - x0, y1 - y0], iscrowd=0,
            area=(x1 - x0) * (y1 - y0), segmentation=[inner]))
        for split in ('train', 'val'):
            (root / split).mkdir(exist_ok=True)
            cv2.imwrite(str(root / split / f'{number}.png'), image[:, :, ::-1])
    (root / 'annotations').mkdir()
    for split in ('train', 'val'):
        (root / f'annotations/{split}.json').write_text(json.dumps(content))
    return root


def config(path: str, root: Path, channels: str = '24S', upscale: int = 1) -> Config:
    """A demo config on the data under ``root``, with red frames and flips for certain."""
    cfg = Config.fromfile(str(ROOT / path))
    for name in ('train_dataloader', 'val_dataloader'):
        cfg[name].dataset.data_root = f'{root}/'
        for step in pipelines(cfg, name)[0]:
            step.update(dict(FusedBlockDCT=dict(channels=channels, upscale=upscale),
                             RandomFlip=dict(prob=1.0)).get(transform_type(step), {}))
    if path == DETECTION:
        cfg.visualizer.update(bbox_color=RED, mask_color=(0, 255, 0), line_width=2)
    return cfg


def annotated(browser: Browser, index: int, width: int) -> np.ndarray:
    """The panel with the ground truth, RGB, ``width`` pixels wide."""
    return browser.draw(index)[1][TITLE_HEIGHT:, -width - GAP:-GAP]


# Images


@pytest.mark.parametrize(('path', 'loader', 'channels', 'upscale', 'most', 'mean'), [
    (CLASSIFICATION, 'train_dataloader', '192', 1, 2, 0.7),  # BGR is rounded
    (CLASSIFICATION, 'val_dataloader', '24S', 1, 255, 6),
    (DETECTION, 'train_dataloader', '24S', 2, 255, 4),
    (DETECTION, 'val_dataloader', '192', 1, 2, 0.7),
])
def test_rebuilt_image_is_the_augmented_one(
        path: str, loader: str, channels: str, upscale: int, most: int, mean: float, folders: Path,
        coco: Path) -> None:
    cfg = config(path, folders if path == CLASSIFICATION else coco, channels, upscale)
    browser = Browser(cfg, loader)
    steps = pipelines(cfg, loader)[0]
    before = steps[:[transform_type(step) for step in steps].index('FusedBlockDCT')]
    np.random.seed(3)
    item = browser.dataset[1]
    np.random.seed(3)
    expected = DATASETS.build(dict(cfg[loader].dataset, pipeline=before))[1]['img']
    assert item['data_samples'].img_shape[:2] == expected.shape[:2]
    image = browser.rebuild(item['inputs'], expected.shape[:2])
    assert (image.dtype, image.shape) == (np.uint8, expected.shape)
    difference = np.abs(image.astype(int) - expected)
    assert difference.max() <= most
    assert difference.mean() < mean
    assert np.abs(image[:, ::-1].astype(int) - expected).mean() > 2 * mean  # left is not right


@pytest.mark.parametrize(('own', 'tolerance'), [([dict(type='YCbCr')], 2), ([], 0)])
def test_pixels_are_shown_without_dct(own: list[dict], tolerance: int, folders: Path) -> None:
    cfg = config('configs/demo/resnet18_demo.py', folders)
    steps = pipelines(cfg, 'val_dataloader')[0]
    cfg.val_dataloader.dataset.pipeline = [*steps[:-1], *own, steps[-1]]
    browser = Browser(cfg, 'val_dataloader')
    image = browser.rebuild(browser.dataset[0]['inputs'], (112, 112))
    expected = DATASETS.build(dict(cfg.val_dataloader.dataset, pipeline=steps[:-1]))[0]['img']
    assert_allclose(image.astype(int), expected, atol=tolerance)


def test_int8_is_undone_and_does_not_count_on_the_device(folders: Path) -> None:
    pictures = []
    for transport in ({}, dict(dtype='int8', scale=16.)):
        cfg = config(CLASSIFICATION, folders)
        steps = pipelines(cfg, 'val_dataloader')[0]
        steps[-2].update(transport)
        pictures.append(Browser(cfg, 'val_dataloader').draw(0)[1])
        fused = steps.pop(-2)
        steps[1] = stock_resize(steps[1])  # the device takes pixels
        cfg.model.data_preprocessor = dict(
            type='FreqDataPreprocessor', placement='device', freq=fused)
        pictures.append(Browser(cfg, 'val_dataloader').draw(0)[1])
    assert_array_equal(pictures[1], pictures[3])
    for picture in pictures:
        assert np.abs(picture.astype(int) - pictures[0]).mean() < 2


class Arrays(BaseDataset):
    """One image of one colour, as in CIFAR an array with colours in the order RGB."""

    image = np.full((160, 160, 3), (200, 60, 20), np.uint8)

    def load_data_list(self) -> list[dict]:
        return [dict(img=self.image, gt_label=1)]


@pytest.mark.parametrize('classes', [None, ('x', 'y')])
def test_images_that_are_not_files(classes: Any) -> None:
    cfg = Config.fromfile(str(ROOT / CLASSIFICATION))
    fused = pipelines(cfg, 'val_dataloader')[0][-2]
    cfg.val_dataloader.dataset = dict(
        type=Arrays, ann_file='', metainfo=dict(classes=classes) if classes else None,
        pipeline=[dict(fused, channel_order='rgb', channels='64S'), dict(type='PackInputs')])
    path, picture = Browser(cfg, 'val_dataloader').draw(0)
    assert path == 'sample 0'
    assert_array_equal(picture[TITLE_HEIGHT:, :160], Arrays.image)
    assert_allclose(picture[TITLE_HEIGHT:, 160 + GAP:320 + GAP].astype(int), Arrays.image, atol=12)


# Ground truth


def frame(picture: np.ndarray) -> list[float]:
    """Box (x0, y0, x1, y1) in the middle of the red lines."""
    red = (np.abs(picture.astype(int) - RED).max(axis=2) < 90)
    rows, columns = (np.flatnonzero(red.sum(axis=axis) > 0.4 * red.sum(axis=axis).max())
                     for axis in (1, 0))
    middle = (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
    return [columns[columns < middle[1]].mean() + 0.5, rows[rows < middle[0]].mean() + 0.5,
            columns[columns > middle[1]].mean() + 0.5, rows[rows > middle[0]].mean() + 0.5]


def assert_on_the_rectangles_edges(picture: np.ndarray, box: list[float]) -> None:
    """The frame is where the box is, and there the image changes from grey to blue."""
    assert_allclose(frame(picture), box, atol=1.5)
    x0, y0, x1, y1 = map(round, box)
    y, x = slice((y0 + y1) // 2, (y0 + y1) // 2 + 5), slice((x0 + x1) // 2, (x0 + x1) // 2 + 5)
    for inside, outside in (((y, x0 + 4), (y, x0 - 5)), ((y, x1 - 5), (y, x1 + 4)),
                            ((y1 - 5, x), (y1 + 4, x))):
        assert_allclose(picture[inside].mean(axis=0), BLUE, atol=25)
        assert_allclose(picture[outside].mean(axis=0), BACKGROUND, atol=25)


@pytest.mark.parametrize('padded', [False, True])  # RTMDet: Resize, Pad, LoadAnnotations
@pytest.mark.parametrize('index', [0, 1])
def test_frames_of_val_lie_on_the_original_image(index: int, padded: bool, coco: Path) -> None:
    cfg = config(DETECTION, coco, upscale=2)
    if padded:
        pad = dict(type='Pad', size=(256, 256), pad_val=dict(img=(114, 114, 114)))
        pipelines(cfg, 'val_dataloader')[0].insert(2, pad)
    (height, width), box = list(PLACES.items())[index]
    picture = annotated(Browser(cfg, 'val_dataloader'), index, width)
    assert picture.shape == (height, width, 3)
    assert_on_the_rectangles_edges(picture, box)


@pytest.mark.parametrize('index', [0, 1])
def test_frames_of_train_lie_on_the_augmented_image(index: int, coco: Path) -> None:
    cfg = config(DETECTION, coco, upscale=2)
    (height, width), (x0, y0, x1, y1) = list(PLACES.items())[index]
    new_height, new_width = [(240, 192), (170, 256)][index]  # within 256 x 192
    picture = annotated(Browser(cfg, 'train_dataloader'), index, new_width)
    x, y = new_width / width, new_height / height
    flipped = [new_width - x * x1, y * y0, new_width - x * x0, y * y1]
    assert_on_the_rectangles_edges(picture, flipped)


# The picture


def test_panels_have_titles_and_only_the_last_has_the_label(folders: Path) -> None:
    browser = Browser(config(CLASSIFICATION, folders), 'val_dataloader')
    path, picture = browser.draw(7)
    assert picture.shape == (TITLE_HEIGHT + 224, 239 + 224 + 224 + 3 * GAP, 3)
    for start in (0, 239 + GAP, 239 + 224 + 2 * GAP):
        assert (picture[:TITLE_HEIGHT, start:start + 40] < 100).any()
    image = browser.rebuild(browser.dataset[7]['inputs'], (224, 224))[:, :, ::-1]
    assert_array_equal(picture[TITLE_HEIGHT:, 239 + GAP:239 + GAP + 224], image)
    changed = np.argwhere((picture[TITLE_HEIGHT:, -224 - GAP:-GAP] != image).any(axis=2))
    assert len(changed) > 50
    assert changed[:, 0].max() < 40  # one line of text at the top


def test_the_tool_draws_the_rest_and_names_a_damaged_image(
        folders: Path, tmp_path: Path, run_tool: Any, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'val').symlink_to(folders / 'val')
    (tmp_path / 'train/early').mkdir(parents=True)
    (tmp_path / 'train/late').symlink_to(folders / 'train/late')
    (tmp_path / 'train/early/0.png').write_bytes(b'no image')
    root, out = f'train_dataloader.dataset.data_root={tmp_path}', tmp_path / 'out'
    for flags in ([], ['--shuffle']):
        with pytest.raises(SystemExit) as ended:
            run_tool('browse_dataset', ROOT / CLASSIFICATION, '--out', out / str(len(flags)),
                     *flags, '--number', 7 if flags else 3, '--cfg-options', root)
        assert ended.value.code == 1
        errors = capsys.readouterr().err
        assert '0.png' in errors
        assert '%|' not in errors  # no progress bar outside of a terminal
    assert [file.name for file in sorted((out / '0').iterdir())] == ['00001-10.png', '00002-11.png']
    assert len(list((out / '1').iterdir())) == 6
    assert cv2.imread(str(out / '0/00001-10.png')).std() > 5
