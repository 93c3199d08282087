"""Check that the tools treat a fused transform, and DCT on the device, as the four single transforms."""
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

from mmfreq.apis.browse import Browser
from mmfreq.apis.compare.rows import compare
from mmfreq.apis.dataset_stats import coefficient_pipeline, dataset_statistics, int8_scales
from mmfreq.apis.runs import flip_tta_pipeline
from mmfreq.config.checks import check_channels, front_ends
from mmfreq.config.pipelines import (
    dct_channels,
    device_freq,
    network_pipeline,
    stock_resize,
    unfused,
)
from mmfreq.config.pipelines import single_transforms as singles
from mmfreq.dct.channels import channel_indices
from mmfreq.selection.gate import ChannelGate
from mmfreq.selection.rates import gate_channels
from mmfreq.selection.static import _replace_selection

SINGLE = [dict(type='YCbCr'), dict(type='BlockDCT'), dict(type='ChannelSelect', channels='24S'),
          dict(type='FreqNormalize', stats='photos-448')]
FUSED = dict(type='FusedBlockDCT', channels='24S', stats='photos-448')
INT8 = dict(FUSED, dtype='int8', scale=16)
KINDS = {step['type'] for step in (*SINGLE, FUSED)}
VARIANTS = ['single', 'fused', 'int8', 'device']


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six smooth images of two classes, 60 x 80 pixels, lossless."""
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for i in range(6):
        path = root / 'ab'[i % 2] / f'{i}.png'
        path.parent.mkdir(exist_ok=True)
        coarse = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse, (80, 60), interpolation=cv2.INTER_CUBIC))
    return root


def variant(kind: str, folder: Path) -> Config:
    """The demo's config with its DCT done in one of four ways."""
    cfg = Config.fromfile('configs/demo/resnet18-dct24s_demo.py')
    steps = {'single': SINGLE, 'fused': [FUSED], 'int8': [INT8], 'device': []}[kind]
    if kind == 'int8':
        cfg.data_preprocessor.update(mean=[0], std=[16])
    if kind == 'device':
        cfg.data_preprocessor.update(type='FreqDataPreprocessor', placement='device', freq=FUSED)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.num_workers = 0
        loader.persistent_workers = False
        pipeline = [stock_resize(step) for step in loader.dataset.pipeline if step['type'] not in KINDS]
        loader.dataset = dict(type='CustomDataset', data_root=str(folder), data_prefix='',
                              pipeline=deepcopy([*pipeline[:-1], *steps, pipeline[-1]]))
    return cfg


def test_single_transforms() -> None:
    assert singles(FUSED) == SINGLE
    assert singles(dict(INT8, block_size=4, upscale=2, channel_order='rgb')) == [
        dict(type='YCbCr', channel_order='rgb'), dict(type='BlockDCT', block_size=4, upscale=2),
        dict(type='ChannelSelect', channels='24S', block_size=4),
        dict(type='FreqNormalize', stats='photos-448', block_size=4, dtype='int8', scale=16)]
    nested = [dict(type='A'), dict(type='TestTimeAug', transforms=[[dict(type='B')], [dict(FUSED)]])]
    assert unfused(nested) == [
        dict(type='A'), dict(type='TestTimeAug', transforms=[[dict(type='B')], *([step] for step in SINGLE)])]
    assert nested[1]['transforms'][1] == [FUSED]


def test_single_transforms_keep_tuples() -> None:
    steps = (dict(type='Resize', scale=(1333, 800)), FUSED)
    views = dict(type='TestTimeAug', transforms=(([steps[0]]), (FUSED, )))
    assert unfused(steps) == (steps[0], *SINGLE)
    assert unfused(views)['transforms'] == ([steps[0]], *((step, ) for step in SINGLE))
    assert network_pipeline(Config(), [*steps, dict(type='PackInputs')])[0] == steps[0]


