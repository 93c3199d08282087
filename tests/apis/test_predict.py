"""Predictions by the hosts' inferencers: those of the test pipeline and the model, from files and from arrays."""
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from numpy.testing import assert_allclose, assert_array_equal
from pycocotools import mask as coco_mask

import mmfreq.models.det  # noqa: F401  before anything of mmdet
from mmfreq.apis.predict import Predictor, find_photos, inference_config, pipelines, transform_type

ROOT = Path(__file__).parents[2]
CLASSIFICATION, DETECTION = 'configs/demo/resnet18-dct24s_demo.py', 'configs/demo/mask-rcnn_r18-dct24s_demo.py'
CLASSES = {CLASSIFICATION: [f'class {i}' for i in range(12)], DETECTION: ['box', 'disc', 'star']}


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmengine'):
        yield


class Case(NamedTuple):
    """A config, an untrained model in a checkpoint, photos in two folders, and what is to be predicted for them."""

    config: str
    checkpoint: str
    photos: list[str]
    expected: list[Any]


def own_config(path: str, folder: Path) -> str:
    """The path of a config that keeps a few detections of an untrained model."""
    base = f"_base_ = '{ROOT / path}'\n"
    keep = 'model = dict(test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=4)))\n' if path == DETECTION else ''
    (folder / 'own.py').write_text(base + keep)
    return str(folder / 'own.py')


@pytest.fixture(scope='module', params=[CLASSIFICATION, DETECTION], ids=['classification', 'detection'])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp('prediction')
    path = own_config(request.param, folder)
    cfg, photos = Config.fromfile(path), []
    for seed, (name, shape) in enumerate({'a/1.png': (200, 333), 'b/1.png': (260, 150)}.items()):
        photo = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
        photos.append(str(folder / 'photos' / name))
        Path(photos[-1]).parent.mkdir(parents=True)
        cv2.imwrite(photos[-1], cv2.GaussianBlur(photo, (0, 0), 5))
    if 'data_preprocessor' in cfg:
        cfg.model.data_preprocessor = cfg.data_preprocessor
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.no_grad():
        model = MODELS.build(cfg.model).eval()
        pipeline = Compose(pipelines(cfg, 'test_dataloader')[0])
        expected = [model.test_step(pseudo_collate([pipeline(dict(img_path=photo, img_id=0, instances=[]))]))[0]
                    for photo in photos]
    content = dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=CLASSES[request.param])))
    torch.save(content, folder / 'model.pth')
    return Case(path, str(folder / 'model.pth'), photos, expected)


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


# Configs


@pytest.mark.parametrize('path', [CLASSIFICATION, DETECTION])
@pytest.mark.parametrize('kind', [str, Path, Config.fromfile])
def test_loaders_of_test_pipelines_become_the_stock_ones(kind: Any, path: str) -> None:
    given = kind(str(ROOT / path))
    made, shipped = inference_config(given), Config.fromfile(str(ROOT / path))
    before, after = (pipelines(cfg, 'test_dataloader')[0] for cfg in (shipped, made))
    assert [transform_type(step) for step in after] == ['LoadImageFromFile', *map(transform_type, before[1:])]
    assert after[1:] == before[1:]
    assert made.model == shipped.model
    assert made.train_dataloader == shipped.train_dataloader
    if isinstance(given, Config):
        assert given.to_dict() == shipped.to_dict()  # only the copy is changed


def test_arguments_of_the_loader_stay() -> None:
    load = dict(type='mmengine.CheckedLoadImageFromFile', imdecode_backend='pillow')
    parts = [dict(type='A', pipeline=[dict(load), dict(type='PackInputs')]) for _ in range(2)]
    cfg = inference_config(Config(dict(test_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=parts)))))
    for part in cfg.test_dataloader.dataset.datasets:
        assert part.pipeline[0] == dict(type='LoadImageFromFile', imdecode_backend='pillow')


def test_a_hosts_config_by_name_stays_as_it_is() -> None:
    made = inference_config('mmpretrain::resnet/resnet18_8xb32_in1k.py')
    assert made.test_dataloader.dataset.pipeline[0].type == 'LoadImageFromFile'


def test_no_config_and_no_test_pipeline() -> None:
    with pytest.raises(ValueError, match='config: no such file: none.py'):
        inference_config('none.py')
    with pytest.raises(ValueError, match='expected a test_dataloader with a pipeline'):
        inference_config(Config(dict(model=dict(type='A'))))


# The hosts' inferencers


