"""Run Mask R-CNN end to end on demo data; check the evaluation by pycocotools and data that does not fit."""
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tool_runs import ROOT, detector_options, flags, tool

from demo import make_demo_data

CONFIG = 'configs/demo/mask-rcnn_r18-dct24s_demo.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('detection') / 'data'
    make_demo_data(folder, 'detection', train=8, val=3)
    return folder


def options(data: Path, **others: Any) -> list[str]:
    """Two iterations of two small images, a few proposals."""
    values = detector_options(data) | {
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
        'model.test_cfg.rcnn.score_thr': 0.0,
        'model.test_cfg.rcnn.max_per_img': 5,
    }
    return flags(values | {key.replace('__', '.'): value for key, value in others.items()})


@pytest.fixture(scope='module')
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    work_dir = tmp_path_factory.mktemp('run')
    return work_dir, tool('train', CONFIG, '--work-dir', work_dir, *options(data))


@pytest.fixture(scope='module')
def tested(data: Path, trained: tuple[Path, str]) -> tuple[dict[str, float], Path]:
    """Metrics, and the folder with the detections in COCO's format and the pictures."""
    folder = trained[0] / 'tested'
    tool('test', CONFIG, trained[0], '--work-dir', folder, '--out', folder / 'metrics.json', '--show-dir',
         folder / 'pictures', *options(data, test_evaluator__outfile_prefix=folder / 'detections'))
    return json.loads((folder / 'metrics.json').read_text()), folder


def test_two_iterations_of_training_and_a_validation(trained: tuple[Path, str]) -> None:
    file, = trained[0].glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    losses = [line for line in lines if 'loss' in line]
    assert len(losses) == 2
    parts = ('loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask')
    for line in losses:
        assert_allclose(sum(line[part] for part in parts), line['loss'], rtol=1e-4)
        assert np.isfinite(line['loss'])
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(lines[-1])
    assert '8 of 8 images' in next(trained[0].glob('*/*.log')).read_text()
    assert 'epoch 1: coco/bbox_mAP ' in trained[1]


def test_metrics_are_pycocotools_own(data: Path, tested: tuple[dict[str, float], Path]) -> None:
    metrics, folder = tested
    truth = COCO(str(data / 'annotations/val.json'))
    for kind in ('bbox', 'segm'):
        found = truth.loadRes(str(folder / f'detections.{kind}.json'))
        evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert_allclose(metrics[f'coco/{kind}_mAP'], evaluation.stats[0], atol=1e-3)
        assert_allclose(metrics[f'coco/{kind}_mAP_50'], evaluation.stats[1], atol=1e-3)


def test_detections_lie_in_the_original_image(data: Path, tested: tuple[dict[str, float], Path]) -> None:
    truth = COCO(str(data / 'annotations/val.json'))
    detections = json.loads((tested[1] / 'detections.segm.json').read_text())
    assert {d['image_id'] for d in detections} == set(truth.imgs)
    for detection in detections:
        image = truth.imgs[detection['image_id']]
        assert detection['segmentation']['size'] == [image['height'], image['width']]
        x, y, width, height = detection['bbox']
        assert min(x, y, width, height) >= 0
        assert x + width <= image['width'] + 1e-2
        assert y + height <= image['height'] + 1e-2


def test_pictures_are_drawn_on_the_images(data: Path, tested: tuple[dict[str, float], Path]) -> None:
    pictures = sorted((tested[1] / 'pictures').iterdir())
    photos = sorted((data / 'val').glob('*.jpg'))
    assert [p.name for p in pictures] == [f'{i}-val-{p.stem}_0.png' for i, p in enumerate(photos)]
    for picture, file in zip(pictures, photos):
        photo, drawn = cv2.imread(str(file)), cv2.imread(str(picture))
        # ground truth on the left, predictions on the right
        assert drawn.shape == (photo.shape[0], 2 * photo.shape[1], 3)
        assert np.median(np.abs(drawn[:, :photo.shape[1]].astype(int) - photo)) < 10


def test_multi_scale_training_and_resume(data: Path, trained: tuple[Path, str], tmp_path: Path) -> None:
    for name in ('epoch_1.pth', 'last_checkpoint'):
        (tmp_path / name).symlink_to(trained[0] / name)
    multi_scale = {'train_dataloader__dataset__pipeline__2__type': 'RandomResize',
                   'train_dataloader__dataset__pipeline__2__scale': '[(128,96),(160,120)]'}
    output = tool('train', CONFIG, '--work-dir', tmp_path, '--resume', '--no-validate', '--verbose',
                  *options(data, train_cfg__max_epochs=2, **multi_scale))
    assert 'resumed epoch: 1' in output
    assert (tmp_path / 'epoch_2.pth').is_file()


def test_image_smaller_than_a_block_goes_through(tmp_path: Path) -> None:
    from mmcv.transforms import Compose
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import mmfreq.models.det  # noqa: F401
    init_default_scope('mmdet')
    cv2.imwrite(str(tmp_path / 'tiny.png'), np.full((3, 5, 3), 90, np.uint8))
    pipeline = Config.fromfile(str(ROOT / CONFIG)).test_pipeline
    out = Compose(pipeline)(dict(img_path=str(tmp_path / 'tiny.png'), img_id=0, height=3, width=5, instances=[]))
    height, width = out['data_samples'].img_shape
    assert (height, width) == (154, 256)
    assert out['inputs'].shape == (24, -(-2 * height // 8), 64)
