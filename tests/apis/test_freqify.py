"""Stock configs become frequency-domain ones, equal to those written by hand and trainable, or are refused."""
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, DefaultScope
from shipped import CONFIGS

import mmfreq.models.cls
import mmfreq.models.det  # noqa: F401  both register backbones
from mmfreq.apis.freqify.convert import freqify, write_freqified
from mmfreq.apis.measure import build_model
from mmfreq.config.checks import check_config
from mmfreq.config.paths import config_path, package_configs
from mmfreq.config.pipelines import iter_dicts, stock_resize, transform_type
from mmfreq.config.writer import child_text, plain_config
from mmfreq.engine.checkpoints import load_checked
from mmfreq.errors import RefusedError
from mmfreq.input_spec import InputSpec
from mmfreq.models.cls import FreqResNet

FREQ = 'FusedBlockDCT'
CLS = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
DET = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
LOAD, PACK = "dict(type='LoadImageFromFile')", "dict(type='PackInputs')"

# Stock configs that must become trainable, with the name of the weight that takes the channels.
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
    """Write a config that inherits ``base``."""
    path = folder / 'stock.py'
    path.write_text(f"_base_ = '{base}'\n{text}\n")
    return str(path)


def pipeline(*steps: str) -> str:
    return f'train_dataloader = dict(dataset=dict(pipeline=[{LOAD}, {", ".join(steps)}]))'


def written(config: str, out: Path, channels: str = '24S') -> Config:
    """Return the frequency-domain config, written and read, without the trial."""
    target, _ = freqify(config, channels)
    out.write_text(child_text(config, target, 'none', out.parent))
    assert plain_config(out) == target
    return Config.fromfile(str(out))


def kinds(steps: list) -> list:
    return [kinds(step) if isinstance(step, list) else transform_type(step) for step in steps]


class NoiseImages(BaseDataset):
    """An image of noise, 480 x 640 pixels, four times, with a label, two boxes and masks."""
    METAINFO = dict(classes=('noise', ))

    def load_data_list(self) -> list[dict]:
        image = f'{self.data_root}/image.png'
        cv2.imwrite(image, np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))
        instances = [dict(bbox=[x0, y0, x1, y1], mask=[[x0, y0, x1, y0, x1, y1, x0, y1]], bbox_label=0, ignore_flag=0)
                     for x0, y0, x1, y1 in ([40., 60., 384., 336.], [192., 20., 610., 450.])]
        return [dict(img_path=image, height=480, width=640, gt_label=0, instances=instances, img_id=i)
                for i in range(4)]


def on_noise(node: dict, folder: Path) -> dict:
    """Replace the data of a data set's config by noise; wrappers and pipelines stay."""
    if 'dataset' in node:
        return {**node, 'dataset': on_noise(node['dataset'], folder)}
    return dict(type=NoiseImages, data_root=str(folder), pipeline=node['pipeline'])


