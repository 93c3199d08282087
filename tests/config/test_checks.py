"""Configs that would train or evaluate on a wrong input are refused, and both values are named."""
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Callable

import pytest
from mmengine.config import Config
from shipped import LOADERS, shipped

from mmfreq.apis.runs import read_config
from mmfreq.config.checks import check_config
from mmfreq.config.pipelines import input_specs, iter_dicts, transform_type
from mmfreq.dct.stats import load_stats
from mmfreq.errors import RefusedError
from mmfreq.input_spec import DCT_ARGUMENTS, InputSpec

CLS, INT8 = 'resnet/resnet50-dct24s_8xb32_in1k.py', 'resnet/resnet50-dct24s-int8_8xb32_in1k.py'
DEVICE, YCBCR = 'resnet/resnet50-dct24s-device_8xb32_in1k.py', 'resnet/resnet50-ycbcr_8xb32_in1k.py'
DET = 'demo/mask-rcnn_r18-dct24s_demo.py'


def load(path: str = CLS, **options: Any) -> Config:
    return shipped(path, **options)


def freq_of(cfg: Config, loader: str) -> dict:
    return next(step for step in iter_dicts(cfg[loader]) if transform_type(step) == 'FusedBlockDCT')


def use_single_transforms(cfg: Config) -> None:
    """Replace the fused transform of every pipeline."""
    for loader in LOADERS:
        steps, freq = cfg[loader].dataset.pipeline, freq_of(cfg, loader)
        singles = [dict(type=kind, **{name: freq[name] for name in names if name in freq})
                   for kind, names in DCT_ARGUMENTS.items()]
        cfg[loader].dataset.pipeline = [*steps[:-2], *singles, steps[-1]]


def refuses(cfg: Config, words: str) -> None:
    with pytest.raises(RefusedError, match=words) as refused:
        check_config(cfg)
    assert '\n' not in str(refused.value)


# What the pipelines feed the network


@pytest.mark.parametrize(('change', 'words'), [
    (dict(channels=[list(range(22)), [0], [0]]), r'channels: val_dataloader has \[0, 1, .* has 24S'),
    (dict(stats='photos-1333x800'), 'mean: val_dataloader'),
    (dict(upscale=2), 'upscale: val_dataloader has 2, but train_dataloader has 1'),
    (dict(channel_order='rgb'), 'colors: val_dataloader has ycbcr-from-rgb'),
    (dict(dtype='int8', scale=6), r'val_dataloader: .*mean=\[0\], std=\[6\].* got mean=None'),
    (dict(stats='nothing'), "val_dataloader: stats: .*'nothing'"),
    (dict(channels='25S'), "val_dataloader: channels: .*'25S'")])
def test_pipelines_that_differ(change: dict, words: str) -> None:
    cfg = load()
    check_config(cfg)
    freq_of(cfg, 'val_dataloader').update(change)
    refuses(cfg, words)


def test_the_pipeline_of_test_time_augmentation_counts() -> None:
    steps = load().test_pipeline
    steps[3].stats = 'photos-1333x800'
    refuses(load(tta_pipeline=[dict(type='TestTimeAug', transforms=[[step] for step in steps])]),
            'mean: tta_pipeline')


@pytest.mark.parametrize('hook', [
    lambda steps: dict(type='mmdet.PipelineSwitchHook', switch_epoch=280, switch_pipeline=steps),
    lambda steps: dict(type='SwitchRecipeHook', schedule=[dict(action_epoch=5, train_pipeline=steps)])])
def test_the_pipeline_that_a_hook_switches_to_counts(hook: Callable[[list], dict]) -> None:
    check_config(load(custom_hooks=[hook(load().train_pipeline)]))
    steps = load().train_pipeline
    steps[-2].channels = '24T'
    for hooks in (dict(custom_hooks=[hook(steps)]), dict(default_hooks__switch=hook(steps))):
        refuses(load(**hooks), 'channels: .*Hook has 24T, but train_dataloader has 24S')
    steps = load().train_pipeline
    steps.insert(-1, dict(type='RandomFlip'))
    refuses(load(custom_hooks=[hook(steps)]), 'Hook: RandomFlip comes after FusedBlockDCT')


def branches(kind: str, first: list, second: list) -> dict:
    """Return a transform with two branches, as mmengine reads it from a host's config."""
    if kind == 'RandomChoice':
        return dict(type=kind, transforms=[first, second])
    return dict(type=kind, branch_field=['sup', 'unsup', 'other'], sup=first, unsup=second, _scope_='mmdet')


