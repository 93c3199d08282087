"""The comparison of models: what is read of work dirs in any state, what is measured, tables and pictures."""
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
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import DefaultScope
from numpy.testing import assert_allclose
from torch import nn

import mmfreq.apis.pictures
from mmfreq.apis.compare.measure import Row, build_model, compare, count_flops, packed_sample
from mmfreq.apis.compare.picture import plot_comparison, short_names
from mmfreq.apis.compare.runs import best_metrics, find_run
from mmfreq.apis.compare.table import (
    csv_table,
    differences,
    groups,
    markdown_table,
    normalised_sizes,
    plain_rows,
    save_comparison,
    table_notes,
)
from mmfreq.config.paths import config_path

ROOT = Path(__file__).parents[2]
NAME = 'resnet18-dct24s_demo'
CONFIG = f"_base_ = '{ROOT}/configs/demo/{NAME}.py'\n"
# Of the convolutions and the classifier of that network, by hand: 28x28, 14x14, 7x7 and 4x4 cells.
MULTIPLY_ADDS = 512 * 12 + sum(
    cells**2 * (9 * before * width + 27 * width**2 + before * width)
    for cells, before, width in ((28, 24, 64), (14, 64, 128), (7, 128, 256), (4, 256, 512)))


def parameters(channels: int) -> int:
    """Of a ResNet-18 with 12 classes: torchvision's, without stem, its first block with a shortcut for ``channels``."""
    full = sum(parameter.numel() for parameter in torchvision.models.resnet18(num_classes=12).parameters())
    return full - (49 * 3 * 64 + 2 * 64) - 9 * (64 - channels) * 64 + (channels * 64 + 2 * 64)


def work_dir(folder: Path, config: Optional[str] = CONFIG, log: Optional[bytes] = None, metrics: str = '') -> Path:
    """What a training run leaves, as far as given."""
    logs = folder / '20260101_000000/vis_data'
    logs.mkdir(parents=True)
    if config is not None:
        (folder / f'{NAME}.py').write_text(config)
    if log is not None:
        (logs / 'scalars.json').write_bytes(log)
    if metrics:
        (folder / 'metrics.json').write_text(metrics)
    return folder


def line(top1: float, step: int) -> bytes:
    return json.dumps({'accuracy/top1': top1, 'step': step}).encode() + b'\n'


# Work dirs in any state


def test_best_result_of_logs_and_metrics(tmp_path: Path) -> None:
    notes: list[str] = []
    log = b'{"loss": 1.0, "step": 1}\n\n' + line(50, 1) + line(70, 2) + line(60, 3)
    assert best_metrics(work_dir(tmp_path / 'a', log=log), notes) == ({'accuracy/top1': 70}, 'validation at step 2')
    folder = work_dir(tmp_path / 'b', log=log, metrics='{"accuracy/top1": 71.0, "own metric": 3}')
    assert best_metrics(folder, notes) == ({'accuracy/top1': 71, 'own metric': 3}, 'metrics.json')
    assert notes == []


def test_numbers_that_are_none_do_not_count(tmp_path: Path) -> None:
    log = line(50, 1) + b'{"accuracy/top1": NaN, "step": 2}\n{"accuracy/top1": "high", "other/flag": true, "step": 3}\n'
    assert best_metrics(work_dir(tmp_path / 'a', log=log), []) == ({'accuracy/top1': 50}, 'validation at step 1')


def test_without_a_known_metric_the_first_one_counts(tmp_path: Path) -> None:
    log = b'{"voc/mAP": 0.2, "step": 1}\n{"voc/mAP": 0.5, "step": 2}\n{"voc/mAP": 0.4, "step": 3}\n'
    assert best_metrics(work_dir(tmp_path / 'a', log=log), []) == ({'voc/mAP': 0.5}, 'validation at step 2')