def first_sample(cfg: Config, folder: Path) -> dict:
    """Return the first sample of a training with :class:`NoiseImages`."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return DATASETS.build(on_noise(cfg.train_dataloader.dataset.to_dict(), folder))[0]


# The result


@pytest.mark.parametrize(('config', 'shipped'), [
    ('mmpretrain::resnet/resnet50_8xb32_in1k.py', 'resnet/resnet50-dct24s_8xb32_in1k.py'),
    ('mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', 'swin_transformer/swin-tiny-dct24s_16xb64_in1k.py'),
    ('mmpretrain::resnest/resnest50_32xb64_in1k.py', 'resnest/resnest50-dct24s_32xb64_in1k.py'),
    ('mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py', 'mobilenet_v2/mobilenet-v2-dct24s_8xb32_in1k.py'),
    ('mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py',
     'vision_transformer/vit-base-p16-dct24s_64xb64_in1k.py'),
    ('mmpretrain::regnet/regnetx-3.2gf_8xb64_in1k.py', 'regnet/regnetx-3.2gf-dct24s_8xb64_in1k.py'),
    ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco.py'),
    ('mmpretrain::resnet/resnet50_8xb32_in1k.py', 'resnet/resnet50-dct24n_8xb32_in1k.py'),
    ('mmpretrain::convnext/convnext-tiny_32xb128_in1k.py', 'convnext/convnext-tiny-dct24n_32xb128_in1k.py'),
    ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'mask_rcnn/mask-rcnn_r50-dct24n_fpn_1x_coco.py'),
    ('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'rtmdet/rtmdet_tiny-dct24n_8xb32-300e_coco.py'),
])
def test_it_amounts_to_the_config_written_by_hand(config: str, shipped: str, tmp_path: Path) -> None:
    """Names of variables and defaults may differ."""
    written(config, tmp_path / 'out.py', '24N' if 'dct24n' in shipped else '24S')
    configs = [plain_config(path) for path in (tmp_path / 'out.py', CONFIGS / shipped)]
    for cfg in configs:
        for variable in ('freq', 'load', 'pack', 'train_crop', 'test_resize', 'resize', 'views', 'ema', 'switch'):
            cfg.pop(variable, None)
        for node in iter_dicts(cfg):
            if node.get('type') == 'LoadImageFromFile' and node.get('backend_args', 0) is None:
                del node['backend_args']
            for key in ('num_classes', 'pad_mask', 'batch_augments') if 'pixels' in node else ():
                node['pixels'].pop(key, None)
        if 'rtmdet' in config:
            for key in ('pad_size_divisor', 'bgr_to_rgb', 'batch_augments'):
                cfg['model']['data_preprocessor'].pop(key, None)
    assert configs[0] == configs[1]


@pytest.mark.parametrize('config', TRAINABLE)
def test_it_trains(config: str, tmp_path: Path) -> None:
    cfg = written(config, tmp_path / 'out.py')
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
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(on_noise(cfg.train_dataloader.dataset.to_dict(), tmp_path))
        model = MODELS.build(cfg.model).train()
        model.init_weights()
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    weight = model.backbone.get_parameter(TRAINABLE[config])
    assert weight.shape[1] == 24
    before = weight.detach().clone()
    logs = model.train_step(pseudo_collate([dataset[0], dataset[1]]), optimizer)
    assert all(torch.isfinite(value).all() for value in logs.values())
    assert logs['loss'] > 0
    assert (weight != before).all()


def test_hooks_are_merged_with_those_of_the_stock_config(tmp_path: Path) -> None:
    config = stock(tmp_path, CLS, "default_hooks = dict(logger=dict(interval=7), mine=dict(type='EMAHook'))")
    hooks = freqify(config, '24S')[0]['default_hooks']
    assert hooks['input_spec'] == dict(type='InputSpecHook')
    assert (hooks['logger']['interval'], hooks['mine']) == (7, dict(type='EMAHook'))
    assert hooks['visualization'] == dict(type='FreqVisualizationHook', enable=False)
    assert freqify(DET, '24S')[0]['default_hooks']['visualization']['type'] == 'DetVisualizationHook'


def test_a_detector_with_a_first_stage_of_stride_2(tmp_path: Path, quick_init: None) -> None:
    """A cell of 2x2 pixels: the DCT upscales four times, and the preprocessor knows the stride."""
    config = stock(tmp_path, DET, """
backbone = dict(_delete_=True, type='MobileNetV2', out_indices=(1, 2, 4, 6), frozen_stages=1)
data_preprocessor = dict(type='DetDataPreprocessor', pad_size_divisor=1)
model = dict(data_preprocessor=data_preprocessor, backbone=backbone, neck=dict(in_channels=[24, 32, 96, 320]))
""")
    note, = write_freqified(config, '24S', tmp_path / 'out.py')
    assert 'statistics photos-1333x800' in note
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


def test_patches_of_14_pixels_are_seven_cells() -> None:
    target, _ = freqify('mmpretrain::eva02/eva02-tiny-p14_in1k.py', '24S')
    assert target['model']['backbone']['input_stride'] == 2
    assert target['test_pipeline'][1]['scale'] == 4 * 336
    assert target['freq']['stats'] == 'photos-896'


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
{pipeline("dict(type='Resize', scale=510)", f"dict(type='RandomCrop', crop_size={train})", PACK)}
val_dataloader = dict(dataset=dict(pipeline=[{LOAD}, dict(type='EfficientNetCenterCrop', crop_size={test}), {PACK}]))
test_dataloader = val_dataloader
""")
    target, notes = freqify(config, '24S')
    assert target['freq'] == dict(type=FREQ, channels='24S', stats=stats)
    assert [stats in note for note in notes] == [True] * noted
    target, notes = freqify(config, '24S', 'photos-896')
    assert (target['freq']['stats'], notes) == ('photos-896', [])


