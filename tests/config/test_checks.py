"""Configs whose pipelines, preprocessor and options do not fit are refused in one line that names both values."""
import json
from contextlib import nullcontext
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config

from mmfreq.config.checks import check_config, front_ends, literal_config, merge_options
from mmfreq.config.pipelines import iter_dicts, transform_type, unfused
from mmfreq.dct.stats import load_stats

CONFIGS = Path(__file__).parents[2] / 'configs'
CLS, INT8 = 'resnet/resnet50-dct24s_8xb32_in1k.py', 'resnet/resnet50-dct24s-int8_8xb32_in1k.py'
DEVICE, YCBCR = 'resnet/resnet50-dct24s-device_8xb32_in1k.py', 'resnet/resnet50-ycbcr_8xb32_in1k.py'
DEMO, DET = 'demo/resnet18-dct24s_demo.py', 'demo/mask-rcnn_r18-dct24s_demo.py'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


@cache
def _cached(path: str) -> Config:
    return Config.fromfile(str(CONFIGS / path))


def load(path: str = CLS, **options: Any) -> Config:
    cfg = deepcopy(_cached(path))
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


def freq_of(cfg: Config, loader: str) -> dict:
    return next(step for step in iter_dicts(cfg[loader]) if transform_type(step) == 'FusedBlockDCT')


def only_network(cfg: Config) -> Any:
    """What the network gets, without the words for it; the same in every pipeline."""
    found = [front for _, front in front_ends(cfg)]
    assert all(front == found[0] for front in found)
    return found[0]


# What the network gets


@pytest.mark.parametrize(('change', 'message'), [
    (dict(channels=[list(range(22)), [0], [0]]),
     r"channels: train_dataloader has '24S', but val_dataloader has \[\[0, 1, .*expected the same"),
    (dict(stats='photos-1333x800'),
     "statistics: train_dataloader has stats='photos-448', but val_dataloader has stats='photos-1333x800'"),
    (dict(upscale=2), 'upscale: train_dataloader has 1, but val_dataloader has 2'),
    (dict(channel_order='rgb'), 'colours: .*YCbCr of bgr, but val_dataloader has YCbCr of rgb'),
    (dict(dtype='int8', scale=6), r"mean=\[0\], std=\[6\], which undo dtype='int8', scale=6 .* got mean=None"),
    (dict(stats='nothing'), "val_dataloader: stats: expected one of .*got 'nothing'"),
    (dict(channels='25S'), "channels: expected one of .*got '25S'"),
])
def test_pipelines_that_differ_are_refused(change: dict, message: str) -> None:
    cfg = load()
    check_config(cfg)
    freq_of(cfg, 'val_dataloader').update(change)
    with pytest.raises(ValueError, match=message) as refused:
        check_config(cfg)
    assert '\n' not in str(refused.value)


def test_block_size_counts() -> None:
    indices, stats = list(range(48)), dict(mean=[0.] * 48, std=[1.] * 48)
    cfg = load(model__backbone__in_channels=48)
    for loader in LOADERS:
        freq_of(cfg, loader).update(channels=indices, stats=stats, block_size=4)
    check_config(cfg)
    freq_of(cfg, 'test_dataloader').update(block_size=8, stats='photos-448')
    with pytest.raises(ValueError, match='statistics|block_size: train_dataloader has 4'):
        check_config(cfg)


def test_the_pipeline_of_test_time_augmentation_counts() -> None:
    steps = load().test_pipeline
    steps[3].stats = 'photos-1333x800'
    cfg = load(tta_pipeline=[dict(type='TestTimeAug', transforms=[[step] for step in steps])])
    with pytest.raises(ValueError, match='statistics: train_dataloader .* tta_pipeline has .*1333x800'):
        check_config(cfg)


def test_statistics_count_by_value(tmp_path: Path) -> None:
    stats = load_stats('photos-448')
    (tmp_path / 'same.json').write_text(json.dumps(dict(mean=stats.mean.tolist(), std=stats.std.tolist())))
    cfg = load()
    freq_of(cfg, 'val_dataloader').stats = str(tmp_path / 'same.json')
    check_config(cfg)


