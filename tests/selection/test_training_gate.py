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
from mmfreq.selection.rates import load_on_rates

CONFIG = 'configs/demo/resnet18-dct192-gate_demo.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp('gate_data'))


@pytest.fixture(scope='module')
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work dir of two epochs of four iterations, under a weight that closes the gate."""
    work_dir = tmp_path_factory.mktemp('gate') / 'trained'
    options = data_options(data) | {
        'train_cfg.max_epochs': 2,
        'param_scheduler.0.end': 2,
        'default_hooks.logger.interval': 1,
        'custom_hooks.0.loss_weight': 1.0,
        'custom_hooks.0.target': None,
    }
    tool('train', CONFIG, '--work-dir', work_dir, *flags(options))
    return work_dir


@pytest.fixture(scope='module')
def config(trained: Path) -> Path:
    return trained / Path(CONFIG).name


def test_gate_loss_is_in_the_total_and_closes_the_gate(trained: Path) -> None:
    lines = scalars(trained)
    assert len(lines) == 8
    kept = [line['gate_kept'] for line in lines]
    for number, line in enumerate(lines, 1):
        assert line['loss'] == pytest.approx(line['loss_task'] + line['loss_gate'], rel=1e-5)
        # mmengine logs the mean of a loss over its last ten iterations
        assert line['loss_gate'] == pytest.approx(line['gate_lambda'] * np.mean(kept[:number]), rel=1e-5)
        assert line['gate_kept'] == pytest.approx(sum(line[f'gate_kept_{part}'] for part in ('Y', 'Cb', 'Cr')))
    assert 150 < kept[0] < 180
    assert kept[-1] < 0.6 * kept[0]


def test_heat_map_of_a_checkpoint_has_the_rates_of_its_validation(trained: Path, config: Path, tmp_path: Path) -> None:
    best = trained / 'best_accuracy_top1_epoch_1.pth'  # of a gate that is still open
    best.hardlink_to(trained / 'epoch_1.pth')
    output = tool('gate_heatmap', config, trained, '--out', tmp_path / 'map')
    best.unlink()
    expected = load_on_rates(str(trained / 'gate_rates_epoch_2.json'))
    actual = load_on_rates(str(tmp_path / 'map.json'))
    assert np.array_equal(actual.on_rate, expected.on_rate)
    assert_allclose(actual.probability, expected.probability, atol=1e-6)
    assert actual.images == expected.images == 8
    assert f'{expected.on_rate.sum():.1f} of 192 channels kept per image' in output
    assert {path.name for path in tmp_path.iterdir()} == {'map.json', 'map.png', 'map.svg'}
    # several files, one below the other
    tool('gate_heatmap', *[trained / f'gate_rates_epoch_{i}.json' for i in (1, 2)], '--out', tmp_path / 'two')
    assert (tmp_path / 'two.png').stat().st_size > (tmp_path / 'map.png').stat().st_size
    assert not (tmp_path / 'two.json').exists()


def test_metrics_have_the_number_of_channels_kept(trained: Path, config: Path, tmp_path: Path) -> None:
    tool('test', config, trained, '--work-dir', tmp_path, '--out', tmp_path / 'metrics.json')
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    rates = load_on_rates(str(tmp_path / 'gate_rates_test.json'))
    assert metrics['gate/kept'] == pytest.approx(rates.on_rate.sum())
    assert metrics['gate/kept_Cb'] == pytest.approx(rates.on_rate[64:128].sum())
    assert np.array_equal(rates.on_rate, load_on_rates(str(trained / 'gate_rates_epoch_2.json')).on_rate)


def test_static_training_on_the_selected_channels(trained: Path, config: Path, tmp_path: Path) -> None:
    file = trained / 'gate_rates_epoch_2.json'
    output = tool('select_channels', file, '--channels', '10', '--config', config, '--out', tmp_path / 'selection.json')
    rates = load_on_rates(str(file))
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
    assert 'loss_gate' not in scalars(tmp_path / 'run')[0]


def test_a_gate_without_its_hook_is_warned_of(data: Path, tmp_path: Path) -> None:
    options = data_options(data) | {'train_cfg.max_epochs': 1, 'param_scheduler.0.end': 2, 'custom_hooks': '[]'}
    output = tool('train', CONFIG, '--work-dir', tmp_path, '--no-validate', *flags(options))
    assert 'the model has a gate, but custom_hooks no GateLossHook' in output


def test_wrong_arguments_give_one_line(trained: Path, tmp_path: Path) -> None:
    plain = 'configs/demo/resnet18-dct24s_demo.py'
    for name, arguments, message in [
        ('gate_heatmap', [plain, tmp_path / 'none.pth'], f'{plain}: expected a model with a gate'),
        ('gate_heatmap', [CONFIG, trained / 'epoch_2.pth', *flags({'model.backbone.gate': None})],
         'expected a model with a gate'),
        ('gate_heatmap', [plain], 'expected CONFIG and CHECKPOINT, or JSON files'),
        ('gate_heatmap', [tmp_path / 'none.json'], 'No such file'),
        ('select_channels', [trained / 'gate_rates_epoch_1.json', '--channels', '193'], r'in 1..192, got 193'),
        ('select_channels', [trained / 'gate_rates_epoch_1.json', '--config', plain, '--out', tmp_path / 's.json'],
         'expected a backbone with gate=dict(...)'),
    ]:
        output = tool(name, *arguments, succeeds=False)
        assert message in output.strip().splitlines()[-1]
        assert 'Traceback' not in output


def test_gated_mask_rcnn_drops_channels_under_a_large_weight(tmp_path: Path) -> None:
    data = tmp_path / 'data'
    make_demo_data(data, 'detection', train=8, val=2)
    options = detector_options(data) | {
        'train_dataloader.batch_size': 2,
        'train_cfg.max_epochs': 2,
        'train_cfg.val_interval': 2,
        'param_scheduler.0.start_factor': 1.0,
        'custom_hooks.1.loss_weight': 1.0,
        'custom_hooks.1.target': None,
        'optim_wrapper.optimizer.lr': 0.02,
    }
    tool('train', 'configs/demo/mask-rcnn_r18-dct192-gate_demo.py', '--work-dir', tmp_path / 'run', *flags(options))
    lines = scalars(tmp_path / 'run')
    assert len(lines) == 8
    for line in lines:
        parts = [value for key, value in line.items() if key.startswith('loss_')]
        assert len(parts) == 6
        assert np.isfinite(parts).all()
        assert line['loss'] == pytest.approx(sum(parts), rel=1e-4)
    kept = [line['gate_kept'] for line in lines]
    assert 140 < kept[0] < 190
    assert kept[-1] < 0.8 * kept[0]
    rates = load_on_rates(str(tmp_path / 'run/gate_rates_epoch_2.json'))
    assert rates.images == 2
    weights = checkpoint(tmp_path / 'run/epoch_2.pth')['state_dict']
    assert torch.isfinite(weights['backbone.gate.logit_bias']).all()
