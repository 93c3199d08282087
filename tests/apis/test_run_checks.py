"""Data folders, classes and checkpoints that do not fit a config are refused before anything long starts."""
from collections import OrderedDict
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.models import build_classifier
from torch import nn
from torch.utils.data import DataLoader

from mmfreq.apis import runner as cli
from mmfreq.apis.checks import (
    CheckpointCheckHook,
    check_classes,
    check_data_folders,
    check_initial_weights,
    check_steps,
    check_trained_classes,
    check_trained_front_end,
    check_weights,
    model_heads,
)
from mmfreq.hosts.checkpoints import RefusedCheckpointError

CONFIGS = Path(__file__).parents[2] / 'configs'
DEMO24, RGB = 'demo/resnet18-dct24s_demo.py', 'demo/resnet18_demo.py'


def load(path: str, **options: Any) -> Config:
    cfg = Config.fromfile(str(CONFIGS / path))
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


# Data folders


def class_folders(root: Path, *splits: str) -> None:
    for split in splits:
        for name in ('cat', 'dog'):
            (root / split / name).mkdir(parents=True)
            (root / split / name / '0.jpg').touch()


@pytest.mark.parametrize(('root', 'message'), [
    ('none', r'no such file or folder: \S*none; expected \S*none/train/<class>/<image>; set its data_root'),
    ('.', r'no such file or folder: \S*/train; expected .*; \S* has data; set'),
    ('data/train', 'no such file or folder: .*/data/train/train; expected .* has cat, dog')])
def test_class_folders_missing_or_one_level_off(root: str, message: str, tmp_path: Path) -> None:
    class_folders(tmp_path / 'data', 'train', 'val')
    cfg = load(DEMO24, train_dataloader__dataset__data_root=str(tmp_path / root))
    with pytest.raises(ValueError, match=message):
        check_data_folders(cfg, ('train_dataloader', ))


def test_class_folders_one_level_too_high(tmp_path: Path) -> None:
    class_folders(tmp_path, 'train', 'val')
    cfg = load(DEMO24, train_dataloader__dataset__data_root=str(tmp_path), model__head__num_classes=2)
    check_data_folders(cfg, ('train_dataloader', ))
    cfg.train_dataloader.dataset.data_prefix = ''
    with pytest.raises(ValueError, match='has train, val instead of a folder for each class'):
        check_data_folders(cfg, ('train_dataloader', ))


def test_annotation_file_missing(tmp_path: Path) -> None:
    (tmp_path / 'train').mkdir()
    cfg = load('demo/mask-rcnn_r18-dct24s_demo.py', train_dataloader__dataset__data_root=f'{tmp_path}/')
    with pytest.raises(ValueError, match=r'folder: \S*/annotations/train.json; expected \S*train.json and images in'):
        check_data_folders(cfg, ('train_dataloader', ))


@pytest.mark.parametrize('part', ['val', 'test'])
def test_an_evaluator_of_other_annotations(part: str, tmp_path: Path) -> None:
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'val').mkdir()
    for name in ('train', 'val'):
        (tmp_path / f'annotations/{name}.json').touch()
    cfg = load('demo/mask-rcnn_r18-dct24s_demo.py', **{
        f'{part}_dataloader__dataset__data_root': f'{tmp_path}/',
        f'{part}_evaluator__ann_file': f'{tmp_path}/val/../annotations/val.json'})
    check_data_folders(cfg, (f'{part}_dataloader', ))
    cfg[f'{part}_evaluator'].ann_file = str(tmp_path / 'annotations/train.json')
    with pytest.raises(ValueError, match=f'{part}_evaluator: ann_file=.*/train.json, but {part}_dataloader reads '):
        check_data_folders(cfg, (f'{part}_dataloader', ))