@pytest.mark.parametrize('kind', ['MultiBranch', 'RandomChoice'])
def test_each_branch_of_a_pipeline_counts(kind: str) -> None:
    cfg, other = load(), load()
    image, *steps = cfg.train_dataloader.dataset.pipeline
    freq_of(other, 'train_dataloader').channels = '24T'
    changed = other.train_dataloader.dataset.pipeline[1:]
    flipped = [*steps[:-1], dict(type='RandomFlip'), steps[-1]]
    for second, words in ((steps, ''), (changed, 'channels: train_dataloader has 24T, but another pipeline .* 24S'),
                          (steps[:-2], 'channels: train_dataloader has none, but another pipeline'),
                          (flipped, 'train_dataloader: RandomFlip comes after FusedBlockDCT')):
        cfg.train_dataloader.dataset.pipeline = [image, branches(kind, steps, second)]
        refuses(cfg, words) if words else check_config(cfg)
    cfg.train_dataloader.dataset.pipeline = [image, *steps[:-1], branches(kind, steps[-1], steps[-1])]
    check_config(cfg)  # a branch of one transform
    cfg.train_dataloader.dataset.pipeline[-1] = branches(kind, [dict(type='RandomFlip'), steps[-1]], steps[-1])
    refuses(cfg, 'train_dataloader: RandomFlip comes after FusedBlockDCT')


def test_the_steps_of_a_wrapper_follow_those_of_its_data_set() -> None:
    cfg = load()
    inner, (*steps, pack) = cfg.train_dataloader.dataset, cfg.train_dataloader.dataset.pipeline
    inner.pipeline = steps
    cfg.train_dataloader.dataset = dict(type='MultiImageMixDataset', dataset=inner, pipeline=[pack])
    check_config(cfg)
    cfg.train_dataloader.dataset.pipeline = [dict(type='RandomFlip'), pack]
    refuses(cfg, 'train_dataloader: RandomFlip comes after FusedBlockDCT')


def test_statistics_count_by_value(tmp_path: Path) -> None:
    stats = load_stats('photos-448')
    (tmp_path / 'same.json').write_text(json.dumps(dict(mean=stats.mean.tolist(), std=stats.std.tolist())))
    cfg = load()
    freq_of(cfg, 'val_dataloader').stats = str(tmp_path / 'same.json')
    check_config(cfg)


@pytest.mark.parametrize(('path', 'change', 'words'), [
    (CLS, dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]), r'mean=None, .*got mean=\[123'),
    (CLS, dict(mean=[0], std=[6]), r'mean=None, std=None, .* got mean=\[0\], std=\[6\]'),
    (DEVICE, dict(mean=[0], std=[6]), 'mean=None, std=None, '),
    (INT8, dict(std=[5]), r'std=\[6\], .* got mean=\[0\], std=\[5\]'),
    (INT8, dict(mean=None, std=None), r'std=\[6\], .* got mean=None, std=None')])
def test_preprocessors_that_do_not_fit(path: str, change: dict, words: str) -> None:
    cfg = load(path)
    cfg.data_preprocessor.update(change)
    refuses(cfg, f'data_preprocessor.*{words}')


def test_three_channels_are_no_colours() -> None:
    cfg = load(data_preprocessor__to_rgb=True)
    check_config(cfg)  # mmpretrain converts three channels alone
    for loader in LOADERS:
        freq_of(cfg, loader).channels = [[0], [0], [0]]
    refuses(cfg, 'data_preprocessor: expected no conversion of colours')


def test_segmentors_take_whole_images_through_their_preprocessor() -> None:
    freq = dict(type='FusedBlockDCT', channels='24N', stats='imagenette-224-4x4', block_size=4)
    model = dict(type='EncoderDecoder', data_preprocessor=dict(type='FreqSegDataPreProcessor'),
                 backbone=dict(type='UnpackedResNetV1c', freq=freq, pixels=dict(std=[58])), test_cfg=dict(mode='whole'))
    cfg = Config(dict(default_scope='mmseg', model=model, test_dataloader=dict(dataset=dict(pipeline=[freq]))))
    check_config(cfg)
    cfg.model.test_cfg = dict(mode='slide', crop_size=(512, 512), stride=(341, 341))
    refuses(cfg, "expected 'whole'")
    cfg.model.data_preprocessor.type = 'SegDataPreProcessor'
    refuses(cfg, "type='FreqSegDataPreProcessor'")


def test_a_normalisation_by_the_preprocessor_counts() -> None:
    cfg = load()
    use_single_transforms(cfg)
    for loader in LOADERS:
        del cfg[loader].dataset.pipeline[-2]
    stats = load_stats('photos-448')
    channels = list(InputSpec.of(dict(channels='24S')).channels)
    cfg.data_preprocessor.update(mean=stats.mean[channels].tolist(), std=stats.std[channels].tolist())
    assert input_specs(cfg)['val_dataloader'] == input_specs(load())['val_dataloader']


