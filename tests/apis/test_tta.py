"""Test-time augmentation by a flip: the order of the steps, what the views get, and whose ground truth is kept."""
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmpretrain.structures import DataSample
from numpy.testing import assert_allclose, assert_array_equal

import mmfreq.models.det  # noqa: F401  before anything of mmdet
from mmfreq.apis.runs import flip_tta_pipeline
from mmfreq.config.pipelines import pipelines, stock_resize, transform_type

ROOT = Path(__file__).parents[2]
DETECTION = ['configs/demo/mask-rcnn_r18-dct24s_demo.py', 'configs/demo/mask-rcnn_r18_demo.py',
             'configs/faster_rcnn/faster-rcnn_r50-dct24s_fpn_1x_coco.py']
CLASSIFICATION = ['configs/demo/resnet18-dct24s_demo.py', 'configs/demo/resnet18_demo.py']
BOXES = [[10., 20., 90., 130.], [150., 5., 250., 60.]]  # x0, y0, x1, y1 in the photo


def config(path: str) -> Config:
    return Config.fromfile(str(ROOT / path))


def noise(path: Path, height: int, width: int) -> Path:
    """A PNG of soft noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.GaussianBlur(pixels, (0, 0), 3))
    return path


def kinds(steps: list) -> list:
    return [kinds(step) if isinstance(step, list) else transform_type(step) for step in steps]


@pytest.mark.parametrize(('path', 'before', 'behind'), [
    (DETECTION[0], ['LoadImageFromFile', 'Resize'],
     ['LoadAnnotations', 'FusedBlockDCT', 'PackDetInputs']),
    (DETECTION[1], ['LoadImageFromFile', 'Resize'], ['LoadAnnotations', 'PackDetInputs']),
    (CLASSIFICATION[0], ['LoadImageFromFile', 'LazyResize', 'CenterCrop'],
     ['FusedBlockDCT', 'PackInputs']),
    (CLASSIFICATION[1], ['LoadImageFromFile', 'ResizeEdge', 'CenterCrop'], ['PackInputs']),
])
def test_order_of_steps(path: str, before: list[str], behind: list[str]) -> None:
    plain, = pipelines(config(path), 'test_dataloader')
    expected = [dict(step) for step in plain]
    *steps, augmentation = flip_tta_pipeline(plain)
    assert kinds(steps) == before
    assert kinds(augmentation['transforms']) == [['RandomFlip'] * 2, *([kind] for kind in behind)]
    assert [step['prob'] for step in augmentation['transforms'][0]] == [0, 1]
    assert plain == expected  # a copy was changed


@pytest.mark.parametrize('path', [DETECTION[0], *CLASSIFICATION])
def test_second_view_is_the_input_of_the_mirrored_photo(path: str, tmp_path: Path) -> None:
    """Photos at sizes where resizing is the identity and cropping takes as much from the left as from the right."""
    cfg = config(path)
    height, width = (192, 256) if path in DETECTION else (256, 320) if 'dct' in path else (128, 160)
    photo = noise(tmp_path / 'photo.png', height, width)
    mirrored = tmp_path / 'mirrored.png'
    cv2.imwrite(str(mirrored), cv2.flip(cv2.imread(str(photo)), 1))
    plain, = pipelines(cfg, 'test_dataloader')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        views = Compose(flip_tta_pipeline(plain))(dict(img_path=str(photo), img_id=0))['inputs']
        expected = [Compose(plain)(dict(img_path=str(file), img_id=0))['inputs'] for file in (photo, mirrored)]
    assert len(views) == 2
    for view, inputs in zip(views, expected):
        assert_allclose(view.numpy(), inputs.numpy(), rtol=0, atol=1e-5)
    assert (views[0] != views[1]).float().mean() > 0.5


@pytest.mark.parametrize('first', [False, True], ids=['annotations as in the config', 'annotations loaded first'])
def test_merged_ground_truth_of_detection_is_the_plain_one(first: bool, tmp_path: Path) -> None:
    cfg = config(DETECTION[2])
    (tmp_path / 'truth.json').write_text(json.dumps(dict(
        images=[dict(id=1, file_name=noise(tmp_path / 'photo.png', 170, 300).name, height=170, width=300)],
        annotations=[dict(id=i, image_id=1, category_id=1, bbox=[x0, y0, x1 - x0, y1 - y0], iscrowd=0, area=1000,
                          segmentation=[[x0, y0, x1, y0, x0, y1]]) for i, (x0, y0, x1, y1) in enumerate(BOXES, 1)],
        categories=[dict(id=1, name='box')])))
    plain, = pipelines(cfg, 'test_dataloader')
    next(step for step in plain if transform_type(stock_resize(step)) == 'Resize').scale = (256, 192)
    if first:
        plain.insert(1, plain.pop(kinds(plain).index('LoadAnnotations')))
    common = dict(type='CheckedCocoDataset', ann_file=str(tmp_path / 'truth.json'), metainfo=dict(classes=('box', )),
                  data_prefix=dict(img=str(tmp_path)), test_mode=True)
    cfg.model.backbone.init_cfg = None
    cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=3)
    cfg.model.test_cfg.rpn.update(nms_pre=20, max_per_img=20)
    cfg.model.roi_head.bbox_head.num_classes = 1
    with DefaultScope.overwrite_default_scope('mmdet'):
        expected = DATASETS.build(dict(common, pipeline=plain))[0]['data_samples']
        views = DATASETS.build(dict(common, pipeline=flip_tta_pipeline(plain)))[0]
        tta_cfg = Config(dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
        model = MODELS.build(dict(type='DetTTAModel', module=cfg.model, tta_cfg=tta_cfg)).eval()
        with torch.no_grad():
            merged, = model.test_step(pseudo_collate([views]))
    assert len(merged.pred_instances) > 0
    assert_array_equal(merged.gt_instances.labels.numpy(), [0, 0])
    assert_array_equal(merged.gt_instances.bboxes.numpy(), expected.gt_instances.bboxes.tensor.numpy())
    if not first:
        assert_array_equal(merged.gt_instances.bboxes.numpy(), BOXES)
    for key in ('img_shape', 'ori_shape', 'scale_factor', 'img_path', 'img_id'):
        assert merged.metainfo[key] == expected.metainfo[key]
    assert not merged.flip


@pytest.mark.parametrize('path', CLASSIFICATION)
def test_merged_ground_truth_of_classification_is_the_plain_one(path: str, tmp_path: Path) -> None:
    cfg = config(path)
    plain, = pipelines(cfg, 'test_dataloader')
    info: dict[str, Any] = dict(img_path=str(noise(tmp_path / 'photo.png', 170, 300)), gt_label=7)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        expected: DataSample = Compose(plain)(dict(info))['data_samples']
        views = Compose(flip_tta_pipeline(plain))(dict(info))
        model = MODELS.build(dict(type='AverageClsScoreTTA', module=cfg.model)).eval()
        with torch.no_grad():
            merged, = model.test_step(pseudo_collate([views]))
            single = [model.module.test_step(dict(inputs=[inputs], data_samples=[DataSample()]))[0].pred_score
                      for inputs in views['inputs']]
    assert merged.gt_label.tolist() == expected.gt_label.tolist() == [7]
    for key, value in expected.metainfo.items():
        assert merged.metainfo[key] == value
    assert not merged.flip
    assert_allclose(merged.pred_score.numpy(), sum(single).numpy() / 2, rtol=1e-4)
    assert (single[0] - single[1]).abs().max() > 1e-6
