"""Reading configs, merging options into them, and every config of the repository: recipe, pipelines, model."""
import argparse
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import HOOKS, MODELS, DefaultScope
from mmengine.utils import get_installed_path
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from numpy.testing import assert_allclose
from test_rows import CLASSIFICATION, NO_ROWS
from torch import nn

from mmfreq.apis import runner as cli
from mmfreq.config.checks import check_channels
from mmfreq.config.pipelines import (
    dct_channels,
    iter_dicts,
    network_pipeline,
    pipelines,
    stock_resize,
    transform_type,
)
from mmfreq.config.paths import config_path

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
ALL_PATHS = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.glob('[!_]*/*.py'))
OTHERS = ('convnext', 'regnet', 'res2net', 'resnest', 'resnext', 'seresnet', 'swin_transformer', 'vision_transformer')
# The paper's classifiers and the demo; detection has tests of its own, and so have the other backbones.
PATHS = [path for path in ALL_PATHS if 'rcnn' not in path and not path.startswith(OTHERS)
         and not re.search('-(int8|device)_', path)]
IMAGENET = [path for path in PATHS if '_in1k' in path]
DEMO24 = 'demo/resnet18-dct24s_demo.py'
# One of each network; the others differ in the number of channels.
NETWORKS = ['demo/resnet18_demo.py', DEMO24, 'demo/resnet18-dct192-gate_demo.py',
            *(f'resnet/resnet50-{name}_8xb32_in1k.py' for name in ('ycbcr', 'dct64s', 'dct192-28x28', 'dct192-gate')),
            'mobilenet_v2/mobilenet-v2-dct24s_8xb32_in1k.py']

# What a config's pipelines give for a photo.
INPUT_SHAPES = {
    'demo/resnet18_demo.py': (3, 112, 112),
    'demo/resnet18-dct24s_demo.py': (24, 28, 28),
    'demo/resnet18-dct192-gate_demo.py': (192, 28, 28),
    **{name.removeprefix('configs/'): (row.channels, *row.size) for name, row in (CLASSIFICATION | NO_ROWS).items()},
}
# Of each family: the stock config, the modified backbone, and the crop and the short side that the paper takes.
FAMILIES = {
    'resnet': ('mmpretrain::resnet/resnet50_8xb32_in1k.py', 'FreqResNet', 448, 512),
    'mobilenet_v2': ('mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py', 'FreqMobileNetV2', 896, 1024),
}
RECIPE = ('optim_wrapper', 'param_scheduler', 'train_cfg', 'val_cfg', 'test_cfg', 'auto_scale_lr', 'val_evaluator',
          'test_evaluator', 'env_cfg', 'randomness', 'load_from', 'resume')


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    torch.manual_seed(0)
    np.random.seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(scope='module')
def stock() -> Config:
    return get_config('mmpretrain::resnet/resnet50_8xb32_in1k.py')


def stock_of(path: str) -> Config:
    return deepcopy(cached(str(config_path(FAMILIES[path.partition('/')[0]][0]))))


@pytest.fixture(scope='module')
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A JPEG of 500 x 375 pixels: slow waves and some noise."""
    path = tmp_path_factory.mktemp('photo') / 'photo.jpg'
    rows, cols = np.mgrid[:375, :500] / 40
    noise = np.random.default_rng(0).normal(0, 8, (375, 500, 3))
    waves = np.stack([np.sin(rows), np.cos(cols), np.sin(rows + cols)], axis=2)
    cv2.imwrite(str(path), np.clip(128 + 70 * waves + noise, 0, 255).astype(np.uint8))
    return str(path)


@cache
def cached(path: str) -> Config:
    return Config.fromfile(path)


def load(path: str) -> Config:
    return deepcopy(cached(str(CONFIGS / path)))


def plain(node: Any) -> Any:
    """A part of a config without the scope marks that inheriting from ``mmpretrain::`` leaves."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items() if key != '_scope_'}
    return [plain(item) for item in node] if isinstance(node, (list, tuple)) else node


