"""Predictions by the hosts' inferencers are those of the test pipeline and the model."""
import json
import os
import runpy
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from pycocotools import mask as coco_mask
from tool_runs import Reduces

import mmfreq.models.det  # noqa: F401  before anything of mmdet
from mmfreq.apis.predict import Predictor, find_images, picture_paths, read_image
from mmfreq.config.pipelines import pipelines

ROOT = Path(__file__).parents[2]
CLASSIFICATION = 'configs/demo/resnet18-dct24s_demo.py'
DETECTION = 'configs/demo/mask-rcnn_r18-dct24s_demo.py'
CLASSES = {CLASSIFICATION: [f'class {i}' for i in range(12)], DETECTION: ['box', 'disc', 'star']}


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmengine'):
        yield


class Case(NamedTuple):
    """A config, an untrained model, images in two folders, and predictions by batch size."""

    config: str
    checkpoint: str
    images: list[str]
    expected: dict[int, list[Any]]


@pytest.fixture(scope='module', params=CLASSES, ids=['classification', 'detection'])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder, images = tmp_path_factory.mktemp('prediction'), []
    cfg = Config.fromfile(str(ROOT / request.param))
    if request.param == DETECTION:  # keep a few detections of an untrained model
        cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=4)
    cfg.dump(str(folder / 'own.py'))
    for seed, (name, shape) in enumerate({'a/1.png': (200, 333), 'b/1.png': (260, 150)}.items()):
        image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
        images.append(str(folder / 'images' / name))
        Path(images[-1]).parent.mkdir(parents=True)
        cv2.imwrite(images[-1], cv2.GaussianBlur(image, (0, 0), 5))
    if 'data_preprocessor' in cfg:
        cfg.model.data_preprocessor = cfg.data_preprocessor
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.no_grad():
        model = MODELS.build(cfg.model).eval()
        pipeline = Compose(pipelines(cfg, 'test_dataloader')[0])
        packed = [pipeline(dict(img_path=image, img_id=0, instances=[])) for image in images]
        # a batch of detection pads its smaller images, which moves scores in the fourth digit
        single = [model.test_step(pseudo_collate([one]))[0] for one in packed]
        batch = model.test_step(pseudo_collate(packed))
    meta = dict(dataset_meta=dict(classes=CLASSES[request.param]))
    content = dict(state_dict=model.state_dict(), meta=meta)
    torch.save(content, folder / 'model.pth')
    return Case(str(folder / 'own.py'), str(folder / 'model.pth'), images, {1: single, 2: batch})


def assert_predicted(made: dict[str, Any], expected: Any) -> None:
    """A host's prediction, or its JSON, is that of the data sample."""
    if 'pred_label' in made:
        assert_allclose(np.array(made['pred_scores']), expected.pred_score.numpy(), rtol=1e-4)
        assert made['pred_label'] == expected.pred_label.item()
        assert made['pred_class'] == f'class {made["pred_label"]}'
        return
    instances = expected.pred_instances
    assert len(made['labels']) == len(instances) == 4
    assert made['labels'] == instances.labels.tolist()
    assert_allclose(made['scores'], instances.scores.numpy(), rtol=1e-4)
    assert_allclose(made['bboxes'], instances.bboxes.numpy(), atol=0.05)
    for encoded, mask in zip(made['masks'], instances.masks.numpy()):
        assert encoded['size'] == list(mask.shape)
        assert (coco_mask.decode(encoded) != mask).mean() < 1e-3


def test_predictions_are_those_of_the_test_pipeline(case: Case) -> None:
    cfg = Config.fromfile(case.config)
    if cfg.default_scope == 'mmdet':
        red = (255, 0, 0)
        cfg.visualizer.update(bbox_color=red, mask_color=red, text_color=red)
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.test_dataloader.dataset])
    predictor = Predictor(cfg, case.checkpoint, 'cpu')
    images = [cv2.imread(path) for path in case.images]
    given = [image.copy() for image in images]
    made = predictor.predict(images, score_thr=0.0)
    single = predictor.predict(images[1:], score_thr=1.0)
    for image, before, expected, (prediction, drawn) in zip(images, given, case.expected[2], made):
        assert_array_equal(image, before)
        assert_predicted(prediction, expected)
        assert (drawn.dtype, drawn.shape) == (np.uint8, image.shape)
        places = np.argwhere((drawn != image).any(axis=2))
        assert len(places) > 50
        if 'pred_label' in prediction:
            assert places[:, 0].max() < 40  # one line of text at the top
        else:
            assert prediction['classes'] == [CLASSES[DETECTION][i] for i in prediction['labels']]
            assert_array_equal(single[0][1], images[1])  # nothing is drawn
            blue, _, red = (drawn.astype(int) - image)[tuple(places.T)].mean(axis=0)
            assert red > 0 > blue  # boxes and masks are red, the image keeps its colours