def test_a_batch_that_the_images_do_not_fill() -> None:
    loader = DataLoader(range(3), batch_size=4, drop_last=True)
    runner = SimpleNamespace(model=None, train_loop=SimpleNamespace(dataloader=loader), val_loop=None)
    with pytest.raises(SystemExit, match='train_dataloader: expected a batch_size that 3 images fill .*; got 4'):
        cli._check_datasets(runner, 'train', 'val')
    check_steps('train_dataloader', DataLoader(range(3), batch_size=3, drop_last=True))


def test_data_elsewhere_are_left_to_their_backend() -> None:
    cfg = load(DEMO24, train_dataloader__dataset__data_root='s3://bucket/data')
    check_data_folders(cfg, ('train_dataloader', ))


@pytest.mark.parametrize('leave', ['nothing', 'notes.txt', 'x.webp'])
def test_a_class_without_images(leave: str, tmp_path: Path) -> None:
    class_folders(tmp_path, 'train', 'val')
    root = {f'{name}_dataloader__dataset__data_root': str(tmp_path) for name in ('train', 'val')}
    loaders = ('train_dataloader', 'val_dataloader')
    for split in ('val', 'train'):
        (tmp_path / split / 'dog/deep').mkdir()
        (tmp_path / split / 'dog/0.jpg').rename(tmp_path / split / 'dog/deep/0.JPEG')
        check_data_folders(load(DEMO24, **root, model__head__num_classes=2), loaders)
        (tmp_path / split / 'dog/deep/0.JPEG').rename(tmp_path / split / 'dog/deep' / leave)
    with pytest.raises(ValueError, match=rf'train_dataloader: no images in {tmp_path}/train/dog; expected .* \.jpg '):
        check_data_folders(load(DEMO24, **root, model__head__num_classes=2), loaders)


@pytest.mark.parametrize(('text', 'message'), [
    ('a b.jpg 0\nc.jpg 2\n', ''), ('a.jpg 0\nb.jpg 3', "line 2: expected .* 0 to 2, for num_classes=3; got 'b.jpg 3'"),
    ('a.jpg,0', "line 1: .* got 'a.jpg,0'"), ('a.jpg cat', "line 1: .* got 'a.jpg cat'"), ('0', "line 1: .* got '0'"),
    ('\ufeffa b.jpg 0', 'line 1: no such image: .*byte order mark'), ('no.jpg 0', 'line 1: no such image: .*/no.jpg$'),
    (b'\xff\xfea', 'expected text in UTF-8'), ('a.jpg -1', 'line 1: '),
    ('a.jpg 0\n\n', "line 2: .* got ''"), ('', 'expected a line for each image, found none')])
def test_lists_of_labels(text: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / 'list.txt').write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / 'a b.jpg').touch()
    cfg = load(DEMO24, model__head__num_classes=3)
    cfg.train_dataloader.dataset.update(data_root=str(tmp_path), data_prefix='', ann_file='list.txt')
    with pytest.raises(ValueError, match=f'^{tmp_path}/list.txt: {message}') if message else nullcontext():
        check_data_folders(cfg, ('train_dataloader', ))


def test_the_flat_layout_of_imagenet(tmp_path: Path) -> None:
    """Images in no folders of classes, and labels in meta/val.txt, which the data set finds itself."""
    (tmp_path / 'val').mkdir()
    (tmp_path / 'val/0.JPEG').touch()
    cfg = load('resnet/resnet50-dct24s_8xb32_in1k.py', val_dataloader__dataset__data_root=str(tmp_path))
    with pytest.raises(ValueError, match='val has no folders instead of a folder for each class'):
        check_data_folders(cfg, ('val_dataloader', ))
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta/val.txt').write_text('0.JPEG 3')
    check_data_folders(cfg, ('val_dataloader', ))


# Weights to start from