def test_wrapped_data_views_and_second_pipelines(tmp_path: Path, quick_init: None) -> None:
    config = stock(tmp_path, DET, f'''
model = dict(data_preprocessor=dict(pad_size_divisor=1, pad_value=114))
load = ({LOAD}, dict(type='LoadAnnotations', with_bbox=True))
mix = [dict(type='Mosaic', img_scale=(128, 128)), dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]
plain = (*load, dict(type='Resize', scale=(256, 128), keep_ratio=True), dict(type='PackDetInputs'))
repeated = dict(type='RepeatDataset', times=2, dataset=dict(type='CocoDataset', pipeline=list(load)))
train_dataloader = dict(dataset=dict(_delete_=True, type='MultiImageMixDataset', dataset=repeated, pipeline=mix))
tta_pipeline = [{LOAD}, dict(type='TestTimeAug', transforms=[
    [dict(type='Resize', scale=(200, 100), keep_ratio=True), dict(type='Resize', scale=(256, 128))],
    [dict(type='RandomFlip', prob=1.), dict(type='RandomFlip', prob=0.)],
    [dict(type='PackDetInputs', meta_keys=('img_id', 'img_shape', 'flip', 'flip_direction'))]])]
custom_hooks = [dict(type='PipelineSwitchHook', switch_epoch=3, switch_pipeline=plain)]
custom_imports = dict(imports='json')
''')
    out = tmp_path / 'out.py'
    write_freqified(config, '24S', out)
    assert "_base_ = 'stock.py'" in out.read_text()
    cfg, target = Config.fromfile(str(out)), plain_config(out)
    mixed = cfg.train_dataloader.dataset
    assert kinds(mixed.pipeline) == ['Mosaic', 'RandomFlip', FREQ, 'PackDetInputs']
    assert mixed.dataset.dataset.type == 'CheckedCocoDataset'
    assert kinds(mixed.dataset.dataset.pipeline) == ['LoadImageFromFile', 'LoadAnnotations']
    assert mixed.pipeline[0].img_scale == (128, 128)
    views = cfg.tta_pipeline[1].transforms
    assert kinds(views) == [['Resize'] * 2, ['RandomFlip'] * 2, [FREQ], ['PackDetInputs']]
    assert views[2] == [dict(type=FREQ, channels='24S', stats='photos-1333x800', upscale=2)]
    switch, check = target['custom_hooks']
    assert isinstance(switch['switch_pipeline'], tuple)
    assert kinds(switch['switch_pipeline']) == ['LoadImageFromFile', 'LoadAnnotations', 'LazyResize', FREQ,
                                                'PackDetInputs']
    assert check == dict(type='NumClassCheckHook')
    assert cfg.custom_imports.imports == ['mmfreq.models.det', 'json']
    assert (cfg.model.data_preprocessor.pad_size_divisor, cfg.model.data_preprocessor.pad_value) == (4, 0)


@pytest.mark.parametrize('more', [[], [['PhotoMetricDistortion']]])
def test_pixels_that_are_not_whole_are_rounded(more: list, tmp_path: Path) -> None:
    """In views, too. SSD has such a pipeline."""
    config = stock(tmp_path, DET, f"""
steps = [[dict(type='Resize', scale=(64, 64))], *[[dict(type=kind) for kind in step] for step in {more}]]
pack = [[dict(type='PackDetInputs', meta_keys=('img_id', 'flip'))]]
{pipeline("dict(type='LoadAnnotations', with_bbox=True)", "dict(type='PhotoMetricDistortion')",
          "dict(type='Resize', scale=(64, 64))", "dict(type='PackDetInputs')")}
tta_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True), dict(type='TestTimeAug', transforms=[*steps, *pack])]
""")
    target, _ = freqify(config, '24S')
    assert kinds(target['train_dataloader']['dataset']['pipeline'])[-3:] == ['RoundPixels', FREQ, 'PackDetInputs']
    assert 'RoundPixels' not in kinds(target['test_dataloader']['dataset']['pipeline'])
    views = target['tta_pipeline'][1]['transforms']
    assert kinds(views) == [['Resize'], *more, ['RoundPixels'], [FREQ], ['PackDetInputs']]
    assert first_sample(written(config, tmp_path / 'out.py'), tmp_path)['inputs'].shape == (24, 16, 16)


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
    assert first_sample(written(config, tmp_path / 'out.py'), tmp_path)['inputs'].shape == (24, 16, 16)


