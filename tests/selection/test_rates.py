"""From the on-rates of a gate to a verdict, a picture, a selection and the config that trains on it."""
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
from mmengine.config import Config

from mmfreq.config.checks import check_channels
from mmfreq.config.writer import difference, plain_config
from mmfreq.dct.channels import channel_indices
from mmfreq.selection.rates import OnRates, load_on_rates, save_on_rates
from mmfreq.selection.static import describe_selection, save_selection, static_config, static_name

ROOT = Path(__file__).parents[2]


def rates(on_rate: np.ndarray, probability: Any = None, channels: Any = None, halves: Optional[np.ndarray] = None,
          **meta: Any) -> OnRates:
    channels = np.arange(len(on_rate)) if channels is None else np.array(channels)
    probability = on_rate if probability is None else probability
    halves = np.stack([probability, probability]) if halves is None else halves
    return OnRates(channels, on_rate, probability, halves, 10, 8, meta)


# Ranking and verdict


def test_ties_go_by_on_rate_then_zigzag_then_component() -> None:
    values = np.zeros(192)
    assert rates(values).top(7) == sorted([0, 64, 128, 1, 65, 129, 8])
    on_rate = np.zeros(192)
    on_rate[[100, 191]] = 0.4
    assert rates(on_rate, values).top(3) == [0, 100, 191]
    values[77] = 0.1
    assert rates(on_rate, values).top(2) == [77, 100]


def test_top_and_sums_of_a_gate_over_some_channels() -> None:
    some = rates(np.array([0.125, 0.75, 0.5, 0.25]), channels=[130, 3, 64, 2])
    assert some.top(3) == [2, 3, 64]
    assert some.kept() == dict(all=1.625, Y=1.0, Cb=0.5, Cr=0.125)
    with pytest.raises(ValueError, match=r'1\.\.4 channels, got 5'):
        some.top(5)


def test_verdict_by_hand() -> None:
    """Two halves of 16 channels rank four highest, of which they share 3, 2 and 1: chance is 1."""
    values = np.where(np.arange(16) < 4, 0.75, 0.25)
    for common, agreement, decided in ((4, 1, True), (3, 0.667, True), (2, 0.333, False), (1, 0, False)):
        halves = np.zeros((2, 16))
        halves[0, :4] = halves[1, 4 - common:8 - common] = 1
        gate = rates(values, halves=halves, budget=4)
        assert gate.verdict() == dict(count=4, common=common, chance=1, agreement=agreement, margin=0.5,
                                      decided=decided)
        assert f'on {common} of 4 channels (chance: 1.0)' in gate.describe()
        assert ('UNDECIDED' in gate.describe()) != decided
    everything = rates(values, budget=16).verdict()
    assert (everything['agreement'], everything['decided']) == (0, False)
    assert rates(values).verdict()['count'] == 6  # what is kept without a budget: 4 * 0.75 + 12 * 0.25
    assert rates(values).verdict(2)['count'] == 2


def test_halves_that_know_nothing_are_at_chance() -> None:
    generator = np.random.default_rng(0)
    verdicts = [rates(generator.random(192), halves=generator.normal(size=(2, 192)), budget=24).verdict()
                for _ in range(300)]
    assert np.mean([verdict['agreement'] for verdict in verdicts]) == pytest.approx(0, abs=0.02)
    assert not any(verdict['decided'] for verdict in verdicts)


def test_channels_that_are_always_on_are_no_agreement() -> None:
    generator = np.random.default_rng(0)
    halves = generator.normal(size=(100, 2, 192))
    halves[..., :16] = 1e4
    verdicts = [rates(generator.random(192), halves=one, budget=24).verdict() for one in halves]
    assert np.mean([verdict['agreement'] for verdict in verdicts]) == pytest.approx(0, abs=0.05)
    assert verdicts[0]['chance'] == round(16 + 8 * 8 / 176, 2)
    assert not any(verdict['decided'] for verdict in verdicts)
    assert rates(halves[0, 0], halves=halves[0, [0, 0]], budget=24).verdict()['agreement'] == 1
    assert not any(rates(halves[0, 0], halves=halves[0]).verdict(count)['decided'] for count in (8, 16, 192))


# Files