@pytest.mark.parametrize(('path', 'ways'), [
    ('mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco.py', (
        'train it: tools/train.py mmfreq::resnet/resnet50-dct24s_8xb32_in1k.py', 'init_cfg.checkpoint='
        'torchvision://resnet50 model.backbone.init_cfg.prefix=None model.backbone.frozen_stages=-1',
        'init_cfg=None model.backbone.frozen_stages=-1')),
    ('swin/mask-rcnn_swin-t-p4-w7-dct24s_fpn_1x_coco.py', (
        'swin-tiny-dct24s_16xb64_in1k.py', 'init_cfg.checkpoint=https://', 'convert_weights=True', 'init_cfg=None')),
    ('convnext/mask-rcnn_convnext-t-p4-w7-dct24s_fpn_amp-ms-crop-3x_coco.py', (
        'init_cfg.checkpoint=https://', 'init_cfg.prefix=backbone.')),
])
def test_missing_initial_weights_say_what_to_do(path: str, ways: tuple[str, ...], tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = load(path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='init_cfg: no such file: work_dirs/') as refused:
        check_initial_weights(cfg)
    for way in ways:
        assert way in str(refused.value)
    options = str(refused.value).split('--cfg-options ')[1:]
    for option in options:
        changed = load(path)
        pairs = dict(pair.split('=', 1) for pair in option.split('; or ')[0].split())
        values = {key: None if value == 'None' else value for key, value in pairs.items()}
        cli.merge_options(changed, values)
        check_initial_weights(changed)
    assert len(options) == 2


def test_initial_weights_of_another_selection(tmp_path: Path) -> None:
    cfg = load('mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco.py')
    cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'x.pth')
    text = load('resnet/resnet50-dct24s_8xb32_in1k.py').pretty_text
    for name in ('24S', '24D'):
        content = dict(state_dict=dict(x=torch.zeros(1)), meta=dict(cfg=text.replace("'24S'", f"'{name}'")))
        torch.save(content, tmp_path / 'x.pth')
        if name == '24S':
            check_initial_weights(cfg)  # other statistics, since the images are larger
    with pytest.raises(ValueError, match=r"x.pth was trained on channels '24D', but the config selects '24S'"):
        check_initial_weights(cfg)


# Classes


class Data(SimpleNamespace):  # noqa: D101
    def __len__(self) -> int:
        return 2


def dataset(*classes: str, folders: tuple[str, ...] = ()) -> Data:
    found = Data(metainfo=dict(classes=list(classes)))
    if folders:
        found.folder_to_idx = {name: i for i, name in enumerate(folders)}
    return found


def network(count: int) -> nn.Module:
    model = nn.Module()
    model.head, model.rpn_head = nn.Module(), nn.Module()
    model.head.num_classes, model.rpn_head.num_classes = count, 1
    return model


@pytest.mark.parametrize(('val', 'message'), [
    (dataset('cat', 'dog'), 'classes of val are not those of train: bird missing'),
    (dataset('bird', 'cat', 'dog', 'eel'), 'eel extra'),
    (dataset('cat', 'bird', 'dog'), 'cat, bird, dog instead of bird, cat, dog'),
    (dataset('bird', 'cat', 'dog', folders=('a', 'b', 'd')), 'class folders of val .* c missing, d extra'),
    (SimpleNamespace(metainfo={}, datasets=[dataset('bird', 'cat', 'dog'), dataset('cat')]), 'bird, dog missing'),
    (SimpleNamespace(metainfo={}, dataset=dataset('cat')), 'bird, dog missing'),
])
def test_classes_that_differ_are_named(val: Any, message: str) -> None:
    train = dataset('bird', 'cat', 'dog', folders=('a', 'b', 'c'))
    check_classes({'head': 3}, dict(train=train, val=dataset('bird', 'cat', 'dog')))
    with pytest.raises(ValueError, match=message):
        check_classes({'head': 3}, dict(train=train, val=val))


def test_as_many_logits_as_classes() -> None:
    assert model_heads(network(1000)) == {'head': 1000}
    with pytest.raises(ValueError, match='head: num_classes=1000, but train has 2 classes: cat, dog; set num_classes'):
        check_classes({'head': 1000}, dict(train=dataset('cat', 'dog')))


