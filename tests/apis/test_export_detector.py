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
from mmfreq.apis.export.detections import COARSE, FINE, compare
from mmfreq.apis.export.resize import opencv_bilinear
from mmfreq.apis.runs import read_config
from mmfreq.config.pipelines import lazy_step, pipelines

from mmdet.models.backbones.swin import ShiftWindowMSA  # isort: skip
from mmdet.models.layers.transformer.utils import AdaptivePadding  # isort: skip
from mmdet.models.roi_heads import SingleRoIExtractor  # isort: skip

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

STD = dict(retinanet=0.01, rgb=0.05, rtmdet=0.005, yolox=0.02, detr=0.3)  # of the last weights, to spread scores
CLASSES = ['box', 'disc', 'star']
STRIDES = [4, 8, 16, 32, 64]
HEAD = dict(in_channels=64, feat_channels=32, stacked_convs=1)
HEADS = dict(
    retinanet=('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', dict(
        HEAD, anchor_generator=dict(strides=STRIDES))),
    fcos=('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', dict(HEAD, strides=STRIDES)),
    rtmdet=('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', dict(
        HEAD, anchor_generator=dict(strides=STRIDES))),
    yolox=('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', dict(HEAD, strides=STRIDES)),
    detr=('mmdet::detr/detr_r50_8xb2-150e_coco.py', {}))
PADS = dict(rtmdet=dict(size=(264, 256), pad_val=dict(img=(114, 90, 130))), yolox=dict(pad_to_square=True, pad_val=114))


def small(name: str, options: Optional[dict] = None) -> Config:
    """Return the config of a small detector; its images are at most 256x192 or 192x256 pixels."""
    cfg = shipped(f'demo/mask-rcnn_r18{"" if name == "rgb" else "-dct24s"}_demo.py',
                  train_dataloader=None, val_dataloader=None)
    steps = pipelines(cfg, 'test_dataloader')[0]
    if name == 'mask_rcnn':
        steps[1] = Config(lazy_step(steps[1]))._cfg_dict
    if name in HEADS or name == 'int8':
        stock, head = HEADS.get(name, HEADS['fcos'])
        stock = read_config(stock)
        stock.merge_from_dict(dict(model=dict(bbox_head=dict(head, num_classes=3))))
        model = dict(stock.model, data_preprocessor=cfg.model.data_preprocessor, backbone=cfg.model.backbone)
        model['test_cfg'] = dict(stock.model.test_cfg, score_thr=0.3, nms_pre=100)
        if name == 'detr':
            model['backbone']['out_indices'] = (3, )
            for part, key, value in (('neck', 'in_channels', [512]), ('encoder', 'num_layers', 1),
                                     ('decoder', 'num_layers', 1)):
                model[part][key] = value
        else:
            model['neck'] = cfg.model.neck
        model['test_cfg'].update(dict(score_thr=0.85) if name == 'yolox' else dict(max_per_img=20))
        cfg.model = model
    if name in PADS:
        steps.insert(2, dict(type='Pad', **PADS[name]))
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
        if 'cls' in key and key.endswith('weight') and value.ndim > 1 and 'convs' not in key:
            torch.nn.init.normal_(value, std=STD.get(name, 0.1))
        if 'rtm_reg' in key or 'conv_reg' in key:
            torch.nn.init.normal_(value, std=0.001)
        if key.endswith(('retina_cls.bias', 'conv_cls.bias')):
            torch.nn.init.zeros_(value)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=CLASSES))), file)
    return exporter(mmfreq.load_model(cfg, file, 'cpu'), *arguments)


@pytest.mark.parametrize('name', [*HEADS, 'mask_rcnn', 'rgb', 'int8'])
def test_the_graph_detects_what_predict_detects(name: str, tmp_path: Path) -> None:
    """In upright and in wide images, on the input that the pipeline gives the network.

    The heads that mask_rcnn's file does not cover are written, too.
    """
    made = built(tmp_path, name, None, 'image', 'bgr')
    assert {image.shape[0] > image.shape[1] for image in made.images} == {False, True}
    assert all(5 < len(expected[0]) <= (300 if name == 'yolox' else 20) for expected in made.expected)
    limits = dict(FINE, tied=0.1) if name != 'int8' else dict(COARSE, tied=0.1)
    results = (made.write(tmp_path / 'model.onnx') if name in ('yolox', 'detr') else
               made.check(lambda inputs: [part.numpy() for part in made.network(inputs)]))
    for found in results.values():
        assert ('masks' in found) == (name in ('mask_rcnn', 'rgb'))
        assert all(found[key] <= limits[key] for key in found), found


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