@pytest.mark.parametrize(('log', 'metrics', 'expected', 'said'), [
    (line(50, 1) + b'{"accura', '', {'accuracy/top1': 50}, ['scalars.json: 1 of 2 lines are damaged']),
    (line(50, 1), '{"accu', {'accuracy/top1': 50}, ['metrics.json is damaged']),
    (line(50, 1), '[]', {'accuracy/top1': 50}, ['metrics.json is damaged']),
    (line(50, 1), '{}', {'accuracy/top1': 50}, ['metrics.json has no metrics']),
    (bytes(range(256)), '', {}, ['lines are damaged', 'no validation in its logs yet']),
    (b'', '', {}, ['no validation in its logs yet']),
    (b'{"loss": 1.0}\n', '', {}, ['no validation in its logs yet']),
    (None, '', {}, ['no logs']),
])
def test_damaged_and_missing_logs_are_noted(log: Optional[bytes], metrics: str, expected: dict[str, float],
                                            said: list[str], tmp_path: Path) -> None:
    notes: list[str] = []
    found, where = best_metrics(work_dir(tmp_path / 'run', log=log, metrics=metrics), notes)
    assert (found, where) == (expected, 'validation at step 1' if expected else '')
    assert len(notes) == len(said)
    assert all(text in note for text, note in zip(said, notes))


def test_logs_that_cannot_be_opened_are_noted(tmp_path: Path) -> None:
    folder = work_dir(tmp_path / 'run')
    (folder / '20260101_000000/vis_data/scalars.json').mkdir()
    notes: list[str] = []
    assert best_metrics(folder, notes) == ({}, '')
    assert 'scalars.json cannot be read: Is a directory' in notes[0]


def test_find_run(tmp_path: Path) -> None:
    folder = work_dir(tmp_path / 'run')
    run = find_run(str(folder))
    assert (run.name, run.config, run.work_dir, run.notes) == (NAME, folder / f'{NAME}.py', folder, [])
    run = find_run('mmpretrain::resnet/resnet50_8xb32_in1k.py')
    assert (run.name, run.config, run.work_dir) == ('resnet50_8xb32_in1k', config_path(
        'mmpretrain::resnet/resnet50_8xb32_in1k.py'), None)
    with pytest.raises(ValueError, match='no such file: nothing'):
        find_run('nothing')


def test_a_work_dir_with_no_config_or_several_takes_the_copy_beside_its_log(tmp_path: Path) -> None:
    folder = work_dir(tmp_path / 'run', config=None)
    run = find_run(str(folder))
    assert (run.name, run.config, run.work_dir) == ('run', None, folder)
    assert 'expected one config, found 0; and no copy' in run.notes[0]
    copy = folder / '20260101_000000/vis_data/config.py'
    copy.write_text(CONFIG)
    (folder / 'a.py').write_text('')
    (folder / 'b.py').write_text('')
    run = find_run(str(folder))
    assert run.config == copy
    assert f'expected one config, found 2; took {copy}' in run.notes[0]


BROKEN = {  # config of a work dir, what the note says, figures that are known all the same
    'none': (None, 'expected one config, found 0', ()),
    'syntax': (CONFIG + 'model = dict(', 'the config cannot be read: SyntaxError', ()),
    'base': ("_base_ = './gone.py'\n", 'the config cannot be read: FileNotFoundError', ()),
    'pipeline': (CONFIG + "test_dataloader = dict(dataset=dict(pipeline=[dict(type='NoStep')]))\n",
                 'no input: KeyError', ()),
    'type': (CONFIG + "model = dict(backbone=dict(type='NoNet'))\n", 'the model cannot be built: KeyError',
             ('input_shape', )),
    'channels': (CONFIG + 'model = dict(backbone=dict(in_channels=48))\n',
                 'the model does not take its input: ValueError', ('input_shape', 'parameters')),
    'fine': (CONFIG, 'the last validation in the logs is at step 1 of 6',
             ('input_shape', 'parameters', 'flops')),
}


