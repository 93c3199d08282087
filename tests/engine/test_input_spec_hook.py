"""Checkpoints know their input by its values, and are checked against a config before they give a number."""
import json
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.models import build_classifier
from numpy.testing import assert_allclose, assert_array_equal
from shipped import LOADERS, shipped
from tool_runs import DEMO24, checkpoint, run_options, write_data
from torch import nn

from mmfreq.dct.channels import channel_indices
from mmfreq.dct.stats import load_stats
from mmfreq.engine.checkpoints import check_checkpoint, check_trained_classes
from mmfreq.engine.hooks.input_spec import check_classes
from mmfreq.errors import RefusedError
from mmfreq.input_spec import InputSpec

pytestmark = pytest.mark.usefixtures('hosts_set_up')  # mmengine 0.10.7 cannot read its checkpoints with torch 2.6
DEMO = DEMO24.removeprefix('configs/')


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp('tiny'))


@pytest.fixture(autouse=True)
def scope() -> Any:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def config(data: Path, work_dir: Path, channels: Any = '24S', **options: Any) -> Config:
    """A training of one epoch on ``channels``, which may be a file."""
    cfg = shipped(DEMO, work_dir=str(work_dir), train_cfg__max_epochs=1, param_scheduler__total_steps=1,
                  experiment_name=f'{work_dir.name}-{np.random.default_rng().integers(10**9)}', log_level='ERROR')
    small = {key: value for key, value in run_options(data).items() if not key.endswith(('max_epochs', 'total_steps'))}
    cfg.merge_from_dict(small)
    cfg.model.backbone.in_channels = len(channel_indices(channels))
    for loader in LOADERS:
        cfg[loader].dataset.pipeline[-2].channels = channels
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