def test_panoptic_heads_count_things_alone() -> None:
    model = network(80)
    model.panoptic_fusion_head = nn.Module()
    model.panoptic_fusion_head.num_classes = 133
    assert model_heads(model) == {}


@pytest.mark.parametrize('built', [True, False])
def test_a_runner_that_builds_its_model_later(built: bool) -> None:
    """FlexibleRunner has the config of a model; its classes are known when it trains."""
    loop = SimpleNamespace(dataloader=DataLoader(dataset('cat', 'dog')))
    runner = SimpleNamespace(model=network(3) if built else dict(type='X'), train_loop=loop, val_loop=None)
    with pytest.raises(SystemExit, match='num_classes=3, but') if built else nullcontext():
        cli._check_datasets(runner, 'train', 'val')


def test_class_folders_are_compared_before_anything_is_built(tmp_path: Path) -> None:
    class_folders(tmp_path, 'train', 'val')
    root = {f'{name}_dataloader__dataset__data_root': str(tmp_path) for name in ('train', 'val')}
    loaders = ('train_dataloader', 'val_dataloader')
    with pytest.raises(ValueError, match='num_classes=12, but train_dataloader has 2 class folders: cat, dog'):
        check_data_folders(load(DEMO24, **root), loaders)
    check_data_folders(load(DEMO24, **root, model__head__num_classes=2), loaders)
    (tmp_path / 'val' / 'eel').mkdir()
    (tmp_path / 'val' / 'eel' / '0.jpg').touch()
    for classes, message in ((2, 'eel extra'), (3, 'eel missing')):
        with pytest.raises(ValueError, match=f'class folders of val_dataloader .* train_dataloader: {message}'):
            check_data_folders(load(DEMO24, **root, model__head__num_classes=classes), loaders)
        (tmp_path / 'val/eel').rename(tmp_path / 'train/eel') if classes == 2 else None


def test_classes_of_the_checkpoint() -> None:
    meta = dict(dataset_meta=dict(classes=('cat', 'dog')))
    check_trained_classes(meta, dataset('cat', 'dog'))
    check_trained_classes({}, dataset('cat', 'dog'))
    with pytest.raises(RefusedCheckpointError, match='dog missing, eel extra'):
        check_trained_classes(meta, dataset('cat', 'eel'))


# Checkpoints


def build(path: str, **options: Any) -> nn.Module:
    init_default_scope('mmpretrain')
    cfg = load(path, **options)
    return build_classifier(cfg.model)


def test_checkpoints_of_another_network() -> None:
    dct, rgb = build(DEMO24), build(RGB)
    check_weights(dct, dict(state_dict=dct.state_dict()))
    check_weights(rgb, dict(state_dict={f'module.{key}': value for key, value in rgb.state_dict().items()}))
    with pytest.raises(RefusedCheckpointError, match='missing backbone.conv1.*unexpected backbone.layer1.0.do'):
        check_weights(rgb, dict(state_dict=rgb_without_first_block(dct)))
    with pytest.raises(RefusedCheckpointError, match='stock RGB weights, which FreqResNet takes for training only'):
        check_weights(dct, dict(state_dict=rgb.state_dict()))
    with pytest.raises(RefusedCheckpointError, match='size mismatch for backbone.layer1.0.conv1.weight'):
        check_weights(rgb, dict(state_dict=dct.state_dict()))
    with pytest.raises(RefusedCheckpointError, match='in_channels=24'):
        check_weights(dct, dict(state_dict=build(DEMO24, model__backbone__in_channels=48).state_dict()))
    with pytest.raises(RefusedCheckpointError, match='size mismatch for head.fc.weight'):
        check_weights(dct, dict(state_dict=build(DEMO24, model__head__num_classes=3).state_dict()))


def rgb_without_first_block(model: nn.Module) -> OrderedDict:
    state = OrderedDict(model.state_dict())
    del state['backbone.layer1.0.conv1.weight']
    return state


