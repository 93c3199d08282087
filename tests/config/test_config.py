"""Config files: their names, what is read of them, and what every shipped one changes of its stock config."""
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hub import get_config
from mmengine.registry import HOOKS, DefaultScope
from mmengine.utils import get_installed_path
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from numpy.testing import assert_allclose
from shipped import CONFIGS, LOADERS, plain, shipped

import mmfreq
import mmfreq.models.cls
import mmfreq.models.det  # noqa: F401  (both register the backbones)
from mmfreq import hosts
from mmfreq.apis.measure import build_model
from mmfreq.config.checks import check_config
from mmfreq.config.paths import config_path
from mmfreq.config.pipelines import input_specs, iter_dicts, pipelines, stock_resize

PATHS = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.glob('[!_]*/*.py'))
DEMO24 = 'demo/resnet18-dct24s_demo.py'
# Of each family of the paper: the stock config, the backbone, the crop and the short side.
FAMILIES = {
    'resnet': ('mmpretrain::resnet/resnet50_8xb32_in1k.py', 'FreqResNet', 448, 512),
    'mobilenet_v2': ('mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py', 'FreqMobileNetV2', 896, 1024),
}
IMAGENET = [path for path in PATHS
            if path.partition('/')[0] in FAMILIES and not re.search('-(int8|device|dct24n)_', path)]
RECIPE = ('optim_wrapper', 'param_scheduler', 'train_cfg', 'val_cfg', 'test_cfg', 'auto_scale_lr', 'val_evaluator',
          'test_evaluator', 'env_cfg', 'randomness', 'load_from', 'resume')
# One of each network; the others differ in the number of channels.
NETWORKS = {'demo/resnet18_demo.py': 3, DEMO24: 24, 'demo/resnet18-dct192-gate_demo.py': 192,
            'resnet/resnet50-dct64s_8xb32_in1k.py': 64, 'resnet/resnet50-dct192-28x28_8xb32_in1k.py': 192,
            'mobilenet_v2/mobilenet-v2-dct24s_8xb32_in1k.py': 24}


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    torch.manual_seed(0)
    np.random.seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def stock_of(path: str) -> Config:
    return get_config(FAMILIES[path.partition('/')[0]][0])


# Reading configs


def test_a_wrapper_with_a_pipeline_hides_the_first_steps_of_its_data_set() -> None:
    steps = [dict(type='FusedBlockDCT', channels='24S')]
    mixed = dict(type='MultiImageMixDataset', pipeline=steps,
                 dataset=dict(type='CustomDataset', pipeline=[dict(type='LoadImageFromFile')]))
    cfg = Config(dict(model=dict(backbone=dict(type='FreqResNet', in_channels=24)), val_dataloader=None,
                      train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[mixed, mixed]))))
    assert [pipelines(cfg, name) for name in LOADERS] == [[steps, steps], [], []]
    assert len(input_specs(cfg)['train_dataloader'].channels) == 24


# Names


def test_configs_have_names() -> None:
    expected = (CONFIGS / 'resnet/resnet50-dct24s_8xb32_in1k.py').resolve()
    for name in (expected.stem, f'mmfreq::{expected.stem}', f'mmfreq::resnet/{expected.name}', str(expected)):
        assert config_path(name).resolve() == expected
    assert config_path('mmpretrain::resnet/resnet50_8xb32_in1k.py').read_text().startswith('_base_')
    for name in ('mmpretrain::resnet/none.py', 'no_such_package::a.py', 'nosuch.mod::x.py', 'none.py'):
        with pytest.raises(ValueError, match=f'config: no .*{name}'):
            config_path(name)


CHILD = """model = dict(backbone=dict(in_channels=6))
freq = [dict(_base_.freq[0], channels='6S')]
train_pipeline = [*_base_.train_pipeline[:-2], *freq, _base_.train_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
"""


@pytest.mark.parametrize('name', [DEMO24, 'demo/mask-rcnn_r18-dct24s_demo.py', 'resnet/resnet50-dct24s_8xb32_in1k.py'])
def test_shipped_configs_are_inherited_by_name_after_setup(name: str, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'a.py').write_text(f"_base_ = 'mmfreq::{name}'\n{CHILD}")
    (tmp_path / 'b.py').write_text(f"_base_ = '{CONFIGS / name}'\n{CHILD}")
    monkeypatch.setattr(Config, '_get_cfg_path', staticmethod(hosts._stock_cfg_path))  # as after a plain import
    monkeypatch.delitem(MODULE2PACKAGE, 'mmfreq', raising=False)
    with pytest.raises(Exception, match='mmfreq'):
        Config.fromfile(str(tmp_path / 'a.py'))
    mmfreq.setup()
    by_name, by_path = (Config.fromfile(str(tmp_path / file)) for file in ('a.py', 'b.py'))
    assert by_name.to_dict() == by_path.to_dict()
    assert by_name.model.backbone.in_channels == 6
    assert not [node for node in iter_dicts(by_name.to_dict()) if node.get('_scope_') == 'mmfreq']
    (tmp_path / 'c.py').write_text("_base_ = 'mmfreq::resnet/none.py'\n")
    with pytest.raises(ValueError, match='config: no such file: mmfreq::resnet/none.py'):
        Config.fromfile(str(tmp_path / 'c.py'))


