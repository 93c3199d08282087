"""Stock configs made frequency-domain ones: equal to those written by hand, trainable, or refused with the reason."""
import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, DefaultScope

from mmfreq.apis.freqify.convert import freq_name, freqify, write_freqified
from mmfreq.apis.freqify.trial import on_noise, write_noise
from mmfreq.config.checks import check_channels
from mmfreq.config.pipelines import (
    iter_dicts,
    network_pipeline,
    stock_resize,
    transform_type,
    unfused,
)
from mmfreq.config.writer import child_text, plain_config
from mmfreq.models.cls import FreqResNet

ROOT = Path(__file__).parents[2]
FREQ = 'FusedBlockDCT'
CLS = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
DET = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'

# The stock configs that must come out trainable, with the name of the weight that takes the channels.
TRAINABLE = {
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py': 'layer1.0.conv1.weight',
    'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py': 'layer1.0.conv1.weight',
    'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py': 'patch_embed.projection.weight',
    'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py': 'downsample_layers.0.0.weight',
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


def stock(folder: Path, base: str, text: str) -> str:
    """A config that inherits ``base``."""
    path = folder / 'stock.py'
    path.write_text(f"_base_ = '{base}'\n{text}\n")
    return str(path)


LOAD = "dict(type='LoadImageFromFile')"


def pipeline(*steps: str) -> str:
    return f'train_dataloader = dict(dataset=dict(pipeline=[{LOAD}, {", ".join(steps)}]))'


def written(config: str, out: Path, channels: str = '24S') -> Config:
    """The frequency-domain config, written and read, without the trial."""
    target, notes = freqify(config, channels)
    out.write_text(child_text(config, target, '\n'.join(notes) or 'none', out.parent))
    assert plain_config(out) == target
    return Config.fromfile(str(out))


def kinds(steps: list) -> list:
    return [kinds(step) if isinstance(step, list) else transform_type(step) for step in steps]


# The result


@pytest.mark.parametrize(('config', 'shipped'), [
    ('mmpretrain::resnet/resnet50_8xb32_in1k.py', 'resnet/resnet50-dct24s_8xb32_in1k.py'),
    ('mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', 'swin_transformer/swin-tiny-dct24s_16xb64_in1k.py'),
    ('mmpretrain::resnest/resnest50_32xb64_in1k.py', 'resnest/resnest50-dct24s_32xb64_in1k.py'),
    ('mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py', 'mobilenet_v2/mobilenet-v2-dct24s_8xb32_in1k.py'),
    ('mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py',
     'vision_transformer/vit-base-p16-dct24s_64xb64_in1k.py'),
    ('mmpretrain::regnet/regnetx-3.2gf_8xb64_in1k.py', 'regnet/regnetx-3.2gf-dct24s_8xb64_in1k.py'),
    ('mmpretrain::convnext/convnext-tiny_32xb128_in1k.py', 'convnext/convnext-tiny-dct24s_32xb128_in1k.py'),
    ('mmpretrain::seresnet/seresnet50_8xb32_in1k.py', 'seresnet/seresnet50-dct24s_8xb32_in1k.py'),
    ('mmpretrain::resnext/resnext50-32x4d_8xb32_in1k.py', 'resnext/resnext50-32x4d-dct24s_8xb32_in1k.py'),
    ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco.py'),
])
def test_it_amounts_to_the_config_written_by_hand(config: str, shipped: str, tmp_path: Path) -> None:
    """But for names of variables, defaults, and in detection the weights to start from."""
    written(config, tmp_path / 'out.py')
    configs = [unfused(plain_config(path)) for path in (tmp_path / 'out.py', ROOT / 'configs' / shipped)]
    for cfg in configs:
        for variable in ('freq', 'load', 'pack', 'train_crop', 'test_resize', 'resize'):
            cfg.pop(variable, None)
        for node in iter_dicts(cfg):
            if node.get('type') == 'LoadImageFromFile' and node.get('backend_args', 0) is None:
                del node['backend_args']
    if 'mmdet' in config:
        assert [cfg['model']['backbone'].pop('frozen_stages') for cfg in configs] == [-1, 1]
        assert [cfg['model']['backbone'].pop('init_cfg')['checkpoint'][:12] for cfg in configs] == [
            'torchvision:', 'work_dirs/re']
    shipped_text = repr(configs[1])
    assert configs[0] == ast.literal_eval(shipped_text)


@pytest.mark.parametrize('config', TRAINABLE)
def test_it_trains(config: str, tmp_path: Path) -> None:
    cfg = written(config, tmp_path / 'out.py')
    check_channels(cfg)
    for step in iter_dicts(cfg.train_dataloader.dataset.pipeline):  # smaller images, for time; Swin's windows need 448
        if transform_type(stock_resize(step)) in ('RandomResizedCrop', 'Resize'):
            assert step['scale'] in (448, (1333, 800))
            step['scale'] = 448 if 'swin' in config else 128 if step['scale'] == 448 else (192, 128)
    for node in iter_dicts(cfg.model):  # fewer boxes and masks, for time
        if transform_type(node) == 'RandomSampler':
            node['num'] = 16
        elif 'max_per_img' in node:
            node['max_per_img'] = 50
    cfg.model.backbone.pop('init_cfg', None)
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    write_noise(tmp_path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(on_noise(cfg.train_dataloader.dataset.to_dict(), str(tmp_path)))
        model = MODELS.build(cfg.model)
        model.init_weights()
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    first = model.backbone.get_parameter(TRAINABLE[config])
    assert first.shape[1] == 24
    before = first.detach().clone()
    model.train()
    logs = model.train_step(pseudo_collate([dataset[0], dataset[1]]), optimizer)
    assert all(torch.isfinite(value).all() for value in logs.values())
    assert logs['loss'] > 0
    assert (first != before).all()


def test_written_file(tmp_path: Path, quick_init: None) -> None:
    """Tried as a whole: pipelines on a noise image, the model, its features."""
    out = tmp_path / 'made' / 'resnet18.py'
    assert write_freqified(CLS, '6S', out, 'dctnet-classification') == []
    assert out.read_text().startswith('# resnet18_8xb32_in1k.py on the DCT channels 6S, written by tools/freqify.py.\n'
                                      f"_base_ = '{CLS}'\n")
    cfg = Config.fromfile(str(out))
    assert cfg.model.backbone.in_channels == 6
    assert cfg.freq == dict(type=FREQ, channels='6S', stats='dctnet-classification')
    assert '    freq,\n' in out.read_text()
    assert [path.name for path in out.parent.iterdir()] == ['resnet18.py']


def first_sample(cfg: Config, folder: Path) -> dict:
    """What the training pipeline makes of a noise image."""
    write_noise(folder)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return DATASETS.build(on_noise(cfg.train_dataloader.dataset.to_dict(), str(folder)))[0]


def test_a_first_stage_of_stride_2(tmp_path: Path, quick_init: None) -> None:
    """MobileNetV2 in classification: images four times as large, tried as a whole; the input of the shipped config."""
    assert write_freqified('mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py', '24S', tmp_path / 'out.py') == []
    shipped = ROOT / 'configs/mobilenet_v2/mobilenet-v2-dct24s_8xb32_in1k.py'
    shapes = [first_sample(Config.fromfile(path), tmp_path)['inputs'].shape for path in (tmp_path / 'out.py', shipped)]
    assert shapes == [(24, 112, 112)] * 2
    assert Config.fromfile(tmp_path / 'out.py').freq == dict(type=FREQ, channels='24S', stats='photos-896')


def test_a_detector_with_a_first_stage_of_stride_2(tmp_path: Path, quick_init: None) -> None:
    """A cell of 2x2 pixels: BlockDCT upscales four times, and the preprocessor knows the stride."""
    config = stock(tmp_path, DET, """
backbone = dict(_delete_=True, type='MobileNetV2', out_indices=(1, 2, 4, 6), frozen_stages=1)
data_preprocessor = dict(type='DetDataPreprocessor', pad_size_divisor=1)
model = dict(data_preprocessor=data_preprocessor, backbone=backbone, neck=dict(in_channels=[24, 32, 96, 320]))
""")
    notes = write_freqified(config, '24S', tmp_path / 'out.py')
    assert [note.partition(':')[0] for note in notes[1:]] == [
        'pad_size_divisor is 2, in the stock config 1',
        'The statistics photos-1333x800 are of images upscaled 2 times, here it is 4']
    cfg = Config.fromfile(tmp_path / 'out.py')
    assert cfg.freq == dict(type=FREQ, channels='24S', stats='photos-1333x800', upscale=4)
    assert (cfg.model.backbone.type, cfg.model.backbone.frozen_stages) == ('FreqMobileNetV2', -1)
    sample = first_sample(cfg, tmp_path)
    assert sample['data_samples'].img_shape == (800, 1067)  # 480 x 640
    assert sample['inputs'].shape == (24, 400, 534)
    with DefaultScope.overwrite_default_scope('mmdet'):
        batch = MODELS.build(cfg.model.data_preprocessor)(pseudo_collate([sample]))
        features = MODELS.build(cfg.model.backbone)(batch['inputs'][..., :64, :96])
    assert batch['data_samples'][0].pad_shape == (800, 1068)
    assert [level.shape[2:] for level in features] == [(32, 48), (16, 24), (8, 12), (4, 6)]  # strides of 4 to 32 pixels


def test_patches_of_14_pixels(tmp_path: Path) -> None:
    """Seven cells of 2 pixels: images four times as large, tried as a whole."""
    config = stock(tmp_path, 'mmpretrain::eva02/eva02-tiny-p14_in1k.py', """
model = dict(backbone=dict(arch=dict(_delete_=True, embed_dims=16, num_layers=1, num_heads=1, feedforward_channels=16),
                           img_size=224), head=dict(in_channels=16))
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(224, 224)), dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
""")
    notes = write_freqified(config, '24S', tmp_path / 'out.py')
    note, = notes
    assert note.startswith('input_stride is 2, since patches of 14 pixels are no multiple of 4')
    cfg = Config.fromfile(tmp_path / 'out.py')
    assert (cfg.model.backbone.input_stride, cfg.test_pipeline[1].scale) == (2, (896, 896))
    assert cfg.freq.stats == 'photos-896'


def test_features_that_are_nested(tmp_path: Path) -> None:
    """Conformer makes two in a stage: those of its convolutions and its tokens."""
    arch = dict(_delete_=True, embed_dims=16, depths=3, num_heads=1, channel_ratio=1)
    config = stock(tmp_path, 'mmpretrain::conformer/conformer-tiny-p16_8xb128_in1k.py', f"""
model = dict(backbone=dict(arch={arch}, base_channels=16), head=dict(in_channels=[64, 16]))""")
    write_freqified(config, '6S', tmp_path / 'out.py')
    assert Config.fromfile(tmp_path / 'out.py').model.backbone.type == 'FreqConformer'


@pytest.mark.parametrize(('train', 'test', 'stats', 'noted'), [
    (224, 224, 'photos-448', False),
    (384, 384, 'photos-896', True),  # 768 / 448 is more than 896 / 768
    ((320, 192), 320, 'photos-896', True),  # 640 / 448 is more than 896 / 640
    (160, 224, 'photos-448', True),  # 320 / 224 is more than 448 / 320
    (112, 112, 'photos-224', False),
])
def test_statistics_follow_the_size_of_the_training_crops(train: Any, test: int, stats: str, noted: bool,
                                                          tmp_path: Path) -> None:
    config = stock(tmp_path, CLS, f"""
{pipeline("dict(type='Resize', scale=510)", f"dict(type='RandomCrop', crop_size={train})", "dict(type='PackInputs')")}
val_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'), dict(type='EfficientNetCenterCrop', crop_size={test}), dict(type='PackInputs')]))
test_dataloader = val_dataloader
""")
    target, notes = freqify(config, '24S')
    assert target['freq'] == dict(type=FREQ, channels='24S', stats=stats)
    assert [note.split()[:3] for note in notes] == [['The', 'statistics', stats]] * noted
    target, notes = freqify(config, '24S', 'photos-896')
    assert (target['freq']['stats'], notes) == ('photos-896', [])


def test_written_file_of_a_path(tmp_path: Path, quick_init: None) -> None:
    """With much that a detection config may hold: wrapped data, mixing, test-time augmentation, a second pipeline."""
    config = stock(tmp_path, DET, '''
model = dict(data_preprocessor=dict(pad_size_divisor=1, pad_value=114))
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
mix = [
    dict(type='Mosaic', img_scale=(128, 128)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
plain = [*load, dict(type='Resize', scale=(256, 128), keep_ratio=True), dict(type='PackDetInputs')]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='MultiImageMixDataset',
        dataset=dict(type='RepeatDataset', times=2, dataset=dict(type='CocoDataset', pipeline=load)),
        pipeline=mix))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(200, 100), keep_ratio=True), dict(type='Resize', scale=(256, 128))],
            [dict(type='RandomFlip', prob=1.), dict(type='RandomFlip', prob=0.)],
            [dict(type='PackDetInputs', meta_keys=('img_id', 'img_shape', 'flip', 'flip_direction'))],
        ]),
]
custom_hooks = [dict(type='PipelineSwitchHook', switch_epoch=3, switch_pipeline=plain)]
custom_imports = dict(imports='json')
''')
    out = tmp_path / 'made.py'
    notes = write_freqified(config, '24S', out)
    cfg = Config.fromfile(str(out))
    assert "_base_ = 'stock.py'" in out.read_text()
    mixed = cfg.train_dataloader.dataset
    assert kinds(mixed.pipeline) == ['Mosaic', 'RandomFlip', FREQ, 'PackDetInputs']
    assert mixed.dataset.dataset.type == 'CheckedCocoDataset'
    assert kinds(mixed.dataset.dataset.pipeline) == ['LoadImageFromFile', 'LoadAnnotations']
    assert mixed.pipeline[0].img_scale == (128, 128)
    views = cfg.tta_pipeline[1].transforms
    assert kinds(views) == [['Resize'] * 2, ['RandomFlip'] * 2, [FREQ], ['PackDetInputs']]
    assert views[2] == [dict(type=FREQ, channels='24S', stats='photos-1333x800', upscale=2)]
    switch, check = cfg.custom_hooks
    assert kinds(switch.switch_pipeline) == ['LoadImageFromFile', 'LoadAnnotations', 'LazyResize', FREQ,
                                             'PackDetInputs']
    assert check.type == 'NumClassCheckHook'
    assert cfg.custom_imports.imports == ['mmfreq.models.det', 'json']
    assert (cfg.model.data_preprocessor.pad_size_divisor, cfg.model.data_preprocessor.pad_value) == (4, 0)
    assert [note.split()[0] for note in notes] == ['init_cfg', 'frozen_stages', 'pad_size_divisor']
    comment = out.read_text().partition('_base_')[0].replace('\n# ', ' ')
    assert all(note in comment for note in notes)


@pytest.mark.parametrize('more', [[], [['PhotoMetricDistortion']]])
def test_pixels_that_are_not_whole_are_rounded(more: list, tmp_path: Path) -> None:
    """In views too; SSD has such a pipeline."""
    config = stock(tmp_path, DET, f"""
steps = [[dict(type='Resize', scale=(64, 64))], *[[dict(type=kind) for kind in step] for step in {more}]]
pack = [[dict(type='PackDetInputs', meta_keys=('img_id', 'flip'))]]
{pipeline("dict(type='LoadAnnotations', with_bbox=True)", "dict(type='PhotoMetricDistortion')",
          "dict(type='Resize', scale=(64, 64))", "dict(type='PackDetInputs')")}
tta_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True), dict(type='TestTimeAug', transforms=[*steps, *pack])]
""")
    target, _ = freqify(config, '24S')
    steps = target['train_dataloader']['dataset']['pipeline']
    assert kinds(steps)[-3:] == ['RoundPixels', FREQ, 'PackDetInputs']
    assert 'RoundPixels' not in kinds(target['test_dataloader']['dataset']['pipeline'])
    loader, views = target['tta_pipeline']
    assert kinds([loader]) == ['LoadImageFromFile']
    assert kinds(views['transforms']) == [['Resize'], *more, ['RoundPixels'], [FREQ], ['PackDetInputs']]
    sample = first_sample(written(config, tmp_path / 'out.py'), tmp_path)
    assert sample['inputs'].shape == (24, 16, 16)


def test_pixels_of_a_wrapped_data_set_are_rounded(tmp_path: Path) -> None:
    """YOLOX and others load images in a data set, and mix them in the one around it."""
    config = stock(tmp_path, DET, '''
load = [dict(type='LoadImageFromFile', to_float32=True), dict(type='LoadAnnotations', with_bbox=True)]
train_dataloader = dict(dataset=dict(
    _delete_=True, type='MultiImageMixDataset', dataset=dict(type='CocoDataset', pipeline=load),
    pipeline=[
        dict(type='Mosaic', img_scale=(64, 64)), dict(type='Resize', scale=(64, 64)), dict(type='PackDetInputs')]))
''')
    mixed = freqify(config, '24S')[0]['train_dataloader']['dataset']
    assert kinds(mixed['pipeline']) == ['Mosaic', 'Resize', 'RoundPixels', FREQ, 'PackDetInputs']
    assert kinds(mixed['dataset']['pipeline']) == ['LoadImageFromFile', 'LoadAnnotations']
    sample = first_sample(written(config, tmp_path / 'out.py'), tmp_path)
    assert sample['inputs'].shape == (24, 16, 16)


@pytest.mark.parametrize(('config', 'kept', 'stride'), [
    ('mmdet::atss/atss_r101_fpn_8xb8-amp-lsj-200e_coco.py', [dict(type='BatchFixedSizePad', size=(1024, 1024))], 4),
    ('mmdet::yolox/yolox_s_8xb8-300e_coco.py', None, 2),
])
def test_batches_of_one_size_stay_and_random_ones_go(config: str, kept: Any, stride: int) -> None:
    target, notes = freqify(config, '24S')
    preprocessor = target['model']['data_preprocessor']
    assert preprocessor['batch_augments'] == kept
    assert preprocessor.get('stride', 4) == stride
    assert any(note.startswith('batch_augments is without BatchSync') for note in notes) == (kept is None)


def test_sizes_in_pixels(tmp_path: Path) -> None:
    """Doubled where they refer to the resized image; those before the first resizing refer to the image as it is."""
    policies = "[dict(type='Cutout', shape=20), dict(type='GaussianBlur', magnitude_range=(0.1, 2.))]"
    config = stock(tmp_path, CLS, f'''
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandAugment', policies={policies}, num_policies=1, magnitude_level=1),
    dict(type='EfficientNetRandomCrop', scale=224),
    dict(type='RandomApply', prob=0.5, transforms={policies}),
    dict(type='RandomErasing', erase_prob=0.25, min_area_ratio=0.02),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, -1), keep_ratio=True),
    dict(type='Pad', size=(260, 270)),
    dict(type='CenterCrop', crop_size=(224, 225)),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
''')
    target, _ = freqify(config, '24S')
    _, before, crop, behind, erase, *_ = target['train_dataloader']['dataset']['pipeline']
    assert before['policies'] == [dict(type='Cutout', shape=20), dict(type='GaussianBlur', magnitude_range=(0.1, 2.))]
    assert crop == dict(type='EfficientNetRandomCrop', scale=448, crop_padding=64)
    assert behind['transforms'] == [dict(type='Cutout', shape=40), dict(type='GaussianBlur', magnitude_range=(0.2, 4.))]
    assert erase == dict(type='RandomErasing', erase_prob=0.25, min_area_ratio=0.02)
    assert target['val_dataloader']['dataset']['pipeline'][1:4] == [
        dict(type='Resize', scale=(512, -1), keep_ratio=True), dict(type='Pad', size=(520, 540)),
        dict(type='CenterCrop', crop_size=(448, 450))]
    assert target['train_pipeline'] == target['train_dataloader']['dataset']['pipeline']


def test_a_backbone_of_the_other_host() -> None:
    target, _ = freqify('mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py', '64S')
    assert target['model']['backbone']['type'] == 'mmpretrain.FreqConvNeXt'
    assert target['custom_imports']['imports'] == ['mmfreq.models.det', 'mmfreq.models.cls', 'mmpretrain.models']


@pytest.mark.parametrize(('config', 'name'), [
    ('mmpretrain::resnet/resnet50_8xb32_in1k.py', 'resnet50-dct24s_8xb32_in1k'),
    ('mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', 'swin-tiny-dct24s_16xb64_in1k'),
    ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'mask-rcnn_r50-dct24s_fpn_1x_coco'),
    ('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 'fcos_r50-caffe-dct24s_fpn_gn-head_1x_coco'),
])
def test_name(config: str, name: str) -> None:
    assert freq_name(config, '24S') == name


def test_pipelines_as_tuples(tmp_path: Path) -> None:
    """A tuple becomes a tuple, sizes in it too; the file says the same."""
    config = stock(tmp_path, DET, """
train_pipeline = (dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
                  dict(type='Resize', scale=(256, 128), keep_ratio=True), dict(type='PackDetInputs'))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
""")
    cfg = written(config, tmp_path / 'out.py')
    steps = plain_config(tmp_path / 'out.py')['train_dataloader']['dataset']['pipeline']
    assert isinstance(steps, tuple)
    assert kinds(steps) == ['LoadImageFromFile', 'LoadAnnotations', 'LazyResize', FREQ, 'PackDetInputs']
    assert network_pipeline(cfg, list(steps))[2]['scale'] == (256, 128)


# Refused


@pytest.mark.parametrize(('config', 'message'), [
    ('mmpretrain::none.py', 'no such file: mmpretrain::none.py'),
    ('mmpretrain::lenet/lenet5_mnist.py', 'model.backbone is LeNet5, and mmfreq has no FreqLeNet5 for .*; docs/new'),
    ('mmpretrain::dinov2/vit-base-p14_dinov2-pre_headless.py', 'expected default_scope .*, got None'),
    ('mmpretrain::barlowtwins/barlowtwins_resnet50_8xb256-coslr-1000e_in1k.py',
     'data_preprocessor is SelfSupDataPreprocessor'),
    ('mmpretrain::arcface/resnet50-arcface_8xb32_inshop.py', 'expected model.backbone, got a ImageToImageRetriever'),
    ('mmdet::crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py',
     r'model.data_preprocessor: batch_augments \(BatchResize\) resize pixels'),
    ('mmdet::detectors/cascade-rcnn_r50-rfp_1x_coco.py', 'expected one network, got model.neck.rfp_backbone besides'),
    ('mmdet::ld/ld_r18-gflv1-r101_fpn_1x_coco.py', 'expected one network, got model.teacher_config besides'),
    ('mmdet::qdtrack/qdtrack_faster-rcnn_r50_fpn_4e_base.py', 'expected model.backbone, got a QDTrack'),
    (str(ROOT / 'configs/resnet/resnet50-dct24s_8xb32_in1k.py'), 'a frequency-domain config already'),
])
def test_configs_that_are_refused(config: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        freqify(config, '24S')


@pytest.mark.parametrize(('base', 'text', 'message'), [
    ('mmpretrain::_base_/default_runtime.py', "model = dict(backbone=dict(type='ResNet', depth=18))",
     'expected a loader with a pipeline, one of train_dataloader, .*; the config has none'),
    (CLS, "default_scope = 'mmseg'", "expected default_scope .* got 'mmseg'"),
    (CLS, "data_preprocessor = dict(pad_size_divisor=32)", 'pad_size_divisor=32 pads pixels'),
    (CLS, "model = dict(train_cfg=dict(augments=[dict(type='Mixup', alpha=1.), dict(type='ResizeMix', alpha=1.)]))",
     'model.train_cfg: the batch augmentation ResizeMix is not known to work'),
    (CLS, "data_preprocessor = dict(batch_augments=dict(augments=dict(type='ResizeMix', alpha=1.)))",
     'data_preprocessor: the batch augmentation ResizeMix'),
    (CLS, pipeline("dict(type='RandomResizedCrop', scale=224)", "dict(type='PackMultiTaskInputs')"),
     'train_dataloader.dataset.pipeline: the pipeline packs with PackMultiTaskInputs; only PackInputs'),
    (CLS, pipeline("dict(type='RandomResizedCrop', scale=224)", "dict(type='PackInputs')", "dict(type='Collect')"),
     'expected PackInputs to be the last transform, got Collect behind it'),
    (CLS, pipeline("dict(type='RandomResizedCrop', scale=224)", "dict(type='Collect')"),
     'train_dataloader: expected a pipeline that ends in PackInputs, got Load.* -> Random.* -> Collect'),
    (CLS, pipeline("dict(type='CenterCrop', crop_size=224)", "dict(type='PackInputs')"),
     'CenterCrop crops or pads images that nothing has resized'),
    (CLS, pipeline("dict(type='RandomFlip', prob=0.5)", "dict(type='PackInputs')"),
     'expected a transform that resizes the image'),
    (CLS, pipeline("dict(type='torchvision/Resize', size=224)", "dict(type='PackInputs')"),
     'torchvision/Resize is not a transform of mmpretrain'),
    (CLS, pipeline("dict(type='Resize', scale=(224, 224))", "dict(type='ToPIL', to_rgb=True)", "dict(type='ToNumpy')",
                   "dict(type='PackInputs')"), 'the image is RGB before the packer'),
    (DET, pipeline("dict(type='LoadAnnotations', with_bbox=False, with_seg=True)", "dict(type='PackDetInputs')"),
     'only segmentation maps are loaded'),
    (DET, f'''tta_pipeline = [{LOAD}, dict(type='TestTimeAug', transforms=[
        [dict(type='PackDetInputs')], [dict(type='RandomFlip', prob=1.)]])]''',
     'tta_pipeline: expected the last transforms of TestTimeAug to be PackDetInputs, got RandomFlip'),
    (DET, "custom_hooks = [dict(type='PipelineSwitchHook', switch_epoch=1, switch_pipeline=[dict(type='PackInputs')])]",
     r'custom_hooks\.switch_pipeline: the pipeline packs with PackInputs; only PackDetInputs'),
])
def test_parts_that_are_refused(base: str, text: str, message: str, tmp_path: Path) -> None:
    config = stock(tmp_path, base, text)
    with pytest.raises(ValueError, match=message):
        write_freqified(config, '24S', tmp_path / 'out.py')
    assert [path.name for path in tmp_path.iterdir()] == ['stock.py']


def test_a_cell_that_no_block_can_cover_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FreqResNet, 'input_stride', 3)
    with pytest.raises(ValueError, match='expected input_stride of FreqResNet to divide 8, got 3'):
        freqify(CLS, '24S')


def test_python_style_configs_are_refused(tmp_path: Path) -> None:
    (tmp_path / 'lazy.py').write_text('from mmpretrain.models import ResNet\nmodel = dict(backbone=ResNet)\n')
    with pytest.raises(ValueError, match='it is a Python-style config'):
        freqify(str(tmp_path / 'lazy.py'), '24S')


@pytest.mark.parametrize(('base', 'text', 'message'), [
    (CLS, pipeline("dict(type='RandomResizedCrop', scale=224)", "dict(type='Normalize', mean=[0.] * 3, std=[1.] * 3)",
                   "dict(type='PackInputs')"),
     r'the pipeline of train_dataloader fails on a noise image: ValueError: FusedBlockDCT: .* got float32 \(448, 448, '
     r'3\).*; the float32 pixels come from Normalize'),
    (CLS, pipeline("dict(type='Resize', scale=(224, 224))",
                   "dict(type='RandomResize', scale=(96, 96), ratio_range=(1., 1.))", "dict(type='PackInputs')"),
     r'train_dataloader: expected a cell for each 4x4 pixels of the stock input \(96, 96\), got \(12, 12\)'),
    ('mmpretrain::regnet/regnetx-400mf_8xb128_in1k.py', 'model = dict(backbone=dict(strides=(2, 2, 2, 2)))',
     r'the backbone makes features of shape \[\(1, 384, 4, 4\)\], the stock one \[\(1, 384, 7, 7\)\]'),
    (CLS, 'model = dict(backbone=dict(frozen_stages=4))', 'the stock config freezes its whole backbone'),
    ('mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py', 'model = dict(backbone=dict(patch_size=7))',
     r'the model cannot be built: .* expected patches a multiple of input_stride=4 pixels apart, got \(7, 7\)'),
    (CLS, "model = dict(head=dict(type='NoHead'))", 'the model cannot be built: .*NoHead'),
    (CLS, pipeline("dict(type='NoTransform')", "dict(type='Resize', scale=(224, 224))", "dict(type='PackInputs')"),
     'the pipeline of train_dataloader fails on a noise image: .*NoTransform'),
])
def test_what_fails_when_tried_is_not_written(base: str, text: str, message: str, tmp_path: Path,
                                              quick_init: None) -> None:
    config = stock(tmp_path, base, text)
    with pytest.raises(ValueError, match=f'(?s){message}'):
        write_freqified(config, '24S', tmp_path / 'out.py')
    assert [path.name for path in tmp_path.iterdir()] == ['stock.py']


# The tool


def test_tool(tmp_path: Path, run_tool: Any, quick_init: None, monkeypatch: pytest.MonkeyPatch,
              capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    run_tool('freqify', CLS, '--channels', '24S')
    assert 'written: resnet18-dct24s_8xb32_in1k.py' in capsys.readouterr().out
    assert Config.fromfile('resnet18-dct24s_8xb32_in1k.py').model.backbone.type == 'FreqResNet'
    before = Path('resnet18-dct24s_8xb32_in1k.py').read_text()
    for arguments, message in [
        ((CLS, '--channels', '24S'), 'resnet18-dct24s_8xb32_in1k.py is there already; --force replaces it'),
        ((CLS, '--channels', '24S', '-o', 'x.yaml'), 'expected a .py file, got x.yaml'),
        (('mmpretrain::lenet/lenet5_mnist.py', '--channels', '24S'),
         'mmpretrain::lenet/lenet5_mnist.py: model.backbone is LeNet5'),
        (('mmpretrain::x.py', '--channels', '24S'), '^config: no such file: mmpretrain::x.py$'),
        ((CLS, '--channels', '24S', '--stats', 'none', '-o', 'x.py'),
         "train_dataloader: stats: expected .* got 'none'"),
    ]:
        with pytest.raises(SystemExit, match=f'(?s){message}'):
            run_tool('freqify', *arguments)
    assert [path.name for path in Path().iterdir()] == ['resnet18-dct24s_8xb32_in1k.py']
    assert Path('resnet18-dct24s_8xb32_in1k.py').read_text() == before