def test_what_commutes_is_the_same() -> None:
    """int8 and its undoing, single transforms, and the DCT on the device, against FusedBlockDCT in float32."""
    single = load()
    for loader in LOADERS:
        single[loader].dataset.pipeline = unfused(single[loader].dataset.pipeline)
    expected = only_network(load())
    for cfg in (single, load(INT8), load(DEVICE)):
        check_config(cfg)
        assert only_network(cfg) == expected
    stats = load_stats('photos-448')
    np.testing.assert_allclose(expected.statistics[0], stats.mean[list(expected.channels)], rtol=1e-5)
    np.testing.assert_allclose(expected.statistics[1], stats.std[list(expected.channels)], rtol=1e-5)


@pytest.mark.parametrize(('path', 'change', 'message'), [
    (CLS, dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]), '24 channels of the pipeline, got mean'),
    (CLS, dict(mean=[0], std=[6]), r'expected mean=None, std=None, .* got mean=\[0\], std=\[6\]'),
    (CLS, dict(to_rgb=True), 'to_rgb: expected False, since the pipeline gives 24 DCT channels'),
    (INT8, dict(std=[5]), r'expected mean=\[0\], std=\[6\], .* got mean=\[0\], std=\[5\]'),
    (INT8, dict(mean=None, std=None), r'expected mean=\[0\], std=\[6\], .* got mean=None, std=None'),
])
def test_preprocessors_that_do_not_fit(path: str, change: dict, message: str) -> None:
    cfg = load(path)
    cfg.data_preprocessor.update(change)
    with pytest.raises(ValueError, match=f'data_preprocessor.*{message}'):
        check_config(cfg)


@pytest.mark.parametrize(('loop', 'scheduler', 'message'), [
    (dict(max_epochs=0), {}, 'train_cfg.max_epochs: expected an integer >= 1, got 0'),
    (dict(val_interval=-1), {}, 'train_cfg.val_interval: expected an integer >= 1, got -1'),
    (dict(max_epochs=10), dict(type='OneCycleLR', total_steps=6), 'OneCycleLR has total_steps=6, but .*max_epochs=10;'),
    (dict(max_epochs=10), dict(type='CosineAnnealingLR', begin=20), 'begins at 20 and ends at 10, which is train_cfg'),
    ({}, dict(type='OneCycleLR', T_max=6), 'OneCycleLR takes no T_max; expected .*total_steps'),
    ({}, dict(type='StepLR', stepsize=6), 'StepLR takes no stepsize; expected step_size'),
    ({}, dict(type='LinearLR', by_epoch=False, begin=5, end=5), 'LinearLR begins at 5 and ends at 5; expected')])
def test_schedules_that_do_not_fit_the_training(loop: dict, scheduler: dict, message: str) -> None:
    cfg = load()
    check_config(cfg)
    cfg.train_cfg.update(loop)
    if scheduler:
        cfg.param_scheduler = [scheduler]
    with pytest.raises(ValueError, match=message):
        check_config(cfg)


