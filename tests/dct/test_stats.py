"""Guard statistics of DCT channels by numpy; check their JSON files."""
import json
import os
import random
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from mmfreq.apis.dataset_stats import save_stats, standard_error
from mmfreq.dct.stats import FreqStats, RunningStats, load_stats, merged, named_sets
from mmfreq.transforms import FreqNormalize

# From the released DCTNet code: mean of the first two luma channels of the classification set.
DCTNET_FIRST_MEANS = [-88.397, 0.014242]


def samples(mean: float, spread: float, count: int = 1000, channels: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, spread, (count, channels))


def uneven_parts(values: np.ndarray) -> list[np.ndarray]:
    return np.split(values, [1, 2, 9, 150, 151, 700])


def assert_are_statistics_of(stats: FreqStats, values: np.ndarray, atol: float = 0) -> None:
    np.testing.assert_allclose(stats.mean, np.mean(values, axis=0), rtol=1e-9, atol=atol)
    np.testing.assert_allclose(stats.std, np.std(values, axis=0), rtol=1e-9)
    assert stats.meta['count'] == len(values)


@pytest.mark.parametrize(('mean', 'spread'), [(-88.4, 300), (5000, 0.5), (1e6, 1), (-3e4, 0.1)])
@pytest.mark.parametrize('seed', range(3))
def test_merged_parts_in_any_order(mean: float, spread: float, seed: int) -> None:
    values = samples(mean, spread)
    parts = [RunningStats.of(part) for part in uneven_parts(values)]
    random.Random(seed).shuffle(parts)
    assert_are_statistics_of(merged(parts).finish({}), values)


def test_merged_parts_with_a_mean_near_zero() -> None:
    values = samples(0, 20)
    values -= values.mean(axis=0)
    stats = merged([RunningStats.of(part) for part in uneven_parts(values)]).finish({})
    assert_are_statistics_of(stats, values, atol=1e-12 * 20)


def test_merging_groups_of_groups() -> None:
    """As workers do: each merges its own parts, then their sums are merged."""
    values = samples(2000, 0.3)
    parts = [RunningStats.of(part) for part in uneven_parts(values)]
    groups = [merged(parts[:3]), merged([]), merged(parts[3:4]), merged(parts[4:])]
    assert_are_statistics_of(merged(groups).finish({}), values)


def test_worked_example() -> None:
    running = RunningStats.of(np.array([[1., 10.], [3., 10.]]))
    running.merge(RunningStats.of(np.array([[8., 40.]])))
    assert running.count == 3
    np.testing.assert_allclose(running.mean, [4, 20], rtol=1e-15)
    np.testing.assert_allclose(running.squares, [9 + 1 + 16, 100 + 100 + 400], rtol=1e-15)
    stats = running.finish({'source': 'hand'})
    np.testing.assert_allclose(stats.std, [np.sqrt(26 / 3), np.sqrt(200)], rtol=1e-15)
    assert stats.meta == {'source': 'hand', 'count': 3}


def test_all_axes_but_the_last_are_samples_summed_in_float64() -> None:
    cube = np.random.default_rng(0).normal(1000, 0.5, (200, 300, 2)).astype(np.float32)
    assert_are_statistics_of(RunningStats.of(cube).finish({}), cube.reshape(-1, 2).astype(np.float64))


def test_merge_leaves_the_other_alone() -> None:
    first, second = RunningStats.of(samples(0, 1)), RunningStats.of(samples(9, 4, seed=1))
    kept = second.mean.copy(), second.squares.copy()
    total = RunningStats().merge(second)
    total.mean += 1
    total.squares += 1
    total.merge(first)
    np.testing.assert_array_equal(second.mean, kept[0])
    np.testing.assert_array_equal(second.squares, kept[1])
    assert (total.count, first.count, second.count) == (2000, 1000, 1000)


def test_nothing_read() -> None:
    with pytest.raises(ValueError, match='no image was read'):
        merged([]).finish({})


def test_constant_channel() -> None:
    values = samples(3, 1)
    values[:, 2] = 7
    with pytest.raises(ValueError, match=r'std > 0, got mean=7\.0, std=0\.0 in channel 2 \(1 such'):
        RunningStats.of(values).finish({})


def test_save_and_load_are_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    meta = {'source': 'a test – in UTF-8', 'count': 12, 'pipeline': [{'type': 'YCbCr'}]}
    stats = FreqStats(rng.normal(size=192) * 10.**rng.integers(-12, 12, 192), rng.uniform(1e-9, 300, 192), meta)
    save_stats(stats, str(tmp_path / 'new' / 'stats.json'))
    loaded = load_stats(str(tmp_path / 'new' / 'stats.json'))
    np.testing.assert_array_equal(loaded.mean, stats.mean)
    np.testing.assert_array_equal(loaded.std, stats.std)
    assert loaded.mean.dtype == loaded.std.dtype == np.float64
    assert loaded.meta == meta


