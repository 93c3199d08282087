"""An exported detector finds what mmdet finds: boxes, labels, scores and masks, one by one."""
import json
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from shipped import save_untrained, shipped

import mmfreq.models.det  # before mmdet
from mmfreq.apis.export import exporter, fixed_lengths, swin
from mmfreq.apis.export.detector import COARSE, FINE, DetectorExporter
from mmfreq.apis.export.resize import opencv_bilinear
from mmfreq.apis.runs import read_config
from mmfreq.config.pipelines import lazy_step, pipelines

from mmdet.models.backbones.swin import ShiftWindowMSA  # isort: skip
from mmdet.models.layers.transformer.utils import AdaptivePadding  # isort: skip
from mmdet.models.roi_heads import SingleRoIExtractor  # isort: skip

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

STD = dict(retinanet=0.01, rgb=0.05)  # of the last weights, so that scores have a spread
CLASSES = ['box', 'disc', 'star']
HEADS = dict(
    retinanet=('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', dict(
        anchor_generator=dict(strides=[4, 8, 16, 32, 64]))),
    fcos=('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', dict(strides=[4, 8, 16, 32, 64])))


def small(name: str, options: Optional[dict] = None) -> Config:
    """Return the config of a small detector; its images are at most 256x192 or 192x256 pixels."""
    cfg = shipped(f'demo/mask-rcnn_r18{"" if name == "rgb" else "-dct24s"}_demo.py',
                  train_dataloader=None, val_dataloader=None)
    steps = pipelines(cfg, 'test_dataloader')[0]
    if name == 'mask_rcnn':
        steps[1] = Config(lazy_step(steps[1]))._cfg_dict
    if name in HEADS or name == 'int8':
        stock, more = HEADS.get(name, HEADS['fcos'])
        head = dict(in_channels=64, feat_channels=32, stacked_convs=1, num_classes=3, **more)
        stock = read_config(stock)
        stock.merge_from_dict(dict(model=dict(bbox_head=head)))
        test_cfg = dict(stock.model.test_cfg, score_thr=0.3, nms_pre=100, max_per_img=20)
        model = {key: cfg.model[key] for key in ('data_preprocessor', 'backbone', 'neck')}
        cfg.model = dict(model, type=stock.model.type, bbox_head=stock.model.bbox_head, test_cfg=test_cfg)
    if name == 'int8':
        cfg.model.data_preprocessor.update(mean=[0], std=[6])
        next(step for step in steps if 'channels' in step).update(dtype='int8', scale=6)
    cfg.merge_from_dict(options or {})
    return cfg


def built(tmp_path: Path, name: str, options: Optional[dict] = None, *arguments: Any) -> Any:
    """Return the exporter of an untrained detector whose scores have a spread around 0.5."""
    cfg, file = small(name, options), tmp_path / 'model.pth'
    model = save_untrained(cfg, file, CLASSES)
    for key, value in model.named_parameters():
        if key.endswith('cls.weight'):
            torch.nn.init.normal_(value, std=STD.get(name, 0.1))
        if key.endswith(('retina_cls.bias', 'conv_cls.bias')):
            torch.nn.init.zeros_(value)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=CLASSES))), file)
    return exporter(mmfreq.load_model(cfg, file, 'cpu'), *arguments)


@pytest.mark.parametrize('name', [*HEADS, 'mask_rcnn', 'rgb', 'int8'])
def test_the_graph_detects_what_predict_detects(name: str, tmp_path: Path) -> None:
    """In upright and in wide images, on the input that the pipeline gives the network."""
    made = built(tmp_path, name, None, 'image', 'bgr')
    assert {image.shape[0] > image.shape[1] for image in made.images} == {False, True}
    assert all(5 < len(expected[0]) <= 20 for expected in made.expected)
    limits = dict(FINE, tied=0.1) if name != 'int8' else dict(COARSE, tied=0.1)
    for found in made.check(lambda inputs: [part.numpy() for part in made.network(inputs)]).values():
        assert all(found[key] <= limits[key] for key in limits), found


def test_tool_writes_a_checked_file_for_images_of_any_size(tmp_path: Path, run_tool: Any,
                                                           capsys: pytest.CaptureFixture) -> None:
    made, out, exif = built(tmp_path, 'mask_rcnn'), tmp_path / 'model.onnx', Image.Exif()
    made.model.cfg.dump(tmp_path / 'config.py')
    run_tool('export', tmp_path / 'config.py', tmp_path / 'model.pth', out)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('export: ')]
    assert ['same graph' in lines[1], 'detections of test pipeline' in lines[2]] == [True, True]
    session = onnxruntime.InferenceSession(str(out))
    about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert about['outputs'] == ['boxes', 'labels', 'scores', 'masks']
    assert (about['classes'], about['input_spec']['upscale']) == (CLASSES, 2)
    exif[0x0112] = 6  # a phone's photo, 90x300 when it is upright
    Image.fromarray(made.images[0][100:400, 100:190].transpose(1, 0, 2)).save(tmp_path / 'a.png', exif=exif)
    expected = made.model.predict(tmp_path / 'a.png')
    upright = np.ascontiguousarray(np.rot90(made.images[0][100:400, 100:190].transpose(1, 0, 2), -1))
    boxes, labels, scores, masks = session.run(None, {'input': upright[None]})
    assert (boxes.shape, masks.shape) == ((1, 20, 4), (1, 20, 300, 90))
    count = len(expected['scores'])
    assert 5 < count <= 20
    np.testing.assert_allclose(scores[0, :count], expected['scores'], atol=1e-4)
    np.testing.assert_allclose(boxes[0, :count], expected['bboxes'], atol=0.05)
    assert (labels[0, :count] == expected['labels']).all()