@pytest.mark.parametrize('normalize', [True, False])
def test_an_rgb_mean_on_three_dct_channels(normalize: bool) -> None:
    cfg = load(model__backbone__in_channels=3)
    for loader in LOADERS:
        steps = unfused(cfg[loader].dataset.pipeline)
        steps[-3]['channels'] = [[0], [0], [0]]
        cfg[loader].dataset.pipeline = steps if normalize else [*steps[:-2], steps[-1]]
    check_config(cfg)
    cfg.data_preprocessor.update(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    with pytest.raises(ValueError, match='expected no mean of RGB pixels for DCT channels'):
        check_config(cfg)


def test_pixels_in_another_colour_space_are_another_input() -> None:
    cfg = load(YCBCR)
    check_config(cfg)
    del cfg.val_dataloader.dataset.pipeline[-2]
    with pytest.raises(ValueError, match="colours: .* YCbCr of bgr, but val_dataloader has BGR"):
        check_config(cfg)


@pytest.mark.parametrize('step', ['RandomFlip', 'RandomResizedCrop', 'Resize', 'Pad', 'CenterCrop', 'ColorJitter',
                                  'PhotoMetricDistortion', 'RandomErasing', 'mmpretrain.RandAugment'])
@pytest.mark.parametrize('path', [CLS, DET])
def test_transforms_of_pixels_behind_the_dct(step: str, path: str) -> None:
    cfg = load(path)
    cfg.train_dataloader.dataset.pipeline.insert(-1, dict(type=step))
    with pytest.raises(ValueError, match=f'train_dataloader: {step.split(".")[-1]} comes behind FusedBlockDCT'):
        check_config(cfg)


@pytest.mark.parametrize(('choices', 'refused'), [
    ([['fused'], ['RandomFlip', 'fused']], ''),  # the second is an alternative to the first
    ([['fused', 'RandomFlip'], ['fused']], 'RandomFlip comes behind FusedBlockDCT'),
    ([['fused'], ['fused'], 'Pad'], 'Pad comes behind FusedBlockDCT'),
])
def test_alternatives_follow_what_is_before_all_of_them(choices: list, refused: str) -> None:
    cfg = load()
    steps = cfg.train_dataloader.dataset.pipeline
    fused, after = steps.pop(-2), [dict(type=name) for name in choices if isinstance(name, str)]
    known = {'fused': fused, 'RandomFlip': dict(type='RandomFlip')}
    branches = [[known[name] for name in branch] for branch in choices if isinstance(branch, list)]
    steps[-1:-1] = [dict(type='RandomChoice', transforms=branches), *after]
    with pytest.raises(ValueError, match=refused) if refused else nullcontext():
        check_config(cfg)


@pytest.mark.parametrize(('augment', 'refused'), [('ResizeMix', True), ('CutMix', False)])
def test_batch_augments_that_resize(augment: str, refused: bool) -> None:
    cfg = load(model__train_cfg=dict(augments=[dict(type=augment)]))
    with pytest.raises(ValueError, match='ResizeMix resizes pixels') if refused else nullcontext():
        check_config(cfg)


def test_what_leaves_img_alone_may_follow_the_dct() -> None:
    cfg = load(DET)
    cfg.train_dataloader.dataset.pipeline[-1:-1] = [dict(type='LoadAnnotations', with_bbox=True),
                                                    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1))]
    check_config(cfg)


# What nothing reads


@pytest.mark.parametrize(('loop', 'key', 'near'), [
    ('train_cfg', 'max_epoch', 'max_epochs'), ('train_cfg', 'val_intervals', 'val_interval'),
    ('val_cfg', 'fp61', 'fp16')])
def test_misspelt_keys_of_loops_in_a_file(loop: str, key: str, near: str) -> None:
    cfg = load()
    cfg[loop][key] = 1
    with pytest.raises(ValueError, match=rf'nothing reads {loop}.{key}; did you mean {near}\?'):
        check_config(cfg)


@pytest.mark.parametrize(('key', 'near'), [('optim_wraper', 'optim_wrapper'), ('custom_hook', 'custom_hooks'),
                                           ('load_form', 'load_from')])
def test_misspelt_keys_at_the_top_of_a_file(key: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"nothing reads the key '{key}'; did you mean '{near}'"):
        check_config(load(**{key: dict()}))


def test_more_top_k_than_classes() -> None:
    with pytest.raises(ValueError, match=r'val_evaluator: topk=\(1, 5\) .*num_classes=3; set val_evaluator.topk=1'):
        check_config(load(model__head__num_classes=3))


def test_a_config_without_a_model() -> None:
    with pytest.raises(ValueError, match='the config has no model'):
        check_config(Config(dict(train_cfg=dict(max_epochs=1))))


# Options


@pytest.mark.parametrize(('key', 'message'), [
    ('optim_wraper.optimizer.lr', "no key 'optim_wraper'; did you mean 'optim_wrapper'"),
    ('max_epochs', "no key 'max_epochs'; did you mean 'train_cfg.max_epochs'"),
    ('train_cfg.max_epoch', "no key 'max_epoch' there; did you mean 'max_epochs'"),
    ('model.backbone.frozen_stage', "did you mean 'frozen_stages'"),
    ('default_hooks.checkpoint.max_keep_ckpt', "did you mean 'max_keep_ckpts'"),
    ('train_dataloader.dataset.data_rot', "did you mean 'data_root'"),
    ('data_root', 'nothing reads it any more, .*override train_dataloader.dataset.data_root, val_data'),
    ('qqq', "the config has no key 'qqq'"),
])
def test_options_that_reach_nothing(key: str, message: str) -> None:
    cfg = load(DET)
    with pytest.raises(ValueError, match=message):
        merge_options(cfg, {key: 1})


