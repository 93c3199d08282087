"""Guard backbones other than ResNet, in both hosts, by the stock classes; check their configs."""
import copy
import pickle
import re
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from backbone_checks import (
    BACKBONES,
    PATCHES,
    STEMLESS,
    SWIN,
    assert_same,
    build,
    clone,
    expected_weights,
    flat,
    freq,
    load,
    outputs,
    randomized,
    said,
    side_of,
)
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from shipped import plain
from torch import nn

import mmfreq.models.cls
import mmfreq.models.det
from mmfreq.config.checks import check_channels
from mmfreq.config.pipelines import pipelines, stock_resize
from mmfreq.models.stem import FreqMixin, StemlessResNetMixin
from mmfreq.selection.gate import find_gate

from mmdet.structures.bbox import HorizontalBoxes  # isort: skip  # after the operations that mmfreq supplies
from mmdet.structures.mask import BitmapMasks  # isort: skip
from mmpretrain.structures import DataSample  # isort: skip

ROOT = Path(__file__).parents[2]
FAMILIES = {name: BACKBONES[name] for name in ('mmpretrain.RegNet', 'mmdet.ResNeXt', 'mmpretrain.MobileNetV2',
                                               'mmpretrain.EfficientNet', *PATCHES)}  # some of each mixin


# Networks


@pytest.mark.parametrize('host', ['cls', 'det'])
def test_classes_are_found_by_their_names(host: str) -> None:
    """Pickle looks a class up in its module, as configs do in the registry."""
    module = getattr(mmfreq.models, host)
    classes = {name: item for name, item in vars(module).items() if isinstance(item, type)
               and issubclass(item, FreqMixin) and item.__module__ == module.__name__}
    kinds = [sum(name.startswith(prefix) for name in classes) for prefix in ('Freq', 'Unpacked')]
    assert kinds == dict(cls=[52, 66], det=[19, 20])[host]
    for name, item in classes.items():
        assert pickle.loads(pickle.dumps(item)) is item
        assert item.__name__ == name
        assert 'for DCT channels: :class:`~mmfreq.models.' in item.__doc__


@pytest.mark.parametrize('name', BACKBONES)
def test_stock_shapes_stock_weights_and_a_step_of_training(name: str, shallow: None, log: list[str],
                                                           tmp_path: Path) -> None:
    theirs, ours = build(name), freq(name)
    side = side_of(name)
    cells = side // ours.input_stride
    shapes = [[level.shape for level in outputs(model, torch.rand(1, channels, size, size))]
              for model, channels, size in ((theirs, 3, side), (ours, 24, cells))]
    assert shapes[0] == shapes[1]

    given = clone(randomized(theirs))
    how = 'init_cfg' if name in PATCHES else 'load_from'
    fresh, loaded = load(how, ours, given, tmp_path)
    anew = {key for key in fresh if 'relative_' in key}  # what the stock class makes anew too
    expected = expected_weights(ours, given, fresh)
    assert_same({key: value for key, value in loaded.items() if key not in anew},
                {key: value for key, value in expected.items() if key not in anew})
    line, = said(log)
    assert re.match(r'Freq\w+: stock RGB weights loaded into 24 DCT channels, to be trained before use', line)
    assert ours.first_weight in line
    gone = len(given.keys() - fresh.keys() - anew)
    assert gone == 0 or f'stem dropped ({gone} tensors)' in line
    assert ('newly made, (' in line) == (name not in STEMLESS and not isinstance(ours, StemlessResNetMixin))

    randomized(ours).train()  # mmdet's TridentResNet is made of memory as it is
    sum(level.square().mean() for level in flat(ours(torch.randn(2, 24, cells, cells)))).backward()
    gradients = {key: value.grad for key, value in ours.named_parameters() if value.grad is not None}
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    assert gradients[ours.first_weight].abs().max() > 0