def test_shipped_configs_are_in_the_hub() -> None:
    if not Path(get_installed_path('mmfreq'), '.mim').exists():
        pytest.skip('this mmengine does not find editable installations')
    assert get_config(f'mmfreq::{DEMO24}').to_dict() == shipped(DEMO24).to_dict()


# Every config


@pytest.mark.parametrize('path', PATHS)
def test_every_config_is_consistent(path: str) -> None:
    """It passes the checks; its checkpoints say what the input is; predictions are drawn on images, not on channels."""
    cfg = shipped(path)
    check_config(cfg)
    if cfg.default_scope == 'mmpretrain':
        UniversalVisualizer.get_instance('test_config')
        for hook in cfg.default_hooks.values():
            HOOKS.build(hook)
        colors = input_specs(cfg)['test_dataloader'].colors
        assert (cfg.default_hooks.visualization.type == 'FreqVisualizationHook') == (colors == 'ycbcr')
    if cfg.get('custom_imports'):  # of mmfreq
        assert 'InputSpecHook' in [hook['type'] for hook in cfg.default_hooks.values()]


@pytest.mark.parametrize(('path', 'channels'), NETWORKS.items())
def test_forward_and_backward(path: str, channels: int) -> None:
    model = build_model(shipped(path)).train()
    size, classes = 56 if channels == 3 else 14, model.head.num_classes
    samples = [DataSample().set_gt_label(label) for label in (0, 1, 2, classes - 1)]
    loss = model.loss(torch.randn(4, channels, size, size), samples)['loss']
    loss.backward()
    assert_allclose(loss.item(), np.log(classes), rtol=0.5)
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize('path', IMAGENET)
def test_imagenet_configs_change_the_input_alone(path: str) -> None:
    """Recipe, data and network are the stock ones; crops and channels are those of the paper and of the name."""
    cfg, stock = shipped(path), stock_of(path)
    _, backbone, crop, short_side = FAMILIES[path.partition('/')[0]]
    crop, short_side = (224, 256) if '28x28' in path else (crop, short_side)
    if 'gate' in path:  # whose logits have a rate of their own
        del cfg.optim_wrapper.paramwise_cfg.custom_keys['gate.logit']
        assert cfg.optim_wrapper.pop('paramwise_cfg') == dict(custom_keys={})
    for key in RECIPE:
        assert plain(cfg.get(key)) == plain(stock.get(key)), key
    model = plain(stock.model)
    name = re.search(r'-dct(\d+[std]?)', path)
    if name:
        model['backbone'].update(type=backbone, in_channels=int(name[1].rstrip('std')))
    model['backbone'].update(gate={}) if 'gate' in path else None
    model['backbone'].update(strides=[1, 1, 2, 2]) if '28x28' in path else None
    assert plain(cfg.model) == model
    for loader in LOADERS:
        ours, theirs = plain(cfg[loader]), plain(stock[loader])
        steps, stock_steps = ours['dataset'].pop('pipeline'), theirs['dataset'].pop('pipeline')
        assert ours == theirs, loader
        load, *augment, pack = stock_steps
        dct = [dict(type='YCbCr')]
        if name:
            augment[0]['scale'] = crop if loader == 'train_dataloader' else short_side
            augment[1].update(dict(crop_size=crop) if loader != 'train_dataloader' else {})
            dct = [dict(type='FusedBlockDCT', channels=name[1].upper(), stats=f'photos-{crop}')]
        assert [stock_resize(step) for step in steps] == [load, *augment, *dct, pack]


def test_the_ycbcr_config_has_the_stock_mean_in_its_colours() -> None:
    red, green, blue = stock_of('resnet/').data_preprocessor.mean
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    mean = (luma, 128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402)
    cfg = shipped('resnet/resnet50-ycbcr_8xb32_in1k.py')
    assert_allclose(cfg.data_preprocessor.mean, mean, atol=0.01)
    assert not cfg.data_preprocessor.to_rgb


@pytest.mark.parametrize(('name', 'base'), [('dct24s-int8', 'dct24s'), ('dct48s-int8', 'dct48s'),
                                            ('dct24s-device', 'dct24s')])
def test_variants_feed_the_network_the_same(name: str, base: str) -> None:
    variant, row = (shipped(f'resnet/resnet50-{key}_8xb32_in1k.py') for key in (name, base))
    assert input_specs(variant) == input_specs(row)
    for key in (*RECIPE, 'model'):
        assert plain(variant.get(key)) == plain(row.get(key)), key


@pytest.mark.parametrize(('page', 'name'), [('README.md', 'dct24n'), ('docs/config_guide.md', 'dct24s')])
def test_the_first_config_of_a_page_is_the_shipped_one(page: str, name: str, tmp_path: Path) -> None:
    text = (CONFIGS.parent / page).read_text().split('```python\n')[1].split('```')[0]
    (tmp_path / 'page.py').write_text(text)
    cfg, expected = Config.fromfile(str(tmp_path / 'page.py')), shipped(f'resnet/resnet50-{name}_8xb32_in1k.py')
    check_config(cfg)
    for key in ('model', 'data_preprocessor', 'optim_wrapper', 'param_scheduler', 'test_dataloader'):
        assert cfg[key] == expected[key], key
    kinds = [[step['type'] for step in c.train_dataloader.dataset.pipeline] for c in (cfg, expected)]
    assert kinds[0] == kinds[1]
