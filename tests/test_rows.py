"""Check every row of the paper's tables: the input by its config, and its figures in the metafiles."""
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DefaultScope
from modelindex.load_model_index import load as load_model_index
from numpy.testing import assert_allclose
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import mmfreq.models.cls
import mmfreq.models.det  # noqa: F401  (registers the backbones)
from mmfreq.apis.measure import build_model
from mmfreq.config.paths import config_path
from mmfreq.config.pipelines import pipelines, transform_type

ROOT = Path(__file__).parents[1]
INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text(encoding='utf-8'))


@dataclass(frozen=True)
class Row:
    """A row of Xu et al. 2020, Tables 1 to 4, or of the README of their code (Faster R-CNN)."""
    channels: int
    size: tuple[int, int]  # per channel
    normalised: float = 0.  # input size over that of the RGB row; 0 where the paper states none
    results: tuple[tuple[float, ...], ...] = field(default=())  # one tuple for each task


def resnet(name: str) -> str:
    return f'configs/resnet/resnet50-{name}_8xb32_in1k.py'


def mobilenet(name: str) -> str:
    return f'configs/mobilenet_v2/mobilenet-v2-{name}_8xb32_in1k.py'


def rcnn(kind: str, name: str) -> str:
    return f'configs/{kind}_rcnn/{kind}-rcnn_r50-{name}_fpn_1x_coco.py'


CLASSIFICATION = {
    'mmpretrain::resnet/resnet50_8xb32_in1k.py': Row(3, (224, 224), 1.0, ((75.780, 92.650), )),
    resnet('ycbcr'): Row(3, (224, 224), 1.0, ((75.234, 92.544), )),
    resnet('dct192-28x28'): Row(192, (28, 28), 1.0, ((76.060, 93.020), )),
    resnet('dct192'): Row(192, (56, 56), 4.0, ((77.194, 93.454), )),
    resnet('dct24d'): Row(24, (56, 56), 0.5, ((77.166, 93.560), )),
    resnet('dct24s'): Row(24, (56, 56), 0.5, ((77.196, 93.504), )),
    resnet('dct24t'): Row(24, (56, 56), 0.5, ((77.148, 93.326), )),
    resnet('dct48s'): Row(48, (56, 56), 1.0, ((77.384, 93.554), )),
    resnet('dct48t'): Row(48, (56, 56), 1.0, ((77.338, 93.614), )),
    resnet('dct64s'): Row(64, (56, 56), 1.333, ((77.232, 93.624), )),
    resnet('dct64t'): Row(64, (56, 56), 1.333, ((77.280, 93.456), )),
    'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py': Row(3, (224, 224), 1.0, ((71.702, 90.415), )),
    mobilenet('dct6s'): Row(6, (112, 112), 0.5, ((71.776, 90.258), )),
    mobilenet('dct12s'): Row(12, (112, 112), 1.0, ((72.156, 90.634), )),
    mobilenet('dct24s'): Row(24, (112, 112), 2.0, ((72.364, 90.606), )),
    mobilenet('dct32s'): Row(32, (112, 112), 2.667, ((72.282, 90.592), )),
}
DETECTION = {
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': Row(
        3, (800, 1333), 0., ((37.3, 59.0, 40.2, 21.9, 40.9, 48.1), (34.2, 55.9, 36.2, 15.8, 36.9, 50.1))),
    rcnn('mask', 'dct24s'): Row(
        24, (200, 334), 0., ((37.7, 59.2, 40.9, 21.7, 41.4, 49.1), (34.6, 56.1, 36.9, 16.1, 37.4, 50.7))),
    rcnn('mask', 'dct48s'): Row(
        48, (200, 334), 0., ((38.1, 59.5, 41.2, 22.0, 41.3, 49.8), (35.0, 56.6, 37.2, 16.3, 37.5, 52.3))),
    rcnn('mask', 'dct64s'): Row(
        64, (200, 334), 0., ((38.1, 59.6, 41.1, 22.5, 41.6, 49.7), (35.0, 56.5, 37.4, 16.9, 37.6, 51.6))),
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py': Row(
        3, (800, 1333), 0., ((36.4, 58.4, 39.1, 21.5, 40.0, 46.6), )),
    rcnn('faster', 'dct24s'): Row(24, (200, 334), 0., ((37.2, 58.8, 39.9, 21.9, 40.7, 48.9), )),
    rcnn('faster', 'dct48s'): Row(48, (200, 334)),
    rcnn('faster', 'dct64s'): Row(64, (200, 334), 0., ((37.2, 58.5, 40.6, 21.9, 40.9, 48.3), )),
}
ROWS = {**CLASSIFICATION, **DETECTION}
NO_ROWS = {  # variants of the rows
    'configs/mask_rcnn/mask-rcnn_r50-dct24s_fpn_20e_coco.py': Row(24, (200, 334)),
    rcnn('mask', 'dct192-gate'): Row(192, (200, 334)),
    resnet('dct192-gate'): Row(192, (56, 56)),
    resnet('dct24s-int8'): Row(24, (56, 56), 0.5),
    resnet('dct48s-int8'): Row(48, (56, 56), 1.0),
    resnet('dct24s-device'): Row(24, (56, 56), 0.5),
}


