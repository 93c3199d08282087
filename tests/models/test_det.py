"""Frequency-domain detection keeps the stock pipeline's geometry: same ground truth, same targets, same results."""
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmfreq.config.checks import check_channels
from mmfreq.config.pipelines import stock_resize
from mmfreq.models.det import FreqDetDataPreprocessor

from mmdet.registry import DATASETS, MODELS  # isort: skip
from mmdet.structures import DetDataSample  # isort: skip
from mmdet.structures.mask import BitmapMasks  # isort: skip

# (H, W) of the images of each batch: odd sizes, 1x3 aspect, unequal sizes in one batch
BATCHES = {
    '427x640': [(427, 640)],
    '333x500': [(333, 500)],
    '1x3': [(100, 300)],
    '3x1': [(300, 100)],
    'unequal': [(427, 640), (333, 500), (100, 300), (37, 41)],
}
SCALE = (333, 200)


def small_mask_rcnn(freq: bool) -> dict[str, Any]:
    """The stock Mask R-CNN at small width, with ResNet-18."""
    cfg = Config.fromfile('configs/mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco.py' if freq else stock_config())
    cfg.merge_from_dict({
        'model.backbone.depth': 18,
        'model.backbone.init_cfg': None,
        'model.backbone.frozen_stages': -1,
        'model.neck.in_channels': [64, 128, 256, 512],
        'model.neck.out_channels': 32,
        'model.rpn_head.in_channels': 32,
        'model.rpn_head.feat_channels': 32,
        'model.roi_head.bbox_roi_extractor.out_channels': 32,
        'model.roi_head.bbox_head.in_channels': 32,
        'model.roi_head.bbox_head.fc_out_channels': 32,
        'model.roi_head.bbox_head.num_classes': 3,
        'model.roi_head.mask_roi_extractor.out_channels': 32,
        'model.roi_head.mask_head.in_channels': 32,
        'model.roi_head.mask_head.conv_out_channels': 32,
        'model.roi_head.mask_head.num_classes': 3,
        'model.test_cfg.rpn.max_per_img': 40,
        'model.test_cfg.rcnn.score_thr': 0.3,
    })
    return cfg


def stock_config() -> str:
    from mmengine.utils import get_installed_path
    return str(Path(get_installed_path('mmdet'), '.mim/configs/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'))