def is_freq(cfg: Config) -> bool:
    return cfg.model.backbone.type.startswith('Freq')


def build(cfg: Config) -> nn.Module:
    """The model as mmengine's Runner builds it."""
    cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(cfg.model)


def arguments(config: Any = CONFIGS / DEMO24, tool: str = 'train', *flags: str,
              checkpoint: str = '') -> argparse.Namespace:
    """What ``parse_args`` of a tool makes of a command line."""
    spec = importlib.util.spec_from_file_location(f'tool_{tool}', ROOT / 'tools' / f'{tool}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [tool, str(config), *([checkpoint] if checkpoint else []), *flags])
        patch.setenv('LOCAL_RANK', '0')
        return module.parse_args()


def options(*pairs: str) -> dict[str, Any]:
    """``--cfg-options`` as the tools read them."""
    return arguments(CONFIGS / DEMO24, 'train', '--cfg-options', *pairs).cfg_options


# Reading configs


def test_iter_dicts_is_depth_first() -> None:
    node = dict(a=[dict(b=1), (dict(c=dict(d=2)), 3)], e='text')
    assert list(iter_dicts(node)) == [node, dict(b=1), dict(c=dict(d=2)), dict(d=2)]


@pytest.mark.parametrize(('kind', 'name'), [('BlockDCT', 'BlockDCT'), ('mmpretrain.BlockDCT', 'BlockDCT'),
                                            (nn.Conv2d, 'Conv2d')])
def test_transform_type(kind: Any, name: str) -> None:
    assert transform_type(dict(type=kind)) == name


def test_pipelines_of_wrapped_datasets() -> None:
    parts = [dict(type='A', pipeline=[dict(type='YCbCr')]), dict(type='B', pipeline=[dict(type='BlockDCT')])]
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=parts)), val_dataloader=None))
    assert pipelines(cfg, 'train_dataloader') == [[dict(type='YCbCr')], [dict(type='BlockDCT')]]
    assert pipelines(cfg, 'val_dataloader') == []
    assert pipelines(cfg, 'test_dataloader') == []


@pytest.mark.parametrize(('pipeline', 'channels'), [
    ([dict(type='LoadImageFromFile'), dict(type='PackInputs')], None),
    ([dict(type='YCbCr')], None),
    ([dict(type='BlockDCT')], 192),
    ([dict(type='BlockDCT', block_size=4)], 48),
    ([dict(type='BlockDCT'), dict(type='ChannelSelect', channels='24S')], 24),
    ([dict(type='BlockDCT'), dict(type='ChannelSelect', channels=[[0, 1], [0], []])], 3),
    ([dict(type='BlockDCT', block_size=4), dict(type='ChannelSelect', channels=[0, 47], block_size=4)], 2),
    ([dict(type='RandomApply', transforms=[dict(type='Noise')]), dict(type='BlockDCT')], 192),
])
def test_number_of_channels_of_a_pipeline(pipeline: list[dict], channels: Optional[int]) -> None:
    found = dct_channels(pipeline)
    assert (found and len(found[0])) == channels


@pytest.mark.parametrize('dataloader', ['train_dataloader', 'val_dataloader', 'test_dataloader'])
def test_channels_that_do_not_fit_are_refused(dataloader: str) -> None:
    cfg = load(DEMO24)
    step = next(step for step in cfg[dataloader].dataset.pipeline if step.type == 'FusedBlockDCT')
    step.channels = '48S'
    with pytest.raises(ValueError, match=f'in_channels=24.*{dataloader} gives 48'):
        check_channels(cfg)


def test_a_pipeline_without_dct_does_not_fit_a_frequency_backbone() -> None:
    cfg = load(DEMO24)
    cfg.val_dataloader.dataset.pipeline = load('demo/resnet18_demo.py').val_dataloader.dataset.pipeline
    with pytest.raises(ValueError, match='in_channels=24.*val_dataloader gives 3'):
        check_channels(cfg)