@pytest.mark.parametrize(('config', 'augments', 'stride'), [
    ('mmdet::atss/atss_r101_fpn_8xb8-amp-lsj-200e_coco.py', [dict(type='BatchFixedSizePad', size=(1024, 1024))], 4),
    ('mmdet::yolox/yolox_s_8xb8-300e_coco.py', None, 2),
])
def test_batches_of_one_size_stay_and_random_ones_go(config: str, augments: Any, stride: int) -> None:
    target, notes = freqify(config, '24S')
    preprocessor = target['model']['data_preprocessor']
    assert preprocessor['batch_augments'] == augments
    assert preprocessor.get('stride', 4) == stride
    assert any('batch_augments' in note for note in notes) == (augments is None)


def test_sizes_in_pixels(tmp_path: Path) -> None:
    """They are doubled where they refer to the resized image, not where they refer to the image as it is."""
    policies = "[dict(type='Cutout', shape=20), dict(type='GaussianBlur', magnitude_range=(0.1, 2.))]"
    config = stock(tmp_path, CLS, f'''
train_pipeline = [{LOAD}, dict(type='RandAugment', policies={policies}, num_policies=1, magnitude_level=1),
                  dict(type='EfficientNetRandomCrop', scale=224),
                  dict(type='RandomApply', prob=0.5, transforms={policies}), {PACK}]
test_pipeline = [{LOAD}, dict(type='Resize', scale=(256, -1), keep_ratio=True), dict(type='Pad', size=(260, 270)),
                 dict(type='CenterCrop', crop_size=(224, 225)), {PACK}]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
''')
    target, _ = freqify(config, '24S')
    _, before, crop, behind, *_ = target['train_dataloader']['dataset']['pipeline']
    assert before['policies'] == [dict(type='Cutout', shape=20), dict(type='GaussianBlur', magnitude_range=(0.1, 2.))]
    assert crop == dict(type='EfficientNetRandomCrop', scale=448, crop_padding=64)
    assert behind['transforms'] == [dict(type='Cutout', shape=40), dict(type='GaussianBlur', magnitude_range=(0.2, 4.))]
    assert target['val_dataloader']['dataset']['pipeline'][1:4] == [
        dict(type='Resize', scale=(512, -1), keep_ratio=True), dict(type='Pad', size=(520, 540)),
        dict(type='CenterCrop', crop_size=(448, 450))]
    assert target['train_pipeline'] == target['train_dataloader']['dataset']['pipeline']


@pytest.mark.parametrize('name', [
    'legacy_1.x/retinanet_r50-caffe_fpn_1x_coco_v1.py',  # mmengine does not find mmdet::legacy_1.x/...
    'rtmdet/classification/cspnext-tiny_8xb256-rsb-a1-600e_in1k.py',  # a classifier of mmpretrain
    'centripetalnet/centripetalnet_hourglass104_16xb6-crop511-210e-mstest_coco.py',  # pads float pixels
])
def test_configs_with_peculiarities_are_written(name: str, tmp_path: Path) -> None:
    write_freqified(f'mmdet::{name}', '24S', tmp_path / 'out.py')
    assert plain_config(tmp_path / 'out.py') == freqify(f'mmdet::{name}', '24S')[0]


def test_a_backbone_of_the_other_host() -> None:
    target, _ = freqify('mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py', '64S')
    assert target['model']['backbone']['type'] == 'mmpretrain.FreqConvNeXt'
    assert target['custom_imports']['imports'] == ['mmfreq.models.det', 'mmfreq.models.cls', 'mmpretrain.models']


PANOPTIC = sorted(package_configs('mmdet').glob('mask2former/*-panoptic.py'))


@pytest.mark.parametrize('path', PANOPTIC, ids=lambda path: path.stem)
def test_panoptic_configs_pass_the_checks(path: Path) -> None:
    """Their second evaluator reads another annotation file than the data set."""
    assert len(PANOPTIC) == 7
    target, _ = freqify(str(path), '24S')
    assert len({node['ann_file'] for node in iter_dicts(target['val_evaluator']) if 'ann_file' in node}) == 2
    check_config(Config(target))


# Refused