@pytest.fixture(scope='module')
def broken(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """An RGB config, and a work dir for each entry of BROKEN, its checkpoint no checkpoint."""
    folder = tmp_path_factory.mktemp('broken')
    for name, (config, _, _) in BROKEN.items():
        work_dir(folder / name, config, line(50, 1))
        (folder / name / 'epoch_1.pth').write_bytes(b'\x80 no checkpoint')
        (folder / name / 'last_checkpoint').write_text('epoch_1.pth')
    empty = folder / 'empty'
    empty.mkdir()
    return compare([str(ROOT / 'configs/demo/resnet18_demo.py'), *(str(folder / name) for name in BROKEN), str(empty)],
                   timing=False)


def test_every_row_stays_with_what_is_known(broken: list[Row]) -> None:
    baseline, *rows, empty = broken
    assert (baseline.input_shape, baseline.input_bytes, baseline.notes) == ((3, 112, 112), 3 * 112 * 112, [])
    for row, (name, (_, said, kept)) in zip(rows, BROKEN.items()):
        assert row.metrics == {'accuracy/top1': 50}, name
        assert len([note for note in row.notes if said in note]) == 1, (name, row.notes)
        known = dict(input_shape=(24, 28, 28), parameters=parameters(48 if name == 'channels' else 24))
        assert {key: getattr(row, key) for key in known} == {
            key: value if key in kept else None for key, value in known.items()}, name
        assert (row.flops is not None) == ('flops' in kept), name
    assert MULTIPLY_ADDS < row.flops < 1.005 * MULTIPLY_ADDS  # norms and pooling are the rest
    assert (empty.name, empty.metrics, empty.input_shape) == ('empty', {}, None)
    assert 'no logs' in empty.notes[1]


def test_rows_of_one_name_are_told_apart(broken: list[Row]) -> None:
    names = [row.name for row in broken]
    assert len(set(names)) == len(names)
    assert names[1] == 'none'
    assert re.fullmatch(rf'{NAME} \(.*/fine\)', names[-2])


def test_table_and_files_of_incomplete_rows(broken: list[Row], tmp_path: Path) -> None:
    text = markdown_table(broken)
    assert [row.split('|')[1].strip() for row in text.splitlines()[2:2 + len(broken)]] == [row.name for row in broken]
    save_comparison(broken, str(tmp_path / 'out'))
    lines = list(csv.DictReader((tmp_path / 'out.csv').read_text().splitlines()))
    assert [row['parameters'] for row in lines[-3:]] == [str(parameters(48)), str(parameters(24)), '']
    assert [row['accuracy/top1'] for row in lines] == ['', *['50'] * len(BROKEN), '']
    assert 'the config cannot be read' in lines[2]['notes']
    assert [row['parameters'] for row in json.loads((tmp_path / 'out.json').read_text())] == [
        row.parameters for row in broken]
    assert min(cv2.imread(str(tmp_path / 'out.png')).shape[:2]) > 200


def test_rows_without_any_figure_have_files_too(tmp_path: Path) -> None:
    save_comparison([Row('a'), Row('b')], str(tmp_path / 'out'))
    assert '| a ' in (tmp_path / 'out.md').read_text()
    assert (cv2.imread(str(tmp_path / 'out.png')) < 128).any()  # it says so in words


def test_the_best_of_two_runs_in_one_work_dir_counts(tmp_path: Path) -> None:
    """A training that was started anew has a second log with the same steps."""
    for name, value in (('20260101', 70), ('20260102', 50)):
        log = tmp_path / name / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True)
        log.write_text(json.dumps({'accuracy/top1': value, 'step': 1}) + '\n')
    assert best_metrics(tmp_path, []) == ({'accuracy/top1': 70}, 'validation at step 1')


def test_without_timing_there_are_no_columns_for_it(broken: list[Row]) -> None:
    for text in (markdown_table(broken).splitlines()[0], csv_table(broken).splitlines()[0]):
        assert not re.search('memory|images/s|rate', text)


def test_work_that_fails_while_it_is_timed_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    photos = tmp_path / 'photos/train/one'
    photos.mkdir(parents=True)
    (photos / 'a.jpg').write_bytes(b'no photo')
    config = tmp_path / 'a.py'
    config.write_text(f"{CONFIG}train_dataloader = dict(dataset=dict(data_root='{photos.parents[1]}'))\n")
    row, = compare([str(config)], images=1, repeats=1)
    assert row.network_rate > 0
    assert row.memory > 0
    assert row.loader_rate is None
    assert 'no loader speed' in row.notes[0]
    assert 'a.jpg' in row.notes[0]


@pytest.mark.parametrize('arguments', [dict(images=0), dict(repeats=0)])
def test_compare_refuses_no_images_and_no_rounds(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match='expected images and repeats >= 1'):
        compare([], **arguments)


# Inputs