@pytest.fixture(scope='module')
def models() -> tuple[torch.nn.Module, torch.nn.Module]:
    """The stock and the frequency-domain Mask R-CNN with the same weights behind the backbone."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    stock, freq = (MODELS.build(small_mask_rcnn(freq).model).eval() for freq in (False, True))
    for part in ('neck', 'rpn_head', 'roi_head'):
        getattr(freq, part).load_state_dict(getattr(stock, part).state_dict())
    return stock, freq


def at_small_scale(pipeline: list[dict]) -> list[dict]:
    """The pipeline without the random flip, resizing to ``SCALE``."""
    steps = [dict(stock_resize(step)) for step in pipeline if step['type'] != 'RandomFlip']
    for step in steps:
        if step['type'] == 'Resize':
            step['scale'] = SCALE
    return steps


def packed(pipeline: list[dict], shape: tuple[int, int], folder: Path) -> dict:
    """One image of that shape with two instances, through the pipeline at small scale without the random flip."""
    height, width = shape
    path = folder / f'{height}x{width}.png'
    cv2.imwrite(str(path), np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8))
    instances = [dict(bbox=[x0, y0, x1, y1], bbox_label=label, ignore_flag=0, mask=[[x0, y0, x1, y0, x1, y1, x0, y1]])
                 for label, (x0, y0, x1, y1) in enumerate([(1, 2, width * 0.6, height * 0.5),
                                                           (width * 0.3, height * 0.4, width, height)])]
    return Compose(at_small_scale(pipeline))(dict(img_path=str(path), img_id=height, height=height, width=width,
                                                  instances=instances, sample_idx=0))


@pytest.fixture(params=BATCHES)
def batches(request: pytest.FixtureRequest, models: tuple, tmp_path: Path) -> list[dict]:
    """The same images as stock and as frequency-domain batch, preprocessed for training."""
    made = []
    for model, freq in zip(models, (False, True)):
        pipeline = small_mask_rcnn(freq).train_pipeline
        samples = [packed(pipeline, shape, tmp_path) for shape in BATCHES[request.param]]
        data = dict(inputs=[s['inputs'] for s in samples], data_samples=[s['data_samples'] for s in samples])
        made.append(model.data_preprocessor(data, training=True))
    return made


def test_ground_truth_and_shapes_agree(batches: list[dict]) -> None:
    stock, freq = batches
    assert freq['inputs'].shape[1] == 24
    assert [4 * side for side in freq['inputs'].shape[-2:]] == list(stock['inputs'].shape[-2:])
    for a, b in zip(stock['data_samples'], freq['data_samples'], strict=True):
        for key in ('img_shape', 'ori_shape', 'scale_factor', 'pad_shape', 'batch_input_shape'):
            assert b.metainfo[key] == a.metainfo[key], key
        np.testing.assert_array_equal(b.gt_instances.bboxes.numpy(), a.gt_instances.bboxes.numpy())
        np.testing.assert_array_equal(b.gt_instances.labels.numpy(), a.gt_instances.labels.numpy())
        np.testing.assert_array_equal(b.gt_instances.masks.to_ndarray(), a.gt_instances.masks.to_ndarray())
        assert b.gt_instances.masks.to_ndarray().shape[1:] == tuple(stock['inputs'].shape[-2:])


def test_anchors_and_valid_flags_agree(models: tuple, batches: list[dict]) -> None:
    found = []
    for model, batch in zip(models, batches):
        with torch.no_grad():
            sizes = [level.shape[-2:] for level in model.extract_feat(batch['inputs'])]
        metas = [sample.metainfo for sample in batch['data_samples']]
        found.append((sizes, *model.rpn_head.get_anchors(sizes, metas, device='cpu')))
    (stock_sizes, stock_anchors, stock_flags), (sizes, anchors, flags) = found
    assert sizes == stock_sizes
    for a, b in zip(stock_anchors, anchors, strict=True):
        np.testing.assert_array_equal(torch.cat(b).numpy(), torch.cat(a).numpy())
    for a, b in zip(stock_flags, flags, strict=True):
        np.testing.assert_array_equal(torch.cat(b).numpy(), torch.cat(a).numpy())


def test_results_from_the_same_features_agree(models: tuple, batches: list[dict]) -> None:
    """Clipped, rescaled boxes and pasted masks of the original image: the heads see the same features in both."""
    with torch.no_grad():
        sizes = [level.shape for level in models[0].extract_feat(batches[0]['inputs'])]
        torch.manual_seed(1)
        features = tuple(3 * torch.randn(size) for size in sizes)
        results = []
        for model, batch in zip(models, batches):
            proposals = model.rpn_head.predict(features, batch['data_samples'], rescale=False)
            results.append(model.roi_head.predict(features, proposals, batch['data_samples'], rescale=True))
    for sample, a, b in zip(batches[0]['data_samples'], *results, strict=True):
        assert len(a) > 0
        np.testing.assert_allclose(b.bboxes.numpy(), a.bboxes.numpy(), atol=1e-4)
        np.testing.assert_allclose(b.scores.numpy(), a.scores.numpy(), atol=1e-6)
        np.testing.assert_array_equal(b.masks.numpy(), a.masks.numpy())
        height, width = sample.ori_shape
        assert b.masks.shape[1:] == (height, width)
        assert b.bboxes.min() >= 0
        assert torch.all(b.bboxes <= torch.tensor([width, height, width, height]) + 1e-3)


def crowded_file(folder: Path) -> str:
    """Annotations of one image: a box as a polygon and, as COCO has it, a crowd as RLE."""
    cv2.imwrite(str(folder / 'image.png'), np.random.default_rng(3).integers(0, 256, (120, 200, 3), dtype=np.uint8))
    mask = np.zeros((120, 200), np.uint8)
    mask[30:110, 90:190] = 1
    mask[50:60, 100:120] = 0  # not the whole box
    runs = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=0, append=0)), prepend=0).tolist()
    box = dict(id=1, image_id=1, category_id=2, bbox=[10, 10, 70, 60], area=4200, iscrowd=0,
               segmentation=[[10, 10, 80, 10, 80, 70, 10, 70]])
    crowd = dict(id=2, image_id=1, category_id=1, bbox=[90, 30, 100, 80], area=int(mask.sum()), iscrowd=1,
                 segmentation=dict(size=[120, 200], counts=[*runs, mask.size - sum(runs)]))
    (folder / 'crowd.json').write_text(json.dumps(dict(
        images=[dict(id=1, file_name='image.png', height=120, width=200)], annotations=[box, crowd],
        categories=[dict(id=i, name=name) for i, name in enumerate('abc', 1)])))
    return str(folder / 'crowd.json')


def test_crowd_counts_as_in_the_stock_model(models: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An RLE crowd is not an object to detect; with ``ignore_iof_thr``, its area is not background either."""
    samples, losses, file = [], [], crowded_file(tmp_path)
    for model, freq in zip(models, (False, True)):
        for assigner in (model.rpn_head.assigner, model.roi_head.bbox_assigner):
            monkeypatch.setattr(assigner, 'ignore_iof_thr', 0.5)
        dataset = DATASETS.build(dict(
            type='CheckedCocoDataset' if freq else 'CocoDataset', ann_file=file, data_prefix=dict(img=str(tmp_path)),
            metainfo=dict(classes=('a', 'b', 'c')), pipeline=at_small_scale(small_mask_rcnn(freq).train_pipeline)))
        batch = model.data_preprocessor(pseudo_collate([dataset[0]]), training=True)
        height, width = batch['data_samples'][0].batch_input_shape
        torch.manual_seed(2)
        features = tuple(torch.randn(1, 32, -(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32, 64))
        rpn, proposals = model.rpn_head.loss_and_predict(features, batch['data_samples'],
                                                         proposal_cfg=model.train_cfg.rpn_proposal)
        found = {f'rpn_{key}': torch.stack(value).sum() for key, value in rpn.items()}
        found |= model.roi_head.loss(features, proposals, batch['data_samples'])
        samples.append(batch['data_samples'][0])
        losses.append({key: value.item() for key, value in found.items()})
    for part, label in (('gt_instances', 1), ('ignored_instances', 0)):
        a, b = (sample.get(part) for sample in samples)
        np.testing.assert_array_equal(b.bboxes.numpy(), a.bboxes.numpy())
        assert b.labels.tolist() == a.labels.tolist() == [label]
        np.testing.assert_array_equal(b.masks.to_ndarray(), a.masks.to_ndarray())
    # 8000 pixels less the hole of 200, at 333 / 200 times the size
    np.testing.assert_allclose(samples[1].ignored_instances.masks.areas, 7800 * (333 / 200)**2, rtol=0.02)
    assert losses[0].keys() >= {'rpn_loss_rpn_cls', 'loss_cls', 'loss_bbox', 'loss_mask'}
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert np.isfinite(list(losses[1].values())).all()


@pytest.mark.parametrize(('stride', 'pixels', 'cells'), [
    (4, (427, 640), (107, 160)),
    (4, (428, 641), (107, 161)),
    (8, (427, 640), (54, 80)),
    (1, (5, 7), (5, 7)),
])
def test_an_input_has_a_cell_for_each_stride_of_pixels(stride: int, pixels: tuple, cells: tuple) -> None:
    preprocessor = FreqDetDataPreprocessor(stride=stride)
    sample = DetDataSample(metainfo=dict(img_shape=pixels))
    out = preprocessor(dict(inputs=[torch.ones(24, *cells)], data_samples=[sample]))
    assert out['data_samples'][0].img_shape == pixels
    message = rf'img_shape=\({pixels[0]}, {pixels[1]}\) at stride={stride}, .*block_size / upscale'
    for wrong in ((cells[0] + 1, cells[1]), (cells[0], cells[1] - 1)):
        with pytest.raises(ValueError, match=message):
            preprocessor(dict(inputs=[torch.ones(24, *wrong)], data_samples=[sample]))


@pytest.mark.parametrize(('changes', 'message'), [
    ({'model.data_preprocessor.type': 'DetDataPreprocessor'}, "'FreqDetDataPreprocessor'.* got DetDataPreprocessor"),
    ({'model.data_preprocessor': None}, 'got None'),
    ({'model.data_preprocessor.type': 'DetDataPreprocessor',  # the model's own is what mmengine builds
      'data_preprocessor': dict(type='FreqDetDataPreprocessor')}, 'got DetDataPreprocessor'),
])
def test_geometry_that_does_not_fit_is_refused_before_building(changes: dict, message: str) -> None:
    cfg = Config.fromfile('configs/mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco.py')
    cfg.merge_from_dict(changes)
    with pytest.raises(ValueError, match=message):
        check_channels(cfg)


@pytest.mark.parametrize('changes', [
    {'model.data_preprocessor.type': 'mmfreq.FreqDetDataPreprocessor'},
    {'model.data_preprocessor': dict(type='MultiBranchDataPreprocessor', _delete_=True,
                                     data_preprocessor=dict(type='FreqDetDataPreprocessor'))},
])
def test_other_scopes_fit(changes: dict) -> None:
    cfg = Config.fromfile('configs/mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco.py')
    cfg.merge_from_dict(changes)
    check_channels(cfg)
    cfg.model = dict(type='DetTTAModel', module=cfg.model)
    check_channels(cfg)


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(pad_size_divisor=30), 'multiple of stride=4 pixels, got 30'),
    (dict(batch_augments=[dict(type='BatchSyncRandomResize')]), 'batch_augments: expected BatchFixedSizePad'),
    (dict(batch_augments=[dict(type='BatchFixedSizePad', size=(64, 62))]), 'multiple of stride=4 pixels'),
    (dict(batch_augments=[dict(type='BatchFixedSizePad', size=(64, 64), img_pad_value=3)]), r'img_pad_value=0\)'),
])
def test_bad_arguments_of_the_preprocessor(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FreqDetDataPreprocessor(**arguments)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('size', [(96, 128), (64, 128), (48, 40)])
def test_batches_of_fixed_size_are_those_of_the_stock_preprocessor(size: tuple[int, int], training: bool) -> None:
    """Each cell of the input covers 4x4 pixels; everything else is in pixels."""
    pad = dict(type='BatchFixedSizePad', size=size, pad_mask=True)
    arguments = dict(pad_mask=True, pad_size_divisor=32, batch_augments=[pad])
    found = []
    for kind, stride in (('DetDataPreprocessor', 1), ('FreqDetDataPreprocessor', 4)):
        sample = DetDataSample(metainfo=dict(img_shape=(60, 44)))
        sample.gt_instances = InstanceData(masks=BitmapMasks(np.ones((1, 60, 44), np.uint8), 60, 44))
        data = dict(inputs=[torch.ones(24, 60 // stride, 44 // stride)], data_samples=[sample])
        found.append(MODELS.build(dict(arguments, type=kind))(data, training))
    theirs, ours = found
    np.testing.assert_array_equal(ours['inputs'], theirs['inputs'][..., ::4, ::4])
    ours, theirs = ours['data_samples'][0], theirs['data_samples'][0]
    assert ours.metainfo == theirs.metainfo
    np.testing.assert_array_equal(ours.gt_instances.masks.masks, theirs.gt_instances.masks.masks)


def test_recipe_of_the_released_code() -> None:
    cfg = Config.fromfile('configs/mask_rcnn/mask-rcnn_r50-dct24s_fpn_20e_coco.py')
    assert cfg.train_cfg.max_epochs == 20
    assert cfg.param_scheduler[1].milestones == [16, 19]
    assert cfg.optim_wrapper.optimizer.lr == 0.0025
    assert cfg.auto_scale_lr.base_batch_size == cfg.train_dataloader.batch_size == 2
    assert cfg.optim_wrapper.clip_grad.max_norm == 35