def test_an_image_without_detections(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = built(tmp_path, 'mask_rcnn', {'model.test_cfg.rcnn.score_thr': 0.9999})
    boxes, labels, scores, masks = made.network(made.example()[0])
    made.check(lambda inputs: [output.numpy() for output in made.network(inputs)])
    assert 'WARNING: mmdet detects nothing' in capsys.readouterr().err
    assert labels.unique().tolist() == [-1]
    assert not any(part.any() for part in (boxes, scores, masks))


BOXES = np.array([[0, 0, 10, 20], [0, 0, 10, 20], [30, 30, 100, 50]], np.float32)


@pytest.mark.parametrize(('moves', 'scores', 'threshold', 'unmatched', 'tied'), [
    ([[0, 0, 0, 0], [0, 0, 0.5, 0], [50, 0, 50, 0]], [0.8, 0.5, 0.4], 0.05, 1 / 3, 0),  # the last one of each
    ([[0, 0, 0, 0], [0, 0, 0.5, 0], [50, 0, 50, 0]], [0.8, 0.5, 0.4], 0.4, 0, 1 / 3),  # just above the threshold
    ([[0, 0, 0, 0], [0, 0, 0.5, 0], [20, 0, 20, 0]], [0.8, 0.5, 0.4], 0.05, 0, 1 / 3),  # NMS kept the other one
    ([[40, 0, 40, 0]] * 3, [0.5, 0.5, 0.5], 0.05, 0, 1),  # three of many equal ones
    ([[40, 0, 40, 0]] * 3, [0.8, 0.5, 0.4], 0.05, 2 / 3, 1 / 3),  # max_per_img decides about the last one alone
])
def test_moved_and_missing_detections_count_unless_scores_are_tied(
        moves: list, scores: list, threshold: float, unmatched: float, tied: float) -> None:
    made = DetectorExporter.__new__(DetectorExporter)
    made.test_cfg = Config(dict(score_thr=threshold, nms=dict(iou_threshold=0.5),
                                max_per_img=3 if moves[0][0] else 100))
    labels, scores = np.array([0, 1, 1]), np.array(scores, np.float32)
    moved = BOXES + np.array(moves, np.float32)
    outputs = [moved[None], labels[None], scores[None] + np.float32(1e-6)]
    found = made.differences(outputs, [BOXES, labels, scores], FINE)
    assert (found['unmatched'], found['tied']) == pytest.approx((unmatched, tied))
    if not moves[0][0]:
        assert found['boxes'] == pytest.approx(0.005)
        outputs[2] = scores[None] - np.float32(0.04)
        assert made.differences(outputs, [BOXES, labels, scores], FINE)['scores'] == pytest.approx(0.05)


@pytest.mark.parametrize(('name', 'options', 'message'), [
    ('fcos', {'model.test_cfg.nms.max_num': 5}, "test_cfg.nms: expected .*type='nms'"),
    ('fcos', {'model.test_cfg.min_bbox_size': 12}, 'min_bbox_size: expected 0'),
    ('fcos', {'test_dataloader.dataset.pipeline.1.backend': 'pillow'}, 'expected one Resize'),
    ('rgb', {'test_dataloader.dataset.pipeline.1.type': 'FixScaleResize'}, 'expected one Resize'),
])
def test_settings_that_the_graph_would_ignore_are_refused(name: str, options: dict[str, Any], message: str,
                                                          tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        built(tmp_path, name, options)
    assert '\n' not in str(refused.value)


def test_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='expected --input image'):
        built(tmp_path, 'fcos', None, 'channels')


@pytest.mark.parametrize(('shape', 'new'), [((100, 90), (301, 255)), ((201, 289), (178, 256)),
                                            ((300, 512), (150, 256)), ((317, 58), (317, 58))])
def test_resizing_is_that_of_opencv_to_the_bit(shape: tuple, new: tuple) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR)
    pixels = torch.tensor(image).permute(2, 0, 1)[None]
    made = opencv_bilinear(pixels, torch.tensor(new).double(), (new[0] + 3, new[1]))[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(made[:new[0]], expected)
    np.testing.assert_array_equal(made[new[0]:], np.repeat(expected[-1:], 3, 0))


@pytest.mark.parametrize('shift', [0, 3])
@pytest.mark.parametrize('shape', [(14, 21), (10, 23)])
def test_attention_without_branches_is_that_of_mmdet(shift: int, shape: tuple) -> None:
    torch.manual_seed(0)
    stock, maps = ShiftWindowMSA(8, 2, 7, shift), torch.randn(2, shape[0] * shape[1], 8)
    torch.testing.assert_close(swin.attention(stock, maps, shape), stock(maps, shape))
    for kernel, stride in ((2, 2), (3, 2), (4, 4), (1, 1)):
        padding = AdaptivePadding(kernel, stride, padding='corner')
        assert swin.pad_shape(padding, shape) == list(padding.get_pad_shape(shape))


def test_pooling_of_a_region_and_its_surroundings_is_that_of_mmdet() -> None:
    torch.manual_seed(0)
    layer = dict(type='RoIAlign', output_size=7, sampling_ratio=0)
    stock = SingleRoIExtractor(layer, 4, [4, 8])
    rois = torch.tensor([[0, 1, 2, 30, 40], [0, 5, 5, 130, 125]]).float()
    maps = torch.randn(1, 4, 40, 40), torch.randn(1, 4, 20, 20)
    torch.testing.assert_close(fixed_lengths.pooled(stock, maps, rois, 1.3), stock(maps, rois, 1.3))