@pytest.mark.parametrize(('config', 'words'), [
    ('mmpretrain::none.py', 'no such file: mmpretrain::none.py'),
    ('mmpretrain::lenet/lenet5_mnist.py', 'mmfreq has no FreqLeNet5'),
    ('mmpretrain::barlowtwins/barlowtwins_resnet50_8xb256-coslr-1000e_in1k.py', 'SelfSupDataPreprocessor'),
    ('mmpretrain::arcface/resnet50-arcface_8xb32_inshop.py', 'expected model.backbone, got .*image_encoder'),
    ('mmdet::detectors/cascade-rcnn_r50-rfp_1x_coco.py', 'besides model.backbone, got rfp_backbone'),
    ('mmdet::ld/ld_r18-gflv1-r101_fpn_1x_coco.py', 'besides model.backbone, got teacher_config'),
    (str(CONFIGS / 'resnet/resnet50-dct24s_8xb32_in1k.py'), 'model.backbone is FreqResNet'),
])
def test_configs_that_are_refused(config: str, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        freqify(config, '24S')


def test_a_config_of_the_new_style_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'new.py'
    path.write_text('from mmpretrain.models import ResNet\n\nmodel = dict(backbone=dict(type=ResNet, depth=18))\n')
    with pytest.raises(RefusedError, match='expected a text-style config'):
        freqify(str(path), '24N')


def test_a_backbone_that_has_no_unpacked_version_is_refused() -> None:
    with pytest.raises(RefusedError, match='has no UnpackedMoCoV3ViT for mmpretrain'):
        freqify('mmpretrain::mocov3/benchmarks/vit-small-p16_8xb128-linear-coslr-90e_in1k.py', '24N')


@pytest.mark.parametrize('channels', ['24S', '24N'])
def test_a_config_of_no_host_is_refused(channels: str) -> None:
    with pytest.raises(RefusedError, match='default_scope: expected mmpretrain or mmdet, got None'):
        freqify('mmpretrain::dinov2/vit-base-p14_dinov2-pre_headless.py', channels)


RESIZE = "dict(type='Resize', scale=(224, 224))"


@pytest.mark.parametrize(('base', 'text', 'words'), [
    ('mmpretrain::_base_/default_runtime.py', "model = dict(backbone=dict(type='ResNet', depth=18))",
     'expected a pipeline in one of train_dataloader'),
    (CLS, "data_preprocessor = dict(pad_size_divisor=32)", 'pad_size_divisor'),
    (CLS, "data_preprocessor = dict(batch_augments=dict(augments=dict(type='ResizeMix', alpha=1.)))", 'ResizeMix'),
    (CLS, pipeline(RESIZE, PACK, "dict(type='Collect')"), 'but train_dataloader has none'),
    (CLS, pipeline("dict(type='CenterCrop', crop_size=224)", PACK), 'a transform that resizes, .* got CenterCrop'),
    (CLS, pipeline("dict(type='RandomFlip', prob=0.5)", PACK), 'a transform that resizes'),
    (CLS, pipeline("dict(type='torchvision/Resize', size=224)", PACK), 'a transform that resizes, .* got torchvision/'),
    (CLS, pipeline(RESIZE, "dict(type='ToPIL', to_rgb=True)", "dict(type='ToNumpy')", PACK), 'expects BGR'),
    (DET, "model = dict(data_preprocessor=dict(batch_augments=[dict(type='BatchResize', scale=(1400, 800))]))",
     'batch_augments: expected BatchFixedSizePad'),
    (DET, f'''tta_pipeline = [{LOAD}, dict(type='TestTimeAug', transforms=[
        [dict(type='PackDetInputs'), dict(type='RandomFlip', prob=1.)]])]''', 'RandomFlip comes after FusedBlockDCT'),
])
def test_parts_that_are_refused(base: str, text: str, words: str, tmp_path: Path) -> None:
    config = stock(tmp_path, base, text)
    with pytest.raises(RefusedError, match=words):
        write_freqified(config, '24S', tmp_path / 'out.py')
    assert [path.name for path in tmp_path.iterdir()] == ['stock.py']


def test_a_stride_that_does_not_divide_a_block_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FreqResNet, 'input_stride', 3)
    with pytest.raises(RefusedError, match='divide 8, got 3'):
        freqify(CLS, '24S')