def test_pixels_in_another_colour_space_are_another_input() -> None:
    cfg = load(YCBCR)
    check_config(cfg)
    del cfg.val_dataloader.dataset.pipeline[-2]
    refuses(cfg, 'colors: val_dataloader has bgr, but train_dataloader has ycbcr')


@pytest.mark.parametrize(('change', 'words'), [
    ({}, ''), (dict(keep=['48N']), 'expected channels of its input, .*24N.*, got 48N'),
    (dict(block_size=8), 'ChannelDrop has block_size=8, but the DCT has 4'), (dict(keep=['none']), "'none'")])
def test_the_documented_elastic_config(change: dict, words: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    blocks = (root / 'docs/channel_selection.md').read_text().split('```python\n')
    text, = (text for text in (block.split('```')[0] for block in blocks) if 'ChannelDrop' in text)
    base = str(root / 'configs/resnet/resnet50-dct24n_8xb32_in1k.py')
    (tmp_path / 'resnet50-dct24n.py').write_text(f'_base_ = {base!r}\n')
    (tmp_path / 'elastic.py').write_text(text)
    cfg = read_config(str(tmp_path / 'elastic.py'))
    steps = cfg.train_dataloader.dataset.pipeline
    assert list(map(transform_type, steps[-3:])) == ['FusedBlockDCT', 'ChannelDrop', 'PackInputs']
    steps[-2].update(change)
    refuses(cfg, words) if words else check_config(cfg)
    steps[-3:-1] = steps[-2:-4:-1]  # before the DCT
    refuses(cfg, 'train_dataloader: expected normalised DCT channels')


# Transforms and augmentations for pixels


@pytest.mark.parametrize('step', ['RandomFlip', 'Resize', 'PhotoMetricDistortion', 'mmpretrain.RandAugment'])
@pytest.mark.parametrize('path', [CLS, DET])
def test_transforms_of_pixels_behind_the_dct(step: str, path: str) -> None:
    cfg = load(path)
    cfg.train_dataloader.dataset.pipeline.insert(-1, dict(type=step))
    refuses(cfg, f'train_dataloader: {step.split(".")[-1]} comes after FusedBlockDCT')


def test_transforms_of_pixels_inside_others_behind_the_dct() -> None:
    cfg = load()
    cfg.train_dataloader.dataset.pipeline.insert(-1, dict(type='RandomApply', transforms=[dict(type='RandomFlip')]))
    refuses(cfg, 'RandomFlip comes after FusedBlockDCT')


def test_annotations_may_follow_the_dct() -> None:
    cfg = load(DET)
    cfg.train_dataloader.dataset.pipeline[-1:-1] = [
        dict(type='LoadAnnotations', with_bbox=True), dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1))]
    check_config(cfg)


@pytest.mark.parametrize(('augment', 'refused'), [('ResizeMix', True), ('CutMix', False)])
def test_batch_augments_that_resize(augment: str, refused: bool) -> None:
    cfg = load(model__train_cfg=dict(augments=[dict(type=augment)]))
    with pytest.raises(RefusedError, match='ResizeMix') if refused else nullcontext():
        check_config(cfg)


# Evaluators, and variables


def test_an_evaluator_of_other_annotations() -> None:
    cfg = load(DET)
    check_config(cfg)
    cfg.val_evaluator.ann_file = cfg.val_evaluator.ann_file.replace('val.json', 'train.json')
    refuses(cfg, 'val_evaluator: ann_file is .*train.json, but val_dataloader reads .*val.json')


def test_a_second_evaluator_of_panoptic_segmentation_reads_another_file() -> None:
    cfg = Config.fromfile(str(shipped_host('mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py')))
    check_config(cfg)


def shipped_host(name: str) -> Path:
    import mmdet
    return Path(mmdet.__file__).parent / '.mim/configs' / name


def test_variables_of_the_user_are_not_judged() -> None:
    cfg = load()
    cfg.merge_from_dict(dict(val_evaluators=[cfg.val_evaluator], work_dirs='out', freqs=3))
    check_config(cfg)


@pytest.mark.parametrize('key', ['freq.0.channels', 'train_pipeline.1.scale'])
def test_an_option_for_a_variable_that_was_copied(key: str, tmp_path: Path) -> None:
    (tmp_path / 'own.py').write_text("_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'\n")
    with pytest.raises(RefusedError, match=f'{key}.* train_dataloader.dataset.pipeline'):
        read_config(str(tmp_path / 'own.py'), {key: 1})
    cfg = read_config(str(tmp_path / 'own.py'), {'train_dataloader.dataset.pipeline.1.scale': 64, 'mine': 2})
    assert (cfg.train_dataloader.dataset.pipeline[1].scale, cfg.mine) == (64, 2)