@pytest.mark.parametrize('name', FAMILIES)
def test_copies(name: str) -> None:
    model, x = randomized(freq(name, gate=dict())), torch.randn(1, 24, 16, 16)
    expected = outputs(model, x)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(outputs(copied, x), expected, strict=True))


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(patch_size=14), r'expected patches a multiple of input_stride=4 pixels apart, got \(14, 14\)'),
    (dict(input_stride=0), 'FreqVisionTransformer: input_stride: expected an integer >= 1, got 0')])
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        freq('mmpretrain.VisionTransformer', **arguments)


@pytest.mark.parametrize('name', FAMILIES)
def test_the_gate_comes_first(name: str) -> None:
    model = freq(name, gate=dict(always_on=[5]))
    assert find_gate(model) is model.gate
    model.train()
    x = torch.randn(2, 24, 16, 16)
    (sum(level.square().sum() for level in model(x)) + model.gate.mask.sum()).backward()
    assert model.gate.linear.weight.grad.abs().sum() > 0
    assert model.gate.mask.shape == (2, 24)
    with torch.no_grad():
        model.gate.logit_bias[:, 3] = -9  # off
    levels = outputs(model, x)
    other = x.clone()
    other[:, 3] += 1
    assert all(torch.equal(a, b) for a, b in zip(outputs(model, other), levels))
    other[:, 5] += 1
    assert not torch.equal(outputs(model, other)[-1], levels[-1])


@pytest.mark.parametrize('frozen', [0, 1, 2])
@pytest.mark.parametrize('name', ['mmpretrain.ResNet', 'mmdet.ResNet', *FAMILIES])
def test_frozen_stages_and_norm_eval_are_the_stock_ones(name: str, frozen: int, log: list[str]) -> None:
    """If the weight that takes the channels is frozen, loading stock weights into it is a warning."""
    options = dict(frozen_stages=frozen, **(dict(norm_eval=frozen == 1) if name in STEMLESS else {}))
    ours, theirs = freq(name, gate=dict(), **options), build(name, **options)
    ours.train()
    theirs.train()
    both = set(dict(ours.named_modules())) & set(dict(theirs.named_modules()))
    weights = [{key: weight.requires_grad for key, weight in model.named_parameters()
                if key.rpartition('.')[0] in both and key in ours.state_dict() and key in theirs.state_dict()}
               for model in (ours, theirs)]
    modes = [{key: module.training for key, module in model.named_modules()
              if key in both and dict(module.named_parameters(recurse=False))} for model in (ours, theirs)]
    assert weights[0] == weights[1]
    assert {key: mode for key, mode in modes[0].items() if key in modes[1]} == {
        key: mode for key, mode in modes[1].items() if key in modes[0]}
    assert all(parameter.requires_grad for parameter in ours.gate.parameters())
    ours.load_state_dict(theirs.state_dict(), strict=False)
    line, = said(log)
    warned = f'frozen_stages={frozen} keeps {ours.first_weight} from being trained: set it to -1' in line
    assert warned == (not ours.get_parameter(ours.first_weight).requires_grad)


@pytest.mark.parametrize('name', ['mmpretrain.ConvNeXt', 'mmpretrain.SwinTransformer', 'mmdet.SwinTransformer',
                                    'mmdet.RegNet', 'mmdet.PyramidVisionTransformer', 'mmpretrain.XCiT'])
def test_the_gate_keeps_its_start_when_the_stock_class_initialises(name: str) -> None:
    model = freq(name, channels=192, gate=dict())
    model.init_weights()
    assert model.gate.linear.weight.std().item() == pytest.approx((2 / 192)**0.5, rel=0.02)  # kaiming, ReLU
    torch.testing.assert_close(model.gate.logit_bias, torch.full((2, 192), 0.95), rtol=0, atol=1e-3)


# Checkpoints


