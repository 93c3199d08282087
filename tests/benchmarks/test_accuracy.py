"""The accuracy study: its statistics against scipy and by hand, its logs, its configs. Nothing is trained."""
import json
from pathlib import Path

import numpy as np
import pytest
import report
import scipy.stats
import speed
from logs import read_result
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings
from PIL import Image
from rows import HERE, ROWS
from summary import describe_selection, difference, estimate, frequency_correlation, rank_correlation, reached

from mmfreq.config.checks import check_channels
from mmfreq.dct.channels import channel_indices, zigzag_order


def test_mean_deviation_and_error() -> None:
    values = [71.2, 72.9, 70.3]
    found = estimate(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert found.error == pytest.approx(scipy.stats.sem(values))
    assert estimate([3.0]).error is None


def test_differences_are_paired_by_seed() -> None:
    values = dict(a={0: 70.0, 1: 72.0, 2: 99.0}, b={1: 71.0, 0: 68.0})
    results = {row: {seed: dict(metrics={'accuracy/top1': top1, 'coco/bbox_mAP': top1 / 100})
                     for seed, top1 in seeds.items()} for row, seeds in values.items()}
    found = difference(results, 'a', 'b')
    assert (found.mean, found.count) == (1.5, 2)
    assert found.error == pytest.approx(scipy.stats.sem([2.0, 1.0]))
    assert reached(results, 'b').mean == 69.5
    assert reached(results, 'b', 'coco/bbox_mAP').mean == pytest.approx(69.5)
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
    with open(tmp_path / '20260101_000000/vis_data/scalars.json', 'a') as log:
        log.write('{"epoch": 2, "st')  # it was killed
    write_log(tmp_path / '20260101_000100/vis_data', second)
    result = read_result(tmp_path)
    assert result['metrics'] == {'accuracy/top1': 59.0}
    assert result['loss'] == 1.5
    assert result['starts'] == 2
    assert (result['epochs'], result['iterations']) == (2, 20)
    assert result['seconds_per_epoch'] == pytest.approx(5.0)


def test_labels_of_the_pareto_picture_are_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A label hides neither another label nor the error bar of another row."""
    figures: list[Figure] = []
    monkeypatch.setattr(report, 'save_figure', lambda figure, path: figures.append(figure))
    results = report.load_results(report.RESULTS)
    report.draw_pareto(results, json.loads((report.RESULTS / 'speed.json').read_text()), '')
    figures[0].draw_without_rendering()
    for axis in figures[0].axes:
        labels = [text.get_window_extent() for text in axis.texts]
        ends = [container.lines[2][0].get_segments()[0] for container in axis.containers]
        bars = [Bbox(axis.transData.transform(end)).padded(3) for end in ends]
        assert len(labels) == len(bars) == len(report.PICTURED)
        for i, label in enumerate(labels):
            assert not any(label.overlaps(other) for other in [*labels[:i], *labels[i + 1:], *bars])
            assert label.x1 <= figures[0].bbox.x1


@pytest.mark.parametrize('row', ROWS)
def test_configs_give_their_backbones_the_channels_that_they_take(row: str) -> None:
    cfg = Config.fromfile(HERE / f'configs/{ROWS[row].config}.py')
    check_channels(cfg)
    import_modules_from_strings(**cfg.get('custom_imports', dict(imports=[f'{cfg.default_scope}.datasets'])))
    init_default_scope(cfg.default_scope)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        Compose(loader.dataset.pipeline)  # every transform exists
    if ROWS[row].channels and not ROWS[row].needs:
        options = dict(option.split('=') for option in ROWS[row].options(0))
        assert len(channel_indices(options['train_dataloader.dataset.pipeline.3.channels'])) == 24
        assert options['randomness.seed'] == '0'


def test_speed_measures_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('a', 'b'):
        folder = tmp_path / 'data/imagenette/train' / name
        folder.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)).save(folder / '0.png')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('speed.BATCH', 2)
    monkeypatch.setattr('sys.argv', ['speed.py', '--rows', 'dct24s', '--turns', '2', '--out', 'speed.json'])
    (tmp_path / 'speed.json').write_text('{"other": {}}')
    speed.main()
    other, rgb, dct = json.loads((tmp_path / 'speed.json').read_text()).values()
    assert other == {}  # a row that was not measured stays
    assert (rgb['time_ratio'], rgb['values'], rgb['bytes']) == (1, 3 * 64 * 64, 3 * 64 * 64)
    assert (dct['values'], dct['bytes']) == (24 * 16 * 16, 4 * 24 * 16 * 16)
    assert rgb['multiply_adds'] == pytest.approx(39.6e6, rel=0.01)