OTHERS = {  # families that the paper does not have; ResNeSt is tested on a larger crop, as stock
    name: Row(24, (160, 160)) if 'rtmdet' in name else Row(24, (200, 334)) if 'coco' in name
    else Row(24, (64, 64), 0.653) if 'resnest' in name else Row(24, (56, 56), 0.5)
    for name in sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('configs/*/*-dct24[sn]_*_*.py'))
    if name not in ROWS | NO_ROWS}
METRICS = {
    'Image Classification': ['Top 1 Accuracy', 'Top 5 Accuracy'],
    'Object Detection': [f'box AP{kind}' for kind in ('', '50', '75', 'S', 'M', 'L')],
    'Instance Segmentation': [f'mask AP{kind}' for kind in ('', '50', '75', 'S', 'M', 'L')],
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope='module')
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Noise of 1333 x 800 pixels, a size that the detectors keep."""
    path = str(tmp_path_factory.mktemp('image') / 'noise.png')
    cv2.imwrite(path, np.random.default_rng(0).integers(0, 256, (800, 1333, 3), dtype=np.uint8))
    return path


@cache
def cached(name: str) -> Config:
    return Config.fromfile(str(config_path(name) if '::' in name else ROOT / name))


def load(name: str) -> Config:
    return deepcopy(cached(name))


def build(cfg: Config) -> nn.Module:
    """Build the model as mmengine's Runner does, without pretrained weights."""
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return build_model(cfg)


# Inputs


@pytest.mark.parametrize('name', ROWS | NO_ROWS | OTHERS)
def test_the_input_is_that_of_the_paper(name: str, image: str) -> None:
    cfg, row = load(name), (ROWS | NO_ROWS | OTHERS)[name]
    loaders = ('train_dataloader', 'test_dataloader') if name in CLASSIFICATION else ('test_dataloader', )
    for loader in loaders:
        steps = [step for step in pipelines(cfg, loader)[0] if transform_type(step) != 'LoadAnnotations']
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            inputs = Compose(steps)(dict(img_path=image, img_id=0, gt_label=0))['inputs']
        if 'device' in name:
            assert (tuple(inputs.shape), inputs.dtype) == ((3, 448, 448), torch.uint8)
            inputs = build(cfg).data_preprocessor(dict(inputs=[inputs]))['inputs'][0]
        assert tuple(inputs.shape) == (row.channels, *row.size)
        assert inputs.dtype == (torch.int8 if 'int8' in name else torch.float32 if 'dct' in name else torch.uint8)
        assert inputs.float().std(dim=(1, 2)).min() > 0
    if row.normalised:
        assert_allclose(inputs.numel() / (3 * 224 * 224), row.normalised, atol=5e-4)
    if '::' not in name and name not in OTHERS:  # configs say the difference alone
        assert len((ROOT / name).read_text().splitlines()) <= 25


# Metafiles


def entries() -> list[dict[str, Any]]:
    """Return the models of all metafiles, each with its file."""
    files = [ROOT / name for name in INDEX['Import']]
    return [dict(entry, file=file) for file in files for entry in yaml.safe_load(file.read_text())['Models']]


def test_index_metafiles_and_configs_name_each_other() -> None:
    files = [ROOT / name for name in INDEX['Import']]
    assert sorted([ROOT / 'configs/demo/metafile.yml', *files]) == sorted(ROOT.glob('configs/*/metafile.yml'))
    named = [entry['Config'] for entry in entries()]
    assert len(set(named)) == len(named)
    configs = {path.relative_to(ROOT).as_posix() for file in files for path in file.parent.glob('*.py')}
    assert {name for name in named if '::' not in name} == configs
    for entry in entries():
        collection, = yaml.safe_load(entry['file'].read_text(encoding='utf-8'))['Collections']
        assert (ROOT / collection['README']).parent == entry['file'].parent
        assert entry['In Collection'] == collection['Name']
        assert entry['Name'].partition(' (')[0] == config_path(
            entry['Config'] if '::' in entry['Config'] else str(ROOT / entry['Config'])).stem


