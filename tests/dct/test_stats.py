"""Statistics of DCT channels against NumPy's, and their JSON files."""
import json
import os
import random
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mmfreq.apis.dataset_stats import save_stats, standard_error
from mmfreq.dct.stats import FreqStats, RunningStats, block_stats, load_stats, named_sets


def samples(mean: float, spread: float, count: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).normal(mean, spread, (count, 5))


@pytest.mark.parametrize(('mean', 'spread'), [(-88.4, 300), (0, 20), (5000, 0.5), (1e6, 1), (-3e4, 0.1)])
@pytest.mark.parametrize('seed', range(3))
def test_merged_parts_in_any_order(mean: float, spread: float, seed: int) -> None:
    """Also groups of parts, as workers merge them, among them an empty one."""
    values = samples(mean, spread)
    parts = [RunningStats.of(part) for part in np.split(values, [1, 2, 9, 150, 151, 700])]
    random.Random(seed).shuffle(parts)
    groups = [RunningStats.merged(group) for group in (parts[:3], [], parts[3:4], parts[4:])]
    stats = RunningStats.merged(groups).finish({})
    assert_allclose(stats.mean, np.mean(values, axis=0), rtol=1e-9, atol=1e-12 * spread)
    assert_allclose(stats.std, np.std(values, axis=0), rtol=1e-9)
    assert stats.meta['count'] == len(values)
    largest = RunningStats.merged(groups).finish({}, use_range=True).std
    assert_allclose(largest, np.abs(values - values.mean(axis=0)).max(axis=0), rtol=1e-9)


def test_worked_example() -> None:
    running, other = RunningStats.of(np.array([[1., 10.], [3., 10.]])), RunningStats.of(np.array([[8., 40.]]))
    running.merge(other)
    assert (running.count, other.count) == (3, 1)
    assert_array_equal(other.mean, [8, 40])
    assert_allclose(running.mean, [4, 20], rtol=1e-15)
    assert_allclose(running.squares, [9 + 1 + 16, 100 + 100 + 400], rtol=1e-15)
    stats = running.finish({'source': 'hand'})
    assert_allclose(stats.std, [np.sqrt(26 / 3), np.sqrt(200)], rtol=1e-15)
    assert stats.meta == {'source': 'hand', 'count': 3}


def test_all_axes_but_the_last_are_samples_summed_in_float64() -> None:
    cube = np.random.default_rng(0).normal(1000, 0.5, (200, 300, 2)).astype(np.float32)
    stats, lines = RunningStats.of(cube).finish({}), cube.reshape(-1, 2).astype(np.float64)
    assert_allclose(stats.mean, lines.mean(axis=0), rtol=1e-9)
    assert_allclose(stats.std, lines.std(axis=0), rtol=1e-9)


def test_nothing_read_and_a_constant_channel() -> None:
    with pytest.raises(ValueError, match='std > 0'):
        RunningStats.merged([]).finish({})
    values = samples(3, 1)
    values[:, 2] = 7
    with pytest.raises(ValueError, match=r'mean=7\.0, std=0\.0 in channel 2 \(1 such'):
        RunningStats.of(values).finish({})


def test_standard_error_is_that_of_independent_samples() -> None:
    """Of n normal values: sigma / sqrt(n) for the mean, sigma / sqrt(2 n) for the deviation."""
    values = np.random.default_rng(0).normal(5, 3, (2000, 50, 1))
    error = standard_error([RunningStats.of(part) for part in values], np.array([3.]))
    assert error['mean'] == pytest.approx(1 / np.sqrt(100_000), rel=0.05)
    assert error['std'] == pytest.approx(1 / np.sqrt(200_000), rel=0.05)
    assert np.isnan(standard_error([RunningStats.of(values[0])], np.array([3.]))['mean'])


# Files


def test_save_and_load_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, path = np.random.default_rng(0), str(tmp_path / 'new' / 'stats.json')
    meta = {'source': 'a test – in UTF-8', 'count': 12, 'pipeline': [{'type': 'YCbCr'}]}
    stats = FreqStats(rng.normal(size=192) * 10.**rng.integers(-12, 12, 192), rng.uniform(1e-9, 300, 192), meta)
    save_stats(stats, path)
    assert list(json.loads(Path(path).read_text(encoding='utf-8'))) == [*meta, 'mean', 'std']
    monkeypatch.setattr(os, 'replace', Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_stats(FreqStats(np.array([1.5]), np.array([0.1])), path)
    loaded = load_stats(path)
    assert_array_equal(loaded.mean, stats.mean)
    assert_array_equal(loaded.std, stats.std)
    assert loaded.mean.dtype == loaded.std.dtype == np.float64
    assert loaded.meta == meta


def test_shipped_sets() -> None:
    """Any set of photographs: within a component, frequency 0 varies most, and only its mean is far from 0."""
    assert {'dctnet-classification', 'dctnet-instance-segmentation', 'photos-448'} <= set(named_sets())
    for name in named_sets():
        stats = load_stats(name)
        size = 4 if '4x4' in name else 8
        assert stats.mean.shape == stats.std.shape == (3 * size**2, )
        assert stats.meta['source']
        assert_array_equal(stats.std.reshape(3, -1).argmax(axis=1), 0)
        assert -128 * size < stats.mean[0] < 127 * size
        assert_allclose(stats.mean.reshape(3, -1)[:, 1:], 0, atol=5)
    # the first two luma means in the released DCTNet code
    assert_array_equal(load_stats('dctnet-classification').mean[:2], [-88.397, 0.014242])


@pytest.mark.parametrize(('change', 'words'), [
    ('{"mean": [1, 2], ', 'expected a JSON file'), ([1, 2, 3], 'expected a JSON file'),
    (dict(std=[3.]), r'192 channels, got the shapes \(192,\) and \(1,\)'), (dict(std=[3.] * 191), 'broadcast'),
    (dict(mean=[[1.] * 192]), r'got the shapes \(1, 192\)'), (dict(std=[3.] * 191 + [0]), r'std=0\.0 in channel 191'),
    (dict(std=[float('nan')] + [4.] * 191), 'std=nan in channel 0'), (dict(mean=[float('inf')] * 192), 'mean=inf'),
    (dict(mean=[None] * 192), 'mean=nan'), (dict(mean=['two'] * 192), 'convert')])
def test_bad_files(change: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / 'mine.json'
    content = dict(dict(mean=[1.] * 192, std=[3.] * 192), **change) if isinstance(change, dict) else change
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding='utf-8')
    with pytest.raises(ValueError, match=words):
        block_stats(str(path))


@pytest.mark.parametrize('name', ['', 'imagenet', 'missing.json', 'dctnet-classification.json'])
def test_unknown_names(name: str) -> None:
    with pytest.raises(ValueError, match=f"{', '.join(named_sets())} .*got '{name}'"):
        load_stats(name)
