"""The comparison of models: work dirs in any state, measured figures, table and picture."""
import json
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
import pytest
import torchvision
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import DefaultScope
from numpy.testing import assert_allclose
from shipped import shipped
from torch import nn

import mmfreq.models.det  # noqa: F401  before anything of mmdet
from mmfreq.apis.compare.output import columns, markdown_table, plot_comparison, save_comparison
from mmfreq.apis.compare.rows import Estimate, Row, _describe, compare, relate
from mmfreq.apis.compare.runs import group_runs, published_metrics, read_run
from mmfreq.apis.freqify.convert import freqify
from mmfreq.apis.measure import build_model, count_flops, keep_all_proposals, packed_sample
from mmfreq.config.paths import config_path
from mmfreq.errors import RefusedError

ROOT = Path(__file__).parents[2]
NAME = 'resnet18-dct24s_demo'
CONFIG = f"_base_ = '{ROOT}/configs/demo/{NAME}.py'\n"
# Of the convolutions and the classifier of that network, by hand: grids of 28x28, 14x14, 7x7, 4x4.
MULTIPLY_ADDS = 512 * 12 + sum(
    cells**2 * (9 * before * width + 27 * width**2 + before * width)
    for cells, before, width in ((28, 24, 64), (14, 64, 128), (7, 128, 256), (4, 256, 512)))


def parameters(channels: int) -> int:
    """Of torchvision's ResNet-18, without stem, its first block with a shortcut for channels."""
    full = sum(p.numel() for p in torchvision.models.resnet18(num_classes=12).parameters())
    return full - (49 * 3 * 64 + 2 * 64) - 9 * (64 - channels) * 64 + (channels * 64 + 2 * 64)


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def work_dir(folder: Path, config: str = CONFIG, top1: Optional[float] = None) -> str:
    """A training's folder, with the log of a test if ``top1`` is given."""
    write(folder / f'{NAME}.py', config)
    if top1 is not None:
        log_test(folder, '20260101_000000', top1, config=config)
    return str(folder)


def log_validations(folder: Path, stamp: str, *top1: float) -> None:
    """Add the log of a training that validated in each epoch."""
    lines = [json.dumps({'accuracy/top1': value, 'time': 0.1, 'step': step})
             for step, value in enumerate(top1, 1)]
    text = '\n'.join(['{"loss": 1, "step": 1}', *lines, '{"accu'])
    write(folder / stamp / 'vis_data/scalars.json', text)


def log_test(folder: Path, stamp: str, top1: float, weights: str = '', config: str = CONFIG) -> None:
    """Add the log that mmengine writes of a test."""
    weights = weights or str(folder / 'epoch_1.pth')
    write(folder / f'test/{stamp}/{stamp}.json', json.dumps({'accuracy/top1': top1, 'time': 0.1}))
    write(folder / f'test/{stamp}/vis_data/config.py', f'{config}\nload_from = {weights!r}\n')


# Work dirs in any state


def result(folder: Path) -> tuple[Optional[float], str]:
    run = read_run(str(folder))
    return run.metrics.get('accuracy/top1'), run.source


def test_results_are_the_last_validation_whatever_was_best(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match='one config, got 0'):
        read_run(str(tmp_path))
    folder = Path(work_dir(tmp_path))
    assert result(folder) == (None, '')
    log_validations(folder, '20260101_000000', 50, 70, 60)
    assert result(folder) == (60, 'validation 3')
    log_validations(folder, '20260102_000000', 55, float('nan'))
    assert result(folder) == (55, 'validation 1')  # a training that was started anew


def test_a_test_counts_before_a_validation_while_the_training_is_the_same(tmp_path: Path) -> None:
    folder = Path(work_dir(tmp_path))
    log_validations(folder, '20260102_000000', 50)
    log_test(folder, '20260101_000000', 40)  # before the last start of the training
    assert result(folder) == (50, 'validation 1')
    log_test(folder, '20260103_000000', 51)
    log_test(folder, '20260104_000000', 52)
    assert result(folder) == (52, 'test of epoch_1.pth')
    log_test(folder, '20260105_000000', 1, weights='other/epoch_1.pth')
    other_data = "test_dataloader = dict(dataset=dict(data_root='x'))"
    log_test(folder, '20260106_000000', 2, config=CONFIG + other_data)
    log_test(folder, '20260107_000000', 3, config=CONFIG + 'test_evaluator = dict(topk=(5, ))')
    assert result(folder) == (52, 'test of epoch_1.pth')