@pytest.mark.parametrize('kind', [str, np.array])
def test_the_hosts_inferencers_take_configs_as_they_are(case: Case, kind: Any) -> None:
    cfg = Config.fromfile(case.config)
    images = case.images if kind is str else [cv2.imread(path) for path in case.images]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        if cfg.default_scope == 'mmdet':
            from mmdet.apis import DetInferencer
            inferencer = DetInferencer(cfg, case.checkpoint, 'cpu', show_progress=False)
            made = inferencer(images)['predictions']
        else:
            from mmpretrain import ImageClassificationInferencer
            made = ImageClassificationInferencer(cfg, case.checkpoint, 'cpu')(images)
    for prediction, expected in zip(made, case.expected[1]):
        assert_predicted(prediction, expected)


@pytest.mark.parametrize(('changes', 'device', 'message'), [
    (dict(default_scope='mmseg'), 'cpu', "default_scope: .* 'mmpretrain' or 'mmdet', got 'mmseg'"),
    (dict(), 'abacus', "device: 'abacus' cannot be used"),
    (dict(test_dataloader=None), 'cpu', 'expected a test_dataloader whose dataset has'),
])
def test_predictor_refuses(changes: dict, device: str, message: str) -> None:
    cfg = Config.fromfile(str(ROOT / CLASSIFICATION))
    cfg.update(changes)
    with pytest.raises(ValueError, match=message):
        Predictor(cfg, 'none.pth', device)


