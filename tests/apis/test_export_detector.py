"""An exported detector finds what mmdet finds: boxes, labels, scores and masks, one by one."""
import json
import re
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

import mmfreq.apis.export_detector as detector
from mmfreq.apis.export_graph import opencv_bilinear
from mmfreq.apis.measure import build_model

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

ROOT = Path(__file__).parents[2]
SMALL = '''
_base_ = '{base}'
custom_imports = dict(imports=['mmfreq.models.det'])
model = dict(
    data_preprocessor=dict(_delete_=True, type='FreqDetDataPreprocessor', pad_size_divisor=32),
    backbone=dict(_delete_=True, type='FreqResNet', depth=18, in_channels=24, base_channels=8, num_stages=2,
                  strides=(1, 2), dilations=(1, 1), out_indices=(0, 1)),
    neck=dict(_delete_=True, type='FPN', in_channels=[8, 16], out_channels=16, num_outs=2),
    {heads})
freq = [dict(type='FusedBlockDCT', channels='24S', stats='photos-1333x800', upscale=2)]
load = dict(type='LoadImageFromFile')
train_pipeline = [load, *_base_.train_pipeline[1:-1], *freq, _base_.train_pipeline[-1]]
resize = dict(type='LazyResize', resize='Resize', scale=(128, 96), keep_ratio=True)
test_pipeline = [load, resize, *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
tta_model = None
tta_pipeline = None
'''
DENSE = '''bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1, num_classes=3, {more}),
    test_cfg=dict(score_thr=0.3, nms_pre=100, max_per_img=20)'''
TWO_STAGE = '''rpn_head=dict(in_channels=16, feat_channels=16, anchor_generator=dict(strides=[4, 8])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16, featmap_strides=[4, 8]),
        bbox_head=dict(in_channels=16, fc_out_channels=32, num_classes=3),
        mask_roi_extractor=dict(out_channels=16, featmap_strides=[4, 8]),
        mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1, num_classes=3)),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50), rcnn=dict(score_thr=0.3, max_per_img=20))'''
RGB = f"""
_base_ = '{ROOT}/configs/demo/mask-rcnn_r18_demo.py'
model = dict(
    backbone=dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1)),
    neck=dict(in_channels=[64, 128], num_outs=2),
    rpn_head=dict(anchor_generator=dict(strides=[4, 8])),
    roi_head=dict(bbox_roi_extractor=dict(featmap_strides=[4, 8]), mask_roi_extractor=dict(featmap_strides=[4, 8])))
"""
BASES = dict(
    mask_rcnn=('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', TWO_STAGE),
    retinanet=('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', DENSE.format(
        more='anchor_generator=dict(strides=[8, 16])')),
    fcos=('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', DENSE.format(
        more='strides=[4, 8], regress_ranges=((-1, 32), (32, 1e8)), norm_cfg=dict(type="GN", num_groups=4)')))


