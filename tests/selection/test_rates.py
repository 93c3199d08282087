"""From the on-rates of a gate to a picture, a selection and the config that trains on it."""
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from mmengine.config import Config

from mmfreq.apis.heatmap import _draw_on_rates, plot_on_rates
from mmfreq.config.checks import check_channels
from mmfreq.config.writer import child_text, difference, plain_config, render, stock_base
from mmfreq.dct.channels import channel_indices
from mmfreq.selection.rates import OnRates, load_on_rates, save_on_rates
from mmfreq.selection.static import overlap, save_selection, static_config
from mmfreq.transforms import ChannelSelect

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.relative_to(ROOT) for path in (ROOT / 'configs').rglob('*.py'))


def rates(on_rate: np.ndarray, probability: Any = None, channels: Any = None, **meta: Any) -> OnRates:
    channels = np.arange(len(on_rate)) if channels is None else np.array(channels)
    return OnRates(channels, on_rate, on_rate if probability is None else probability, 10, 8, meta)


# Ranking


def test_top_channels_are_those_most_likely_kept() -> None:
    values = np.random.default_rng(0).permutation(192) / 191
    top = rates(values).top(24)
    assert top == sorted(top)
    assert sorted(values[top]) == [i / 191 for i in range(168, 192)]


def test_ties_go_by_on_rate_then_zigzag_then_component() -> None:
    values = np.zeros(192)
    assert rates(values).top(7) == sorted([0, 64, 128, 1, 65, 129, 8])
    on_rate = np.zeros(192)
    on_rate[[100, 191]] = 0.4
    assert rates(on_rate, values).top(3) == [0, 100, 191]
    values[77] = 0.1
    assert rates(on_rate, values).top(2) == [77, 100]


def test_top_of_a_gate_over_some_channels() -> None:
    channels = [130, 3, 64]
    assert rates(np.array([0.1, 0.9, 0.5]), channels=channels).top(2) == [3, 64]
    with pytest.raises(ValueError, match=r'in 1\.\.3, got 4'):
        rates(np.array([0.1, 0.9, 0.5]), channels=channels).top(4)


def test_kept_per_component() -> None:
    values = np.concatenate([np.full(64, 0.5), np.full(64, 0.25), np.zeros(64)])
    assert rates(values).kept() == dict(all=48.0, Y=32.0, Cb=16.0, Cr=0.0)


def test_overlap_counts_common_channels() -> None:
    assert len(overlap(channel_indices('24S'), '24S')) == 24
    common = set(channel_indices('24S')) & set(channel_indices('24D'))
    assert overlap(channel_indices('24D'), '24S') == sorted(common)
    assert overlap([63, 127], '24S') == []


# Files


