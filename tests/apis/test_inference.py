"""``import mmfreq``: channels, images, and predictions, which are those of the test pipeline."""
import sys
from pathlib import Path
from typing import Any, Callable, Sequence

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.fft import dctn
from shipped import save_untrained, shipped
from tool_runs import execute

import mmfreq
from mmfreq.config.pipelines import pipelines

ROOT = Path(__file__).parents[2]
NAME = 'resnet18-dct24s_demo'
NAMES = [f'class {i}' for i in range(12)]
CLASSES = {f'demo/{NAME}.py': NAMES, 'demo/mask-rcnn_r18-dct24s_demo.py': ['box', 'disc', 'star']}


def picture(shape: tuple[int, int] = (60, 90), seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def untrained(cfg: Config, folder: Path, classes: Sequence[str] = NAMES) -> Any:
    save_untrained(cfg, folder / 'x.pth', classes)
    return mmfreq.load_model(cfg, folder / 'x.pth', 'cpu')


def test_channels_are_those_of_scipy() -> None:
    gray = picture()[:, :, 0]
    channels = mmfreq.dct_channels(gray, [0, 9, 64])
    blocks = np.pad(gray, ((0, 4), (0, 6)), 'edge').astype(float).reshape(8, 8, 12, 8) - 128
    expected = dctn(blocks, axes=(1, 3), norm='ortho')
    assert (channels.shape, channels.dtype) == ((3, 8, 12), np.float32)
    assert_allclose(channels[0], expected[:, 0, :, 0], atol=1e-3)
    assert_allclose(channels[1], expected[:, 1, :, 1], atol=1e-3)
    assert_allclose(channels[2], 0, atol=1e-3)  # no colour


@pytest.mark.parametrize('stats', [None, 'photos-448'])
@pytest.mark.parametrize(('upscale', 'most'), [(1, 2), (2, 12)])
def test_all_channels_rebuild_the_image(stats: str, upscale: int, most: int) -> None:
    image, arguments = picture((37, 50)), dict(channels='192', stats=stats, upscale=upscale)
    channels = mmfreq.dct_channels(image, **arguments)
    back = mmfreq.rebuild(channels, image_shape=(37, 50), channel_order='rgb', **arguments)
    assert np.abs(back[:, :, ::-1].astype(int) - image).max() <= most
    assert mmfreq.rebuild(mmfreq.dct_channels(image, '6S'), '6S').shape == (40, 56, 3)


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: mmfreq.dct_channels(Image.new('I;16', (8, 8))), '8 bits.*I;16'),
    (lambda: mmfreq.dct_channels(picture(), channel_order='hsv'), "got 'hsv'"),
    (lambda: mmfreq.rebuild(mmfreq.dct_channels(picture((84, 63)), '24S'), '48S'),
     r'\(C, h, w\) with C = 48 .*got \(24, 11, 8\)'),
    (lambda: mmfreq.load_model('resnet18-dct25s_demo', 'x'), 'no such file: resnet18-dct25s_demo'),
])
def test_mistakes_are_named(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_layer_goes_before_a_network_of_torchvision() -> None:
    """The last example of docs/python.md: a stem comes off, the layer takes uint8 images."""
    names: dict = {}
    exec((ROOT / 'docs/python.md').read_text().split('```python\n')[-1].split('```')[0], names)
    image = torch.from_numpy(picture((64, 64))).permute(2, 0, 1)[None]
    with torch.no_grad():
        assert names['network'].eval()(image).shape == (1, 1000)
        channels = names['network'][0](image)[0].numpy()
    expected = mmfreq.dct_channels(picture((64, 64)), stats='photos-448', channel_order='rgb')
    assert np.abs(channels - expected).mean() < 0.02  # one pass does not round colours


@pytest.fixture(scope='module', params=CLASSES, ids=['classification', 'detection'])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A config, an untrained model, image files, and predictions by batch size."""
    cfg, folder, images = shipped(request.param), tmp_path_factory.mktemp('prediction'), []
    if 'rcnn' in request.param:  # keep a few detections of an untrained model
        cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=4)
        cfg.visualizer.update(bbox_color=(255, 0, 0), mask_color=(255, 0, 0))
    for seed, shape in enumerate([(200, 333), (260, 150)]):
        images.append(str(folder / f'{seed}.png'))
        cv2.imwrite(images[-1], picture(shape, seed))
    model = save_untrained(cfg, folder / 'model.pth', CLASSES[request.param])
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.no_grad():
        pipeline = Compose(pipelines(cfg, 'test_dataloader')[0])
        packed = [pipeline(dict(img_path=image, img_id=0, instances=[])) for image in images]
        # a batch of detection pads its smaller images, which moves scores in the fourth digit
        single = [model.test_step(pseudo_collate([one]))[0] for one in packed]
        batch = model.test_step(pseudo_collate(packed))
    return cfg, str(folder / 'model.pth'), images, {1: single, 2: batch}


def assert_predicted(prediction: dict[str, Any], expected: Any) -> None:
    if 'pred_label' in prediction:
        scores = expected.pred_score.numpy()
        assert_allclose(prediction['pred_scores'], scores, rtol=1e-4)
        assert_allclose(prediction['pred_score'], scores.max(), rtol=1e-4)
        assert prediction['pred_class'] == f'class {scores.argmax()}'
        return
    instances = expected.pred_instances
    assert len(instances) == 4
    assert prediction['labels'] == instances.labels.tolist()
    assert_allclose(prediction['scores'], instances.scores.numpy(), rtol=1e-4)
    assert_allclose(prediction['bboxes'], instances.bboxes.numpy(), atol=0.05)
    for encoded, mask in zip(prediction['masks'], instances.masks.numpy(), strict=True):
        assert (coco_mask.decode(encoded) != mask).mean() < 1e-3


@pytest.mark.parametrize('size', [1, 2])
def test_predictions_are_those_of_the_test_pipeline(size: int, case: tuple) -> None:
    cfg, file, images, expected = case
    cfg = Config(cfg.to_dict())
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.test_dataloader.dataset])
    model = mmfreq.load_model(cfg, file, 'cpu')
    predictions = model.predict(images, batch_size=size, score_thr=0.)
    for image, sample, prediction in zip(map(cv2.imread, images), expected[size], predictions):
        assert_predicted(prediction, sample)
        drawn = prediction['picture']
        assert (drawn.dtype, drawn.shape) == (np.uint8, image.shape)
        places = np.argwhere((drawn != image).any(axis=2))
        assert len(places) > 50
        if 'labels' in prediction:
            assert prediction['classes'] == [model.classes[i] for i in prediction['labels']]
            blue, _, red = (drawn.astype(int) - image)[tuple(places.T)].mean(axis=0)
            assert red > blue + 10  # boxes and masks are red, edges of masks white
            assert_array_equal(model.predict(image, score_thr=1.)['picture'], image)
        else:
            assert places[:, 0].max() < 40  # text at the top


def test_the_hosts_inferencers_take_configs_as_they_are(case: tuple) -> None:
    cfg, file, images, expected = case
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        if cfg.default_scope == 'mmdet':
            from mmdet.apis import DetInferencer
            predictions = DetInferencer(cfg, file, 'cpu')(images)['predictions']
        else:
            from mmpretrain import ImageClassificationInferencer
            predictions = ImageClassificationInferencer(cfg, file, 'cpu')(images)
    for prediction, sample in zip(predictions, expected[1], strict=True):
        assert_predicted(prediction, sample)


def test_one_image_of_any_type_or_a_list(tmp_path: Path) -> None:
    model, image = untrained(shipped(f'demo/{NAME}.py'), tmp_path), picture()
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    expected = model.predict(image)['pred_scores']
    items = [tmp_path / 'a.png', str(tmp_path / 'a.png'), image, torch.from_numpy(image),
             Image.fromarray(image[:, :, ::-1])]
    for item in items:
        assert_array_equal(model.predict(item)['pred_scores'], expected)
        assert_array_equal(mmfreq.dct_channels(item), mmfreq.dct_channels(image))
    for many in (items, tuple(items)):
        scores = [one['pred_scores'] for one in model.predict(many, batch_size=2)]
        assert_allclose(scores, [expected] * 5, atol=1e-6)
    rgb = model.predict(image[:, :, ::-1], channel_order='rgb')
    assert_array_equal(rgb['pred_scores'], expected)
    for other in (torch.zeros(3, 64, 64, dtype=torch.uint8), torch.zeros(64, 64, 3),
                  np.zeros((2, 8, 8, 3), np.uint8), {'a.png'}, iter(['a.png'])):
        with pytest.raises(ValueError, match=r'uint8 image \(H, W, 3\), got'):
            model.predict(other)


@pytest.mark.parametrize(('loader', 'atol'), [('LoadImageFromFile', 1e-6), ('LoadYCbCrFromFile', 1e-3)])
@pytest.mark.parametrize(('color_type', 'shape'), [
    ('color', (90, 60, 3)), ('color_ignore_orientation', (60, 90, 3))])
def test_a_phone_photo_has_one_orientation_by_every_route(color_type: str, shape: tuple, loader: str, atol: float,
                                                          tmp_path: Path) -> None:
    exif, file, cfg = Image.Exif(), tmp_path / 'turned.jpg', shipped(f'demo/{NAME}.py')
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(picture((60, 90))).save(file, exif=exif)
    pipelines(cfg, 'test_dataloader')[0][0] = dict(type=loader, color_type=color_type)
    first, second = untrained(cfg, tmp_path).predict([file, Image.open(file)], score_thr=0)
    assert first['picture'].shape == second['picture'].shape == shape
    assert_allclose(first['pred_scores'], second['pred_scores'], atol=atol)  # chroma is upsampled otherwise
    assert_array_equal(mmfreq.dct_channels(file), mmfreq.dct_channels(Image.open(file)))
    assert mmfreq.dct_channels(file).shape == (24, 12, 8)


@pytest.mark.parametrize('name', [NAME, 'resnet18_demo'])
def test_a_network_on_rgb_arrays_gets_rgb(name: str, tmp_path: Path) -> None:
    """A data set such as CIFAR has no files: its pipeline has no loader and its colours are RGB."""
    cfg = shipped(f'demo/{name}.py', train_dataloader=None, val_dataloader=None)
    expected = untrained(cfg, tmp_path).predict(picture())['pred_scores']
    cfg.data_preprocessor.to_rgb = False
    steps = pipelines(cfg, 'test_dataloader')[0]
    del steps[0]
    for step in steps:
        if step.type == 'FusedBlockDCT':
            step.channel_order = 'rgb'
    scores = untrained(cfg, tmp_path).predict(picture())['pred_scores']
    assert_allclose(scores, expected, rtol=1e-5)


def test_all_labels_of_a_multi_label_head(tmp_path: Path) -> None:
    cfg, odd = shipped(f'demo/{NAME}.py'), [1, 3, 5, 7, 9, 11]
    cfg.model.head = dict(type='MultiLabelLinearClsHead', num_classes=12, in_channels=512, thr=0.5)
    model = untrained(cfg, tmp_path)
    model.module.head.fc.bias.data = torch.tensor([-9., 9.] * 6)
    prediction = model.predict(picture())
    assert_array_equal(np.flatnonzero(prediction.pop('pred_scores') > 0.5), odd)
    assert prediction == dict(pred_labels=odd, pred_classes=[f'class {i}' for i in odd])


def test_loading_has_no_effect_on_the_process(tmp_path: Path) -> None:
    untrained(shipped(f'demo/{NAME}.py'), tmp_path)
    code = f'''
import signal, sys, mmfreq, numpy
from mmengine.registry import DefaultScope
before = sys.stdout, signal.getsignal(signal.SIGTERM)
model = mmfreq.load_model({NAME!r}, {str(tmp_path / 'x.pth')!r}, 'cpu')
model.predict(numpy.zeros((8, 8, 3), 'uint8'))
assert DefaultScope.get_current_instance() is None
assert before == (sys.stdout, signal.getsignal(signal.SIGTERM))
'''
    assert 'x.pth' not in execute(sys.executable, '-c', code)