LABELS, SCORES = np.array([0, 1, 1]), np.array([0.8, 0.5, 0.4], np.float32)
BOXES = np.array([[0, 0, 10, 20], [0, 0, 10, 20], [30, 30, 100, 50]], np.float32)
MOVED = BOXES + np.array([[0] * 4, [0] * 4, [50, 0, 50, 0]], np.float32)
SAME = BOXES, LABELS, SCORES
TIED = MOVED, LABELS, SCORES  # as rounding may decide


@pytest.mark.parametrize(('outputs', 'repeated', 'unmatched', 'tied'), [
    (TIED, SAME, 1 / 3, 0),  # the last one of each
    (TIED, TIED, 0, 1 / 3),
    ((BOXES[[1, 0, 2]], LABELS[[1, 0, 2]], SCORES[[1, 0, 2]]), SAME, 0, 0),  # another order
    ((BOXES[:2], LABELS[:2], SCORES[:2]), TIED, 0, 1 / 5),
    ((BOXES[1:], LABELS[1:], SCORES[1:]), TIED, 1 / 5, 1 / 5),  # a sure one is missing
    ((BOXES, np.array([1, 1, 1]), SCORES), TIED, 1 / 3, 1 / 6),  # the label of a sure one is wrong
    ((MOVED[[0, 1, 2, 2, 2]] + np.arange(5)[:, None] * 9, *(part[[0, 1, 2, 2, 2]] for part in SAME[1:])), TIED,
     3 / 8, 3 / 8),
])
def test_detections_that_rounding_moves_are_tied(outputs: tuple, repeated: tuple, unmatched: float,
                                                 tied: float) -> None:
    found = compare(list(outputs), list(SAME), [list(SAME), list(repeated)], FINE)
    assert (found['unmatched'], found['tied']) == pytest.approx((unmatched, tied))


def test_boxes_and_scores_of_detections_are_compared() -> None:
    moved = [BOXES + np.array([0, 0, 0.5, 0], np.float32), LABELS, SCORES - np.float32(0.04)]
    found = compare(moved, list(SAME), [list(SAME), list(TIED)], FINE)
    assert (found['boxes'], found['scores']) == pytest.approx((0.005, 0.05))


def with_shift(parts: list, chosen: Any) -> None:
    """Shift boxes by 9 pixels."""
    parts[0][0, chosen] += 9


def with_other_labels(parts: list, chosen: Any) -> None:
    """Change labels."""
    parts[1][0, chosen] = (parts[1][0, chosen] + 1) % 3


def with_gaps(parts: list, chosen: Any) -> None:
    """Remove detections."""
    parts[2][0, chosen] = 0


@pytest.mark.parametrize(('scale', 'spoil'), [(1, with_shift), (1, with_other_labels), (1, with_gaps),
                                              (1e-6, with_shift), (1e-6, with_gaps), (1e-6, None)])
def test_ties_of_proposals_hide_no_other_difference(scale: float, spoil: Any, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture) -> None:
    """Proposals of nearly equal scores come in another order where convolutions round otherwise."""
    made = built(tmp_path, 'mask_rcnn')
    with torch.no_grad():
        made.model.module.rpn_head.rpn_cls.weight.mul_(scale)
    made.expected = list(map(made.stock, made.packed))

    def run(inputs: torch.Tensor) -> list[np.ndarray]:
        with torch.backends.mkldnn.flags(enabled=False):
            parts = [part.numpy() for part in made.network(inputs)]
        if spoil:  # one, or all of a network whose detections are tied
            spoil(parts, 0 if scale == 1 else slice(None))
        return parts

    if spoil:
        with pytest.raises(ValueError, match='nothing is written'):
            made.check(run)
    else:
        assert max(found['tied'] for found in made.check(run).values()) > 0.5
        assert 'rounding decides' in capsys.readouterr().err


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