def test_saved_file_is_plain_json_with_provenance_first(tmp_path: Path) -> None:
    save_stats(FreqStats(np.array([1.5]), np.array([0.1]), {'source': 'x'}), str(tmp_path / 's.json'))
    values = json.loads((tmp_path / 's.json').read_text(encoding='utf-8'))
    assert list(values.items()) == [('source', 'x'), ('mean', [1.5]), ('std', [0.1])]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 's.json'
    path.write_text('old')
    monkeypatch.setattr(os, 'replace', Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_stats(FreqStats(np.array([1.5]), np.array([0.1])), str(path))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [('s.json', 'old')]


def test_the_published_sets_are_shipped() -> None:
    assert {'dctnet-classification', 'dctnet-instance-segmentation'} <= set(named_sets())
    assert named_sets() == sorted(named_sets())


@pytest.mark.parametrize('name', named_sets())
def test_shipped_sets_are_complete(name: str) -> None:
    stats = load_stats(name)
    assert stats.mean.shape == stats.std.shape == (192, )
    assert np.isfinite(stats.mean).all()
    assert np.isfinite(stats.std).all()
    assert (stats.std > 0).all()
    assert len(stats.meta['source']) > 20
    # What any set of photographs has: within a component, frequency 0 varies most, and no other has a mean far from 0.
    np.testing.assert_array_equal(stats.std.reshape(3, 64).argmax(axis=1), 0)
    assert -1024 < stats.mean[0] < 1016
    np.testing.assert_allclose(stats.mean.reshape(3, 64)[:, 1:], 0, atol=5)


def test_classification_set_has_the_published_values() -> None:
    np.testing.assert_array_equal(load_stats('dctnet-classification').mean[:2], DCTNET_FIRST_MEANS)


def test_unknown_name_lists_the_known_ones() -> None:
    known = ', '.join(named_sets())
    with pytest.raises(ValueError, match=f"expected one of {known} or the path of a JSON file, got 'imagenet'"):
        load_stats('imagenet')


GOOD = {'mean': [1, 2], 'std': [3, 4]}


@pytest.mark.parametrize(('content', 'message'), [
    ('{"mean": [1, 2], ', 'not a JSON file'),
    (b'\xff\xfe\x00', 'not a JSON file'),
    ([1, 2, 3], 'a JSON object with mean and std, got a list'),
    ('null', 'got a NoneType'),
    ({'mean': [1, 2]}, r"the keys mean and std, got \['mean'\]"),
    ({**GOOD, 'std': [3]}, r'mean and std of one length, got \(2,\) and \(1,\)'),
    ({'mean': [[1, 2]], 'std': [[3, 4]]}, r'mean and std of one length, got \(1, 2\)'),
    ({'mean': [[1], [2, 3]], 'std': [3, 4]}, 'inhomogeneous'),
    ({**GOOD, 'std': [3, 0]}, r'std > 0, got mean=2\.0, std=0\.0 in channel 1'),
    ({**GOOD, 'std': [float('nan'), 4]}, r'std=nan in channel 0'),
    ({**GOOD, 'mean': [1, float('inf')]}, r'finite means and std > 0, got mean=inf, std=4\.0 in channel 1'),
    ({**GOOD, 'mean': [1, 'two']}, 'could not convert string'),
    ({**GOOD, 'mean': [1, None]}, 'mean=nan'),
    ({**GOOD, 'mean': {'Y': 1}}, 'float'),
])
def test_bad_files_are_named(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / 'mine.json'
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding='utf-8')
    with pytest.raises(ValueError, match=message) as caught:
        load_stats(str(path))
    assert str(path) in str(caught.value)


def test_file_of_another_length_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / 'short.json')
    save_stats(FreqStats(np.zeros(64), np.ones(64)), path)
    with pytest.raises(ValueError, match='all 192 channels, got 64') as caught:
        FreqNormalize(path)
    assert path in str(caught.value)


@pytest.mark.parametrize('name', ['', '.', 'missing.json', 'dctnet-classification.json'])
def test_no_such_file(name: str) -> None:
    with pytest.raises(ValueError, match=f"path of a JSON file, got '{name}'"):
        load_stats(name)


def test_standard_error_is_that_of_independent_samples() -> None:
    """Of n normal values: sigma / sqrt(n) for the mean, sigma / sqrt(2 n) for the deviation."""
    values = np.random.default_rng(0).normal(5, 3, (2000, 50, 1))
    found = standard_error([RunningStats.of(part) for part in values], np.array([3.]))
    assert found['mean'] == pytest.approx(1 / np.sqrt(100_000), rel=0.05)
    assert found['std'] == pytest.approx(1 / np.sqrt(200_000), rel=0.05)