def test_what_a_head_lacks_is_missing_and_more_is_allowed() -> None:
    model = build(DEMO24)
    state = OrderedDict(model.state_dict())
    check_weights(model, dict(state_dict={**state, 'neck.other': torch.zeros(1)}))
    del state['head.fc.bias']
    with pytest.raises(RefusedCheckpointError, match=r'missing head.fc.bias; unexpected none'):
        check_weights(model, state)


@pytest.mark.parametrize('name', ['head.fc.bias', 'backbone.layer1.0.bn1.running_var'])
def test_weights_of_a_training_that_diverged(name: str) -> None:
    model = build(DEMO24)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state[name][1] = float('nan')
    with pytest.raises(RefusedCheckpointError, match=rf'^1 of \d+ weights are no finite numbers, .* diverged: {name}$'):
        check_weights(model, state)


def test_what_the_checkpoint_was_trained_on() -> None:
    cfg = load(DEMO24)
    check_trained_front_end(cfg, dict(cfg=cfg.pretty_text))
    check_trained_front_end(cfg, {})
    check_trained_front_end(cfg, dict(cfg='import os'))  # not run, only logged
    for old, new, message in (
            ("'24S'", "'24D'", "channels: the training of the checkpoint has '24D', but .* has '24S'"),
            ('photos-448', 'photos-1333x800', 'statistics: the training of .*1333x800.*photos-448'),
            ("'24S'", "'24S', upscale=2", 'upscale: the training of the checkpoint has 2, but .* has 1')):
        assert old in cfg.pretty_text
        with pytest.raises(RefusedCheckpointError, match=message):
            check_trained_front_end(cfg, dict(cfg=cfg.pretty_text.replace(old, new)))


def test_fine_tuning_counts_what_fits() -> None:
    model, lines = build(DEMO24), []
    runner = SimpleNamespace(model=model, cfg=load(DEMO24),
                             logger=SimpleNamespace(info=lines.append, warning=lines.append))
    loaded = dict(state_dict=build(RGB).state_dict(), meta=dict(cfg=load(RGB).pretty_text))
    CheckpointCheckHook(partial=True).after_load_checkpoint(runner, loaded)
    assert lines[1].startswith("load_from: channels: the training of the checkpoint has none, but test_dataloader has ")
    total = len(model.state_dict())
    fitting = int(lines[0].split()[1])
    assert lines[0] == f'load_from: {fitting} of {total} tensors of the model are in the checkpoint with their shape'
    assert 0 < total - fitting < 10  # the shortcut of the first block, and its first convolution


@pytest.mark.parametrize(('change', 'message'), [(dict(lr='abc'), 'TypeError: .*str'), (dict(type='Foo'), 'TypeError')])
def test_optimizers_that_cannot_be_built(change: dict, message: str, tmp_path: Path) -> None:
    cfg = load(DEMO24, work_dir=str(tmp_path))
    cfg.optim_wrapper.optimizer.update(change)
    runner = cli.build_runner(cfg)
    with pytest.raises(SystemExit, match=f'^config: optim_wrapper: {message}'):
        cli._build_optimizer(runner)


def test_work_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit, match=f'^config: .*File exists: .*{tmp_path}/file'):
        cli.build_runner(load(DEMO24, work_dir=str(tmp_path / 'file')))


# Flags


def test_show_without_a_display(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv('DISPLAY', raising=False)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    monkeypatch.setattr(cli.sys, 'platform', 'linux')
    (tmp_path / 'x.pth').touch()
    args = SimpleNamespace(config=str(CONFIGS / DEMO24), checkpoint=str(tmp_path / 'x.pth'), cfg_options=None,
                           show=True, show_dir=None, work_dir=None, amp=False, launcher='none', local_rank=0)
    with pytest.raises(SystemExit, match='--show: there is no display; --show-dir DIR saves'):
        cli.test_config(args)
