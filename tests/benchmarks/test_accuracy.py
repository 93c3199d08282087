"""The accuracy study: its statistics against scipy and by hand, its logs, its configs. Nothing is trained."""
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from logs import read_result
from mmengine.config import Config
from rows import HERE, ROWS
from summary import describe_selection, difference, estimate, frequency_correlation, rank_correlation, top1

from mmfreq.config.inspect import check_channels
from mmfreq.dct.channels import channel_indices, zigzag_order


def test_mean_deviation_and_error() -> None:
    values = [71.2, 72.9, 70.3]
    found = estimate(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert found.error == pytest.approx(scipy.stats.sem(values))
    assert estimate([3.0]).error is None


def test_differences_are_paired_by_seed() -> None:
    results = dict(a={0: dict(top1=70.0), 1: dict(top1=72.0), 2: dict(top1=99.0)},
                   b={1: dict(top1=71.0), 0: dict(top1=68.0)})
    found = difference(results, 'a', 'b')
    assert (found.mean, found.count) == (1.5, 2)
    assert found.error == pytest.approx(scipy.stats.sem([2.0, 1.0]))
    assert top1(results, 'b').mean == 69.5
    assert difference(results, 'a', 'c') is None


def test_rank_correlation_is_spearmans() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 9, 64), generator.random(64)
    assert rank_correlation(first, second) == pytest.approx(scipy.stats.spearmanr(first, second).statistic)


def test_frequency_correlation_is_minus_one_where_low_frequencies_come_first() -> None:
    probability = np.zeros(192)
    probability[64:128][zigzag_order()] = np.linspace(1, 0, 64)
    assert frequency_correlation(probability, component=1) == pytest.approx(-1)


def test_a_selection_in_numbers() -> None:
    assert describe_selection(channel_indices('24D')) == {'Y': 14, 'Cb': 5, 'Cr': 5, '24S': 17, '24D': 24}


def write_log(folder: Path, records: list[dict]) -> None:
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(''.join(json.dumps(record) + '\n' for record in records))


def test_logs_of_a_training_that_was_resumed(tmp_path: Path) -> None:
    """Two epochs of ten iterations; the first attempt ended in the second one, which was then repeated."""
    first = [dict(epoch=1, step=4, loss=3.0, time=0.5), dict(epoch=1, step=8, loss=2.0, time=0.5),
             {'step': 1, 'accuracy/top1': 60.0}, dict(epoch=2, step=14, loss=9.0, time=0.5)]
    second = [dict(epoch=2, step=14, loss=1.0, time=0.5), dict(epoch=2, step=18, loss=2.0, time=0.7),
              {'step': 2, 'accuracy/top1': 59.0}]
    write_log(tmp_path / '20260101_000000/vis_data', first)
    write_log(tmp_path / '20260101_000100/vis_data', second)
    result = read_result(tmp_path)
    assert result['top1'] == 59.0
    assert result['best_top1'] == 60.0
    assert result['loss'] == 1.5
    assert result['starts'] == 2
    assert (result['epochs'], result['iterations']) == (2, 20)
    assert result['seconds_per_epoch'] == pytest.approx(5.0)


@pytest.mark.parametrize('row', ROWS)
def test_configs_give_their_backbones_the_channels_that_they_take(row: str) -> None:
    cfg = Config.fromfile(HERE / f'configs/{ROWS[row].config}.py')
    check_channels(cfg)
    if ROWS[row].channels and not ROWS[row].needs:
        options = dict(option.split('=') for option in ROWS[row].options(0))
        assert len(channel_indices(options['train_dataloader.dataset.pipeline.3.channels'])) == 24
        assert options['randomness.seed'] == '0'