@pytest.mark.parametrize('how', ['load_from', 'init_cfg', 'load_state_dict'])
@pytest.mark.parametrize('name', FAMILIES)
def test_own_weights_load_without_a_word_and_those_for_other_channels_are_refused(
        name: str, how: str, log: list[str], tmp_path: Path) -> None:
    """The hosts' own loading is not strict, and would leave the first layer at random."""
    saved, model = randomized(freq(name, gate=dict())), freq(name, gate=dict())
    assert_same(load(how, model, saved.state_dict(), tmp_path)[1], clone(saved))
    assert said(log) == []
    with pytest.raises(ValueError, match=rf'in_channels=12, .*{model.first_weight} has shape .*, 24 input channels'):
        load(how, freq(name, 12), saved.state_dict(), tmp_path)


def test_weights_for_other_patches_are_refused() -> None:
    name = 'mmpretrain.VisionTransformer'
    with pytest.raises(ValueError, match=r'or a stock one with its stem or patch embedding; '
                       r'.*\(32, 3, 32, 32\).* instead of \(32, 24, 4, 4\)'):
        freq(name).load_state_dict(build(name, patch_size=32).state_dict(), strict=False)


def test_old_checkpoints_of_swin_load_as_into_the_stock_class(tmp_path: Path) -> None:
    """Before version 2 the last norm was called ``norm``, before version 3 the masks were saved."""
    config = dict(type='ImageClassifier', neck=dict(type='GlobalAveragePooling'),
                  head=dict(type='LinearClsHead', num_classes=3, in_channels=192))
    backbone = dict(arch=SWIN, pad_small_map=True)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        theirs = MODELS.build(dict(config, backbone=dict(backbone, type='SwinTransformer')))
        ours = MODELS.build(dict(config, backbone=dict(backbone, type='FreqSwinTransformer', in_channels=24)))
        unpacked = MODELS.build(dict(config, backbone=dict(
            backbone, type='UnpackedSwinTransformer', pixels={},
            freq=dict(channels='24N', stats='imagenette-224-4x4', block_size=4))))
    old = {re.sub(r'^backbone\.norm3\.', 'backbone.norm.', key): value
           for key, value in clone(randomized(theirs)).items()}
    old['backbone.stages.0.blocks.1.attn.attn_mask'] = torch.zeros(4, 49, 49)
    torch.save(dict(state_dict=old), tmp_path / 'old.pth')
    randomized(theirs)
    for model in (theirs, ours, unpacked):
        load_checkpoint(model, str(tmp_path / 'old.pth'))
    assert_same(clone(unpacked), clone(theirs))
    for key, value in theirs.state_dict().items():
        if 'patch_embed.projection.weight' not in key:
            assert torch.equal(ours.state_dict()[key], value), key
    assert torch.equal(ours.backbone.norm3.weight, old['backbone.norm.weight'])


def test_swin_checkpoints_of_its_authors_load_as_into_the_stock_class(tmp_path: Path, log: list[str]) -> None:
    names = {'patch_embed.projection': 'patch_embed.proj', 'stages': 'layers', 'attn.w_msa': 'attn',
             'ffn.layers.0.0': 'mlp.fc1', 'ffn.layers.1': 'mlp.fc2'}
    given = {}
    for key, value in clone(randomized(build('mmdet.SwinTransformer'))).items():
        for ours, authors in names.items():
            key = key.replace(ours, authors)
        given[key] = value
    torch.save(dict(model=given), tmp_path / 'swin.pth')
    options = dict(convert_weights=True, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'swin.pth')))
    theirs, ours = build('mmdet.SwinTransformer', **options), freq('mmdet.SwinTransformer', **options)
    fresh = clone(ours)
    theirs.init_weights()
    ours.init_weights()
    assert_same(clone(ours), expected_weights(ours, clone(theirs), fresh))
    assert len(said(log)) == 1