def test_stock_configs_are_not_checked(stock: Config) -> None:
    check_channels(stock)
    check_channels(Config(dict(a=1)))


# --cfg-options and flags


def test_work_dir_is_the_flags_then_the_configs_then_the_name(tmp_path: Path) -> None:
    own = tmp_path / 'own.py'
    own.write_text(f"_base_ = '{CONFIGS / DEMO24}'\nwork_dir = 'from_config'\n")
    assert cli.train_config(arguments()).work_dir == 'work_dirs/resnet18-dct24s_demo'
    assert cli.train_config(arguments(own)).work_dir == 'from_config'
    assert cli.train_config(arguments(own, 'train', '--work-dir', 'given')).work_dir == 'given'


def test_no_flags_leave_the_config_alone() -> None:
    cfg, expected = cli.train_config(arguments()), load(DEMO24)
    for key in ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'val_cfg', 'auto_scale_lr', 'resume',
                'load_from', 'default_hooks', 'randomness'):
        assert cfg.get(key) == expected.get(key)
    assert cfg.launcher == 'none'
    assert cfg.train_dataloader.dataset == expected.train_dataloader.dataset


def test_data_loaders_get_the_defaults_of_mmpretrains_tools(tmp_path: Path) -> None:
    own = tmp_path / 'own.py'
    own.write_text(f"_base_ = '{CONFIGS / DEMO24}'\ntrain_dataloader = dict(pin_memory='as in the config')\n")
    cfg = cli.train_config(arguments(own))
    assert cfg.train_dataloader.pin_memory == 'as in the config'
    assert cfg.val_dataloader.pin_memory == torch.cuda.is_available()
    assert cfg.val_dataloader.collate_fn == dict(type='default_collate')
    assert cfg.val_dataloader.persistent_workers is True


def test_no_workers_by_options() -> None:
    """persistent_workers=True without workers is an error in torch."""
    cfg = cli.train_config(arguments(CONFIGS / DEMO24, 'train', '--cfg-options', 'train_dataloader.num_workers=0'))
    assert not (cfg.train_dataloader.persistent_workers and cfg.train_dataloader.num_workers == 0)


@pytest.mark.parametrize('flags', [(), ('--cfg-options', 'val_dataloader.batch_size=4')])
def test_no_validate(flags: tuple[str, ...]) -> None:
    cfg = cli.train_config(arguments(CONFIGS / DEMO24, 'train', '--no-validate', *flags))
    assert (cfg.val_cfg, cfg.val_dataloader, cfg.val_evaluator) == (None, None, None)


def test_auto_scale_lr() -> None:
    cfg = cli.train_config(arguments(CONFIGS / DEMO24, 'train', '--auto-scale-lr'))
    assert cfg.auto_scale_lr == dict(base_batch_size=32, enable=True)


def test_auto_scale_lr_without_a_base_batch_size(tmp_path: Path) -> None:
    own = tmp_path / 'own.py'
    own.write_text(f"_base_ = '{CONFIGS / DEMO24}'\nauto_scale_lr = dict(_delete_=True)\n")
    with pytest.raises(SystemExit, match='--auto-scale-lr.*base_batch_size'):
        cli.train_config(arguments(own, 'train', '--auto-scale-lr'))