@pytest.mark.parametrize(('base', 'text', 'error', 'words'), [
    (CLS, pipeline(RESIZE, "dict(type='RandomResize', scale=(96, 96), ratio_range=(1., 1.))", PACK), RefusedError,
     r'train_dataloader: .*4x4 pixels .*\(96, 96\), got \(12, 12\)'),
    ('mmpretrain::regnet/regnetx-400mf_8xb128_in1k.py', 'model = dict(backbone=dict(strides=(2, 2, 2, 2)))',
     RefusedError, r'shape \[\(1, 384, 4, 4\)\], .* \[\(1, 384, 7, 7\)\]'),
    (CLS, 'model = dict(backbone=dict(frozen_stages=4))', RefusedError, 'freezes its whole backbone'),
    (CLS, pipeline(RESIZE, "dict(type='Normalize', mean=[0.] * 3, std=[1.] * 3)", PACK), ValueError,
     r'got float32 \(448, 448, 3\)'),
    (CLS, "model = dict(head=dict(type='NoHead'))", KeyError, 'NoHead'),
    (CLS, pipeline("dict(type='NoTransform')", RESIZE, PACK), KeyError, 'NoTransform'),
])
def test_nothing_is_written_if_the_trial_fails(base: str, text: str, error: type[Exception], words: str, tmp_path: Path,
                                               quick_init: None) -> None:
    """Errors of transforms and models stay what they are."""
    config = stock(tmp_path, base, text)
    with pytest.raises(error, match=words) as failed:
        write_freqified(config, '24S', tmp_path / 'out.py')
    assert isinstance(failed.value, RefusedError) == (error is RefusedError)
    assert [path.name for path in tmp_path.iterdir()] == ['stock.py']


# The tool


def test_tool(tmp_path: Path, run_tool: Any, quick_init: None, monkeypatch: pytest.MonkeyPatch,
              capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    run_tool('freqify', CLS, '--channels', '6S', '--stats', 'dctnet-classification')
    out = Path('resnet18-dct6s_8xb32_in1k.py')
    assert capsys.readouterr().out.endswith(f'wrote {out}\n')
    text, cfg = out.read_text(), Config.fromfile(out)
    assert text.startswith('# resnet18_8xb32_in1k.py on the DCT channels 6S, by tools/freqify.py.\n'
                           f"_base_ = '{CLS}'\n")
    assert '    freq,\n' in text
    assert (cfg.model.backbone.type, cfg.model.backbone.in_channels) == ('FreqResNet', 6)
    assert cfg.freq == dict(type=FREQ, channels='6S', stats='dctnet-classification')
    for arguments, words in [
        ((CLS, '--channels', '6S'), f'{out} exists'),
        ((CLS, '--channels', '24S', '-o', 'x.yaml'), 'expected a .py file, got x.yaml'),
        ((CLS, '--channels', '24S', '--stats', 'none', '-o', 'x.py'), "got 'none'"),
    ]:
        with pytest.raises(SystemExit):
            run_tool('freqify', *arguments)
        assert words in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == [out.name]
    assert out.read_text() == text


@pytest.mark.parametrize(('config', 'channels', 'backbone'), [
    (CLS, '12N', 'UnpackedResNet'), (CLS, '24S', 'UnpackedResNet'), (DET, '24N', 'UnpackedResNet'),
    ('mmpretrain::convnext/convnext-tiny_32xb128_in1k.py', '24N', 'FreqConvNeXt'),
    ('mmpretrain::inception_v3/inception-v3_8xb32_in1k.py', '24N', 'UnpackedInceptionV3'),  # returns None, too
    ('mmpretrain::t2t_vit/t2t-vit-t-14_8xb64_in1k.py', '24N', 'UnpackedT2T_ViT'),  # states in_channels=3
    ('mmpretrain::van/van-tiny_8xb128_in1k.py', '24N', 'UnpackedVAN')])
def test_a_stock_checkpoint_becomes_one_of_the_new_config(
        config: str, channels: str, backbone: str, tmp_path: Path, run_tool: Any, quick_init: None,
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = Config(plain_config(config_path(config)))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        given = build_model(cfg).state_dict()
    torch.save(dict(state_dict=given, meta=dict(dataset_meta=dict(classes=('a', )))), 'stock.pth')
    run_tool('freqify', config, '--channels', channels, '--weights', 'stock.pth', '-o', 'out.py')
    new, cfg = torch.load('out.pth'), Config.fromfile('out.py')
    assert cfg.model.backbone.type == backbone
    assert Path(cfg.load_from) == tmp_path / 'out.pth'  # a training starts from it, from any folder
    changed = {key for key in given if not torch.equal(given[key], new['state_dict'][key])}
    folded = 'backbone.downsample_layers.0.0.'
    assert changed == ({f'{folded}weight', f'{folded}bias'} if 'Freq' in backbone else set())
    assert InputSpec.from_checkpoint(new) == InputSpec.of(cfg.freq)
    assert new['meta']['dataset_meta']['classes'] == ('a', )
    said = capsys.readouterr().out
    assert 'mmfreq export out.py out.pth out.onnx\n' in said
    assert f'{len(given) - len(changed)} of {len(new["state_dict"])} tensors are those of stock.pth' in said
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        load_checked(build_model(cfg), 'out.pth', cfg)
