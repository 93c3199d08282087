"""The tools treat a fused transform, also with int8, and a DCT on the device as the four single transforms."""
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import Runner
from numpy.testing import assert_allclose, assert_array_equal
from references import noise
from shipped import LOADERS, shipped

from mmfreq.apis.compare.rows import compare
from mmfreq.apis.dataset_stats import coefficient_pipeline, dataset_statistics
from mmfreq.config.checks import check_config
from mmfreq.config.pipelines import device_freq, input_specs, stock_resize
from mmfreq.errors import RefusedError
from mmfreq.selection.static import _replace_selection

SINGLE = [dict(type='YCbCr'), dict(type='BlockDCT'), dict(type='ChannelSelect', channels='24S'),
          dict(type='FreqNormalize', stats='photos-448')]
FUSED = dict(type='FusedBlockDCT', channels='24S', stats='photos-448')
STEPS = dict(single=SINGLE, fused=[FUSED], int8=[dict(FUSED, dtype='int8', scale=16)], device=[])


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six smooth images of two classes, 60 x 80 pixels, lossless."""
    root = tmp_path_factory.mktemp('images')
    for i in range(6):
        path = root / 'ab'[i % 2] / f'{i}.png'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(noise(8, 10, i), (80, 60), interpolation=cv2.INTER_CUBIC))
    return root


def variant(kind: str, folder: Path) -> Config:
    """The demo's config with its DCT done in one of four ways."""
    cfg = shipped('demo/resnet18-dct24s_demo.py')
    if kind == 'int8':
        cfg.data_preprocessor.update(mean=[0], std=[16])
    if kind == 'device':
        cfg.data_preprocessor.update(type='FreqDataPreprocessor', placement='device', freq=FUSED)
    for name in LOADERS:
        loader = cfg[name]
        loader.update(num_workers=0, persistent_workers=False)
        steps = [stock_resize(step) for step in loader.dataset.pipeline if step['type'] != 'FusedBlockDCT']
        loader.dataset = dict(type='CustomDataset', data_root=str(folder), data_prefix='',
                              pipeline=deepcopy([*steps[:-1], *STEPS[kind], steps[-1]]))
    return cfg


@pytest.mark.parametrize('kind', STEPS)
def test_the_tools_see_one_input(kind: str, folder: Path) -> None:
    cfg = variant(kind, folder)
    check_config(cfg)
    specs = input_specs(cfg)
    assert len(set(specs.values()) | set(input_specs(variant('single', folder)).values())) == 1
    assert device_freq(cfg) == (FUSED if kind == 'device' else None)
    values = cfg.to_dict()
    assert _replace_selection(values, [0, 1, 64]) > 0
    assert {spec.channels for spec in input_specs(Config(values)).values()} == {(0, 1, 64)}


@pytest.mark.parametrize('kind', ['fused', 'int8'])
def test_workers_compute_the_same_numbers(kind: str, folder: Path) -> None:
    loader = dict(variant(kind, folder).val_dataloader, batch_size=3, collate_fn=dict(type='default_collate'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        batches = [[batch['inputs'].numpy() for batch in Runner.build_dataloader(
            dict(loader, num_workers=workers), seed=0)] for workers in (0, 1)]
    assert_array_equal(*batches)
    assert batches[0][0].shape == (3, 24, 28, 28)
    assert batches[0][0].std() > 0.5


def test_training_on_the_device_is_that_of_the_pipeline(folder: Path) -> None:
    """Three steps of training from the same weights: losses, and the first convolution."""
    runs = []
    for kind in ('fused', 'device'):
        cfg = variant(kind, folder)
        cfg.model.data_preprocessor = cfg.data_preprocessor
        cfg.model.head.num_classes = 2
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            data = DATASETS.build(cfg.val_dataloader.dataset)
            torch.manual_seed(0)
            model = MODELS.build(cfg.model).train()
        batch = default_collate([data[i] for i in range(4)])
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), 0.01))
        losses = [float(model.train_step(batch, optimizer)['loss']) for _ in range(3)]
        runs.append((losses, model.backbone.layer1[0].conv1.weight.detach().numpy()))
    assert_allclose(runs[1][0], runs[0][0], rtol=1e-3, atol=2e-4)
    assert_allclose(runs[1][1], runs[0][1], atol=5e-4)
    assert len(set(runs[0][0])) == 3  # the weights change


def test_comparison_has_the_inputs_of_the_network_and_their_bytes(folder: Path, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for kind in ('fused', 'int8', 'device'):
        paths.append(str(tmp_path / f'{kind}.py'))
        variant(kind, folder).dump(paths[-1])
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    rows: Any = compare(paths, images=2, repeats=1)
    assert [row.input_shape for row in rows] == [(24, 28, 28)] * 3
    assert [row.input_bytes for row in rows] == [75_264, 18_816, 3 * 224 * 224]


# Statistics


@pytest.fixture(scope='module')
def single(folder: Path) -> Any:
    return dataset_statistics(variant('single', folder), num_workers=0)[0]


@pytest.mark.parametrize('kind', ['fused', 'int8', 'device'])
def test_statistics_are_the_same(kind: str, folder: Path, single: Any) -> None:
    """Of the single transforms, whose rounding of colours adds a variance of 1/12."""
    stats, _ = dataset_statistics(variant(kind, folder), num_workers=0)
    assert_allclose(stats.mean, single.mean, atol=0.05)
    assert_allclose(stats.std**2 + 1 / 12, single.std**2, rtol=0.01, atol=0.02)  # of 4,704 blocks
    assert stats.meta['pipeline'][-1] == dict(type='FusedBlockDCT')


def test_sampled_images_do_not_depend_on_workers(folder: Path) -> None:
    runs = [dataset_statistics(variant('fused', folder), workers, images=5)[0] for workers in (0, 2)]
    assert runs[0].meta == runs[1].meta
    assert runs[0].meta['images'] == 5
    assert_array_equal(runs[0].mean, runs[1].mean)
    assert dataset_statistics(variant('fused', folder), 0, images=0)[0].meta['images'] == 6
    assert np.abs(dataset_statistics(variant('fused', folder), 0, images=5, seed=1)[0].mean - runs[0].mean).max() > 1e-3


def test_a_pipeline_without_a_dct() -> None:
    with pytest.raises(RefusedError, match='LoadImageFromFile .*PackInputs'):
        dataset_statistics(shipped('demo/resnet18_demo.py'))


def test_statistics_of_a_detection_config(tmp_path: Path) -> None:
    """Tuples such as scale=(1333, 800) reach the transforms as tuples."""
    cfg = shipped('mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco.py')
    cv2.imwrite(str(tmp_path / '0.png'), noise(60, 80))
    (tmp_path / 'a.json').write_text(json.dumps(dict(
        images=[dict(id=0, file_name='0.png', height=60, width=80)], annotations=[dict(
            id=0, image_id=0, category_id=1, bbox=[5, 5, 40, 40], area=1600, iscrowd=0,
            segmentation=[[5, 5, 45, 5, 45, 45]])], categories=[dict(id=1, name='person')])))
    dataset = cfg.train_dataloader.dataset
    dataset.update(type='CocoDataset', data_root=str(tmp_path), ann_file='a.json', data_prefix=dict(img=''),
                   metainfo=dict(classes=('person', )))
    assert coefficient_pipeline(cfg, dataset.pipeline)[-1] == dict(type='FusedBlockDCT', upscale=2)
    stats, _ = dataset_statistics(cfg, num_workers=0)
    assert stats.meta['count'] == 200 * 267  # 800 x 1067 pixels, one block for each 4 x 4