def test_resume(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    checkpoint = tmp_path / 'epoch_1.pth'
    checkpoint.touch()
    work_dir = ('--work-dir', str(tmp_path))
    fresh = cli.train_config(arguments(CONFIGS / DEMO24, 'train', '--resume', *work_dir))
    assert (fresh.resume, fresh.load_from) == (False, None)
    assert f'no last_checkpoint in {tmp_path}: the training starts from its beginning' in capsys.readouterr().err
    # the file that mmengine leaves names an absolute path, here of a work dir that has moved since
    (tmp_path / 'last_checkpoint').write_text('elsewhere/epoch_1.pth')
    cli.train_config(arguments(CONFIGS / DEMO24, 'train', *work_dir))
    assert f'{tmp_path} has checkpoints of an earlier training' in capsys.readouterr().err
    auto = cli.train_config(arguments(CONFIGS / DEMO24, 'train', '--resume', *work_dir))
    assert 'earlier' not in capsys.readouterr().err
    given = cli.train_config(arguments(CONFIGS / DEMO24, 'train', '--resume', str(checkpoint)))
    assert (auto.resume, auto.load_from) == (True, str(checkpoint))
    assert (given.resume, given.load_from) == (True, str(checkpoint))
    with pytest.raises(SystemExit, match=f'no such file: {tmp_path}/epoch_2.pth'):
        cli.train_config(arguments(CONFIGS / DEMO24, 'train', '--resume', str(tmp_path / 'epoch_2.pth')))


@pytest.mark.parametrize('tool', ['train', 'test'])
@pytest.mark.parametrize('has_gpu', [False, True])
def test_amp(tool: str, has_gpu: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: has_gpu)
    (tmp_path / 'x.pth').touch()
    make = cli.train_config if tool == 'train' else cli.test_config
    args = arguments(CONFIGS / DEMO24, tool, '--amp', checkpoint=str(tmp_path / 'x.pth') if tool == 'test' else '')
    if not has_gpu:
        with pytest.raises(SystemExit, match='--amp: .*GPU'):
            make(args)
    elif tool == 'train':
        assert make(args).optim_wrapper.type == 'AmpOptimWrapper'
        assert make(args).optim_wrapper.loss_scale == 'dynamic'
    else:
        assert make(args).test_cfg.fp16 is True


def test_missing_config(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f'config: no such file: {tmp_path}/none.py'):
        cli.train_config(arguments(tmp_path / 'none.py'))


def test_checkpoint_by_file_or_work_dir(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f'no such file: {tmp_path}/epoch_1.pth'):
        cli.checkpoint_file(str(tmp_path / 'epoch_1.pth'))
    with pytest.raises(SystemExit, match=f'{tmp_path} is a folder without a last_checkpoint'):
        cli.checkpoint_file(str(tmp_path))
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    with pytest.raises(SystemExit, match=f'no such file: {tmp_path}/epoch_1.pth'):
        cli.checkpoint_file(str(tmp_path))
    (tmp_path / 'epoch_1.pth').touch()
    assert cli.checkpoint_file(str(tmp_path)) == cli.checkpoint_file(str(tmp_path / 'epoch_1.pth'))
    assert cli.checkpoint_file('https://example.org/x.pth') == 'https://example.org/x.pth'


def test_a_work_dir_stands_for_its_best_checkpoint_if_there_is_one(tmp_path: Path,
                                                                   capsys: pytest.CaptureFixture) -> None:
    for name in ('epoch_1.pth', 'epoch_2.pth', 'best_accuracy_top1_epoch_1.pth'):
        (tmp_path / name).touch()
    (tmp_path / 'last_checkpoint').write_text('elsewhere/epoch_2.pth')
    assert cli.checkpoint_file(str(tmp_path)) == str(tmp_path / 'best_accuracy_top1_epoch_1.pth')
    assert capsys.readouterr().err.endswith('best_accuracy_top1_epoch_1.pth (the best)\n')
    assert cli.checkpoint_file(str(tmp_path), best=False) == str(tmp_path / 'epoch_2.pth')
    (tmp_path / 'best_accuracy_top5_epoch_2.pth').touch()
    assert cli.checkpoint_file(str(tmp_path)) == str(tmp_path / 'epoch_2.pth')
    assert capsys.readouterr().err.endswith('epoch_2.pth (the last; 2 files are best_*.pth)\n')
    (tmp_path / 'last_checkpoint').write_text('')  # of a training that was killed there
    with pytest.raises(SystemExit, match='without a last_checkpoint file; .*; others there: .*epoch_2.pth'):
        cli.checkpoint_file(str(tmp_path))


def test_two_trainings_do_not_share_a_work_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(tmp_path / 'run')
    with cli.alone_in(folder):
        with pytest.raises(SystemExit, match=f'another training is running in {folder}'), cli.alone_in(folder):
            pass
        for launcher in ('RANK', 'OMPI_COMM_WORLD_RANK', 'SLURM_PROCID'):
            monkeypatch.setenv(launcher, '1')
            with cli.alone_in(folder):  # of the same run
                monkeypatch.undo()
    with cli.alone_in(folder):
        pass


@pytest.mark.parametrize(('name', 'text', 'message'), [
    ('x.py', 'model = dict(', 'SyntaxError: .* line 1'),
    ('x.py', "_base_ = 'nothing.py'", 'FileNotFoundError: .*nothing.py'),
    ('x.py', "custom_imports = dict(imports=['no_module'])", 'ImportError: .*no_module'),
    ('x.py', 'x = 1 / 0', 'ZeroDivisionError: division by zero'),
    ('x.pth', 'weights', 'OSError: Only py'),
])
def test_configs_that_cannot_be_read(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit, match=rf'^config: {tmp_path}/{name} cannot be read: [^\n]*{message}[^\n]*$'):
        cli.read_config(str(tmp_path / name), None)


@pytest.mark.parametrize('value', ["{'a': [1, 2], 'b': 3}", '[1,2'])
def test_options_that_cannot_be_read(value: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        options(f'model={value}')
    assert f'cfg-options: cannot read model={value}; expected ' in capsys.readouterr().err.splitlines()[-1]


def test_options_without_a_value(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        options('freq')
    assert capsys.readouterr().err.endswith("error: cfg-options: expected key=value, got 'freq'\n")


@pytest.mark.parametrize('out', ['metrics', 'metrics.txt', 'predictions.pth'])
def test_out_of_an_unknown_kind(out: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match=rf'--out: expected a .json file .* got {out}'):
        arguments(CONFIGS / DEMO24, 'test', '--out', out, checkpoint='x.pth')


@pytest.mark.parametrize(('path', 'kept'), [
    (CONFIGS / DEMO24, {}),
    ('mmpretrain::resnet/resnet18_8xb32_in1k.py', {}),
    ('configs/demo/mask-rcnn_r18-dct24s_demo.py', {}),
    ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', dict(score_thr=0.7))])
def test_show_dir_draws_on_the_images(path: Any, kept: dict, tmp_path: Path) -> None:
    (tmp_path / 'x.pth').touch()
    flags = ('--show-dir', str(tmp_path / 'pictures'), '--interval', '3', '--wait-time', '0')
    options = [f'default_hooks.visualization.{key}={value}' for key, value in kept.items()]
    args = arguments(path, 'test', *flags, checkpoint=str(tmp_path / 'x.pth'))
    args.cfg_options = dict(option.split('=') for option in options)
    hook = plain(cli.test_config(args).default_hooks.visualization)
    assert {key: float(hook.pop(key)) for key in kept} == kept
    assert hook == dict(type='FreqVisualizationHook', enable=True, show=False, wait_time=0, interval=3,
                        out_dir=str(tmp_path / 'pictures'))


# Every config


def test_the_table_of_input_shapes_knows_every_config() -> None:
    assert [path for path in PATHS if path not in INPUT_SHAPES] == []


@pytest.mark.parametrize('path', ALL_PATHS)
def test_channels_fit_in_every_config(path: str) -> None:
    check_channels(load(path))


@pytest.mark.parametrize('path', PATHS)
def test_pipelines_give_the_inputs_of_the_model(path: str, photo: str) -> None:
    cfg = load(path)
    for dataloader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        pipeline, = pipelines(cfg, dataloader)
        packed = Compose(pipeline)(dict(img_path=photo, gt_label=0))
        inputs = packed['inputs']
        assert tuple(inputs.shape) == INPUT_SHAPES[path], dataloader
        assert packed['data_samples'].img_path == photo
        assert inputs.dtype == (torch.float32 if is_freq(cfg) else torch.uint8)
        assert inputs.float().std() > 0.1


@pytest.mark.parametrize('path', PATHS)
def test_the_preprocessor_leaves_coefficients_alone_and_normalises_pixels(path: str) -> None:
    cfg = load(path)
    freq, channels = is_freq(cfg), INPUT_SHAPES[path][0]
    cfg.model.backbone = dict(type='LeNet5')  # any
    preprocessor = build(cfg).data_preprocessor
    inputs = [torch.randint(0, 255, (channels, 8, 8)).to(torch.float32 if freq else torch.uint8) for _ in range(2)]
    given = torch.stack(inputs).float()
    made = preprocessor(dict(inputs=inputs), training=True)['inputs']
    if freq:
        assert_allclose(made.numpy(), given.numpy(), rtol=0)
    else:
        mean, std = (torch.tensor(cfg.data_preprocessor[key]).view(1, 3, 1, 1) for key in ('mean', 'std'))
        expected = ((given.flip(1) if cfg.data_preprocessor.to_rgb else given) - mean) / std
        assert_allclose(made.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('path', NETWORKS)
def test_forward_and_backward(path: str) -> None:
    cfg = load(path)
    model = build(cfg)
    model.train()
    size = 14 if is_freq(cfg) else 56
    classes = cfg.model.head.num_classes
    samples = [DataSample().set_gt_label(label) for label in (0, 1, 2, classes - 1)]
    losses = model.loss(torch.randn(4, INPUT_SHAPES[path][0], size, size), samples)
    losses['loss'].backward()
    assert torch.isfinite(losses['loss'])
    assert_allclose(losses['loss'].item(), np.log(classes), rtol=0.5)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize('path', IMAGENET)
def test_imagenet_configs_keep_the_stock_recipe(path: str) -> None:
    cfg, stock = load(path), stock_of(path)
    for key in RECIPE:
        assert plain(cfg.get(key)) == plain(stock.get(key)), key
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        ours, theirs = plain(cfg[name]), plain(stock[name])
        assert ours['dataset'].pop('pipeline') != theirs['dataset'].pop('pipeline')
        assert ours == theirs, name


@pytest.mark.parametrize('path', IMAGENET)
def test_imagenet_configs_change_nothing_of_the_model_but_its_input(path: str) -> None:
    expected = plain(stock_of(path).model)
    if 'dct' in path:
        expected['backbone'].update(type=FAMILIES[path.partition('/')[0]][1], in_channels=INPUT_SHAPES[path][0])
    if 'gate' in path:
        expected['backbone'].update(gate={})
    if '28x28' in path:
        expected['backbone'].update(strides=[1, 1, 2, 2])
    assert plain(load(path).model) == expected


@pytest.mark.parametrize('path', [path for path in IMAGENET if 'dct' in path])
def test_imagenet_sizes_are_the_papers(path: str) -> None:
    cfg, stock = load(path), stock_of(path)
    crop, short_side = (224, 256) if '28x28' in path else FAMILIES[path.partition('/')[0]][2:]
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        ours, theirs = (plain(pipelines(config, name)[0]) for config in (cfg, stock))
        assert ours[0] == dict(type='LoadImageFromFile')
        assert [step['type'] for step in ours[3:]] == ['FusedBlockDCT', 'PackInputs']
        ours = [stock_resize(step) for step in ours]
        expected = theirs[1:3]  # the stock augmentation, at another size
        expected[0]['scale'] = crop if name == 'train_dataloader' else short_side
        if name != 'train_dataloader':
            expected[1]['crop_size'] = crop
        assert ours[1:3] == expected
        assert network_pipeline(cfg, ours)[6]['stats'] == f'photos-{crop}'


@pytest.mark.parametrize('path', [path for path in IMAGENET if 'dct' in path])
def test_imagenet_configs_take_the_channels_of_their_name(path: str) -> None:
    name, cfg = re.search(r'-dct(\d+[std]?)', path).group(1).upper(), load(path)
    for dataloader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        steps = network_pipeline(cfg, pipelines(cfg, dataloader)[0])
        assert steps[5] == dict(type='ChannelSelect', channels=name)


@pytest.mark.parametrize(('name', 'base', 'dtype', 'step'), [
    ('dct24s-int8', 'dct24s', torch.int8, 1 / 6), ('dct48s-int8', 'dct48s', torch.int8, 1 / 6),
    ('dct24s-device', 'dct24s', torch.uint8, 0)])
def test_variants_give_the_network_what_their_rows_get(name: str, base: str, dtype: torch.dtype, step: float,
                                                       photo: str) -> None:
    """int8 to half a step, where it does not saturate; the same recipe and model."""
    found, packed = {}, {}
    configs = {key: load(f'resnet/resnet50-{key}_8xb32_in1k.py') for key in (name, base)}
    for key, cfg in configs.items():
        check_channels(cfg)
        steps = [stock_resize(step) for step in pipelines(cfg, 'test_dataloader')[0]]  # the device gets whole levels
        packed[key] = Compose(steps)(dict(img_path=photo, gt_label=0))['inputs']
        found[key] = build(cfg).data_preprocessor(dict(inputs=[packed[key]]))['inputs'].numpy()
    assert (packed[name].dtype, packed[base].dtype) == (dtype, torch.float32)
    inside = np.abs(found[base]) < (126 * step or np.inf)
    assert inside.mean() > 0.99
    assert_allclose(found[name][inside], found[base][inside], rtol=0, atol=step / 2 + 1e-3)
    for cfg in configs.values():
        cfg.model.pop('data_preprocessor')  # build() put it there
    for key in (*RECIPE, 'model'):
        assert plain(configs[name].get(key)) == plain(configs[base].get(key)), key


def test_ycbcr_config_is_the_stock_one_in_another_colour_space(stock: Config) -> None:
    cfg = load('resnet/resnet50-ycbcr_8xb32_in1k.py')
    for name in ('train_dataloader', 'test_dataloader'):
        ours, theirs = (plain(pipelines(config, name)[0]) for config in (cfg, stock))
        assert ours == [dict(type='LoadImageFromFile'), *theirs[1:-1], dict(type='YCbCr'), theirs[-1]]
    red, green, blue = stock.data_preprocessor.mean
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    mean = (luma, 128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402)
    assert_allclose(cfg.data_preprocessor.mean, mean, atol=0.01)


@pytest.mark.parametrize('path', PATHS)
def test_hooks_build(path: str) -> None:
    cfg = load(path)
    UniversalVisualizer.get_instance('test_config')
    for hook in cfg.default_hooks.values():
        HOOKS.build(hook)
    shows_photos = cfg.default_hooks.visualization.type == 'FreqVisualizationHook'
    steps = network_pipeline(cfg, pipelines(cfg, 'test_dataloader')[0])
    assert shows_photos == ('YCbCr' in map(transform_type, steps))


def test_wrapped_data_sets_count_once() -> None:
    """A wrapper with a pipeline of its own hides the first steps of what it wraps."""
    inner = dict(type='CustomDataset', pipeline=[dict(type='LoadImageFromFile')])
    steps = [dict(type='YCbCr'), dict(type='BlockDCT'), dict(type='ChannelSelect', channels='24S')]
    mixed = dict(type='MultiImageMixDataset', dataset=inner, pipeline=steps)
    cfg = Config(dict(model=dict(backbone=dict(type='FreqResNet', in_channels=24)),
                      train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[mixed, mixed]))))
    assert pipelines(cfg, 'train_dataloader') == [steps, steps]
    check_channels(cfg)
    cfg.model.backbone.in_channels = 48
    with pytest.raises(ValueError, match='in_channels=48.*gives 24'):
        check_channels(cfg)


def test_configs_of_the_hosts_have_names() -> None:
    assert config_path('mmpretrain::resnet/resnet50_8xb32_in1k.py').read_text().startswith('_base_')
    assert config_path(str(CONFIGS / DEMO24)) == CONFIGS / DEMO24
    for name in ('mmpretrain::resnet/none.py', 'no_such_package::a.py', 'nosuch.mod::x.py', 'none.py'):
        with pytest.raises(ValueError, match=f'config: no .*{name}'):
            config_path(name)


CHILD = """model = dict(backbone=dict(in_channels=6))
freq = [dict(_base_.freq[0], channels='6S')]
train_pipeline = [*_base_.train_pipeline[:-2], *freq, _base_.train_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
"""


@pytest.mark.parametrize('name', ['demo/resnet18-dct24s_demo.py', 'demo/mask-rcnn_r18-dct24s_demo.py',
                                  'resnet/resnet50-dct24s_8xb32_in1k.py'])
def test_shipped_configs_are_inherited_by_name_as_by_path(name: str, tmp_path: Path) -> None:
    (tmp_path / 'a.py').write_text(f"_base_ = 'mmfreq::{name}'\n{CHILD}")
    (tmp_path / 'b.py').write_text(f"_base_ = '{CONFIGS / name}'\n{CHILD}")
    by_name, by_path = (Config.fromfile(str(tmp_path / file)) for file in ('a.py', 'b.py'))
    assert by_name.to_dict() == by_path.to_dict()
    assert by_name.model.backbone.in_channels == 6
    assert not [node for node in iter_dicts(by_name.to_dict()) if node.get('_scope_') == 'mmfreq']


@pytest.mark.parametrize('name', ['demo/resnet18-dct24s_demo.py', 'mobilenet_v2/mobilenet-v2-dct6s_8xb32_in1k.py'])
def test_shipped_configs_are_in_the_hub(name: str) -> None:
    if not Path(get_installed_path('mmfreq'), '.mim').exists():
        pytest.skip('this mmengine does not find editable installations')
    assert get_config(f'mmfreq::{name}').to_dict() == load(name).to_dict()


def test_inheriting_a_config_that_is_not_shipped(tmp_path: Path) -> None:
    (tmp_path / 'a.py').write_text("_base_ = 'mmfreq::resnet/none.py'\n")
    with pytest.raises(ValueError, match='config: no such file: mmfreq::resnet/none.py'):
        Config.fromfile(str(tmp_path / 'a.py'))


def test_import_without_mmengines_private_function(tmp_path: Path) -> None:
    """Only ``mmfreq::`` in ``_base_`` is missing then."""
    (tmp_path / 'a.py').write_text("_base_ = 'mmfreq::demo/resnet18_demo.py'\n")
    code = ("from mmengine.config import Config; kept = Config._get_cfg_path; del Config._get_cfg_path; "
            "import mmfreq; Config._get_cfg_path = staticmethod(kept); Config.fromfile('a.py')")
    run = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True,
                         env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert 'mmengine does not support to load mmfreq config' in run.stderr.splitlines()[-1]


def test_work_dir_of_a_shipped_config_is_named_after_its_file() -> None:
    assert cli.train_config(arguments('mmfreq::demo/resnet18_demo.py')).work_dir == 'work_dirs/resnet18_demo'


def test_config_in_the_readme_is_the_shipped_one(tmp_path: Path) -> None:
    text = (ROOT / 'README.md').read_text().split('```python\n')[1].split('```')[0]
    (tmp_path / 'readme.py').write_text(text)
    cfg, shipped = Config.fromfile(str(tmp_path / 'readme.py')), load('resnet/resnet50-dct24s_8xb32_in1k.py')
    check_channels(cfg)
    for key in ('model', 'data_preprocessor', 'optim_wrapper', 'param_scheduler', 'test_dataloader'):
        assert cfg[key] == shipped[key], key
    kinds = [[step['type'] for step in c.train_dataloader.dataset.pipeline] for c in (cfg, shipped)]
    assert kinds[0] == kinds[1]
