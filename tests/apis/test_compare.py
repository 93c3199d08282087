"""The comparison of models: work dirs in any state, what is measured, tables and pictures."""
import csv
import json
import re
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
import pytest
import torch
import torchvision
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import DefaultScope
from numpy.testing import assert_allclose
from torch import nn

from mmfreq.apis.compare.picture import plot_comparison, save_comparison
from mmfreq.apis.compare.rows import Row, compare
from mmfreq.apis.compare.runs import group_runs, published_metrics, read_run, results
from mmfreq.apis.compare.table import (
    csv_table,
    differences,
    families,
    markdown_table,
    normalised_sizes,
    plain_rows,
    table_notes,
)
from mmfreq.apis.measure import build_model, count_flops, keep_all_proposals, packed_sample
from mmfreq.config.paths import config_path

ROOT = Path(__file__).parents[2]
NAME = 'resnet18-dct24s_demo'
CONFIG = f"_base_ = '{ROOT}/configs/demo/{NAME}.py'\n"
# Of the convolutions and the classifier of that network, by hand: 28x28, 14x14, 7x7 and 4x4 cells.
MULTIPLY_ADDS = 512 * 12 + sum(
    cells**2 * (9 * before * width + 27 * width**2 + before * width)
    for cells, before, width in ((28, 24, 64), (14, 64, 128), (7, 128, 256), (4, 256, 512)))


def parameters(channels: int) -> int:
    """Of torchvision's ResNet-18, without stem, its first block with a shortcut for channels."""
    full = sum(p.numel() for p in torchvision.models.resnet18(num_classes=12).parameters())
    return full - (49 * 3 * 64 + 2 * 64) - 9 * (64 - channels) * 64 + (channels * 64 + 2 * 64)


def work_dir(folder: Path, config: str = CONFIG, log: bytes = b'', metrics: str = '') -> Path:
    """What a training run leaves, as far as given."""
    for name, content in {f'{NAME}.py': config.encode(), 'metrics.json': metrics.encode(),
                          '20260101_000000/vis_data/scalars.json': log}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if content:
            (folder / name).write_bytes(content)
    return folder


def line(top1: float, step: int) -> bytes:
    return json.dumps({'accuracy/top1': top1, 'step': step}).encode() + b'\n'


# Work dirs in any state


def test_results_are_those_of_files_that_are_there(tmp_path: Path) -> None:
    """The last validation, whatever was best before it; a test's metrics go before it."""
    log = b'{"loss": 1.0, "step": 1}\n\n' + line(50, 1) + line(70, 2) + line(60, 3) + b'{"accura'
    folder = work_dir(tmp_path / 'a', log=log)
    assert results(folder) == ({'accuracy/top1': 60}, 'validation at step 3')
    (folder / 'best_top1_epoch_2.pth').touch()
    assert f'for those of best_top1_epoch_2.pth: mmfreq test {folder}' in read_run(str(folder)).notes[0]
    later = folder / '20260102_000000/vis_data/scalars.json'
    later.parent.mkdir(parents=True)
    later.write_bytes(line(55, 1) + b'{"accuracy/top1": NaN, "other/flag": true, "step": 3}\n')
    assert results(folder)[0] == {'accuracy/top1': 55}  # a training that was started anew
    (folder / 'metrics.json').write_text('{"accuracy/top1": 51.0, "own metric": 3}')
    assert results(folder) == ({'accuracy/top1': 51, 'own metric': 3}, 'metrics.json')


@pytest.mark.parametrize(('log', 'metrics', 'said'), [
    (line(50, 1), '{"accu', 'metrics.json: not a JSON file'),
    (bytes(range(256)) + b'\n1\n', '', 'the results cannot be read'),
    (b'{"loss": 1.0}\n', '', 'no results yet; mmfreq test '),
])
def test_damaged_and_missing_results_are_noted(log: bytes, metrics: str, said: str,
                                               tmp_path: Path) -> None:
    run = read_run(str(work_dir(tmp_path / 'run', log=log, metrics=metrics)))
    assert (run.name, run.metrics, run.found) == (NAME, {}, '')
    note, = run.notes
    assert said in note