@pytest.mark.parametrize('kind', VARIANTS)
def test_channels_and_blocks(kind: str, folder: Path) -> None:
    cfg = variant(kind, folder)
    check_channels(cfg)
    pipeline = network_pipeline(cfg, cfg.val_dataloader.dataset.pipeline)
    assert [step['type'] for step in pipeline[-5:]] == [*(step['type'] for step in SINGLE), 'PackInputs']
    assert dct_channels(pipeline) == (channel_indices('24S'), 8)
    assert {(front.block_size, front.upscale) for _, front in front_ends(cfg)} == {(8, 1)}
    assert device_freq(cfg) == (FUSED if kind == 'device' else None)
    cfg.model.backbone.in_channels = 48
    with pytest.raises(ValueError, match='in_channels=48, but .* gives 24 channels'):
        check_channels(cfg)


def test_dct_in_both_places_is_refused(folder: Path) -> None:
    cfg = variant('fused', folder)
    cfg.data_preprocessor = variant('device', folder).data_preprocessor
    with pytest.raises(ValueError, match="train_dataloader: .*placement='device' expects images, but .* has DCT"):
        check_channels(cfg)


def test_detection_geometry_of_fused_transforms_is_checked() -> None:
    cfg = Config.fromfile('configs/mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        steps = [s for s in loader.dataset.pipeline if s['type'] not in {step['type'] for step in SINGLE}]
        loader.dataset.pipeline = [*steps[:-1], dict(FUSED, upscale=2), steps[-1]]
    check_channels(cfg)
    cfg.train_dataloader.dataset.pipeline[-2].upscale = 1
    with pytest.raises(ValueError, match='stride=4, .* train_dataloader has .*=8 and upscale=1'):
        check_channels(cfg)


@pytest.mark.parametrize('kind', ['fused', 'int8'])
def test_workers_compute_the_same_numbers(kind: str, folder: Path) -> None:
    cfg = variant(kind, folder)
    loader = dict(cfg.val_dataloader, batch_size=3, collate_fn=dict(type='default_collate'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        batches = []
        for workers in (0, 1):
            built = Runner.build_dataloader(dict(loader, num_workers=workers), seed=0)
            batches.append([batch['inputs'].numpy() for batch in built])
    np.testing.assert_array_equal(*batches)
    assert batches[0][0].shape == (3, 24, 28, 28)
    assert batches[0][0].std() > 0.5


def test_training_on_the_device_is_that_of_the_pipeline(folder: Path) -> None:
    """Three steps of training from the same weights: losses, and the first convolution."""
    found = []
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
        found.append((losses, model.backbone.layer1[0].conv1.weight.detach().numpy()))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=5e-4)
    assert len(set(found[0][0])) == 3  # the weights change


@pytest.fixture(scope='module')
def single(folder: Path) -> tuple[np.ndarray, Any]:
    """Return the picture and the statistics of the single transforms."""
    cfg = variant('single', folder)
    return Browser(cfg, 'val_dataloader').draw(3)[1].astype(int), dataset_statistics(cfg, num_workers=0)[0]


@pytest.mark.parametrize('kind', VARIANTS[1:])
def test_browsing_shows_the_same_image(kind: str, folder: Path, single: tuple) -> None:
    expected, found = single[0], Browser(variant(kind, folder), 'val_dataloader').draw(3)[1].astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (16 if kind == 'int8' else 3)
    assert np.abs(found - expected).mean() < (2 if kind == 'int8' else 0.3)


@pytest.mark.parametrize('kind', VARIANTS[1:])
def test_statistics_are_the_same(kind: str, folder: Path, single: tuple) -> None:
    """Of the single transforms, whose rounding of colours adds a variance of 1/12; and the rows about int8."""
    expected = single[1]
    found, _ = dataset_statistics(variant(kind, folder), num_workers=0)
    np.testing.assert_allclose(found.mean, expected.mean, atol=0.05)
    np.testing.assert_allclose(found.std**2 + 1 / 12, expected.std**2, rtol=0.1)  # of 147 blocks
    for ours, theirs in zip(found.meta['int8'], expected.meta['int8']):
        assert ours == pytest.approx(theirs, rel=0.3, abs=2e-3)
    best = min(found.meta['int8'], key=lambda row: row['rms_error'])
    assert found.meta['int8_scale'] == best['scale']


def test_int8_scales_of_known_values() -> None:
    """Of 1000 values, 10 are 20 deviations out: at scale 8 they saturate at 15.875, at scale 4 nothing does."""
    values = np.repeat([0.1, 20.], [990, 10])
    rows = int8_scales(values, [4, 8])
    assert rows[0] == dict(scale=4, clipped=0., rms_error=pytest.approx(np.sqrt(0.99) * 0.1))
    assert rows[1] == dict(scale=8, clipped=0.01, rms_error=pytest.approx(
        np.sqrt(0.99 * 0.025**2 + 0.01 * (20 - 127 / 8)**2)))
    for scale in (0, -1, float('nan')):
        with pytest.raises(ValueError, match='scales: expected numbers > 0'):
            int8_scales(values, [4, scale])


def test_blocks_for_int8_are_few_for_large_sets_and_do_not_depend_on_workers(folder: Path,
                                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmfreq.apis.dataset_stats._SAMPLED_BLOCKS', 3)  # less than one from each of the six images
    found = [dataset_statistics(variant('fused', folder), workers, scales=[2., 5.])[0].meta for workers in (0, 1)]
    assert found[0]['int8'] == found[1]['int8']
    assert [row['scale'] for row in found[0]['int8']] == [2, 5]


@pytest.mark.parametrize('kind', VARIANTS)
def test_a_selection_replaces_the_channels(kind: str, folder: Path) -> None:
    cfg = variant(kind, folder).to_dict()
    assert _replace_selection(cfg, dict(type='ChannelSelect', channels=[0, 1, 64])) > 0
    plain = Config(cfg)
    for loader in (plain.train_dataloader, plain.val_dataloader):
        assert dct_channels(network_pipeline(plain, loader.dataset.pipeline))[0] == [0, 1, 64]


@pytest.mark.parametrize('kind', VARIANTS)
def test_gate_channels(kind: str, folder: Path) -> None:
    assert gate_channels(variant(kind, folder), ChannelGate(24), 'val_dataloader') == (channel_indices('24S'), 8)


def test_test_time_augmentation_flips_pixels() -> None:
    pipeline = [dict(type='LoadImageFromFile'), dict(type='CenterCrop'), FUSED, dict(type='PackInputs')]
    augmented = flip_tta_pipeline(pipeline)
    assert [step['type'] for step in augmented] == ['LoadImageFromFile', 'CenterCrop', 'TestTimeAug']
    flips, fused, _ = augmented[2]['transforms']
    assert {step['type'] for step in flips} == {'RandomFlip'}
    assert fused == [FUSED]


def test_comparison_says_what_the_network_gets_and_what_is_sent(folder: Path, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for kind in VARIANTS[1:]:
        paths.append(str(tmp_path / f'{kind}.py'))
        variant(kind, folder).dump(paths[-1])
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    rows: Any = compare(paths, images=2, repeats=1)
    assert [row.input_shape for row in rows] == [(24, 28, 28)] * 3
    assert [row.input_bytes for row in rows] == [75_264, 18_816, 3 * 224 * 224]
    assert not any(row.note for row in rows)


def test_statistics_of_a_detection_config(tmp_path: Path) -> None:
    """Tuples such as scale=(1333, 800) reach the transforms as tuples."""
    cfg = Config.fromfile('configs/mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco.py')
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / '0.png'), image)
    (tmp_path / 'a.json').write_text(json.dumps(dict(
        images=[dict(id=0, file_name='0.png', height=60, width=80)], annotations=[dict(
            id=0, image_id=0, category_id=1, bbox=[5, 5, 40, 40], area=1600, iscrowd=0,
            segmentation=[[5, 5, 45, 5, 45, 45]])], categories=[dict(id=1, name='person')])))
    dataset = cfg.train_dataloader.dataset
    dataset.update(data_root=str(tmp_path), ann_file='a.json', data_prefix=dict(img=''))
    dataset.metainfo = dict(classes=('person', ))
    dataset.type = 'CocoDataset'
    assert coefficient_pipeline(dataset.pipeline)[-1]['type'] == 'FusedBlockDCT'
    stats, _ = dataset_statistics(cfg, num_workers=0)
    assert stats.meta['count'] == 200 * 267  # 800 x 1067 pixels, one block for each 4 x 4
