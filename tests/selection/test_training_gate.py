"""From a gated training to a static one, through the tools, in both hosts."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from numpy.testing import assert_allclose
from tool_runs import checkpoint, data_options, detector_options, flags, scalars, tool, write_data

from demo import make_demo_data
from mmfreq.selection.rates import load_on_rates, save_on_rates

CONFIG = 'configs/demo/resnet18-dct192-gate_demo.py'


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the work dir of two epochs of four iterations, with a budget of 10."""
    work_dir = tmp_path_factory.mktemp('gate') / 'trained'
    options = data_options(write_data(tmp_path_factory.mktemp('gate_data'))) | {
        'train_cfg.max_epochs': 2, 'param_scheduler.0.end': 2, 'default_hooks.logger.interval': 1,
        'custom_hooks.0.target': 10, 'custom_hooks.0.phases': '(0.1,0.8)'}
    output = tool('train', CONFIG, '--work-dir', work_dir, *flags(options))
    assert 'the gate is UNDECIDED' in output
    return work_dir


def test_heat_map_of_a_checkpoint_has_the_rates_of_its_validation(trained: Path, tmp_path: Path) -> None:
    best = trained / 'best_accuracy_top1_epoch_1.pth'  # of a gate that keeps more
    best.hardlink_to(trained / 'epoch_1.pth')
    config = trained / Path(CONFIG).name
    output = tool('gate_heatmap', config, trained, '--out', tmp_path / 'map')
    best.unlink()
    expected = load_on_rates(str(trained / 'gate_rates_epoch_2.json'))
    actual = load_on_rates(str(tmp_path / 'map.json'))
    assert np.array_equal(actual.on_rate, expected.on_rate)
    assert_allclose(actual.probability, expected.probability, atol=1e-6)
    assert (actual.images, actual.meta['budget']) == (8, 10)
    assert actual.verdict() == expected.verdict()
    assert '10.0 of 192 channels kept per image' in output
    assert 'the gate is UNDECIDED' in output
    assert {path.name for path in tmp_path.iterdir()} == {'map.json', 'map.png', 'map.svg'}
    # several files, one below the other
    tool('gate_heatmap', *[trained / f'gate_rates_epoch_{i}.json' for i in (1, 2)], '--out', tmp_path / 'two')
    assert (tmp_path / 'two.png').stat().st_size > (tmp_path / 'map.png').stat().st_size
    assert not (tmp_path / 'two.json').exists()
    tool('test', config, trained, '--work-dir', tmp_path, '--out', tmp_path / 'metrics.json')
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert metrics['gate/kept'] == pytest.approx(10)
    assert metrics['gate/kept_Cb'] == pytest.approx(expected.kept()['Cb'])


def test_static_training_on_the_selected_channels(trained: Path, tmp_path: Path) -> None:
    file, config = trained / 'gate_rates_epoch_2.json', trained / Path(CONFIG).name
    arguments = (file, '--channels', '10', '--config', config, '--out', tmp_path / 'selection.json')
    refused = tool('select_channels', *arguments, succeeds=False)
    assert 'UNDECIDED' in refused.splitlines()[-1]
    assert not list(tmp_path.iterdir())
    tool('select_channels', *arguments, '--force')
    rates = load_on_rates(str(file))
    rates.halves[1] = rates.halves[0]  # as of a gate that has decided
    save_on_rates(rates, str(tmp_path / 'decided.json'))
    output = tool('select_channels', tmp_path / 'decided.json', *arguments[1:])
    selection = json.loads((tmp_path / 'selection.json').read_text())['channels']
    assert selection == rates.top(10)
    assert f'10 of 192 channels: {selection}' in output
    static = tmp_path / 'resnet18-dct10-learned_demo.py'
    cfg = Config.fromfile(str(static))
    assert cfg.train_dataloader.dataset.pipeline[-2].channels == str(tmp_path / 'selection.json')
    tool('train', static, '--work-dir', tmp_path / 'run', *flags({'train_cfg.max_epochs': 1}))
    weights = checkpoint(tmp_path / 'run/epoch_1.pth')['state_dict']
    assert weights['backbone.layer1.0.conv1.weight'].shape == (8, 10, 3, 3)
    assert not any('gate' in key for key in weights)


def test_wrong_arguments_give_one_line(trained: Path, tmp_path: Path) -> None:
    plain, rates = 'configs/demo/resnet18_demo.py', trained / 'gate_rates_epoch_1.json'
    for name, arguments, message in [
        ('gate_heatmap', [plain, trained / 'epoch_2.pth'], 'one ChannelGate'),
        ('gate_heatmap', [plain], 'expected CONFIG and CHECKPOINT, or JSON files'),
        ('gate_heatmap', [tmp_path / 'none.json'], 'No such file'),
        ('select_channels', [rates, '--channels', '193'], '1..192 channels, got 193'),
        ('select_channels', [rates, '--force', '--config', plain, '--out', tmp_path / 's.json'], 'expected pipelines'),
    ]:
        output = tool(name, *arguments, succeeds=False)
        assert message in output.strip().splitlines()[-1]
        assert 'Traceback' not in output


def test_gated_mask_rcnn_meets_its_budget(tmp_path: Path) -> None:
    make_demo_data(tmp_path / 'data', 'detection', train=8, val=2)
    options = detector_options(tmp_path / 'data') | {
        'train_dataloader.batch_size': 2, 'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 2,
        'custom_hooks.1.target': 12, 'custom_hooks.1.phases': '(0.0,0.5)'}
    tool('train', 'configs/demo/mask-rcnn_r18-dct192-gate_demo.py', '--work-dir', tmp_path / 'run', *flags(options))
    lines = scalars(tmp_path / 'run')
    assert [line['gate_budget'] for line in lines] == [96, 48, 24, 12, 12, 12, 12, 12]
    assert [line['gate_kept'] for line in lines[3:]] == [12] * 5
    for line in lines:
        parts = [value for key, value in line.items() if key.startswith('loss_')]
        assert len(parts) == 5
        assert line['loss'] == pytest.approx(sum(parts), rel=1e-4)
    rates = load_on_rates(str(tmp_path / 'run/gate_rates_epoch_2.json'))
    assert (rates.images, rates.kept()['all']) == (2, 12)
    weights = checkpoint(tmp_path / 'run/epoch_2.pth')['state_dict']
    assert torch.isfinite(weights['backbone.gate.logit_bias']).all()
