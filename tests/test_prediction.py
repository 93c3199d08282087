"""Predictions by the hosts' inferencers: those of the test pipeline and the model, from files and from arrays."""
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
from numpy.testing import assert_allclose
from pycocotools import mask as coco_mask

import mmfreq.models.det  # noqa: F401  before anything of mmdet
from mmfreq.config import inference_config, pipelines, transform_type

ROOT = Path(__file__).parents[1]
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