@pytest.mark.parametrize(('name', 'image', 'expected'), [
    ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', (800, 1333), (3, 800, 1333)),
    ('mmfreq::mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco.py', (800, 1333), (24, 200, 334)),
    ('mmfreq::demo/mask-rcnn_r18-dct24s_demo.py', (192, 256), (24, 48, 64)),
    ('mmpretrain::resnet/resnet50_8xb32_in1k.py', (224, 224), (3, 224, 224)),
    ('mmfreq::mobilenet_v2/mobilenet-v2-dct6s_8xb32_in1k.py', (896, 896), (6, 112, 112)),
])
def test_sample_has_the_size_of_the_tables(name: str, image: tuple[int, int], expected: tuple[int, ...]) -> None:
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
        model, packed = build_model(cfg), packed_sample(cfg)
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
    assert heads == [100, 100]  # max_per_img of the config, and the 100 masks of mmdet's StandardRoIHead
    assert sum(counts) <= flops <= 1.05 * sum(counts)  # norms, upsampling and RoIAlign are the rest


# Sizes, groups, differences


def row(name: str, shape: tuple[int, int, int], family: str = 'ResNet', scope: str = 'mmpretrain',
        **figures: Any) -> Row:
    pixels = shape[1:] if shape[0] == 3 else (4 * shape[1], 4 * shape[2])
    return Row(name, scope=scope, family=family, input_shape=shape, img_shape=pixels, input_bytes=1, parameters=2,
               flops=3, **figures)


def paper(top1: float) -> dict[str, Any]:
    return dict(paper={'accuracy/top1': top1})


MIXED = [
    row('r50-24s', (24, 56, 56), **paper(77.196)),
    row('m-rgb', (3, 224, 224), 'MobileNetV2', **paper(71.702)),
    row('r50', (3, 224, 224), **paper(75.78)),
    row('m-6s', (6, 112, 112), 'MobileNetV2', **paper(71.776)),
    row('d', (3, 800, 1332), scope='mmdet', paper={'coco/bbox_mAP': 0.373}),
    row('d-24s', (24, 200, 333), scope='mmdet', paper={'coco/bbox_mAP': 0.377}),
]


def test_sizes_do_not_depend_on_the_order_of_rows() -> None:
    expected = [0.5, 1, 1, 0.5, 1, 0.5]
    assert normalised_sizes(MIXED) == expected
    assert normalised_sizes(MIXED[::-1]) == expected[::-1]
    assert normalised_sizes(MIXED[:1]) == [0.5]  # no RGB row: 3 x 224 x 224, as in the paper
    assert normalised_sizes([row('a', (3, 112, 112)), row('b', (24, 28, 28)), Row('c')]) == [1, 0.5, None]


def test_differences_are_to_the_first_row_of_their_family() -> None:
    assert groups(MIXED) == [[0, 2], [1, 3], [4, 5]]
    assert_allclose([v for v in differences(MIXED, 'accuracy/top1') if v is not None],
                    [0, 0, 75.78 - 77.196, 71.776 - 71.702])
    assert_allclose(differences(MIXED, 'coco/bbox_mAP')[4:], [0, 0.004])
    assert 'differences are to the first row of each family: r50-24s, m-rgb, d' in table_notes(MIXED)
    assert groups(MIXED[:3]) == [[0, 1, 2]]  # a single MobileNetV2 is compared with the ResNets
    unknown = [Row('lost', metrics={'coco/bbox_mAP': 0.3}), Row('empty')]
    assert groups([*MIXED, *unknown]) == [[0, 2, 7], [1, 3], [4, 5, 6]]


def test_results_of_runs_go_before_those_of_the_paper() -> None:
    rows = [row('a', (3, 224, 224), metrics={'accuracy/top1': 70.}, **paper(75.78)),
            row('b', (24, 56, 56), metrics={'accuracy/top1': 72.5}, **paper(77.196)), MIXED[2]]
    assert differences(rows, 'accuracy/top1') == [0, 2.5, None]
    header, _, *cells = markdown_table(rows).splitlines()
    assert [cell.strip() for cell in header.split('|')[2:5]] == ['accuracy/top1', 'difference', 'accuracy/top1 (paper)']
    assert [cell.strip() for cell in cells[1].split('|')[2:5]] == ['72.5', '+2.500', '77.196']
    assert plain_rows(rows)[1]['difference'] == {'accuracy/top1': 2.5}
    del rows[0].metrics['accuracy/top1']
    assert differences(rows, 'accuracy/top1') == [None] * 3  # the first row has no result