def test_figures_of_configs_and_their_files(tmp_path: Path) -> None:
    rgb = str(ROOT / 'configs/demo/resnet18_demo.py')
    rows = compare([rgb, *(work_dir(tmp_path / name, top1=50) for name in 'ab')], images=0)
    assert (rows[0].input_shape, rows[0].input_bytes) == ((3, 112, 112), 3 * 112 * 112)
    assert rows[1].metrics == {'accuracy/top1': Estimate(50)}
    assert (rows[1].input_shape, rows[1].parameters) == ((24, 28, 28), parameters(24))
    assert MULTIPLY_ADDS < rows[1].flops < 1.005 * MULTIPLY_ADDS  # norms and pooling are the rest
    assert rows[2].name == f'{NAME} ({tmp_path}/b)'
    save_comparison(rows, str(tmp_path / 'out'))
    table = (tmp_path / 'out.md').read_text()
    assert 'memory' not in table  # it was not measured
    assert [line.split('|')[1].strip() for line in table.splitlines()[2:5]] == [row.name for row in rows]
    plain = json.loads((tmp_path / 'out.json').read_text())
    assert [row['parameters'] for row in plain] == [row.parameters for row in rows]
    assert min(cv2.imread(str(tmp_path / 'out.png')).shape[:2]) > 100


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
    """Untrained weights must not matter: here nearly all boxes would suppress each other."""
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
    texts = {seed: f"{CONFIG}randomness = dict(seed={seed})\nwork_dir = '{seed}'\n"
             f"visualizer = dict(name='{seed}')\n{more}" for seed in values}
    return [work_dir(folder / str(seed), texts[seed], top1) for seed, top1 in values.items()]


def test_seeds_of_one_config_are_one_row(tmp_path: Path) -> None:
    """Three seeds of a baseline, four of another schedule: differences 1, 2 and 6."""
    more = 'train_cfg = dict(max_epochs=7)\n'
    rows = compare([*seeded(tmp_path / 'a', {0: 70, 1: 71, 2: 72}),
                    *seeded(tmp_path / 'b', {2: 78, 1: 73, 0: 71, 3: 90}, more)], images=0)
    assert [row.metrics['accuracy/top1'] for row in rows] == [
        Estimate(71, 1, 3), Estimate(78, pytest.approx((218 / 3)**0.5), 4)]
    error = pytest.approx((7 / 3)**0.5)  # the variance of 1, 2 and 6 is 7
    assert rows[1].difference == {'accuracy/top1': Estimate(3, error, 3)}
    cells = [cell.strip() for cell in markdown_table(rows).splitlines()[3].split('|')]
    assert cells[2:4] == ['78.00 ± 8.52 (4)', '+3.00 ± 1.53 (3)']
    assert '±: standard deviation' in markdown_table(rows)


def test_what_makes_runs_of_one_config(tmp_path: Path) -> None:
    first = seeded(tmp_path / 'a', {0: 70, None: 71})
    again = seeded(tmp_path / 'b', {0: 70, None: 71})  # 0 is no second sample
    other = seeded(tmp_path / 'c', {1: 70}, "load_from = 'weights.pth'\n")
    resumed = seeded(tmp_path / 'd', {2: 70}, "load_from = 'epoch_1.pth'\nresume = True\n")
    config = str(ROOT / f'configs/demo/{NAME}.py')
    items = [*first, *again, *other, *resumed, config, config]
    groups = group_runs([read_run(item) for item in items])
    assert [len(runs) for runs in groups] == [4, 1, 1, 1, 1]


def test_an_interrupted_fine_tuning_stays_in_its_group(tmp_path: Path) -> None:
    """The work dir has the config of the resumed run; its log folders have those of both."""
    tuned, scratch = "load_from = 'weights.pth'\n", "load_from = None\n"
    folders = seeded(tmp_path / 'a', {0: 70}, tuned)
    for name, start in (('b', tuned), ('c', scratch)):
        folders += seeded(tmp_path / name, {1: 71}, "load_from = 'epoch_1.pth'\nresume = True\n")
        for stamp, text in (('20260101_000000', start), ('20260102_000000', 'resume = True\n')):
            write(Path(folders[-1], stamp, 'vis_data/config.py'), text)
    assert [len(runs) for runs in group_runs([read_run(item) for item in folders])] == [2, 1]


@pytest.mark.parametrize(('change', 'expected'), [
    ('', {'accuracy/top1': 77.196}),
    ("test_dataloader = dict(dataset=dict(data_root='data/own'))\n", {}),
    ("test_dataloader = dict(dataset=dict(type='CustomDataset'))\n", {}),
    ('model = dict(head=dict(num_classes=10))\n', {}),
])
def test_published_results_are_of_runs_on_their_data(change: str, expected: dict[str, float],
                                                     tmp_path: Path) -> None:
    name = 'resnet50-dct24s_8xb32_in1k'
    write(tmp_path / f'{name}.py', f"_base_ = '{ROOT}/configs/resnet/{name}.py'\n{change}")
    assert published_metrics(read_run(str(tmp_path))) == expected


# Sizes, families, differences


def row(name: str, shape: tuple[int, int, int], family: str = 'ResNet',
        paper: Optional[dict[str, float]] = None, top1: Optional[float] = None) -> Row:
    named = {key: Estimate(value) for key, value in (paper or {}).items()}
    results = {} if top1 is None else {'accuracy/top1': Estimate(top1)}
    return Row(name, '', {}, named, results, family=family, input_shape=shape, parameters=2_000_000)