def test_on_rates_come_back_from_their_file(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    saved = rates(generator.random(192), generator.random(192), config='a.py', loss_weight=0.1)
    save_on_rates(saved, str(tmp_path / 'rates.json'))
    loaded = load_on_rates(str(tmp_path / 'rates.json'))
    for name in ('channels', 'on_rate', 'probability'):
        assert np.array_equal(getattr(loaded, name), getattr(saved, name))
    assert (loaded.images, loaded.block_size, loaded.meta) == (10, 8, saved.meta)


@pytest.mark.parametrize(('content', 'message'), [
    ('{', 'not a JSON file'),
    ('[]', 'expected a JSON object with the on-rates of a gate'),
    ('{}', 'no channels'),
    ('{"channels": [0], "on_rate": [0.5], "images": 1}', 'no probability'),
    ('{"channels": [0, 0], "on_rate": [1, 1], "probability": [1, 1], "images": 1}', 'every channel once'),
    ('{"channels": [192], "on_rate": [1], "probability": [1], "images": 1}', r'in 0\.\.191'),
    ('{"channels": [0], "on_rate": [1.5], "probability": [1], "images": 1}', r'rates in 0\.\.1'),
    ('{"channels": [0, 1], "on_rate": [1], "probability": [1], "images": 1}', 'one length'),
])
def test_files_that_hold_something_else_are_named(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / 'gate_rates.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        load_on_rates(str(path))
    assert str(path) in str(error.value)
    with pytest.raises(ValueError, match='missing.json: .*No such file'):
        load_on_rates(str(tmp_path / 'missing.json'))


def test_channel_select_takes_a_selection_file(tmp_path: Path) -> None:
    path = tmp_path / 'selection.json'
    save_selection(rates(np.linspace(1, 0, 192)), [0, 5, 64, 190], str(path))
    image = np.random.default_rng(2).random((3, 4, 192), dtype=np.float32)
    results = ChannelSelect(str(path))(dict(img=image))
    assert np.array_equal(results['img'], image[:, :, [0, 5, 64, 190]])
    assert results['freq_channels'] == [0, 5, 64, 190]


@pytest.mark.parametrize(('content', 'message'), [
    ('{"channels": [0, 192]}', r'in 0\.\.191'),
    ('{"channels": [0, 0]}', 'every index once'),
    ('{"channels": "24S"}', 'a list "channels"'),
    ('{"channels": [0], "block_size": 4}', 'its block_size is 4'),
    ('nothing', 'not a JSON file'),
])
def test_selection_files_are_checked(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / 'selection.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        channel_indices(str(path))
    assert str(path) in str(error.value)
    with pytest.raises(ValueError, match='No such file'):
        channel_indices(str(tmp_path / 'missing.json'))


# Configs


@pytest.mark.parametrize('path', CONFIGS, ids=str)
def test_a_written_child_of_the_stock_config_amounts_to_the_config(path: Path, tmp_path: Path) -> None:
    base = stock_base(ROOT / path)
    assert base.startswith(('mmpretrain::', 'mmdet::'))
    expected = plain_config(ROOT / path)
    text = child_text(base, expected, 'a comment', tmp_path)
    assert max(map(len, text.splitlines())) <= 120
    (tmp_path / 'child.py').write_text(text)
    assert plain_config(tmp_path / 'child.py') == expected


def test_difference_by_hand() -> None:
    base = dict(a=1, b=dict(c=1, d=[1, 2], e=dict(f=1)), g=None, h=1)
    target = dict(a=1, b=dict(c=2, d=[1, 2], e=dict(f=1, i=2)), g=dict(j=1), h=1.0, k=dict(c=1))
    assert difference(base, target) == dict(b=dict(c=2, e=dict(i=2)), g=dict(_delete_=True, j=1), h=1.0, k=dict(c=1))
    assert difference(base, dict(base, b=dict(c=1))) == dict(b=dict(_delete_=True, c=1))


@pytest.mark.parametrize('value', [
    dict(), [], (), (1, ), None, 'text', dict(a=[dict(b=(1, 2))], c={'x.y': 1, '2': 2}),
    [dict(type='A' * 60, b='B' * 60), 'c' * 200], tuple(range(100)), dict(a=dict(b=dict(c=['d' * 50] * 3))),
])
def test_rendered_values_are_python(value: Any) -> None:
    assert eval(render(value), {'dict': dict}) == value  # noqa: S307  # text of our own making


@pytest.mark.parametrize(('gated', 'plain'), [
    ('resnet/resnet50-dct192-gate_8xb32_in1k', 'resnet/resnet50-dct24s_8xb32_in1k'),
    ('mask_rcnn/mask-rcnn_r50-dct192-gate_fpn_1x_coco', 'mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco'),
    ('demo/resnet18-dct192-gate_demo', 'demo/resnet18-dct24s_demo'),
])
def test_static_config_is_the_shipped_one_but_for_where_the_channels_stand(gated: str, plain: str,
                                                                          tmp_path: Path) -> None:
    selection, out = tmp_path / 'picked' / 'selection.json', tmp_path / 'config.py'
    save_selection(rates(np.ones(192)), channel_indices('24S'), str(selection))
    out.write_text(static_config(ROOT / f'configs/{gated}.py', selection, out))
    written = Config.fromfile(str(out))
    check_channels(written)
    actual, expected = plain_config(out), plain_config(ROOT / f'configs/{plain}.py')
    text = json.dumps(actual).replace(str(selection), '24S')
    assert '24S' in text
    actual = json.loads(text)
    expected = json.loads(json.dumps(expected))
    changed = set(difference(expected, actual))
    assert changed <= {'custom_hooks', 'model', 'optim_wrapper', 'param_scheduler'}
    backbone, original = actual['model']['backbone'], expected['model']['backbone']
    assert {key: value for key, value in backbone.items() if key != 'init_cfg'} == {
        key: value for key, value in original.items() if key != 'init_cfg'}
    assert 'GateLossHook' not in text
    assert out.read_text().count(str(selection.name)) == 1  # named once, as freq
    assert 'freq[0]' in out.read_text()


def test_static_config_of_a_config_without_gate_is_an_error(tmp_path: Path) -> None:
    save_selection(rates(np.ones(192)), [0], str(tmp_path / 's.json'))
    with pytest.raises(ValueError, match=r'expected a backbone with gate=dict'):
        static_config(ROOT / 'configs/demo/resnet18-dct24s_demo.py', tmp_path / 's.json', tmp_path / 'c.py')


# Pictures


def test_heat_map_has_the_rate_and_the_zigzag_index_of_every_channel(tmp_path: Path) -> None:
    values = np.random.default_rng(3).random((8, 8))
    axis = Figure().subplots()
    image = _draw_on_rates(axis, values)
    assert np.array_equal(image.get_array(), values)
    labels = {text.get_position(): int(text.get_text()) for text in axis.texts}
    # (column, row) of the first and last places of JPEG's zigzag
    places = ((0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (2, 0), (7, 7))
    assert [labels[place] for place in places] == [0, 1, 2, 3, 4, 5, 63]
    some = OnRates(np.array([0, 64, 130]), np.array([1.0, 0.5, 0.0]), np.ones(3), 5)
    for suffix, start in (('png', b'\x89PNG'), ('svg', b'<?xml')):
        plot_on_rates([rates(values.repeat(3)), some], ['all', 'some'], str(tmp_path / f'map.{suffix}'))
        assert (tmp_path / f'map.{suffix}').read_bytes().startswith(start)