def test_every_row_has_an_entry_with_the_published_figures() -> None:
    tables = {('resnet', 'Image Classification'): 'Table 1', ('mobilenet_v2', 'Image Classification'): 'Table 2',
              ('mask_rcnn', 'Object Detection'): 'Table 3', ('mask_rcnn', 'Instance Segmentation'): 'Table 4'}
    by_config = {entry['Config']: entry for entry in entries()}
    for name, row in (ROWS | OTHERS).items():
        entry = by_config[name]
        assert entry['Metadata']['Channels'] == row.channels, name
        assert entry['Metadata']['Size Per Channel'] == '{}x{}'.format(*row.size), name
        rgb = 3 * (224 * 224 if 'in1k' in name else 640 * 640 if 'rtmdet' in name else 800 * 1333)
        size = entry['Metadata']['Normalized Input Size']
        assert size == round(row.channels * row.size[0] * row.size[1] / rgb, 3), name
        assert row.normalised in (size, 0.), name
        results = entry.get('Results', [])
        assert [tuple(result['Metrics'].values()) for result in results] == list(row.results), name
        for result in results:
            assert list(result['Metrics']) == METRICS[result['Task']], name
            assert result['Dataset'] == ('ImageNet-1k' if name in CLASSIFICATION else 'COCO')
            table = tables.get((entry['file'].parent.name, result['Task']))
            assert result['Source'] == (f'the paper (Xu et al. 2020), {table}' if table else
                                        "the paper's authors, README of their released code")
    assert set(by_config) == {*ROWS, *NO_ROWS, *OTHERS}
    assert not [name for name in NO_ROWS | OTHERS if 'Results' in by_config[name]]


def test_hosts_read_the_index() -> None:
    """Mmpretrain reads its own metafiles by the same package, model-index."""
    index = load_model_index(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    for model, entry in zip(index.models, entries(), strict=True):
        meta = entry['Metadata']
        assert (model.name, model.config) == (entry['Name'], entry['Config'])
        assert (model.metadata.flops, model.metadata.parameters) == (meta['FLOPs'], meta['Parameters'])
        metrics = [result['Metrics'] for result in entry.get('Results', [])]
        assert [result.metrics for result in model.results or []] == metrics


def multiply_adds(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Count for one input, on torch's meta device; for a detector with 1000 boxes and 100 masks."""
    model.eval().to('meta')
    inputs = torch.empty(1, *shape, device='meta')
    with FlopCounterMode(display=False) as counter:
        if not hasattr(model, 'roi_head'):
            model(inputs)
        else:
            levels = model.extract_feat(inputs)
            model.rpn_head(levels)
            width, head = levels[0].shape[1], model.roi_head
            head.bbox_head(torch.empty(1000, width, 7, 7, device='meta'))
            if head.with_mask:
                head.mask_head(torch.empty(100, width, 14, 14, device='meta'))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize('entry', entries(), ids=lambda entry: f'{entry["file"].parent.name}-{entry["Name"]}')
def test_cost(entry: dict[str, Any], quick_init: None) -> None:
    meta = entry['Metadata']
    cfg = load(entry['Config'])
    cfg.model.backbone.pop('gate', None)  # 192 x (192 + 2 + 4) parameters more, next to no multiply-adds
    if 'FreqRes' in cfg.model.backbone.type:  # the stock recipe of detectors freezes the first stage
        assert cfg.model.backbone.get('frozen_stages', -1) == -1
    model = build(cfg)
    gate = 192 * (192 + 1 + 2 + 4) if 'gate' in entry['Name'] else 0
    assert meta['Parameters'] == sum(parameter.numel() for parameter in model.parameters()) + gate
    height, width = map(int, meta['Size Per Channel'].split('x'))
    padded = 8 if meta['Channels'] > 3 else 32  # cells, in which detectors' inputs end
    if cfg.default_scope == 'mmdet':
        height, width = -(-height // padded) * padded, -(-width // padded) * padded
    counted = multiply_adds(model, (meta['Channels'], height, width))
    # mmengine's counter, which the metafiles use, leaves out ViT's attention; torch's norms and pooling
    assert 0.95 * counted <= meta['FLOPs'] <= 1.05 * counted


def test_the_authors_resnet_is_larger(quick_init: None) -> None:
    """docs/reproduction.md states these figures."""
    figures = []
    for strides in ((1, 2, 2, 2), (1, 1, 2, 2)):
        cfg, grids = load(resnet('dct24s')), []
        cfg.merge_from_dict({'model.backbone.strides': strides})
        model = build(cfg)
        for stage in ('layer1', 'layer2', 'layer3', 'layer4'):
            getattr(model.backbone, stage).register_forward_hook(
                lambda module, _, out, grids=grids: grids.append(out.shape[-1]))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        figures.append((multiply_adds(model, (24, 56, 56)), parameters, grids))
    (small, parameters, grids), (large, same, larger_grids) = figures
    assert (grids, larger_grids) == ([56, 28, 14, 7], [56, 56, 28, 14])
    assert parameters == same
    text = (ROOT / 'docs/reproduction.md').read_text(encoding='utf-8')
    for count, stated in ((small, 3.952), (large, 13.580)):
        assert f'| 25.53 M | {stated:.3f} G |' in text
        assert count <= 1e9 * stated <= 1.01 * count
