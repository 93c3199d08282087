"""Test-time augmentation by a flip: the input of the views, and whose ground truth is kept."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from numpy.testing import assert_allclose, assert_array_equal
from shipped import shipped

import mmfreq.models.det  # noqa: F401  before anything of mmdet
from mmfreq.apis.runs import flip_tta_pipeline
from mmfreq.config.pipelines import pipelines, transform_type

BOXES = [[10., 20., 90., 130.], [150., 5., 250., 60.]]  # x0, y0, x1, y1 in the image


def noise(path: Path, height: int, width: int) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.GaussianBlur(pixels, (0, 0), 3))
    return str(path)


# sizes at which resizing is the identity and cropping takes as much from the left as from the right
@pytest.mark.parametrize(('name', 'height', 'width'), [
    ('mask-rcnn_r18-dct24s', 192, 256), ('resnet18-dct24s', 256, 320), ('resnet18', 128, 160)])
def test_second_view_is_the_input_of_the_mirrored_image(name: str, height: int, width: int,
                                                        tmp_path: Path) -> None:
    cfg, image = shipped(f'demo/{name}_demo.py'), noise(tmp_path / 'image.png', height, width)
    mirrored = str(tmp_path / 'mirrored.png')
    cv2.imwrite(mirrored, cv2.flip(cv2.imread(image), 1))
    plain, = pipelines(cfg, 'test_dataloader')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        views = Compose(flip_tta_pipeline(plain))(dict(img_path=image, img_id=0))['inputs']
        expected = [Compose(plain)(dict(img_path=file, img_id=0)) for file in (image, mirrored)]
    for view, packed in zip(views, expected, strict=True):
        assert_allclose(view.numpy(), packed['inputs'].numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize('first', [False, True], ids=['as in the config', 'annotations first'])
def test_merged_detections_keep_the_plain_ground_truth(first: bool, tmp_path: Path) -> None:
    cfg = shipped('demo/mask-rcnn_r18-dct24s_demo.py', model__test_cfg__rcnn__score_thr=0.)
    cfg.model.roi_head.mask_roi_extractor = cfg.model.roi_head.mask_head = None
    noise(tmp_path / 'image.png', 170, 300)
    (tmp_path / 'truth.json').write_text(json.dumps(dict(
        images=[dict(id=1, file_name='image.png', height=170, width=300)],
        annotations=[dict(id=x0, image_id=1, category_id=1, bbox=[x0, y0, x1 - x0, y1 - y0], area=9,
                          segmentation=[[x0, y0, x1, y0, x0, y1]]) for x0, y0, x1, y1 in BOXES],
        categories=[dict(id=1, name='box')])))
    plain, = pipelines(cfg, 'test_dataloader')
    if first:
        plain.insert(1, plain.pop([*map(transform_type, plain)].index('LoadAnnotations')))
    common = dict(type='CheckedCocoDataset', ann_file=str(tmp_path / 'truth.json'), test_mode=True,
                  metainfo=dict(classes=('box', )), data_prefix=dict(img=str(tmp_path)))
    with DefaultScope.overwrite_default_scope('mmdet'), torch.no_grad():
        expected = DATASETS.build(dict(common, pipeline=plain))[0]['data_samples']
        views = DATASETS.build(dict(common, pipeline=flip_tta_pipeline(plain)))[0]
        tta_cfg = Config(dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
        model = MODELS.build(dict(type='DetTTAModel', module=cfg.model, tta_cfg=tta_cfg)).eval()
        merged, = model.test_step(pseudo_collate([views]))
    assert len(merged.pred_instances) > 0
    boxes = expected.gt_instances.bboxes.tensor.numpy()
    assert_array_equal(merged.gt_instances.bboxes.numpy(), boxes)
    assert first or boxes.tolist() == BOXES
    for key in ('img_shape', 'ori_shape', 'scale_factor', 'img_path', 'img_id'):
        assert merged.metainfo[key] == expected.metainfo[key]