def test_read_run(tmp_path: Path) -> None:
    run = read_run('mmpretrain::resnet/resnet50_8xb32_in1k.py')
    assert (run.name, run.seed, run.notes) == ('resnet50_8xb32_in1k', None, [])
    with pytest.raises(ValueError, match='no such file: nothing'):
        read_run('nothing')
    folder = work_dir(tmp_path / 'run', config='', log=line(50, 1))
    run = read_run(str(folder))
    assert (run.name, run.cfg, run.metrics) == ('run', None, {'accuracy/top1': 50})
    assert run.notes == [f'{folder}: expected one config, found 0']


BROKEN = {  # config of a work dir, what the note says, figures that are known all the same
    'syntax': ('model = dict(', 'the config cannot be read: SyntaxError', ()),
    'base': ("_base_ = './gone.py'\n", 'the config cannot be read: FileNotFoundError', ()),
    'pipeline': (CONFIG + "test_dataloader = dict(dataset=dict(pipeline=[dict(type='NoStep')]))\n",
                 'no input: KeyError', ()),
    'type': (CONFIG + "model = dict(backbone=dict(type='NoNet'))\n",
             'the model cannot be built: KeyError', ('input_shape', )),
    'channels': (CONFIG + 'model = dict(backbone=dict(in_channels=48))\n',
                 'the model does not take its input: ValueError', ('input_shape', 'parameters')),
    'fine': (CONFIG, '', ('input_shape', 'parameters', 'flops')),
}