@pytest.mark.parametrize(('name', 'changes'), [
    ('ResNeXt', {}), ('ResNeSt', {}), ('ResNeSt', dict(dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1))), ('RegNet', {}),
    ('SwinTransformer', dict(use_abs_pos_embed=False)),
])
def test_backbones_take_each_others_weights_across_the_hosts(name: str, changes: dict) -> None:
    classifier, detector = randomized(freq(f'mmpretrain.{name}', **changes)), freq(f'mmdet.{name}', **changes)
    detector.load_state_dict(classifier.state_dict(), strict=True)
    x = torch.randn(1, 24, 32, 32)
    for ours, theirs in zip(outputs(detector, x), outputs(classifier, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    back = freq(f'mmpretrain.{name}', **changes)
    back.load_state_dict(detector.state_dict(), strict=True)
    assert_same(clone(back), clone(classifier))


def test_a_deployed_network_has_its_projection_too() -> None:
    config = dict(BACKBONES['mmpretrain.RepVGG'], type='mmpretrain.FreqRepVGG', in_channels=24, out_indices=(0, 3))
    model = randomized(MODELS.build(config))
    x = torch.randn(1, 24, 32, 32)
    before = outputs(model, x)
    model.switch_to_deploy()
    deployed = MODELS.build(dict(config, deploy=True))
    deployed.load_state_dict(model.state_dict(), strict=True)
    for ours, theirs in zip(outputs(deployed, x), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('name', 'frozen'), [('mmpretrain.PoolFormer', -1), ('mmpretrain.EfficientNet', 0)])
def test_nothing_is_frozen_unless_it_is_said(name: str, frozen: int) -> None:
    """Stock PoolFormer freezes its patch embedding by default; EfficientNet counts from 0."""
    model = freq(name)
    model.train()
    assert (model.frozen_stages, model.unfrozen) == (frozen, frozen)
    assert all(parameter.requires_grad for parameter in model.parameters())


# Configs

CONFIGS = [path for kind in ('dct24s', 'dct24n') for path in sorted(ROOT.glob(f'configs/*/*-{kind}_*.py'))
           if path.parent.name not in ('demo', 'mobilenet_v2') and '_20e_' not in path.stem]
CLASSIFIERS = [path for path in CONFIGS if path.stem.endswith('_in1k')]
DETECTORS = [path for path in CONFIGS if path.stem.endswith('_coco')]
ADDED = {'custom_imports', 'freq', 'load', 'pack', 'train_crop', 'test_resize', 'resize', 'views', 'ema', 'switch'}
CHANGED = {'model', 'data_preprocessor', 'train_pipeline', 'train_pipeline_stage2', 'test_pipeline', 'tta_pipeline',
           'train_dataloader', 'val_dataloader', 'test_dataloader', 'custom_hooks', 'default_hooks'}


def stem(path: Path) -> str:
    return path.stem


def stock_config(path: Path) -> Config:
    """The host's config of the same name."""
    folder = 'mask_rcnn' if '_x101' in path.stem else path.parent.name
    host = 'mmpretrain' if path in CLASSIFIERS else 'mmdet'
    return get_config(f'{host}::{folder}/{re.sub("-dct24[sn]", "", path.stem)}.py')


def noise_file(folder: Path, shape: tuple[int, int]) -> str:
    path = folder / 'noise.png'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    return str(path)


@pytest.mark.parametrize('path', CONFIGS, ids=stem)
def test_configs_differ_from_the_stock_ones_by_the_input(path: Path) -> None:
    cfg = Config.fromfile(str(path))
    check_channels(cfg)
    ours, theirs = (plain(config._cfg_dict) for config in (cfg, stock_config(path)))
    assert {key for key in ours if key not in theirs or ours[key] != theirs[key]} <= ADDED | CHANGED
    backbone, expected = ours['model'].pop('backbone'), theirs['model'].pop('backbone')
    native, detects = 'dct24n' in path.stem, path in DETECTORS
    changed = {key for key in backbone if key not in expected or backbone[key] != expected[key]}
    assert changed <= {'type', 'in_channels', 'freq', 'pixels', 'frozen_stages'}
    assert ('frozen_stages' in changed) == (detects and backbone['type'].startswith('FreqRes'))
    if 'pixels' in backbone:
        assert backbone['pixels'] == (theirs['model'] if detects else theirs)['data_preprocessor']
        assert backbone['freq'] in ours['test_dataloader']['dataset']['pipeline']
    assert {**ours['model'], 'data_preprocessor': 0} == {**theirs['model'], 'data_preprocessor': 0}
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        steps, expected = (config[name]['dataset'].pop('pipeline') for config in (ours, theirs))
        ours[name]['dataset']['type'] = ours[name]['dataset']['type'].removeprefix('Checked')
        assert ours[name] == theirs[name]
        assert steps[-2]['type'] == 'FusedBlockDCT'
        for step in expected if not native and not detects else ():
            sizes = {key: 2 * step[key] for key in ('scale', 'crop_size') if key in step}
            step.update(sizes, **(dict(crop_padding=64) if step['type'].startswith('EfficientNet') else {}))
        assert [stock_resize(step) for step in steps[1:-2] + steps[-1:]] == expected[1:]


@pytest.mark.parametrize('path', [path for path in CLASSIFIERS if path.parent.name != 'resnet'], ids=stem)
def test_classification_configs_train(path: Path, tmp_path: Path) -> None:
    """Through the pipeline and the preprocessor with its batch augmentations, forward and backward."""
    cfg = Config.fromfile(str(path))
    side = 56 if 'swin' in path.stem else 16
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
        packed = Compose(pipelines(cfg, 'train_dataloader')[0])(
            dict(img_path=noise_file(tmp_path, (375, 500)), gt_label=0))
        assert (packed['inputs'].shape, packed['inputs'].dtype) == ((24, 56, 56), torch.float32)
        data = dict(inputs=[packed['inputs'][:, :side, :side]] * 2,
                    data_samples=[DataSample().set_gt_label(label) for label in (3, 7)])
        model.train()
        losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    losses['loss'].backward()
    assert abs(losses['loss'].item() - np.log(1000)) < 3
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert model.backbone.get_parameter(model.backbone.first_weight).grad.abs().max() > 0


@pytest.mark.parametrize('path', [path for path in DETECTORS if path.parent.name not in ('faster_rcnn', 'rtmdet')],
                         ids=stem)
def test_detection_configs_train(path: Path) -> None:
    cfg = Config.fromfile(str(path))
    cfg.model.backbone.init_cfg = None
    cfg.model.train_cfg.rpn_proposal.max_per_img = cfg.model.train_cfg.rcnn.sampler.num = 32
    results = dict(
        img=np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8), img_id=0, img_path='noise',
        img_shape=(90, 130), ori_shape=(90, 130), gt_bboxes=HorizontalBoxes([[10., 12., 70., 80.]]),
        gt_bboxes_labels=np.array([2]), gt_ignore_flags=np.array([False]),
        gt_masks=BitmapMasks(np.ones((1, 90, 130), np.uint8), 90, 130))
    with DefaultScope.overwrite_default_scope('mmdet'):
        packed = Compose(cfg.train_pipeline[-2:])(results)
        assert packed['inputs'].shape == (24, 23, 33)
        model = MODELS.build(cfg.model)
        model.train()
        data = model.data_preprocessor(dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']]), True)
        losses = model(**data, mode='loss')
    total = sum(torch.stack(v).sum() if isinstance(v, list) else v for k, v in losses.items() if 'loss' in k)
    assert torch.isfinite(total)
    total.backward()
    frozen = {name for name, parameter in model.backbone.named_parameters() if parameter.grad is None}
    stem_of_stock = ('conv1.', 'bn1.', 'layer1.') if path.parent.name == 'mask_rcnn' and 'dct24n' in path.stem else ()
    assert frozen == {name for name, _ in model.backbone.named_parameters() if name.startswith(stem_of_stock)}


def test_the_gate_of_a_convnext_detector_learns_at_the_full_rate() -> None:
    """The stock recipe lowers the rate from layer to layer, by names that start with ``backbone``."""
    cfg = Config.fromfile(str(next(path for path in DETECTORS if 'convnext' in path.stem)))
    model = nn.Module()
    model.backbone = MODELS.build(dict(cfg.model.backbone, gate=dict(), init_cfg=None))
    cfg.optim_wrapper.type = 'OptimWrapper'  # mixed precision needs a GPU
    with DefaultScope.overwrite_default_scope('mmdet'):
        groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    rates = {id(parameter): group['lr'] for group in groups for parameter in group['params']}
    assert len(rates) == len(list(model.parameters()))
    assert {rates[id(parameter)] for parameter in model.backbone.gate.parameters()} == {0.0001}
    assert rates[id(model.backbone.downsample_layers[0][0].weight)] == pytest.approx(0.0001 * 0.95**7)


# docs/new_backbone.md


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the document shows, current and on the Python path."""
    text = (ROOT / 'docs' / 'new_backbone.md').read_text()
    for block in re.findall(r'```python\n(.*?)```', text, re.DOTALL):
        (tmp_path / block.split('\n')[0].removeprefix('# ')).write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_document_adds_backbones_in_ten_lines(documented: Path, log: list[str],
                                                  capsys: pytest.CaptureFixture) -> None:
    files = {path.name: path.read_text().splitlines()[1:] for path in documented.iterdir()}
    assert sorted(files) == ['check.py', 'mlp-mixer-base-p16-dct24s_64xb64_in1k.py', 'my_mlp_mixer.py',
                             'my_shufflenet.py']
    assert all(len([line for line in files[name] if line]) <= 10 for name in ('my_shufflenet.py', 'my_mlp_mixer.py'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        runpy.run_path('check.py')
        cfg = Config.fromfile('mlp-mixer-base-p16-dct24s_64xb64_in1k.py')
        check_channels(cfg)
        packed = Compose(pipelines(cfg, 'train_dataloader')[0])(
            dict(img_path=noise_file(documented, (100, 100)), gt_label=0))
        # For time:
        cfg.model.backbone.arch = dict(embed_dims=32, num_layers=2, tokens_mlp_dims=16, channels_mlp_dims=64)
        cfg.model.head.in_channels = 32
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
        data = dict(inputs=[packed['inputs']] * 2, data_samples=[packed['data_samples']] * 2)
        data = model.data_preprocessor(data, True)
        model.train()
        model(**data, mode='loss')['loss'].backward()
        plain_backbone = {key: value for key, value in cfg.model.backbone.items() if key != 'in_channels'}
        given = MODELS.build(dict(plain_backbone, type='MlpMixer')).state_dict()
        model.backbone.load_state_dict(given, strict=True)
        import my_shufflenet
        shufflenet = my_shufflenet.FreqShuffleNetV1(in_channels=24, gate=dict())
        levels = shufflenet(torch.rand(2, 24, 16, 16))
    assert '(1, 768, 196)' in capsys.readouterr().out.splitlines()
    assert packed['inputs'].shape == (24, 56, 56)
    assert model.backbone.patch_embed.projection.weight.grad.abs().max() > 0
    assert said(log) == ['FreqMlpMixer: stock RGB weights loaded into 24 DCT channels, to be trained before use; '
                         'patch_embed.projection.weight newly made, (32, 24, 4, 4) instead of (32, 3, 16, 16)']
    assert levels[0].shape == (2, 960, 2, 2)


def test_the_document_lists_all_backbones() -> None:
    text = (ROOT / 'docs' / 'new_backbone.md').read_text()
    table, missing = text.partition('## Supported backbones')[2].split('## Backbones without a version of their own')
    columns = [set(), set()]
    for row in re.findall(r'^\| `.*', table, re.MULTILINE):
        for column, cell in zip(columns, row.split('|')[2:4]):
            column.update(re.sub(r' \(\w+\)', '', cell).strip().split(', '))
    for column, host in zip(columns, ('mmpretrain', 'mmdet')):
        names = {name for name in MODELS.children[host].module_dict if name.startswith('Freq')}
        assert {f'Freq{name}' for name in column} == {name for name in names if 'Preprocessor' not in name} - {
            'FreqMlpMixer', 'FreqShuffleNetV1'}  # the document's own
        assert not column & set(re.findall(r'(\w+)[,\s]', missing))