@pytest.fixture(scope='module')
def trained(data: Path, hosts_set_up: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a training whose statistics and selection are files."""
    folder = tmp_path_factory.mktemp('trained')
    stats = load_stats('photos-448')
    (folder / 'stats.json').write_text(json.dumps(dict(mean=stats.mean.tolist(), std=stats.std.tolist())))
    (folder / 'selection.json').write_text(json.dumps(dict(channels=channel_indices('24S'))))
    cfg = config(data, folder, str(folder / 'selection.json'))
    for loader in LOADERS:
        cfg[loader].dataset.pipeline[-2].stats = str(folder / 'stats.json')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        Runner.from_cfg(cfg).train()
    cfg.dump(str(folder / 'config.py'))
    return folder


def evaluate(cfg: Config, file: Path, work_dir: Path) -> dict:
    cfg.update(load_from=str(file), resume=False, work_dir=str(work_dir), experiment_name=work_dir.name)
    return Runner.from_cfg(cfg).test()


def test_checkpoints_hold_values(trained: Path, data: Path, tmp_path: Path) -> None:
    spec = InputSpec.from_checkpoint(checkpoint(trained / 'epoch_1.pth'))
    assert spec == InputSpec.of(dict(channels='24S', stats='photos-448'))
    assert_array_equal(spec.mean, load_stats('photos-448').mean[list(spec.channels)])
    metrics = evaluate(config(data, tmp_path), trained / 'epoch_1.pth', tmp_path)  # other names, equal values
    assert 'accuracy/top1' in metrics


@pytest.mark.parametrize(('name', 'change', 'words'), [
    ('stats', lambda values: values['std'].__setitem__(0, 2 * values['std'][0]), 'std: the training has'),
    ('selection', lambda values: values.update(channels=channel_indices('24D')), 'channels: .* has 24S.* 24D')])
def test_files_that_changed_after_the_training(name: str, change: Any, words: str, trained: Path, data: Path,
                                               tmp_path: Path) -> None:
    values = json.loads((trained / f'{name}.json').read_text())
    change(values)
    (tmp_path / f'{name}.json').write_text(json.dumps(values))
    cfg = Config.fromfile(str(trained / 'config.py'))
    for loader in LOADERS:
        cfg[loader].dataset.pipeline[-2]['stats' if name == 'stats' else 'channels'] = str(tmp_path / f'{name}.json')
    with pytest.raises(RefusedError, match=f'epoch_1.pth: {words}'):
        evaluate(cfg, trained / 'epoch_1.pth', tmp_path)
    cfg.update(load_from=str(trained / 'epoch_1.pth'), resume=True, work_dir=str(tmp_path / 'resumed'))
    with pytest.raises(RefusedError, match=words):
        Runner.from_cfg(cfg).train()


def test_a_config_that_does_not_fit_ends_a_run_at_once(data: Path, tmp_path: Path) -> None:
    cfg = config(data, tmp_path)
    cfg.val_dataloader.dataset.pipeline[-2].channels = '24D'
    with pytest.raises(RefusedError, match='channels: val_dataloader has 24D'):
        Runner.from_cfg(cfg).train()


@pytest.mark.parametrize('way', ['load_from', 'wrapped', 'EMA', 'backbone', 'list', 'model', 'both'])
def test_a_selection_starts_from_the_columns_of_its_channels(way: str, trained: Path, data: Path,
                                                             tmp_path: Path) -> None:
    """Of 24S, five channels are taken in another order, and two are not there."""
    source = channel_indices('24S')
    channels = [source[i] for i in (20, 3, 0, 8, 23)] + [40, 191]
    file = str(trained / 'epoch_1.pth')
    if way == 'wrapped':  # as saved from DistributedDataParallel
        saved, file = checkpoint(trained / 'epoch_1.pth'), str(tmp_path / 'wrapped.pth')
        torch.save(dict(saved, state_dict={f'module.{key}': value for key, value in saved['state_dict'].items()}), file)
    part = dict(type='Pretrained', checkpoint=file, prefix='backbone.')
    options = dict(backbone=dict(model__backbone__init_cfg=part), list=dict(model__backbone__init_cfg=[part]),
                   model=dict(model__init_cfg=dict(type='Pretrained', checkpoint=file)))
    options['both'] = options['backbone'] | options['model']  # first the backbone's, then the model's
    cfg = config(data, tmp_path, channels, **options.get(way, dict(load_from=file)))
    cfg.param_scheduler.eta_max = 1e-9
    cfg.custom_hooks = [dict(type='EMAHook')] if way == 'EMA' else []
    Runner.from_cfg(cfg).train()
    before, after = (checkpoint(folder / 'epoch_1.pth')['state_dict'] for folder in (trained, tmp_path))
    for name in ('conv1', 'downsample.0'):
        key = f'backbone.layer1.0.{name}.weight'
        assert_allclose(after[key][:, :5], before[key][:, [20, 3, 0, 8, 23]], atol=1e-6)
        assert after[key][:, 5:].abs().max() > 0
    key = 'backbone.layer2.0.conv1.weight'
    assert_allclose(after[key], before[key], atol=1e-6)


def test_other_blocks_are_other_channels(trained: Path, data: Path, tmp_path: Path) -> None:
    cfg = config(data, tmp_path, load_from=str(trained / 'epoch_1.pth'))
    for loader in LOADERS:  # as many channels, of smaller blocks
        cfg[loader].dataset.pipeline[-2].update(channels=list(range(24)), block_size=4, stats='imagenette-224-4x4')
    with pytest.raises(RefusedError, match='block_size: the checkpoint has 8, but the config has 4'):
        Runner.from_cfg(cfg).train()


@pytest.mark.parametrize(('kind', 'arguments'), [
    ('FreqMobileNetV2', {}), ('FreqSwinTransformer', dict(arch='tiny')), ('FreqEfficientNet', dict(arch='b0'))])
def test_every_mixin_takes_columns(kind: str, arguments: dict, quick_init: None) -> None:
    from mmpretrain.registry import MODELS
    source, spec = (InputSpec.of(dict(channels=name, stats='photos-448')) for name in ('24S', '12S'))
    wide, narrow = (MODELS.build(dict(type=kind, in_channels=count, **arguments)) for count in (24, 12))
    for name, axis in wide.channel_axes().items():
        tensor = wide.state_dict()[name]
        shape = [1] * tensor.ndim
        shape[axis] = 24
        tensor.copy_(torch.arange(24.).view(shape).expand_as(tensor))
    narrow.input_spec, narrow.source_specs = spec, (source, )
    narrow.load_state_dict(wide.state_dict())
    positions = [source.channels.index(channel) for channel in spec.channels]
    axes = narrow.channel_axes()
    assert narrow.first_weight in axes
    for name, axis in axes.items():
        values = narrow.state_dict()[name].movedim(axis, -1)
        assert_array_equal(values.reshape(-1, 12)[0], positions)
    assert narrow.source_specs == ()
    narrow.source_specs = (source, )
    assert deepcopy(narrow).source_specs == ()  # as EMAHook's copy, which resumes from its own weights
    assert narrow.source_specs == (source, )


# The network and the classes


def build(**options: Any) -> nn.Module:
    return build_classifier(shipped(DEMO, **options).model)


def test_checkpoints_of_another_network() -> None:
    dct, rgb = build(), build_classifier(shipped('demo/resnet18_demo.py').model)
    for model in (dct, rgb):
        check_checkpoint(dict(state_dict=model.state_dict()), None, model)
        check_checkpoint({f'module.{key}': value for key, value in model.state_dict().items()}, None, model)
    state = dict(dct.state_dict())
    check_checkpoint(dict(state_dict={**state, 'neck.other': torch.zeros(1)}), None, dct)
    del state['head.fc.bias']
    with pytest.raises(RefusedError, match='missing head.fc.bias; unexpected none'):
        check_checkpoint(state, None, dct)
    del state['backbone.layer1.0.conv1.weight']
    with pytest.raises(RefusedError, match='missing .*; unexpected backbone.layer1.0.do'):
        check_checkpoint(state, None, rgb)
    with pytest.raises(RefusedError, match='stock RGB weights'):
        check_checkpoint(dict(state_dict=rgb.state_dict()), None, dct)
    with pytest.raises(ValueError, match='in_channels=24'):
        check_checkpoint(build(model__backbone__in_channels=48).state_dict(), None, dct)
    with pytest.raises(RuntimeError, match='size mismatch for head.fc.weight'):
        check_checkpoint(build(model__head__num_classes=3).state_dict(), None, dct)


@pytest.mark.parametrize('name', ['head.fc.bias', 'backbone.layer1.0.bn1.running_var'])
def test_weights_of_a_training_that_diverged(name: str) -> None:
    model = build()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state[name][1] = float('nan')
    with pytest.raises(RefusedError, match=f'NaN or Inf: {name}'):
        check_checkpoint(dict(state_dict=state), None, model)


def dataset(*classes: str, folders: tuple[str, ...] = ()) -> SimpleNamespace:
    content = SimpleNamespace(metainfo=dict(classes=list(classes)))
    if folders:
        content.folder_to_idx = {name: i for i, name in enumerate(folders)}
    return content


@pytest.mark.parametrize(('val', 'words'), [
    (dataset('cat', 'dog'), 'classes of val are not those of train: missing bird; extra none'),
    (dataset('bird', 'cat', 'dog', 'eel'), 'extra eel'),
    (dataset('cat', 'bird', 'dog'), 'missing none; extra none, but in another order'),
    (dataset('bird', 'cat', 'dog', folders=('a', 'b', 'd')), 'class folders of val .*missing c; extra d')])
def test_classes_that_differ_are_named(val: Any, words: str) -> None:
    train = dataset('bird', 'cat', 'dog', folders=('a', 'b', 'c'))
    check_classes([('train', train), ('val', dataset('bird', 'cat', 'dog')), ('test', dataset())])
    with pytest.raises(RefusedError, match=words):
        check_classes([('train', train), ('val', val)])


def test_a_missing_class_folder_is_noticed_in_a_run(data: Path, tmp_path: Path) -> None:
    """Mmpretrain numbers the folders that exist, so that labels of val would be other classes."""
    (tmp_path / 'val').mkdir()
    (tmp_path / 'val/rows').symlink_to(data / 'val/rows')
    cfg = config(data, tmp_path / 'work', val_dataloader__dataset__data_root=str(tmp_path))
    with pytest.raises(RefusedError, match='val_dataloader .*missing columns'):
        Runner.from_cfg(cfg).train()


def test_classes_of_the_checkpoint() -> None:
    saved = dict(meta=dict(dataset_meta=dict(classes=('cat', 'dog'))))
    check_trained_classes(saved, dataset('cat', 'dog'))
    check_trained_classes({}, dataset('cat', 'dog'))
    with pytest.raises(RefusedError, match='missing dog; extra eel'):
        check_trained_classes(saved, dataset('cat', 'eel'))