@pytest.fixture(scope='module')
def broken(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """An RGB config, a work dir for each entry of BROKEN, and an empty one."""
    folder = tmp_path_factory.mktemp('broken')
    for name, (config, _, _) in BROKEN.items():
        work_dir(folder / name, config, line(50, 1))
    (folder / 'empty').mkdir()
    paths = [str(folder / name) for name in (*BROKEN, 'empty')]
    return compare([str(ROOT / 'configs/demo/resnet18_demo.py'), *paths], timing=False)


def test_every_row_stays_with_what_is_known(broken: list[Row]) -> None:
    baseline, *rows, empty = broken
    assert (baseline.input_shape, baseline.input_bytes) == ((3, 112, 112), 3 * 112 * 112)
    assert baseline.notes == []
    for row, (name, (_, said, kept)) in zip(rows, BROKEN.items()):
        assert row.metrics == {'accuracy/top1': 50}, name
        assert len(row.notes) == bool(said), name
        assert said in ''.join(row.notes), name
        assert row.input_shape == ((24, 28, 28) if 'input_shape' in kept else None)
        expected = parameters(48 if name == 'channels' else 24)
        assert row.parameters == (expected if 'parameters' in kept else None)
        assert (row.flops is not None) == ('flops' in kept), name
    assert MULTIPLY_ADDS < row.flops < 1.005 * MULTIPLY_ADDS  # norms and pooling are the rest
    assert (empty.name, empty.metrics, empty.input_shape) == ('empty', {}, None)
    assert 'no results yet' in empty.notes[0]
    names = [row.name for row in broken]
    assert len(set(names)) == len(names)
    assert re.fullmatch(rf'{NAME} \(.*/fine\)', names[-2])


def test_table_and_files_of_incomplete_rows(broken: list[Row], tmp_path: Path) -> None:
    header, _, *lines = markdown_table(broken).splitlines()
    assert not re.search('memory|images/s|rate', header)  # these were not measured
    names = [line.split('|')[1].strip() for line in lines[:len(broken)]]
    assert names == [row.name for row in broken]
    save_comparison(broken, str(tmp_path / 'out'))
    found = list(csv.DictReader((tmp_path / 'out.csv').read_text().splitlines()))
    assert [row['parameters'] for row in found[-2:]] == [str(parameters(24)), '']
    assert [row['accuracy/top1'] for row in found] == ['', *['50.0'] * len(BROKEN), '']
    assert 'the config cannot be read' in found[1]['notes']
    found = json.loads((tmp_path / 'out.json').read_text())
    assert [row['parameters'] for row in found] == [row.parameters for row in broken]
    assert min(cv2.imread(str(tmp_path / 'out.png')).shape[:2]) > 200


def test_rows_without_any_figure_have_files_too(tmp_path: Path) -> None:
    save_comparison([Row('a'), Row('b')], str(tmp_path / 'out'))
    assert '| a ' in (tmp_path / 'out.md').read_text()
    assert (cv2.imread(str(tmp_path / 'out.png')) < 128).any()  # 'no figure'


def test_work_that_fails_while_it_is_timed_is_noted(tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    image = tmp_path / 'images/train/one/a.jpg'
    image.parent.mkdir(parents=True)
    image.write_bytes(b'no image')
    config = tmp_path / 'a.py'
    root = f"train_dataloader = dict(dataset=dict(data_root='{tmp_path}/images'))\n"
    config.write_text(CONFIG + root)
    row, = compare([str(config)], images=1, repeats=1)
    assert row.network_rate > 0
    assert row.memory > 0
    assert row.loader_rate is None
    note, = row.notes
    assert 'no loader speed' in note
    assert 'a.jpg' in note
    with pytest.raises(ValueError, match='images: expected an integer >= 1, got 0'):
        compare([], images=0)


# Inputs


@pytest.mark.parametrize(('name', 'image', 'expected'), [
    ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', (800, 1333), (3, 800, 1333)),
    ('mmfreq::mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco.py', (800, 1333), (24, 200, 334)),
    ('mmfreq::demo/mask-rcnn_r18-dct24s_demo.py', (192, 256), (24, 48, 64)),
    ('mmpretrain::resnet/resnet50_8xb32_in1k.py', (224, 224), (3, 224, 224)),
    ('mmfreq::mobilenet_v2/mobilenet-v2-dct6s_8xb32_in1k.py', (896, 896), (6, 112, 112)),
])
def test_sample_has_the_size_of_the_tables(name: str, image: tuple[int, int],
                                           expected: tuple[int, ...]) -> None:
    cfg = Config.fromfile(str(config_path(name)))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        packed = packed_sample(cfg)
    assert tuple(packed['data_samples'].img_shape) == image
    assert tuple(packed['inputs'].shape) == expected


def test_a_detector_is_counted_with_all_its_proposals() -> None:
    """Whatever its untrained weights give: here nearly all boxes would suppress each other."""
    cfg = Config.fromfile(str(config_path('mmfreq::demo/mask-rcnn_r18-dct24s_demo.py')))
    cfg.model.test_cfg.rpn.nms.iou_threshold = 0.01
    with DefaultScope.overwrite_default_scope('mmdet'):
        model, packed = build_model(cfg).eval(), packed_sample(cfg)
        keep_all_proposals(model)
        counts: list[int] = []
        heads: list[int] = []
        for name, module in model.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(lambda m, _, out: counts.append(
                    len(out) * m.weight.numel() * int(np.prod(out.shape[2:], initial=1))))
            elif isinstance(module, nn.ConvTranspose2d):
                module.register_forward_hook(lambda m, inputs, _: counts.append(
                    len(inputs[0]) * m.weight.numel() * int(np.prod(inputs[0].shape[2:]))))
            elif name in ('roi_head.bbox_head', 'roi_head.mask_head'):
                module.register_forward_hook(lambda m, inputs, _: heads.append(len(inputs[0])))
        flops = count_flops(model, packed)
    assert heads == [100, 100]  # max_per_img, and 100 masks of mmdet's StandardRoIHead
    assert sum(counts) <= flops <= 1.05 * sum(counts)  # norms, upsampling and RoIAlign are the rest


# Seeds


def seeded(folder: Path, values: dict[Optional[int], float], more: str = '') -> list[str]:
    """Work dirs of one config with different seeds, and their results."""
    for seed, top1 in values.items():
        own = (f"randomness = dict(seed={seed})\nwork_dir = '{seed}'\n"
               f"visualizer = dict(name='{seed}')\n{more}")
        work_dir(folder / str(seed), CONFIG + own, metrics=json.dumps({'accuracy/top1': top1}))
    return [str(folder / str(seed)) for seed in values]


@pytest.fixture(scope='module')
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Three seeds of a baseline, four of another schedule: differences 1, 2 and 6."""
    folder, more = tmp_path_factory.mktemp('seeds'), 'train_cfg = dict(max_epochs=7)\n'
    first = seeded(folder / 'a', {0: 70, 1: 71, 2: 72})
    return compare([*first, *seeded(folder / 'b', {2: 78, 1: 73, 0: 71, 3: 90}, more)],
                   timing=False)


def test_seeds_of_one_config_are_one_row(seeds: list[Row]) -> None:
    assert [len(row.seeds) for row in seeds] == [3, 4]
    assert_allclose([row.metrics['accuracy/top1'] for row in seeds], [71, 78])
    assert_allclose([row.spread['accuracy/top1'] for row in seeds], [1, (218 / 3)**0.5])
    difference = differences(seeds, 'accuracy/top1')[1]
    assert_allclose(difference, (3, (7 / 3)**0.5, 3))  # variance of 1, 2 and 6: 7
    cells = [cell.strip() for cell in markdown_table(seeds).splitlines()[3].split('|')]
    assert cells[2:6] == ['4', '78 ± 8.5', '+3.000 ± 1.5', '3']
    found, = list(csv.DictReader(csv_table(seeds).splitlines()))[1:]
    top1, difference = 'accuracy/top1', 'accuracy/top1 difference'
    assert (found['runs'], found[top1], found[difference]) == ('4', '78.0', '3.0')
    errors = [float(found[f'{name} ±']) for name in (top1, difference)]
    assert_allclose(errors, [(218 / 3)**0.5, (7 / 3)**0.5])
    assert plain_rows(seeds)[1]['difference']['accuracy/top1']['seeds'] == 3


def test_what_makes_runs_of_one_config(tmp_path: Path) -> None:
    first = seeded(tmp_path / 'a', {0: 70, None: 71})
    again = seeded(tmp_path / 'b', {0: 70, None: 71})  # 0 is no second sample
    other = seeded(tmp_path / 'c', {1: 70}, "load_from = 'weights.pth'\n")
    resumed = seeded(tmp_path / 'd', {2: 70}, "load_from = 'epoch_1.pth'\nresume = True\n")
    config = str(ROOT / f'configs/demo/{NAME}.py')
    items = [*first, *again, *other, *resumed, config, config]
    found = group_runs([read_run(item) for item in items])
    assert [len(runs) for runs in found] == [4, 1, 1, 1, 1]


def test_an_interrupted_fine_tuning_stays_in_its_group(tmp_path: Path) -> None:
    """The work dir has the config of the resumed run; its log folders have those of both."""
    tuned, scratch = "load_from = 'weights.pth'\n", "load_from = None\n"
    whole = seeded(tmp_path / 'a', {0: 70}, tuned)
    for name, start in (('b', tuned), ('c', scratch)):
        folder, = seeded(tmp_path / name, {1: 71}, "load_from = 'epoch_1.pth'\nresume = True\n")
        for stamp, text in (('20260101_000000', start), ('20260102_000000', 'resume = True\n')):
            file = Path(folder, stamp, 'vis_data/config.py')
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        whole.append(folder)
    assert [len(runs) for runs in group_runs([read_run(folder) for folder in whole])] == [2, 1]


def test_single_runs_have_no_common_seeds(tmp_path: Path) -> None:
    a, b = row('a', (3, 224, 224), metrics={'accuracy/top1': 70}), row('b', (24, 56, 56), metrics={'accuracy/top1': 71})
    for one in (a, b):
        one.seeds = {0: one.metrics}
    table = markdown_table([a, b])
    assert 'difference' in table
    assert 'seeds' not in table


@pytest.mark.parametrize(('change', 'expected'), [
    ('', {'accuracy/top1': 77.196, 'accuracy/top5': 93.504}),
    ("test_dataloader = dict(dataset=dict(data_root='data/own'))\n", {}),
    ("test_dataloader = dict(dataset=dict(type='CustomDataset'))\n", {}),
    ('model = dict(head=dict(num_classes=10))\n', {}),
])
def test_published_results_stand_beside_runs_on_their_data(
        change: str, expected: dict[str, float], tmp_path: Path) -> None:
    name = 'resnet50-dct24s_8xb32_in1k'
    (tmp_path / f'{name}.py').write_text(f"_base_ = '{ROOT}/configs/resnet/{name}.py'\n{change}")
    run = read_run(str(tmp_path))
    assert published_metrics(run) == expected
    assert any('no published results' in note for note in run.notes) == (not expected)


# Sizes, groups, differences


def row(name: str, shape: tuple[int, int, int], family: str = 'ResNet', scope: str = 'mmpretrain',
        **figures: Any) -> Row:
    pixels = shape[1:] if shape[0] == 3 else (4 * shape[1], 4 * shape[2])
    return Row(name, scope=scope, family=family, input_shape=shape, img_shape=pixels,
               input_bytes=1, parameters=2_000_000, flops=3, **figures)


def paper(top1: float) -> dict[str, Any]:
    return dict(paper={'accuracy/top1': top1})


MIXED = [
    row('r50-24s', (24, 56, 56), **paper(77.196)),
    row('m-rgb', (3, 224, 224), 'MobileNetV2', **paper(71.702)),
    row('r50', (3, 224, 224), **paper(75.78)),
    row('m-6s', (6, 112, 112), 'MobileNetV2', **paper(71.776)),
    row('d', (3, 800, 1332), 'MaskRCNN', 'mmdet', paper={'coco/bbox_mAP': 0.373}),
    row('d-24s', (24, 200, 333), 'MaskRCNN', 'mmdet', paper={'coco/bbox_mAP': 0.377}),
]


def test_sizes_do_not_depend_on_the_order_of_rows() -> None:
    expected = [0.5, 1, 1, 0.5, 1, 0.5]
    assert normalised_sizes(MIXED) == expected
    assert normalised_sizes(MIXED[::-1]) == expected[::-1]
    assert normalised_sizes(MIXED[:1]) == [0.5]  # no RGB row: 3 x 224 x 224, as in the paper
    small = [row('a', (3, 112, 112)), row('b', (24, 28, 28)), Row('c')]
    assert normalised_sizes(small) == [1, 0.5, None]


def test_differences_are_to_the_first_row_of_their_family() -> None:
    assert families(MIXED) == [[0, 2], [1, 3], [4, 5]]
    assert_allclose([v.mean for v in differences(MIXED, 'accuracy/top1') if v is not None],
                    [0, 0, 75.78 - 77.196, 71.776 - 71.702])
    assert_allclose([v.mean for v in differences(MIXED, 'coco/bbox_mAP')[4:]], [0, 0.004])
    assert 'differences are to the first row of the same family' in table_notes(MIXED)


def test_results_of_runs_go_before_those_of_the_paper() -> None:
    rows = [row('a', (3, 224, 224), metrics={'accuracy/top1': 70.}, **paper(75.78)),
            row('b', (24, 56, 56), metrics={'accuracy/top1': 72.5}, **paper(77.196)), MIXED[2]]
    assert differences(rows, 'accuracy/top1') == [(0, None, 0), (2.5, None, 0), None]
    header, _, *cells = markdown_table(rows).splitlines()
    assert [cell.strip() for cell in header.split('|')[2:5]] == [
        'accuracy/top1', 'accuracy/top1 (paper)', 'accuracy/top1 difference']
    assert [cell.strip() for cell in cells[1].split('|')[2:5]] == ['72.5', '77.196', '+2.500']
    assert plain_rows(rows)[1]['difference']['accuracy/top1']['mean'] == 2.5
    del rows[0].metrics['accuracy/top1']
    assert differences(rows, 'accuracy/top1') == [None] * 3  # the first row has no result


def test_notes_are_said_once_and_a_smaller_input_that_counts_as_1_is_named() -> None:
    rows = [row('dct', (24, 28, 28), notes=['x', 'y']), row('rgb', (3, 112, 112), notes=['x'])]
    assert table_notes(rows) == ['dct, rgb: x', 'dct: y',
                                 'a normalised size of 1 is an input of 3x112x112']


# Pictures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, instead of files."""
    figures: list[Figure] = []
    monkeypatch.setattr('mmfreq.apis.compare.picture.save_figure', lambda f, _: figures.append(f))
    return figures


def points(axis: Axes) -> list[tuple[str, float, float, bool]]:
    """Name in the legend, position, and whether it is filled, of each point in a panel."""
    found = []
    for container in axis.containers:
        marker = container.lines[0]
        (x, y), = marker.get_xydata()
        found.append((container.get_label(), x, y, marker.get_markerfacecolor() != 'none'))
    return found


def test_picture_has_a_panel_for_each_family(drawn: list[Figure]) -> None:
    plot_comparison(MIXED, '')
    panels = drawn[0].axes[:3]
    assert_allclose([[point[1:3] for point in points(axis)] for axis in panels], [
        [(0.5, 77.196), (1, 75.78)], [(1, 71.702), (0.5, 71.776)], [(1, 37.3), (0.5, 37.7)]])
    assert [axis.get_title(loc='left').split(', over')[0] for axis in panels] == [
        'ResNet: top-1 accuracy, %', 'MobileNetV2: top-1 accuracy, %', 'MaskRCNN: box AP, %']
    assert all(np.ptp(axis.get_ylim()) >= 5 for axis in panels)  # 0.07 points are no landslide
    assert len(drawn[0].axes) > 3  # bar charts too


def test_runs_are_filled_and_the_papers_results_hollow(drawn: list[Figure]) -> None:
    metrics = {'accuracy/top1': 70.}
    plot_comparison([row('a', (3, 224, 224), **paper(75.78)),
                     row('b', (24, 56, 56), metrics=metrics, spread={'accuracy/top1': 2.},
                         **paper(77.196))], '')
    axis = drawn[0].axes[0]
    assert points(axis) == [('a, paper: 75.78', 1, 75.78, False), ('b: 70 ± 2', 0.5, 70, True),
                            ('b, paper: 77.196', 0.5, 77.196, False)]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        point[0] for point in points(axis)]
    bars = axis.containers[1].lines[2][0]
    assert_allclose(bars.get_segments()[0][:, 1], [68, 72])


def test_a_crowd_has_a_legend_within_the_picture(drawn: list[Figure]) -> None:
    plot_comparison([row(f'resnet50-dct{i}s_8xb32_in1k', (24, 56, 56), **paper(77))
                     for i in range(16)], '')
    axis, = drawn[0].axes  # more than six rows: no bar charts
    drawn[0].draw_without_rendering()
    legend = axis.get_legend().get_window_extent()
    assert axis.get_window_extent().x1 <= legend.x0 < legend.x1 <= drawn[0].bbox.x1
    assert legend.y0 >= 0
    looks = {(item.lines[0].get_marker(), item.lines[0].get_color()) for item in axis.containers}
    assert len(looks) == 16


def test_rows_without_results_have_bar_charts(drawn: list[Figure]) -> None:
    plot_comparison([row(str(i), (24, 56, 56)) for i in range(8)], '')
    assert [axis.get_title(loc='left') for axis in drawn[0].axes if axis.axison] == [
        'normalised size', 'bytes per image', 'parameters', 'FLOPs (multiply-adds)']
    assert [text.get_text() for text in drawn[0].axes[2].texts] == ['2.00 M'] * 8
