"""Predictions are drawn on what the data set loads: files of any kind, and arrays."""
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import DefaultScope
from mmpretrain.datasets import BaseDataset, CustomDataset
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from torch.utils.data import DataLoader

from mmfreq.engine.hooks.visualization import FreqVisualizationHook, loaded_image
from mmfreq.transforms import YCbCr

RED, BLUE = (200, 30, 40), (10, 60, 220)  # RGB
IMAGES = {name: np.repeat([[left, right]], (100, ), axis=0).repeat(80, axis=1).astype(np.uint8)
          for name, left, right in (('a/cat/000.png', RED, BLUE), ('b/cat/000.png', BLUE, RED))}


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


class Arrays(BaseDataset):
    """RGB arrays without files, as in CIFAR."""

    def load_data_list(self) -> list[dict]:
        return [dict(img=image, gt_label=0) for image in IMAGES.values()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, image in IMAGES.items():
        (tmp_path / 'val' / name).parent.mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / 'val' / name)
    return tmp_path / 'val'


def files(root: Path, **loader: Any) -> CustomDataset:
    return CustomDataset(str(root), pipeline=[dict(type='LoadImageFromFile', **loader)])


def draw(hook: FreqVisualizationHook, dataset: Any, paths: list, sizes: tuple = (1, 1)) -> None:
    """Draw a predicted label for each path, in batches of these sizes."""
    loader, paths = DataLoader(dataset), iter(paths)
    runner = SimpleNamespace(visualizer=UniversalVisualizer(), test_dataloader=loader)
    for number, size in enumerate(sizes):
        batch = [DataSample(metainfo=next(paths)).set_pred_label(1) for _ in range(size)]
        hook.after_test_iter(runner, number, {}, batch)


def test_equal_names_stay_apart(root: Path, tmp_path: Path) -> None:
    out, paths = tmp_path / 'out', [dict(img_path=str(root / name)) for name in IMAGES]
    draw(FreqVisualizationHook(out_dir=str(out)), files(root), paths)
    assert not out.exists()
    draw(FreqVisualizationHook(True, 1, str(out)), files(root), paths)
    pictures = sorted(out.iterdir())
    assert [file.name for file in pictures] == ['0-cat-000_0.png', '1-cat-000_0.png']
    for file, image in zip(pictures, IMAGES.values()):
        picture = cv2.imread(str(file))[:, :, ::-1]
        assert_array_equal(picture[60:], image[60:])  # the text is at the top
        assert (picture[:40, :70] != image[:40, :70]).any()


@pytest.mark.parametrize(('loader', 'colors'), [
    (dict(color_type='grayscale'), [(82, 82, 82)] * 2), (dict(to_float32=True), [RED, RED]),
    (dict(color_type='color_ignore_orientation'), [RED, BLUE])])
def test_files_are_read_as_by_the_loader(loader: dict, colors: list, root: Path) -> None:
    exif, file = Image.Exif(), root / 'a/cat/turned.png'
    exif[0x0112] = 6  # a quarter turn puts the left half at the top
    Image.fromarray(IMAGES['a/cat/000.png']).save(file, exif=exif)
    image = loaded_image(files(root, **loader), 0, str(file))
    assert image.dtype == np.uint8
    assert_allclose(image[20, [10, -10]].astype(int), colors, atol=1)


def test_images_that_are_not_files(tmp_path: Path) -> None:
    rgb, bgr = Arrays('', pipeline=[YCbCr('rgb')]), Arrays('', pipeline=[YCbCr()])
    first, second = IMAGES.values()
    assert_array_equal(loaded_image(rgb, 0), first)
    assert_array_equal(loaded_image(bgr, 0), first[:, :, ::-1])  # the network takes it for BGR
    assert_array_equal(loaded_image(RepeatDataset(rgb, 2), 3), second)
    wrapped = ConcatDataset([rgb, bgr])
    assert_array_equal(loaded_image(wrapped, 1), second)
    assert_array_equal(loaded_image(wrapped, 3), second[:, :, ::-1])
    draw(FreqVisualizationHook(True, 2, str(tmp_path)), wrapped, [{}] * 4, (3, 1))
    assert sorted(file.name for file in tmp_path.iterdir()) == ['0_0.png', '2_0.png']