def mixed() -> list[Row]:
    """Published results of two families of classifiers and of one of detectors."""
    rows = [row('r50-24s', (24, 56, 56), paper={'accuracy/top1': 77.196}),
            row('m-rgb', (3, 224, 224), 'MobileNetV2', {'accuracy/top1': 71.702}),
            row('r50', (3, 224, 224), paper={'accuracy/top1': 75.78}),
            row('m-6s', (6, 112, 112), 'MobileNetV2', {'accuracy/top1': 71.776}),
            row('d', (3, 800, 1332), 'MaskRCNN', {'coco/bbox_mAP': 0.373}),
            row('d-24s', (24, 200, 333), 'MaskRCNN', {'coco/bbox_mAP': 0.377})]
    relate(rows)
    return rows


def test_rows_know_the_stock_network_and_the_data() -> None:
    described = []
    unpacked = Config(freqify(str(ROOT / 'configs/demo/resnet18_demo.py'), '24N')[0])
    for cfg, root in ((shipped('demo/resnet18_demo.py'), 'a'), (unpacked, 'a'),
                      (shipped('demo/resnet18-dct24s_demo.py'), 'a'), (shipped('demo/resnet18-dct24s_demo.py'), 'b')):
        cfg.test_dataloader.dataset.data_root = root
        described.append(Row('', '', {}, {}))
        _describe(described[-1], cfg, {}, 0)
    assert {one.family for one in described} == {'ResNet'}
    assert [Path(one.data[0]).name for one in described] == ['a', 'a', 'a', 'b']
    for one in described:
        one.metrics = {'accuracy/top1': Estimate(50)}
    relate(described)
    assert [bool(one.difference) for one in described] == [False, True, True, False]


def test_sizes_are_relative_to_rgb_and_differences_to_the_first_of_the_family() -> None:
    rows = mixed()
    assert [row.normalised_size for row in rows] == [0.5, 1, 1, 0.5, 1, 0.5]
    means = [[delta.mean for delta in row.difference.values()] for row in rows]
    assert_allclose(sum(means, []), [75.78 - 77.196, 71.776 - 71.702, 0.004])
    assert [len(mean) for mean in means] == [0, 0, 1, 1, 0, 1]
    alone = [row('a', (24, 56, 56))]
    relate(alone)
    assert alone[0].normalised_size is None


def test_results_of_runs_go_before_published_ones() -> None:
    paper = {'accuracy/top1': 75.78}
    rows = [row(str(top1), (24, 56, 56), paper=paper, top1=top1) for top1 in (70, 72.5, None)]
    relate(rows)
    assert [row.difference for row in rows] == [
        {}, {'accuracy/top1': Estimate(2.5, None, 0)}, {}]
    rows = [row(str(top1), (24, 56, 56), paper=paper, top1=top1) for top1 in (None, 72.5)]
    relate(rows)
    assert rows[1].difference == {}  # the first row has no result


def test_the_table_has_words_and_units() -> None:
    table = {column.title: column.cells for column in columns(mixed())}
    assert table['top-1 accuracy, %, published'] == ['77.20', '71.70', '75.78', '71.78', '-', '-']
    assert table['box AP, %, difference'] == ['-'] * 5 + ['+0.40']
    assert table['input'][0] == '24x56x56'
    assert table['parameters, M'] == ['2.00'] * 6
    assert 'memory per image, MB' not in table
    own = columns([Row('a', '', {}, {}, {'own/x': Estimate(3)})])
    assert [column[:2] for column in own] == [('model', ['a']), ('own/x', ['3.00'])]


# Pictures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, instead of files."""
    figures: list[Figure] = []
    monkeypatch.setattr('mmfreq.apis.compare.output.save_figure', lambda f, _: figures.append(f))
    return figures


def test_picture_has_a_panel_for_each_figure(drawn: list[Figure]) -> None:
    rows = mixed()
    rows[3].difference['accuracy/top1'] = Estimate(-1.25, 0.5, 3)
    plot_comparison(rows, '')
    panels = {axis.get_title(loc='left'): axis for axis in drawn[0].axes if axis.axison}
    assert list(panels) == [column.title for column in columns(rows) if column.values]
    bars = panels['top-1 accuracy, %, published'].patches
    assert [bar.get_width() for bar in bars] == [77.196, 71.702, 75.78, 71.776, 0, 0]
    grey, blue = bars[0].get_facecolor(), bars[3].get_facecolor()
    assert [bar.get_facecolor() for bar in bars] == [grey, grey, blue, blue, grey, blue]
    assert grey != blue
    drawn[0].draw_without_rendering()
    boxes = {title: axis.get_window_extent() for title, axis in panels.items()}
    for title, axis in panels.items():
        for text in axis.texts:
            others = [box for other, box in boxes.items() if other != title]
            assert not any(box.overlaps(text.get_window_extent()) for box in others), text


def test_rows_without_any_figure_have_files(tmp_path: Path) -> None:
    save_comparison([Row('a', '', {}, {})], str(tmp_path / 'out'))
    assert sorted(file.suffix for file in tmp_path.iterdir()) == ['.json', '.md', '.png']