def test_an_option_that_only_the_data_sets_have() -> None:
    with pytest.raises(ValueError, match="did you mean 'train_dataloader.dataset.data_root' and 'val"):
        merge_options(load(), {'data_root': 1})


@pytest.mark.parametrize('key', [
    'model.backbone.frozen_stages', 'default_hooks.checkpoint.max_keep_ckpts', 'optim_wrapper.clip_grad.max_norm',
    'train_dataloader.sampler.seed', 'custom_hooks', 'model_wrapper_cfg.type', 'train_dataloader.dataset.pipeline.1.p',
    'optim_wrapper.accumulative_counts', 'auto_scale_lr.enable'])
def test_new_keys_where_they_are_arguments(key: str) -> None:
    cfg = load(DET)
    merge_options(cfg, {key: 1})
    node = cfg
    for part in key.split('.'):
        node = node[int(part)] if part.isdigit() else node.get(part)
    assert node == 1


@pytest.mark.parametrize('path', [CLS, DEVICE, DET, INT8])
def test_overriding_freq_reaches_every_pipeline(path: str) -> None:
    cfg = load(path)
    cfg.tta_pipeline = [dict(type='TestTimeAug', transforms=[[step] for step in cfg.test_pipeline])]
    merge_options(cfg, {'freq.0.channels': 192, 'freq.0.stats': 'photos-448', 'model.backbone.in_channels': 192})
    check_config(cfg)
    assert len(only_network(cfg).channels) == 192
    assert len(front_ends(cfg)) == 4
    assert transform_type(cfg.freq[0]) == 'FusedBlockDCT'


def test_an_unknown_selection_for_freq_is_refused() -> None:
    cfg = load(DEMO)
    merge_options(cfg, {'freq.0.channels': '25S'})
    with pytest.raises(ValueError, match="got '25S'"):
        check_config(cfg)


def test_overriding_a_pipeline_reaches_its_data_sets_alone() -> None:
    cfg = load(DEMO)
    merge_options(cfg, {'train_pipeline.1.scale': 64, 'train_pipeline.0.color_type': 'unchanged'})
    assert cfg.train_dataloader.dataset.pipeline[1].scale == 64
    assert 'color_type' not in cfg.val_dataloader.dataset.pipeline[0]


def test_a_variable_without_copies_is_refused() -> None:
    cfg = load(DEMO)
    cfg.test_pipeline.append(dict(type='Nothing'))
    with pytest.raises(ValueError, match='test_pipeline: the config has no copy of it'):
        merge_options(cfg, {'test_pipeline.0.color_type': 'unchanged'})


def test_values_that_a_hook_of_the_user_reads(tmp_path: Path) -> None:
    """They are copied nowhere, whatever else has the same value; a dumped config does not tell."""
    file = tmp_path / 'own.py'
    file.write_text(f"_base_ = '{CONFIGS / DEMO}'\nfactor = 1  # factor\nlevels = dict(a=[1])\nlast = 37\n"
                    'train_cfg = dict(max_epochs=last)\n')
    cfg = Config.fromfile(str(file))
    merge_options(cfg, {'factor': 2, 'levels.a': [2]})
    assert (cfg.factor, cfg.levels) == (2, dict(a=[2]))
    for key in ('last', 'factr', 'levls.a'):
        with pytest.raises(ValueError, match=f'^{key}: '):
            merge_options(deepcopy(cfg), {key: 2})
    cfg.dump(str(file))
    with pytest.raises(ValueError, match='last: nothing reads it any more.* override .*train_cfg.max_epochs'):
        merge_options(Config.fromfile(str(file)), {'last': 2})


# Configs in checkpoints


@pytest.mark.parametrize('path', [CLS, INT8, DET])
def test_a_dumped_config_is_read_back(path: str) -> None:
    cfg = load(path)
    assert literal_config(cfg.pretty_text) == cfg._cfg_dict.to_dict()


@pytest.mark.parametrize('text', ['a = __import__("os").getcwd()', 'import os', 'a = open("x", "w")', 'a = dict', 'a =',
                                  'a.b = 1', 'f"{print()}"', 'a = [i for i in (1, 2)]', 'a = dict(x=print())',
                                  'a = ' + '[' * 9999])
def test_a_text_with_code_is_not_run(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='not a dumped config'):
        literal_config(text)
    assert not list(tmp_path.iterdir())