def test_inferencers_predict_as_the_test_pipeline_and_the_model(case: Case) -> None:
    cfg = inference_config(case.config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        if cfg.default_scope == 'mmdet':
            from mmdet.apis import DetInferencer
            inferencer = DetInferencer(model=cfg, weights=case.checkpoint, device='cpu', show_progress=False)
        else:
            from mmpretrain import ImageClassificationInferencer
            inferencer = ImageClassificationInferencer(cfg, pretrained=case.checkpoint, device='cpu')
        for photo, expected in zip(case.photos, case.expected):
            for given in (photo, cv2.imread(photo)):
                made = inferencer(given)
                made, = made['predictions'] if cfg.default_scope == 'mmdet' else made
                assert_predicted(made, expected)


def test_predictor_draws_on_the_photo(case: Case) -> None:
    predictor = Predictor(Config.fromfile(case.config), case.checkpoint, 'cpu')
    for path, expected in zip(case.photos, case.expected):
        photo = cv2.imread(path)
        given = photo.copy()
        prediction, drawn = predictor.predict(photo, score_thr=0.0)
        assert_array_equal(photo, given)
        assert_predicted(prediction, expected)
        assert (drawn.dtype, drawn.shape) == (np.uint8, photo.shape)
        changed = np.argwhere((drawn != photo).any(axis=2))
        assert len(changed) > 50
        if 'pred_label' in prediction:
            assert changed[:, 0].max() < 40  # one line of text at the top
        else:
            assert prediction['classes'] == [CLASSES[DETECTION][label] for label in prediction['labels']]
            assert_array_equal(predictor.predict(photo, score_thr=1.0)[1], photo)  # nothing is drawn


@pytest.mark.parametrize(('changes', 'device', 'message'), [
    (dict(default_scope='mmseg'), 'cpu', "default_scope: expected .* 'mmpretrain' or 'mmdet', got 'mmseg'"),
    (dict(), 'abacus', "device: 'abacus' cannot be used"),
    (dict(test_dataloader=None), 'cpu', 'expected a test_dataloader with a pipeline'),
])
def test_predictor_refuses(changes: dict, device: str, message: str) -> None:
    cfg = Config.fromfile(str(ROOT / CLASSIFICATION))
    cfg.update(changes)
    with pytest.raises(ValueError, match=message):
        Predictor(cfg, 'none.pth', device)


# Finding photos


def test_photos_get_names_that_differ(tmp_path: Path) -> None:
    for name in ('x/a/1.jpg', 'x/a/1.PNG', 'x/b/1.jpg', 'x/b/notes.txt', 'x/out/1.jpg.png', 'y/2.webp'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(*paths: str) -> list[str]:
        found = find_photos([str(tmp_path / path) for path in paths], str(tmp_path / 'x/out'))
        common = os.path.commonpath([path.parent for path in found.values()])
        assert all(path == Path(common, name) for name, path in found.items())
        return list(found)

    assert names('x') == ['a/1.PNG', 'a/1.jpg', 'b/1.jpg']
    assert names('x/a', 'x/b') == ['a/1.PNG', 'a/1.jpg', 'b/1.jpg']
    assert names('x/b/1.jpg', 'x/b') == ['1.jpg']
    assert names('y', 'x/b/notes.txt') == ['y/2.webp', 'x/b/notes.txt']  # files are taken as they are given
    with pytest.raises(ValueError, match=f'{tmp_path}/none: no such file or folder'):
        names('y', 'none')
    with pytest.raises(ValueError, match=rf'{tmp_path}/x/out: expected photos \(.bmp .*found none'):
        names('x/out')


# The tool


def run(*arguments: Any, succeeds: bool = True) -> str:
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False)
    assert (done.returncode == 0) == succeeds, done.stdout[-6000:]
    return done.stdout


def predict(*arguments: Any, succeeds: bool = True) -> str:
    return run('tools/predict.py', *arguments, succeeds=succeeds)


def test_tool_writes_pictures_and_predictions_and_names_unreadable_photos(case: Case, tmp_path: Path) -> None:
    (tmp_path / 'broken.jpg').touch()
    output = predict(case.config, case.checkpoint, Path(case.photos[0]).parents[1], tmp_path / 'broken.jpg',
                     '--out-dir', tmp_path / 'out', '--device', 'cpu', '--score-thr', 0, succeeds=False)
    assert f'{tmp_path}/broken.jpg: cannot be decoded as an image: the file is empty' in output
    assert '3/3' in output
    assert output.splitlines()[-1] == 'predict: 1 of 3 photos could not be read'
    assert f'2 photos predicted, in {tmp_path}/out' in output
    assert len([path for path in (tmp_path / 'out').rglob('*') if path.is_file()]) == 4
    for photo, expected in zip(case.photos, case.expected):
        name = '/'.join(Path(photo).parts[-2:])
        written, = (tmp_path / 'out').rglob(f'{name}.json')
        made = json.loads(written.read_text())
        assert made['image'] == photo
        assert_predicted(made, expected)
        drawn = cv2.imread(str(written.with_suffix('.png')))
        assert drawn.shape == cv2.imread(photo).shape
        assert (drawn != cv2.imread(photo)).any()


class Opens:
    """An object whose unpickling opens a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), 'w')


def test_tool_runs_no_code_of_a_checkpoint(case: Case, tmp_path: Path) -> None:
    torch.save(dict(state_dict={}, extra=Opens(tmp_path / 'marker')), tmp_path / 'evil.pth')
    output = predict(case.config, tmp_path / 'evil.pth', case.photos[0], '--out-dir', tmp_path / 'out', succeeds=False)
    assert not (tmp_path / 'marker').exists()
    assert 'evil.pth: it holds more than weights' in output.splitlines()[-1]
    assert not (tmp_path / 'out').exists()


LOAD = '''
import sys
from mmdet.apis import DetInferencer  # before loading is restricted
from mmengine.infer import infer
from mmfreq.hosts.checkpoints import restrict_checkpoint_loading
restrict_checkpoint_loading()
infer._load_checkpoint(sys.argv[1])
'''


def test_inferencers_that_were_imported_before_refuse_by_name_too(tmp_path: Path) -> None:
    torch.save(dict(extra=Opens(tmp_path / 'marker')), tmp_path / 'evil.pth')
    output = run('-c', LOAD, tmp_path / 'evil.pth', succeeds=False)
    assert f'RefusedCheckpointError: checkpoint: refused {tmp_path}/evil.pth' in output
    assert not (tmp_path / 'marker').exists()


def test_tool_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / 'x.pth').touch()
    output = predict(CLASSIFICATION, tmp_path / 'x.pth', tmp_path / 'none.jpg', '--out-dir', tmp_path, succeeds=False)
    assert output.splitlines()[-1] == f'predict: {tmp_path}/none.jpg: no such file or folder'
    assert 'Traceback' not in output