def test_notes_that_all_rows_have_are_said_once() -> None:
    rows = [row('a', (3, 224, 224), notes=['x', 'y']), row('b', (3, 4, 4), notes=['x'])]
    assert table_notes(rows) == ['all: x', 'a: y']


def test_a_smaller_input_that_counts_as_1_is_named() -> None:
    rows = [row('dct', (24, 28, 28)), row('rgb', (3, 112, 112)), row('large', (24, 56, 56))]
    assert normalised_sizes(rows) == [0.5, 1, 2]
    assert table_notes(rows) == ['a normalised size of 1 is the input of rgb, 3x112x112']


# Pictures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, instead of files."""
    figures: list[Figure] = []
    monkeypatch.setattr(mmfreq.apis.pictures, 'save_figure', lambda figure, path: figures.append(figure))
    return figures


def test_picture_has_a_panel_for_each_family(drawn: list[Figure]) -> None:
    plot_comparison(MIXED, '')
    panels = [axis for axis in drawn[0].axes if axis.collections]
    points = [[tuple(collection.get_offsets()[0]) for collection in axis.collections] for axis in panels]
    assert_allclose(points[0], [(0.5, 77.196), (1, 75.78)])
    assert_allclose(points[1], [(1, 71.702), (0.5, 71.776)])
    assert_allclose(points[2], [(1, 0.373), (0.5, 0.377)])
    assert [axis.get_title(loc='left').split(' over')[0] for axis in panels] == [
        'ResNet: accuracy/top1', 'MobileNetV2: accuracy/top1', 'coco/bbox_mAP']
    assert len(drawn[0].axes) > 3  # bar charts too


def test_runs_are_filled_and_the_papers_results_hollow(drawn: list[Figure]) -> None:
    plot_comparison([row('a', (3, 224, 224), **paper(75.78)),
                     row('b', (24, 56, 56), metrics={'accuracy/top1': 70.}, **paper(77.196))], '')
    found = {round(float(collection.get_offsets()[0][1]), 3): tuple(collection.get_facecolor()[0])
             for collection in drawn[0].axes[0].collections}
    assert {value for value, color in found.items() if color == (1, 1, 1, 1)} == {75.78, 77.196}
    assert set(found) == {75.78, 77.196, 70}
    assert [text.get_text() for text in drawn[0].axes[0].texts if text.get_text()] == ['a', 'b']


def test_labels_do_not_overlap_in_a_crowd(drawn: list[Figure]) -> None:
    rng = np.random.default_rng(0)
    rows = [row(f'resnet50-dct{i}s_8xb32_in1k', (24 * (1 + i % 3), 56, 56), **paper(77 + 0.2 * rng.random()))
            for i in range(16)]
    plot_comparison(rows, '')
    axis, = drawn[0].axes  # more than six rows: no bar charts
    labels = [text for text in axis.texts if text.get_text()]
    assert sorted(text.get_text() for text in labels) == sorted(f'resnet50-dct{i}s' for i in range(16))
    boxes = [text.get_window_extent() for text in labels]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    frame = axis.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_many_rows_without_results_have_bar_charts(drawn: list[Figure]) -> None:
    plot_comparison([row(str(i), (24, 56, 56)) for i in range(8)], '')
    assert not any(axis.collections for axis in drawn[0].axes)
    assert {axis.get_title(loc='left') for axis in drawn[0].axes} >= {'parameters, millions', 'normalised input size'}


def test_short_names() -> None:
    assert short_names(['mask-rcnn_r50_fpn_1x_coco', 'mask-rcnn_r50-dct24s_fpn_1x_coco']) == [
        'mask-rcnn_r50', 'mask-rcnn_r50-dct24s']
    assert short_names(['a_x', 'b_y']) == ['a_x', 'b_y']
    assert short_names(['a_x', 'x']) == ['a_x', 'x']
    assert short_names(['a_x', 'a_x']) == ['a', 'a']
    assert short_names(['a_x']) == ['a_x']