@pytest.fixture(scope='module', autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write configs NAME.py of small detectors, and their untrained weights NAME.pth."""
    made = tmp_path_factory.mktemp('export')
    for name, (base, heads) in BASES.items():
        config = made / f'{name}.py'
        config.write_text(SMALL.format(base=base, heads=heads))
        save_untrained(config)
    (made / 'rgb.py').write_text(RGB)
    save_untrained(made / 'rgb.py')
    text = (made / 'fcos.py').read_text().replace('upscale=2', "upscale=2, dtype='int8', scale=6")
    (made / 'int8.py').write_text(text.replace('pad_size_divisor=32', 'pad_size_divisor=32, mean=[0], std=[6]'))
    save_untrained(made / 'int8.py')
    return made


def save_untrained(config: Path) -> None:
    """Save an untrained model whose scores have a spread around 0.5, so that some boxes are found."""
    cfg = Config.fromfile(str(config))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build_model(cfg)
    for name, value in model.named_parameters():
        if name.endswith(('cls.weight', 'logits.weight')):
            torch.nn.init.normal_(value, std=0.002 if 'retina' in name else 0.05)
        if name.endswith('retina_reg.weight'):
            value.data *= 0.1
        if name.endswith(('retina_cls.bias', 'conv_cls.bias')):
            torch.nn.init.zeros_(value)
    torch.save(dict(state_dict=model.state_dict(), meta={}), config.with_suffix('.pth'))


def exporter(folder: Path, name: str, order: str = 'rgb', options: Optional[dict] = None) -> detector.DetectorExporter:
    cfg = Config.fromfile(str(folder / f'{name}.py'))
    cfg.merge_from_dict(options or {})
    return detector.DetectorExporter(cfg, str(folder / f'{name}.pth'), 'image', order)


@pytest.mark.parametrize('name', [*BASES, 'rgb', 'int8'])
def test_fixed_lengths_find_what_mmdet_finds(name: str, folder: Path) -> None:
    with DefaultScope.overwrite_default_scope('mmdet'):
        made = exporter(folder, name, 'bgr')
        for inputs, expected in made.cases():
            assert 5 < len(expected[0]) <= 20
            found = [output.numpy() for output in made.network(inputs)]
            for what, difference in made.differences(found, expected).items():
                assert difference <= detector.TOLERANCES[what], what
            missing = found[2][0] == 0
            assert (found[1][0][missing] == -1).all()
            assert not found[0][0][missing].any()


def test_tool_writes_a_checked_file(folder: Path, tmp_path: Path, run_tool: Any,
                                    capsys: pytest.CaptureFixture) -> None:
    out, name = tmp_path / 'model.onnx', str(folder / 'mask_rcnn')
    run_tool('export', f'{name}.py', f'{name}.pth', out)
    text = capsys.readouterr().out
    assert re.search("mmdet's [1-9]\\d* detections: scores ", text)
    session = onnxruntime.InferenceSession(str(out))
    about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert (about['canvas'], about['stride'], about['network_input']) == ([96, 128], 4, [24, 24, 32])
    assert about['outputs'] == ['boxes', 'labels', 'scores', 'masks']
    assert len(about['classes']) == 80  # of the data set, since the checkpoint names none
    boxes, labels, scores, masks = session.run(None, {'input': np.zeros((1, 70, 31, 3), np.uint8)})
    assert (boxes.shape, labels.shape, scores.shape, masks.shape) == ((1, 20, 4), (1, 20), (1, 20), (1, 20, 70, 31))
    assert boxes[..., ::2].max() <= 31
    assert boxes[..., 1::2].max() <= 70


def test_an_image_without_detections(folder: Path, capsys: pytest.CaptureFixture) -> None:
    with DefaultScope.overwrite_default_scope('mmdet'):
        made = exporter(folder, 'mask_rcnn', options={'model.test_cfg.rcnn.score_thr': 0.9999})
        boxes, labels, scores, masks = made.network(made.example()[0])
        made.check(lambda inputs: [output.numpy() for output in made.network(inputs)])
    assert 'WARNING: mmdet detects nothing in these images' in capsys.readouterr().err
    assert labels.unique().tolist() == [-1]
    assert not boxes.any()
    assert not scores.any()
    assert not masks.any()


def test_a_missing_or_moved_detection_is_a_difference(folder: Path) -> None:
    boxes = np.array([[0, 0, 10, 20], [0, 0, 10, 20], [30, 30, 100, 50]], np.float32)
    labels, scores = np.array([0, 1, 1]), np.array([0.8, 0.5, 0.4], np.float32)
    with DefaultScope.overwrite_default_scope('mmdet'):
        made = exporter(folder, 'fcos')
    moved = boxes + np.array([[0, 0, 0, 0], [0, 0, 0.5, 0], [50, 0, 50, 0]], np.float32)
    found = made.differences([moved[None], labels[None], scores[None] - 0.04], [boxes, labels, scores])
    assert found['scores'] == pytest.approx(0.05)
    assert found['boxes'] == pytest.approx(0.005)
    assert found['unmatched detections'] == pytest.approx(1 / 3)  # the last one of each


@pytest.mark.parametrize(('name', 'options', 'message'), [
    ('fcos', {'model.test_cfg.nms.type': 'soft_nms'}, r"model.test_cfg.nms: expected dict\(type='nms'"),
    ('fcos', {'model.test_cfg.max_per_img': -1}, 'model.test_cfg.max_per_img: expected a number >= 1'),
    ('fcos', {'model.test_cfg.min_bbox_size': 12}, 'model.test_cfg.min_bbox_size: expected 0'),
    ('mask_rcnn', {'model.roi_head.bbox_head.bbox_coder.clip_border': False}, 'bbox_coder.clip_border: expected True'),
    ('fcos', {'model.type': 'GFL'}, 'expected FasterRCNN, MaskRCNN, RetinaNet, FCOS, got GFL'),
    ('mask_rcnn', {'model.roi_head.type': 'DoubleHeadRoIHead', 'model.roi_head.reg_roi_scale_factor': 1.3},
     'model.roi_head: DoubleHeadRoIHead cannot be exported, only StandardRoIHead'),
    ('fcos', {'test_dataloader.dataset.pipeline.1.backend': 'pillow'}, 'expected Resize with scale'),
    ('rgb', {'test_dataloader.dataset.pipeline.1.type': 'FixScaleResize'}, 'expected Resize with scale'),
])
def test_what_has_no_fixed_length_is_refused(name: str, options: dict[str, Any], message: str, folder: Path) -> None:
    with DefaultScope.overwrite_default_scope('mmdet'), pytest.raises(ValueError, match=message) as refused:
        exporter(folder, name, options=options)
    assert '\n' not in str(refused.value)


def test_channels_and_float16_are_refused(folder: Path) -> None:
    for arguments in (('channels', 'rgb'), ('image', 'rgb', True)):
        with pytest.raises(ValueError, match='neither --input channels nor --fp16'):
            detector.DetectorExporter(Config.fromfile(str(folder / 'fcos.py')), '', *arguments)


@pytest.mark.parametrize(('shape', 'new'), [((100, 90), (301, 255)), ((201, 289), (178, 256)),
                                            ((300, 512), (150, 256)), ((317, 58), (317, 58))])
def test_resizing_is_that_of_opencv_to_the_bit(shape: tuple, new: tuple) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR)
    pixels = torch.tensor(image).permute(2, 0, 1)[None]
    made = opencv_bilinear(pixels, torch.tensor(new).double(), (new[0] + 3, new[1]))[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(made[:new[0]], expected)
    np.testing.assert_array_equal(made[new[0]:], np.repeat(expected[-1:], 3, 0))