def test_on_rates_come_back_from_their_file(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    saved = rates(generator.random(192), generator.random(192), config='a.py', budget=24)
    save_on_rates(saved, str(tmp_path / 'rates.json'))
    loaded = load_on_rates(str(tmp_path / 'rates.json'))
    for name in ('channels', 'on_rate', 'probability', 'halves'):
        assert np.array_equal(getattr(loaded, name), getattr(saved, name))
    assert (loaded.images, loaded.block_size, loaded.meta) == (10, 8, saved.meta)


@pytest.mark.parametrize(('content', 'message'), [
    (None, 'No such file'), ('{', 'JSONDecodeError'), ('[]', 'TypeError'), ('{}', "'channels'"),
    ('{"channels": [0], "on_rate": [0.5], "images": 1}', "'probability'")])
def test_other_files_are_refused(content: Optional[str], message: str, tmp_path: Path) -> None:
    path = tmp_path / 'gate_rates.json'
    if content:
        path.write_text(content)
    with pytest.raises(ValueError, match=f'{path}.*{message}'):
        load_on_rates(str(path))


# Configs


@pytest.mark.parametrize(('gated', 'plain'), [
    ('resnet/resnet50-dct192-gate_8xb32_in1k', 'resnet/resnet50-dct24s_8xb32_in1k'),
    ('mask_rcnn/mask-rcnn_r50-dct192-gate_fpn_1x_coco', 'mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco'),
    ('demo/resnet18-dct192-gate_demo', 'demo/resnet18-dct24s_demo'),
])
def test_static_config_is_the_shipped_one_with_another_selection(gated: str, plain: str, tmp_path: Path) -> None:
    selection, out = tmp_path / 'picked' / 'selection.json', tmp_path / 'config.py'
    save_selection(rates(np.ones(192)), channel_indices('24S'), str(selection))
    out.write_text(static_config(ROOT / f'configs/{gated}.py', selection, out))
    check_channels(Config.fromfile(str(out)))
    text = json.dumps(plain_config(out)).replace(str(selection), '24S')
    assert '24S' in text
    assert 'GateLossHook' not in text
    actual, expected = json.loads(text), json.loads(json.dumps(plain_config(ROOT / f'configs/{plain}.py')))
    schedule = {'optim_wrapper', 'param_scheduler', 'train_cfg'}
    assert set(difference(expected, actual)) <= {'custom_hooks', 'model'} | schedule
    backbones = [{key: value for key, value in cfg['model']['backbone'].items() if key != 'init_cfg'}
                 for cfg in (actual, expected)]
    assert backbones[0] == backbones[1]
    assert out.read_text().count(selection.name) == 1  # named once, as freq
    assert 'freq[0]' in out.read_text()


def test_static_config_of_a_config_of_pixels_is_an_error(tmp_path: Path) -> None:
    save_selection(rates(np.ones(192)), [0], str(tmp_path / 's.json'))
    with pytest.raises(ValueError, match=r'pipelines with FusedBlockDCT or BlockDCT'):
        static_config(ROOT / 'configs/demo/resnet18_demo.py', tmp_path / 's.json', tmp_path / 'c.py')


@pytest.mark.parametrize(('name', 'learned'), [
    ('resnet50-dct192-gate_8xb32_in1k', 'resnet50-dct6-learned_8xb32_in1k'),
    ('resnet50-dct48n_8xb32_in1k', 'resnet50-dct6-learned_8xb32_in1k'),
    ('mine-dct24-learned', 'mine-dct6-learned'), ('mine', 'mine-dct6-learned')])
def test_names_of_static_configs(name: str, learned: str) -> None:
    assert static_name(name, 6) == learned


def test_a_selection_is_compared_with_the_named_ones_of_its_size() -> None:
    values = np.linspace(1, 0, 48)
    native = replace(rates(values), block_size=4)
    text = describe_selection(native, native.top(24))
    assert 'components: Y 16, Cb 8, Cr 0' in text
    assert [line for line in text.splitlines() if 'in common' in line] == ['in common with 24N: 20 of 24']
    large = rates(np.linspace(1, 0, 192))
    assert 'in common with 6S: 5 of 6\nin common with 6T: 4 of 6' in describe_selection(large, [0, 1, 8, 9, 64, 65])
