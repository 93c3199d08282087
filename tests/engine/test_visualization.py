"""Predictions are drawn on what the data set loads: files of any backend and colour type, and arrays."""
import logging
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from mmpretrain.datasets import BaseDataset, CustomDataset
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from torch.utils.data import DataLoader

from mmfreq.engine.hooks.visualization import FreqVisualizationHook, loaded_image
from mmfreq.transforms import YCbCr

RED, BLUE = (200, 30, 40), (10, 60, 220)  # RGB


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def halves(left: tuple, right: tuple, height: int = 100, width: int = 160) -> np.ndarray:
    image = np.full((height, width, 3), left, np.uint8)
    image[:, width // 2:] = right
    return image


IMAGES = {'a/cat/000.png': halves(RED, BLUE), 'b/cat/000.png': halves(BLUE, RED)}


class Arrays(BaseDataset):
    """As CIFAR: RGB arrays without files."""

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


def draw(hook: FreqVisualizationHook, dataset: Any, visualizer: Any, *batches: list) -> None:
    runner = SimpleNamespace(visualizer=visualizer, test_dataloader=DataLoader(dataset))
    for number, batch in enumerate(batches):
        hook.after_test_iter(runner, number, {}, batch)


def classified(*paths: Any) -> list[DataSample]:
    return [DataSample(metainfo=dict(img_path=str(path)) if path else {}).set_pred_label(1) for path in paths]


def test_equal_names_stay_apart_and_broken_files_are_warnings(root: Path, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr('mmfreq.engine.hooks.visualization.print_log', lambda text, logger, level: said.append((level, text)))
    paths = [root / name for name in IMAGES]
    (root / 'c').mkdir()
    (root / 'c/1.png').write_bytes(b'')
    hook = FreqVisualizationHook(True, 1, str(tmp_path / 'out'))
    draw(hook, files(root), UniversalVisualizer(), classified(paths[0]), classified(paths[1], root / 'c/1.png'))
    (level, text), = said
    assert (level, text.startswith(f'{root}/c/1.png: cannot draw: ')) == (logging.WARNING, True)
    written = sorted((tmp_path / 'out').iterdir())
    assert [file.name for file in written] == ['0-cat-000_0.png', '1-cat-000_0.png']
    for file, image in zip(written, IMAGES.values()):
        picture = cv2.resize(cv2.imread(str(file)), (160, 100), interpolation=cv2.INTER_AREA)[:, :, ::-1]
        assert_allclose(picture[60:].astype(int), image[60:], atol=25)  # the text is at the top
        assert (picture[:40, :70] != image[:40, :70]).any()


@pytest.mark.parametrize(('loader', 'expected'), [
    (dict(color_type='grayscale'), [(82, 82, 82), (63, 63, 63)]), (dict(to_float32=True), [RED, BLUE])])
def test_colour_type_of_the_loader(loader: dict, expected: list, root: Path) -> None:
    image = loaded_image(files(root, **loader), 0, str(root / 'a/cat/000.png'))
    assert (image.dtype, image.shape) == (np.uint8, (100, 160, 3))
    assert_allclose(image[50, [10, 150]].astype(int), expected, atol=1)


@pytest.mark.parametrize(('color_type', 'shape'), [
    ('color', (160, 100, 3)), ('color_ignore_orientation', (100, 160, 3))])
def test_orientation_of_the_loader(color_type: str, shape: tuple, root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(IMAGES['a/cat/000.png']).save(root / 'a/cat/turned.jpg', exif=exif)
    assert loaded_image(files(root, color_type=color_type), 0, str(root / 'a/cat/turned.jpg')).shape == shape


def test_backend_of_the_loader(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of images, as LMDB: the path is a key."""
    content = dict(key=(root / 'b/cat/000.png').read_bytes())
    lmdb = ModuleType('lmdb')
    transaction = nullcontext(SimpleNamespace(get=lambda key: content[key.decode()]))
    lmdb.open = lambda *args, **kwargs: SimpleNamespace(begin=lambda **kwargs: transaction)
    monkeypatch.setitem(sys.modules, 'lmdb', lmdb)
    dataset = files(root, backend_args=dict(backend='lmdb', db_path='x.lmdb'))
    assert_array_equal(loaded_image(dataset, 0, 'key'), IMAGES['b/cat/000.png'])


def test_images_that_are_no_files(tmp_path: Path) -> None:
    rgb, bgr = Arrays('', pipeline=[YCbCr('rgb')]), Arrays('', pipeline=[YCbCr()])
    first, second = IMAGES.values()
    assert_array_equal(loaded_image(rgb, 0), first)
    assert_array_equal(loaded_image(bgr, 0), first[:, :, ::-1])  # what the network takes for its colours
    assert_array_equal(loaded_image(RepeatDataset(rgb, 2), 3), second)
    wrapped = ConcatDataset([rgb, bgr])
    assert_array_equal(loaded_image(wrapped, 1), second)
    assert_array_equal(loaded_image(wrapped, 3), second[:, :, ::-1])
    draw(FreqVisualizationHook(True, 2, str(tmp_path)), wrapped, UniversalVisualizer(),
         classified(None, None, None), classified(None))
    assert sorted(file.name for file in tmp_path.iterdir()) == [f'{i}_0.png' for i in (0, 2)]


def test_detections_lie_on_the_image_as_it_is_loaded(root: Path, tmp_path: Path) -> None:
    paths = [str(root / name) for name in IMAGES]
    samples = []
    for path in paths:
        instances = InstanceData(bboxes=torch.tensor([[20., 20, 60, 60], [90, 20, 140, 60]]),
                                 scores=torch.tensor([0.9, 0.2]), labels=torch.tensor([0, 0]))
        samples.append(DetDataSample(metainfo=dict(img_path=path), pred_instances=instances))
    visualizer = DetLocalVisualizer(bbox_color=(0, 255, 0), line_width=2)
    visualizer.dataset_meta = dict(classes=['x'], palette=None)
    draw(FreqVisualizationHook(True, 1, str(tmp_path / 'out'), score_thr=0.5), files(root), visualizer, samples)
    written = sorted((tmp_path / 'out').iterdir())
    assert [file.name for file in written] == ['0-cat-000_0.png', '1-cat-000_0.png']
    for file, image in zip(written, IMAGES.values()):
        drawn = cv2.imread(str(file))[:, -160:, ::-1]  # beside the ground truth
        changed = (drawn != image).any(axis=2)
        assert changed[[40, 60], [20, 30]].all()
        assert not changed[:, 70:].any()


def test_hook_is_off_by_default(root: Path, tmp_path: Path) -> None:
    draw(FreqVisualizationHook(out_dir=str(tmp_path / 'out')), files(root), UniversalVisualizer(),
         classified(root / 'a/cat/000.png'))
    assert not (tmp_path / 'out').exists()