def test_images_get_names_that_differ(tmp_path: Path) -> None:
    for name in ('x/a/1.jpg', 'x/a/1.PNG', 'x/b/1.jpg', 'x/b/notes.txt', 'x/out/1.jpg.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(*paths: str) -> list[str]:
        found = find_images([str(tmp_path / path) for path in paths], str(tmp_path / 'x/out'))
        common = os.path.commonpath([path.parent for path in found.values()])
        assert all(path == Path(common, name) for name, path in found.items())
        return list(found)

    assert names('x') == names('x/a', 'x/b') == ['a/1.PNG', 'a/1.jpg', 'b/1.jpg']
    assert names('x/b/1.jpg', 'x/b/notes.txt', 'x/b') == ['1.jpg', 'notes.txt']  # as given
    with pytest.raises(ValueError, match=rf'{tmp_path}/x/out: expected images \(.bmp .*found none'):
        names('x/out')


def test_pictures_overwrite_no_image_and_no_other_picture(tmp_path: Path) -> None:
    def pictures(*names: str) -> list[str]:
        images = {name: tmp_path / name for name in names}
        found = picture_paths(images, str(tmp_path))
        return [path.relative_to(tmp_path).as_posix() for path in found]

    assert pictures('a/1.jpg', 'b/1.jpg') == ['a/1.png', 'b/1.png']
    assert pictures('1.png', '2.jpg') == ['1.png.png', '2.png']
    assert pictures('1.jpg', '1.webp', '1.jpg.png') == ['1.png', '1.webp.png', '1.jpg.png.png']


@pytest.mark.parametrize(('color_type', 'shape'), [
    ('color', (90, 60, 3)), ('color_ignore_orientation', (60, 90, 3))])
def test_files_are_decoded_as_the_pipeline_does(case: Case, color_type: str, shape: tuple, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new('RGB', (90, 60)).save(tmp_path / 'turned.jpg', exif=exif)
    cfg = Config.fromfile(case.config)
    pipelines(cfg, 'test_dataloader')[0][0].color_type = color_type
    predictor = Predictor(cfg, case.checkpoint, 'cpu')
    assert read_image(tmp_path / 'turned.jpg', **predictor.decoding).shape == shape


def test_networks_on_rgb_arrays_get_rgb(case: Case) -> None:
    """A data set without files, such as CIFAR, whose pipeline has no loader."""
    cfg = Config.fromfile(case.config)
    if cfg.default_scope == 'mmdet':
        return  # whose inferencer asks for a loader
    usual = Predictor(deepcopy(cfg), case.checkpoint, 'cpu')
    steps = pipelines(cfg, 'test_dataloader')[0]
    dct, = [step for step in steps if step.type == 'FusedBlockDCT']
    steps.pop(0)
    dct.channel_order = 'rgb'
    image = cv2.imread(case.images[0])
    expected = usual.raw([image])[0][0]['pred_scores']
    assert_allclose(Predictor(cfg, case.checkpoint, 'cpu').raw([image])[0][0]['pred_scores'], expected, rtol=1e-5)


# The tool


@pytest.mark.parametrize('batch_size', [1, 2])
def test_tool_writes_pictures_and_predictions_and_names_unreadable_files(
        case: Case, batch_size: int, tmp_path: Path, run_tool: Any, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'empty.jpg').touch()
    (tmp_path / 'text.jpg').write_text('no image')
    with pytest.raises(SystemExit, match='^2 of 4 images could not be predicted$'):
        run_tool('predict', case.config, case.checkpoint, Path(case.images[0]).parents[1], tmp_path / 'empty.jpg',
                 tmp_path / 'text.jpg', '--out', tmp_path / 'out', '--device', 'cpu', '--score-thr', 0,
                 '--batch-size', batch_size)
    with pytest.raises(SystemExit):
        run_tool('predict', case.config, case.checkpoint, case.images[0], tmp_path / 'text.jpg', '--out',
                 tmp_path / 'none', '--device', 'cpu', '--score-thr', 1)
    output, errors = capsys.readouterr()
    assert f'predict.py: {tmp_path}/empty.jpg: empty file' in errors
    assert f'predict.py: {tmp_path}/text.jpg: not an image that OpenCV reads' in errors
    assert f'2 images predicted, in {tmp_path}/out' in output
    detects = 'bboxes' in (tmp_path / 'none/predictions.json').read_text()
    assert output.count('no detection is drawn: none has a score above 1.0') == detects
    assert len([path for path in (tmp_path / 'out').rglob('*') if path.is_file()]) == 3
    predictions = json.loads((tmp_path / 'out/predictions.json').read_text())
    expected = case.expected[batch_size]
    for (name, made), image, sample in zip(predictions.items(), case.images, expected):
        assert image.endswith(f'/{name}')
        assert_predicted(made, sample)
        drawn = cv2.imread(str(Path(tmp_path / 'out', name).with_suffix('.png')))
        assert drawn.shape == cv2.imread(image).shape
        assert (drawn != cv2.imread(image)).any()


def test_an_image_that_fails_is_named_and_the_others_of_its_batch_are_predicted(capsys: pytest.CaptureFixture) -> None:
    """A line of 4000x1 pixels, say, of which a resize leaves no row."""
    class Fails:
        def predict(self, images: list[int], score_thr: float) -> list[int]:
            if 0 in images:
                raise cv2.error('resize: 0 rows')
            return [10 * image for image in images]

    predict_each = runpy.run_path(str(ROOT / 'tools/predict.py'))['predict_each']
    assert dict(predict_each(Fails(), dict(a=1, flat=0, b=2), 0.3)) == dict(a=10, b=20)
    assert capsys.readouterr().err.count(': flat: error: resize: 0 rows\n') == 1
    assert dict(predict_each(Fails(), {}, 0.3)) == {}


def test_an_interruption_keeps_what_was_predicted(case: Case, tmp_path: Path, run_tool: Any,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_image(Path(case.images[0]))
    monkeypatch.setattr('mmfreq.apis.predict.read_image', Mock(side_effect=[first, KeyboardInterrupt]))
    with pytest.raises(SystemExit) as stopped:
        run_tool('predict', case.config, case.checkpoint, *case.images, '--out', tmp_path, '--device', 'cpu')
    assert stopped.value.code == 130
    assert len(json.loads((tmp_path / 'predictions.json').read_text())) == 1


def test_tool_refuses_missing_images_and_the_code_of_a_checkpoint(
        tmp_path: Path, run_tool: Any) -> None:
    evil = tmp_path / 'evil.pth'
    torch.save(dict(state_dict={}, extra=Reduces(open, str(tmp_path / 'marker'), 'w')), evil)
    (tmp_path / '1.png').touch()
    for name, expected in {'none.jpg': f'{tmp_path}/none.jpg: no such file or folder',
                           '1.png': 'evil.pth: it holds more than weights'}.items():
        with pytest.raises(SystemExit, match=expected) as refused:
            run_tool('predict', ROOT / CLASSIFICATION, evil, tmp_path / name, '--out', tmp_path / 'out')
        assert '\n' not in str(refused.value)
    assert not (tmp_path / 'marker').exists()
    assert not (tmp_path / 'out').exists()
