"""The channels that a trained network needs, and the network on these channels alone."""
import json
import shutil
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from numpy.testing import assert_allclose
from tool_runs import checkpoint, detector_options, picture

import mmfreq
from demo import make_demo_data
from mmfreq.apis.gate import training_images
from mmfreq.apis.measure import build_model
from mmfreq.config.writer import render
from mmfreq.dct.channels import channel_indices
from mmfreq.dct.stats import block_stats
from mmfreq.selection.gate import ChannelGate
from mmfreq.selection.rates import load_on_rates

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures('hosts_set_up')


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 16 images in two subfolders, of 64 x 64 pixels."""
    folder = tmp_path_factory.mktemp('images')
    for label, name in enumerate(('rows', 'columns')):
        (folder / name).mkdir()
        for index in range(8):
            cv2.imwrite(str(folder / name / f'{index}.png'), picture(label, index))
    return folder


def write_stock(folder: Path, backbone: dict[str, Any], features: int, data: Path) -> tuple[Path, Path]:
    """Write the config of an RGB classifier of 32 x 32 pixels, and a checkpoint of random weights."""
    config, weights = folder / 'stock.py', folder / 'stock.pth'
    steps = [dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=32), dict(type='PackInputs')]
    loader = dict(batch_size=4, num_workers=0, dataset=dict(type='CustomDataset', data_root=str(data), pipeline=steps))
    head = dict(type='LinearClsHead', num_classes=2, in_channels=features)
    neck = {} if backbone['type'] == 'ConvNeXt' else dict(neck=dict(type='GlobalAveragePooling'))
    values = dict(
        default_scope='mmpretrain', model=dict(type='ImageClassifier', backbone=backbone, head=head, **neck),
        data_preprocessor=dict(num_classes=2, mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], to_rgb=True),
        train_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=True)),
        test_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
        test_evaluator=dict(type='Accuracy'), test_cfg=dict())
    config.write_text('\n'.join(f'{key} = {render(value)}' for key, value in values.items()))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = build_model(Config.fromfile(str(config)))
    for value in model.parameters():  # as of a trained network: no two channels alike
        value.data.add_(0.1 * torch.randn_like(value))
    torch.save(dict(state_dict=model.state_dict()), weights)
    return config, weights


RESNET = dict(type='ResNet', depth=18, base_channels=8, num_stages=2, out_indices=(1, ), strides=(1, 2),
              dilations=(1, 1))
CONVNEXT = dict(type='ConvNeXt', arch=dict(depths=[1, 1], channels=[8, 16]), out_indices=(1, ))


@pytest.mark.parametrize(('backbone', 'channels', 'target'), [
    (RESNET, '48N', 12), (CONVNEXT, '48N', 12), (RESNET, '64S', 24)])
def test_a_stock_network_on_the_channels_that_it_needs(
        backbone: dict[str, Any], channels: str, target: int, images: Path, tmp_path: Path,
        run_tool: Callable[..., None], capsys: pytest.CaptureFixture) -> None:
    """Its logits are those of all channels, those that are not selected at their mean."""
    config, weights = write_stock(tmp_path, backbone, 16, images)
    out, damaged = tmp_path / 'out', tmp_path / 'damaged'
    shutil.copytree(images, damaged)
    (damaged / 'rows/a.png').write_text('no image')
    run_tool('gate', config, weights, damaged, '--channels', channels, '--target', target, '--steps', 12, '-o', out)
    text, errors = capsys.readouterr()
    assert 'damaged/rows/a.png: ' in errors
    names = f'{channels}/stock-dct{channels.lower()}', f'stock-dct{target}-learned'
    assert {path.relative_to(out).as_posix() for path in out.rglob('*.*')} == {
        'gate_rates.json', 'gate_heatmap.png', f'selection-{target}.json',
        *(f'{name}.{ending}' for name in names for ending in ('py', 'pth'))}
    rates = load_on_rates(str(out / 'gate_rates.json'))
    size = 8 if channels == '64S' else 4
    everything = channel_indices(channels, size)
    assert Config.fromfile(out / f'{names[1]}.py').load_from == str(out / f'{names[1]}.pth')
    assert (rates.images, rates.block_size, rates.channels.tolist()) == (17, size, everything)
    assert rates.kept()['all'] == pytest.approx(target, abs=1e-3)
    selection = json.loads((out / f'selection-{target}.json').read_text())['channels']
    assert selection == rates.top(target)
    assert f'{target} of {len(everything)} channels: {selection}' in text
    assert f'mmfreq test {out}/{names[1]}.py {out}/{names[1]}.pth' in text
    distances, known = rates.meta['distances'], {'48N': {'12N'}, '64S': {'24S', '24T'}}[channels]
    assert {*distances} == {'learned', *known}
    assert min(distances.values()) > 0
    assert f'distance to the output on all channels: {distances["learned"]:.3f}' in text
    for name in known:
        difference = distances[name] - distances['learned']
        assert f'distance with {name}: {distances[name]:.3f}, difference {difference:+.3f} ± ' in text
    full, static = (mmfreq.load_model(out / f'{name}.py', out / f'{name}.pth', 'cpu') for name in names)
    image = cv2.imread(str(images / 'rows/0.png'))
    inputs = [model.packed(image)['inputs'] for model in (full, static)]
    kept = np.isin(everything, selection)
    assert_allclose(inputs[1], inputs[0][kept])
    with torch.no_grad():
        masked = full.module(inputs[0][None] * torch.tensor(kept)[:, None, None])
        assert_allclose(static.module(inputs[1][None]), masked, atol=1e-5 * float(masked.abs().max()))
    assert [*checkpoint(out / f'{names[1]}.pth')['meta']['input_spec']['channels']] == selection


def test_the_gate_finds_the_channels_that_a_network_reads(tmp_path: Path, run_tool: Callable[..., None]) -> None:
    """Training images by default, as often as the steps take, and the same seed gives the same gate."""
    rng, images = np.random.default_rng(0), tmp_path / 'noise/class'
    images.mkdir(parents=True)
    for index in range(16):  # of white noise, whose coefficients all have the same deviation
        cv2.imwrite(str(images / f'{index}.png'), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    config, weights = write_stock(tmp_path, CONVNEXT, 16, images.parent)
    run_tool('gate', config, weights, '--steps', 1, '-o', tmp_path / 'carried')
    needed, folded = [0, 1, 4, 6, 16, 37], tmp_path / 'carried/48N/stock-dct48n.pth'
    state, deviations = checkpoint(folded), block_stats('imagenette-224-4x4', 4).std
    projection = state['state_dict']['backbone.downsample_layers.0.0.weight']
    projection.zero_()
    torch.manual_seed(0)
    directions = torch.linalg.qr(torch.randn(len(projection), len(needed)))[0]  # all have the same effect
    for channel, direction in zip(needed, directions.T):
        projection[:, channel, 0, 0] = direction * len(projection) ** 0.5 * deviations[channel]
    torch.save(state, folded)
    rates = []
    for number, steps in enumerate((100, 5, 5)):
        run_tool('gate', folded.with_suffix('.py'), folded, '--target', 6, '--steps', steps, '--seed', 3,
                 '-o', tmp_path / f'{number}')
        rates.append(load_on_rates(str(tmp_path / f'{number}/gate_rates.json')))
    assert rates[0].top(6) == needed
    assert rates[0].verdict() == dict(rates[0].verdict(), decided=True, common=6, count=6)
    assert rates[0].images == 16
    assert np.array_equal(rates[1].on_rate, rates[2].on_rate)


def test_a_gate_in_front_of_mask_rcnn(tmp_path: Path, run_tool: Callable[..., None]) -> None:
    make_demo_data(tmp_path / 'data', 'detection', train=4, val=2)
    cfg, stock = Config.fromfile(str(ROOT / 'configs/demo/mask-rcnn_r18_demo.py')), tmp_path / 'stock.py'
    cfg.merge_from_dict({key: str(value) if isinstance(value, Path) else value
                         for key, value in detector_options(tmp_path / 'data').items()})
    cfg.model.neck.in_channels = [8, 16, 32, 64]
    cfg.dump(stock)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.save(dict(state_dict=build_model(cfg).state_dict()), tmp_path / 'stock.pth')
    run_tool('gate', stock, tmp_path / 'stock.pth', '--target', 18, '--steps', 3, '--batch-size', 2,
             '-o', tmp_path / 'out')
    names = [tmp_path / 'out' / name for name in ('48N/stock-dct48n', 'stock-dct18-learned')]
    full, static = (mmfreq.load_model(f'{name}.py', f'{name}.pth', 'cpu') for name in names)
    rates = load_on_rates(str(tmp_path / 'out/gate_rates.json'))
    assert rates.images == 4
    kept = torch.tensor(np.isin(range(48), rates.top(18)))
    image = cv2.imread(str(next((tmp_path / 'data/train').glob('*.jpg'))))
    inputs = [model.packed(image)['inputs'][None] for model in (full, static)]
    with torch.no_grad():
        masked = full.module.extract_feat(inputs[0] * kept[:, None, None])
        for ours, theirs in zip(static.module.extract_feat(inputs[1]), masked):
            assert_allclose(ours, theirs, atol=1e-5 * float(theirs.abs().max()))
    assert static.predict(image)['scores'] is not None


def test_training_images_are_those_of_all_data_sets(images: Path, tmp_path: Path) -> None:
    config, weights = write_stock(tmp_path, RESNET, 16, images / 'rows')
    model = mmfreq.load_model(config, weights, 'cpu')
    one = model.cfg.train_dataloader.dataset
    parts = [dict(one, data_root=str(images), with_label=False, data_prefix=name) for name in ('rows', 'columns')]
    both = dict(type='ConcatDataset', datasets=parts)
    model.cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=both)
    assert sorted(training_images(model, 99, 0)) == sorted(str(file) for file in images.glob('*/*.png'))
    first, second, other = (training_images(model, 5, seed) for seed in (0, 0, 1))
    assert len(set(first)) == 5
    assert first == second != other


def test_wrong_arguments_give_one_line(images: Path, tmp_path: Path, run_tool: Callable[..., None],
                                       capsys: pytest.CaptureFixture) -> None:
    config, weights = write_stock(tmp_path, RESNET, 16, images)
    run_tool('gate', config, weights, images, '--steps', 1, '-o', tmp_path / 'out')
    full = tmp_path / 'out/48N/stock-dct48n.py'
    gated, unlabelled = (full.with_name(name) for name in ('gated.py', 'no_training.py'))
    gated.write_text(f"_base_ = '{full.name}'\nmodel = dict(backbone=dict(gate=dict()))\n")
    unlabelled.write_text(f"_base_ = '{full.name}'\ntrain_dataloader = None\n")
    model = mmfreq.load_model(full, full.with_suffix('.pth'), 'cpu')
    model.module.backbone.gate = ChannelGate(48)
    torch.save(dict(state_dict=model.module.state_dict()), gated.with_suffix('.pth'))
    (tmp_path / 'empty').mkdir()
    for arguments, message in [
        ([full, full.with_suffix('.pth'), images, '--target', 48], '1..47 channels, got 48'),
        ([gated, gated.with_suffix('.pth'), images], 'a gate of its own'),
        ([unlabelled, full.with_suffix('.pth')], 'name a folder of images'),
        ([full, full.with_suffix('.pth'), tmp_path / 'empty'], 'expected images'),
    ]:
        with pytest.raises(SystemExit) as exit_:
            run_tool('gate', *arguments, '--steps', 1, '-o', tmp_path / 'refused')
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list((tmp_path / 'refused').glob('*'))
