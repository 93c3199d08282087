#!/usr/bin/env python3
"""Write the tables and figures of the transfer study from the available results.

The tables replace the text between the marks in ../TRANSFER.md. values.png shows top-1 over the values of an image,
bytes.png over its bytes, and elastic.png that of networks which were trained for each number of values.
"""
import itertools
import json
import sys
from pathlib import Path
from typing import Any, Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from zero_shot import AMOUNTS, RESULT, SIDE

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / 'accuracy'))

from finetune import ELASTIC, LONG, METRIC, OTHER_RATES, OWN, RESULTS, Row, all_rows  # noqa: E402
from input_sizes import PHOTOS, SIDES, rows_of  # noqa: E402
from report import markdown, paired, plus_minus  # noqa: E402
from summary import Estimate, Results, difference, load_results, reached  # noqa: E402

from mmfreq.apis.pictures import BASELINE, INK, OTHERS, save_figure  # noqa: E402
from mmfreq.dct.channels import channel_indices  # noqa: E402
from mmfreq.files import atomic_write_text  # noqa: E402

PAGE = HERE.parent / 'TRANSFER.md'
BEGIN, END = '<!-- begin of {} -->', '<!-- end of {} -->'
ALL_VALUES = 3 * SIDE**2
NATIVE = ('6N', '8 channels', '12N', '18N', '24N', '36 channels', '48N')
PARTS = (1, 1 / 2, 3 / 8, 1 / 4, 1 / 8)  # of the values of RGB: all, and those of the elastic selections
EPOCHS = {0: '0 epochs', 1: '1 epoch', 3: '3 epochs', 10: '10 epochs'}
AP = 'coco/bbox_mAP'
COLORS = {'one network for each selection': OTHERS, 'elastic': '#ef6c00', 'elastic, 20 epochs': '#c2185b',
          'trained on 24N, and cut': '#2e7d32', 'RGB, downsized': BASELINE}
# Rows of the tables of fine-tuning: network, channels, start, stemless, and words.
FINE_TUNED = (
    ('resnet', '24N', 'stock', False, 'ResNet-18, 24N, unpacked, from RGB weights'),
    ('resnet', '12N', 'stock', False, 'ResNet-18, 12N, unpacked, from RGB weights'),
    ('resnet', '24N', 'stock', True, 'ResNet-18, 24N, stemless, from RGB weights'),
    ('resnet', '12N', 'stock', True, 'ResNet-18, 12N, stemless, from RGB weights'),
    ('resnet', '', 'stock', False, 'ResNet-18, RGB, trained further'),
    ('resnet', '24N', 'scratch', True, 'ResNet-18, 24N, stemless, from scratch'),
    ('resnet', '12N', 'scratch', True, 'ResNet-18, 12N, stemless, from scratch'),
    ('resnet', '', 'scratch', False, 'ResNet-18, RGB, from scratch'),
    *((network, channels, start, False, f'{words}, {channels or "RGB"}, {text}')
      for network, words in (('convnext', 'ConvNeXt'), ('vit', 'ViT'))
      for channels, start, text in (('24N', 'stock', 'folded, from RGB weights'),
                                    ('12N', 'stock', 'folded, from RGB weights'),
                                    ('', 'stock', 'trained further'),
                                    ('24N', 'scratch', 'from scratch'), ('', 'scratch', 'from scratch'))))


class Photos:
    """Results of zero_shot.py, compared photo by photo."""

    def __init__(self, file: Path = RESULT) -> None:
        self.rows: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding='utf-8'))

    def __contains__(self, name: str) -> bool:
        return name in self.rows

    def correct(self, name: str, count: int) -> np.ndarray:
        """Return 0 or 1 for each of ``count`` photos, which are all or every n-th of those of the row."""
        row = self.rows[name]
        flags = np.unpackbits(np.frombuffer(bytes.fromhex(row['correct']), np.uint8))[:row['photos']].astype(int)
        return flags[::round(row['photos'] / count)]

    def top1(self, name: str, count: int) -> float:
        """Return the top-1 in percent over ``count`` photos."""
        return 100 * float(self.correct(name, count).mean())

    def difference(self, name: str, reference: str) -> Estimate:
        """Return the difference of two rows in points, over the photos of both."""
        count = min(self.rows[row]['photos'] for row in (name, reference))
        points = 100. * (self.correct(name, count) - self.correct(reference, count))
        return Estimate(float(points.mean()), float(points.std(ddof=1)), count)


def main() -> None:
    """Write all tables and figures."""
    photos, results = Photos(), load_results(RESULTS) | stemless_of_the_accuracy_study()
    sizes = results_of_sizes()
    draw_values(photos, sizes, str(HERE / 'values.png'))
    draw_bytes(photos, str(HERE / 'bytes.png'))
    draw_sizes(sizes, str(HERE / 'elastic.png'))
    tables = dict(selections=selection_table(photos), bytes=bytes_table(photos), robustness=robustness_table(photos),
                  networks=network_robustness_tables(), carried=carried_table(results),
                  training=training_table(results), starts=start_table(results),
                  scratch=scratch_table(results), transfer=transfer_table(results), sizes=sizes_table(sizes),
                  detection=detection_table(load_results(RESULTS / 'detection')))
    text = PAGE.read_text(encoding='utf-8')
    for name, table in tables.items():
        before, rest = text.split(BEGIN.format(name))
        text = f'{before}{BEGIN.format(name)}\n\n{table}\n{END.format(name)}{rest.split(END.format(name))[1]}'
    atomic_write_text(str(PAGE), text)
    print('\n'.join(tables.values()))


def stemless_of_the_accuracy_study() -> Results:
    """Return its results under the names of the rows here."""
    known = load_results(HERE.parent / 'accuracy/results')
    names = {'dct24n': Row('resnet', '24N', 10, 'scratch', True), 'dct12n': Row('resnet', '12N', 10, 'scratch', True),
             'native-rgb': Row('resnet', '', 10, 'scratch')}
    return {row.name: known[name] for name, row in names.items() if name in known}


def table(head: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    return '\n'.join([markdown(head), markdown(['---'] * len(head)), *map(markdown, lines)]) + '\n'


def selection_table(photos: Photos) -> str:
    """Return the table of all inputs without training, but those of robustness and of bytes."""
    lines = []
    for name in photos.rows:
        if ',' in name or name.startswith('JPEG') or ' scale ' in name:
            continue
        row, value = photos.rows[name], photos.difference(name, 'RGB')
        against = '' if name == 'RGB' else plus_minus(value, '+.2f', value.error)
        lines.append([name, row['photos'], f'{row["values"]:,}', f'{row["values"] / ALL_VALUES:.3f}',
                      f'{row["top1"]:.2f}', against])
    return table(('input', 'photos', 'values', 'RGB = 1', 'top-1, %', 'difference to RGB ± standard error'), lines)


def bytes_table(photos: Photos) -> str:
    """Return the table of the sizes of an image."""
    lines = []
    for name, row in photos.rows.items():
        if 'bytes' in row and ',' not in name:  # not those of robustness
            sizes = [f'{row[key] / 1e3:.1f}' if key in row else '' for key in ('bytes', 'zlib', 'zstd')]
            value = photos.difference(name, 'RGB')
            lines.append([name, *sizes, '' if name == 'RGB' else plus_minus(value, '+.2f', value.error)])
    return table(('input', 'kB', 'kB, zlib', 'kB, zstd', 'difference to RGB ± standard error'), lines)


def robustness_table(photos: Photos) -> str:
    """Return the table of changed photos."""
    lines = []
    for change, amounts in AMOUNTS.items():
        for amount in amounts:
            names = [f'{change} {amount}, {name}' for name in ('RGB', '24N', '12N')]
            if all(name in photos for name in names):
                against = [photos.difference(name, names[0]) for name in names[1:]]
                lines.append([change, amount, f'{photos.rows[names[0]]["top1"]:.2f}',
                              *(plus_minus(value, '+.2f', value.error) for value in against)])
    return table(('change', 'amount', 'RGB, top-1, %', '24N - RGB', '12N - RGB'), lines)


def network_robustness_tables(file: Path = RESULTS / 'robustness.json') -> str:
    """Return a table of changed photos for each network of the study, from the results of robustness.py."""
    found, tables = json.loads(file.read_text(encoding='utf-8')) if file.is_file() else {}, []
    for rgb in (name for name in found if name.endswith(', RGB')):
        network = rgb.removesuffix('RGB')
        others = [name for name in found if name.startswith(network) and name != rgb]
        lines = []
        for change in next(iter(found[rgb].values())):
            own = {name: {seed: dict(metrics={METRIC: scores[change]}) for seed, scores in seeds.items()}
                   for name, seeds in found.items()}
            lines.append([change, cell(own, rgb), *(paired(difference(own, name, rgb)) for name in others)])
        heads = [f'{name.removeprefix(network)} - RGB' for name in others]
        tables.append(table(('change', f'{rgb}, top-1, %', *heads), lines))
    return '\n'.join(tables)


def carried_table(results: Results) -> str:
    """Return the table of own networks that were carried over after 10 or 17 epochs of training on RGB."""
    lines = []
    for network, words in zip(OWN, ('ResNet-18, unpacked', 'ConvNeXt, folded', 'ViT, folded')):
        for source in (10, LONG):
            rgb = Row(network, '', source, 'scratch').name
            against = [difference(results, Row(network, channels, 0, source=source).name, rgb)
                       for channels in ('24N', '12N')]
            if rgb in results:
                lines.append([words, source, cell(results, rgb), *map(paired, against)])
    return table(('network', 'epochs on RGB', 'RGB', '24N - RGB', '12N - RGB'), lines)


def training_table(results: Results) -> str:
    """Return the table of top-1 after 0, 1, 3 and 10 epochs."""
    lines = []
    for network, channels, start, stemless, words in FINE_TUNED:
        names = [Row(network, channels, epochs, start, stemless).name for epochs in EPOCHS]
        if any(name in results for name in names):
            lines.append([words, *(cell(results, name) for name in names)])
    return table(('network', *EPOCHS.values()), lines)


def cell(results: Results, name: str) -> str:
    """Return mean, deviation and number of seeds of a row, or an empty string without results."""
    if name not in results:
        return ''
    value = reached(results, name)
    return f'{plus_minus(value, ".2f", value.deviation)} ({value.count})'


def start_table(results: Results) -> str:
    """Return the paired differences of carried-over networks to RGB, to RGB trained further, and to scratch."""
    lines = []
    for network, channels, start, stemless, words in FINE_TUNED:
        if start != 'stock' or not channels:
            continue
        rgb, alone = Row(network, '', 10, 'scratch').name, network == 'resnet'
        own = [Row(network, channels, epochs, start, stemless).name for epochs in EPOCHS]
        scratch = [Row(network, channels, epochs, 'scratch', alone).name for epochs in EPOCHS]
        further = [Row(network, '', epochs).name for epochs in EPOCHS]
        for text, others in (('the RGB network', [rgb] * len(EPOCHS)), ('RGB, trained further', further),
                             ('from scratch', scratch)):
            values = [difference(results, *pair) for pair in zip(own, others)]
            if any(values):
                lines.append([f'{words} - {text}', *map(paired, values)])
    return table(('difference ± standard error (pairs)', *EPOCHS.values()), lines)


def scratch_table(results: Results) -> str:
    """Return the table of own networks that were trained from scratch on RGB and on channels."""
    lines = []
    for network, words in zip(OWN, ('ResNet-18', 'ConvNeXt', 'ViT')):
        for epochs, rate in itertools.product((*EPOCHS, LONG), (1, *OTHER_RATES)):
            rgb, *others = (Row(network, channels, epochs, 'scratch', bool(channels) and network == 'resnet',
                                rate=rate).name for channels in ('', '24N', '48N'))
            if rgb in results and others[0] in results:
                against = [paired(difference(results, name, rgb)) for name in others]
                lines.append([words, epochs, f'{rate:g}', cell(results, rgb), cell(results, others[0]), *against])
    return table(('network', 'epochs', 'learning rate', 'RGB', '24N', '24N - RGB', '48N - RGB'), lines)


def transfer_table(results: Results) -> str:
    """Return the table of EfficientNet-Lite0 on other data."""
    lines = []
    groups = {(row.data, row.per_class, row.epochs) for row in all_rows().values() if row.network == 'lite0'}
    for data, per_class, epochs in sorted(groups):
        rows = [Row('lite0', channels, epochs, start, data=data, per_class=per_class).name
                for channels, start in (('', 'stock'), ('24N', 'stock'), ('12N', 'stock'), ('', 'scratch'))]
        if any(row in results for row in rows):
            against = [paired(difference(results, row, rows[0])) for row in rows[1:3]]
            lines.append([data, per_class or 'all', epochs, *(cell(results, row) for row in rows), *against])
    return table(('data', 'images a class', 'epochs', 'RGB', '24N', '12N', 'RGB, from scratch', '24N - RGB',
                  '12N - RGB'), lines)


def results_of_sizes() -> Results:
    """Return the results of input_sizes.py, a row for each of the inputs that a network was evaluated on."""
    results: Results = {}
    for name, seeds in load_results(RESULTS / 'input_sizes').items():
        for seed, result in seeds.items():
            for channels, value in result['metrics'].items():
                metrics = dict(metrics={METRIC: value})
                results.setdefault(f'{name} at {channels}', {})[seed] = metrics
    return results


def lines_of_sizes(start: str) -> dict[str, list[str]]:
    """Return the lines of table and picture: words, and their rows from all to an eighth of the values."""
    rows = {(row.channels, row.elastic, row.pixels, row.epochs): row.name for row in rows_of(start)}
    epochs = min(key[3] for key in rows)
    alone = {key[0]: f'{name} at {key[0]}' for key, name in rows.items() if key[0] and not key[1]}
    lines = {'one network for each selection': ['', *(alone[name] for name in ELASTIC)]}
    for key, name in rows.items():
        if key[1]:
            words = 'elastic' if key[3] == epochs else f'elastic, {key[3]} epochs'
            lines[words] = ['', *(f'{name} at {channels}' for channels in ELASTIC)]
    lines['trained on 24N, and cut'] = ['', *(f'{rows["24N", False, 0, epochs]} at {name}' for name in ELASTIC)]
    lines['RGB, downsized'] = [f'{rows["", False, side, epochs]} at RGB' for side in (0, *SIDES[start])]
    return lines


def sizes_table(results: Results) -> str:
    """Return the table of the networks that were trained for each number of values."""
    lines = []
    for start, words in dict(scratch='ResNet-18, from scratch', stock='EfficientNet-Lite0, ImageNet weights').items():
        alone = lines_of_sizes(start)['one network for each selection']
        for kind, rows in lines_of_sizes(start).items():
            if any(row in results for row in rows):
                lines.append([f'{words}: {kind}', *(cell(results, row) for row in rows)])
            if rows != alone and any(difference(results, *pair) for pair in zip(rows, alone)):
                lines.append(['minus one for each', *(paired(difference(results, *pair)) for pair in zip(rows, alone))])
    return table(('network', '1', '1/2, 24N', '3/8, 18N', '1/4, 12N', '1/8, 6N'), lines)


def detection_table(results: Results) -> str:
    """Return the table of detectors that were fine-tuned on photos of balloons."""
    lines = []
    for detector, words in (('faster-rcnn', 'Faster R-CNN'), ('rtmdet', 'RTMDet-tiny')):
        for name in ('24n', '12n'):
            rows = f'{detector}-rgb', f'{detector}-{name}'
            if all(row in results for row in rows):
                values = [reached(results, row, AP) for row in rows]
                cells = [f'{plus_minus(value, ".1f", value.deviation)} ({value.count})' for value in values]
                lines.append([words, name.upper(), *cells, paired(difference(results, rows[1], rows[0], AP))])
    return table(('detector', 'channels', 'AP on RGB', 'AP on channels', 'difference'), lines)


def draw_sizes(results: Results, path: str) -> None:
    """Draw top-1 of the networks that were trained for each number of values over the bytes of int8 and uint8."""
    figure = Figure(figsize=(9.6, 4.2), layout='constrained')
    titles = dict(scratch=('ResNet-18 from scratch, 64x64 pixels', 64),
                  stock=('EfficientNet-Lite0 from ImageNet weights, 128x128 pixels', 128))
    for axis, (start, (title, side)) in zip(figure.subplots(1, 2), titles.items()):
        for kind, rows in lines_of_sizes(start).items():
            values = 3 * side**2, *(len(channel_indices(name, 4)) * (side // 4)**2 for name in ELASTIC)
            known = [(number / 1e3, reached(results, row).mean) for number, row in zip(values, rows) if row in results]
            if known:
                axis.plot(*zip(*known), 'o-', color=COLORS[kind], label=kind, markersize=5)
        axis.set_title(title, fontsize=10, color=INK)
        axis.set_xlabel('kB per image (one byte for each value)', color=INK)
        axis.grid(alpha=0.25)
        axis.spines[['top', 'right']].set_visible(False)
    figure.axes[0].set_ylabel('top-1 (%)', color=INK)
    lines = {line.get_label(): line for axis in figure.axes for line in axis.lines}
    figure.axes[1].legend(lines.values(), lines, frameon=False, fontsize=9, loc='lower right')
    save_figure(figure, path)


def draw_values(photos: Photos, sizes: Results, path: str) -> None:
    """Draw top-1 over the values of an image: without training, and fine-tuned for each number of values."""
    figure = Figure(figsize=(11, 4.4), layout='constrained')
    first, second = figure.subplots(1, 2)
    small = [name for name in photos.rows if name.startswith('RGB ') and name != 'RGB']
    series = {'DCT channels of 4x4 blocks': ([name for name in NATIVE if name in photos], OTHERS),
              'RGB, downsized by area averaging': (['RGB', *small], BASELINE)}
    count = min((photos.rows[name]['photos'] for names, _ in series.values() for name in names), default=1)
    for label, (names, color) in series.items():
        names = sorted(names, key=lambda name: photos.rows[name]['values'])
        spots = [(photos.rows[name]['values'] / ALL_VALUES, photos.top1(name, count)) for name in names]
        up = color == OTHERS
        words = [name.replace(' channels', '') if up else f'{side(photos, name)} px' for name in names]
        draw_line(first, spots, words, label, color)
    finish_axis(first, 'Not trained on either input, 224x224 pixels', 'of 1,000 classes', count)
    lines = lines_of_sizes('stock')
    for (label, (_, color)), kind in zip(series.items(), ('one network for each selection', 'RGB, downsized')):
        labels = ['', *ELASTIC] if color == OTHERS else [f'{pixels} px' for pixels in (128, *SIDES['stock'])]
        known = [(part, row, words) for part, row, words in zip(PARTS, lines[kind], labels) if row in sizes]
        spots = [(part, reached(sizes, row).mean) for part, row, _ in known]
        draw_line(second, spots, [words for *_, words in known], label, color)
    count = len(range(0, 3925, PHOTOS['stock']))
    finish_axis(second, 'Fine-tuned for each input, 128x128 pixels', 'of 10 classes', count)
    top = second.get_ylim()[1] + 1
    second.set_ylim(top - np.ptp(first.get_ylim()), top)  # a point is as long as in the first picture
    for axis in (first, second):
        axis.set_xlabel('values per image, RGB = 1', color=INK)
        axis.set_xscale('log', base=2)
        axis.set_xticks([1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1], ['1/8', '1/4', '3/8', '1/2', '3/4', '1'])
    figure.suptitle('EfficientNet-Lite0 from its ImageNet weights', fontsize=11, color=INK)
    save_figure(figure, path)


def draw_line(axis: Axes, spots: list[tuple[float, float]], words: list[str], label: str, color: str) -> None:
    """Draw the points of a line with words at each: above those of channels, below those of RGB."""
    axis.plot(*zip(*spots), 'o-', color=color, label=label, markersize=5)
    annotate(axis, spots, words, 'above' if color == OTHERS else 'below')


def side(photos: Photos, name: str) -> int:
    """Return the side in pixels of an RGB image."""
    return round((photos.rows[name]['values'] / 3)**0.5)


def annotate(axis: Axes, spots: list[tuple[float, float]], labels: list[str], place: str) -> None:
    """Write labels above, below, left or right of the points of a line."""
    offset, side = dict(above=((0, 9), 'center'), below=((0, -10), 'center'), left=((-7, 3), 'right'),
                        right=((7, 0), 'left'))[place]
    for spot, label in zip(spots, labels):
        axis.annotate(label, spot, xytext=offset, textcoords='offset points', ha=side, va='center', fontsize=8,
                      color=INK)


def short(name: str) -> str:
    """Return the label of a point in the picture of bytes."""
    if name.startswith('JPEG'):
        return name.replace('JPEG ', 'q')
    return name.replace(' int8 scale ', '/') if ' scale ' in name else name.split()[0]


def finish_axis(axis: Axes, title: str, classes: str, count: int) -> None:
    """Set what the figures share."""
    axis.set_ylabel(f'top-1 {classes} (%), {count:,} photos', color=INK)
    axis.set_title(title, fontsize=10, color=INK)
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
    axis.legend(frameon=False, fontsize=9, loc='lower right')
    axis.margins(y=0.09)


def draw_bytes(photos: Photos, path: str) -> None:
    """Draw top-1 over the bytes of an image."""
    figure = Figure(figsize=(7.6, 4.6), layout='constrained')
    axis = figure.subplots()
    jpegs = [name for name in photos.rows if name.startswith('JPEG') and name != 'JPEG 5']  # far below the others
    native = [f'{name} int8 own scales' for name in ELASTIC if f'{name} int8 own scales' in photos]
    steps = (('24N', 16), ('24N', 4), ('12N', 2), ('6N', 2))
    coarse = [name for name in (f'{channels} int8 scale {scale}' for channels, scale in steps) if name in photos]
    count = min(photos.rows[name]['photos'] for name in ['RGB', *jpegs, *native, *coarse])
    lines: list[tuple[str, list[str], str, str, str, str]] = [
        ('JPEG files', jpegs, 'bytes', '-', '#2e7d32', 'left'),
        ('int8 channels, a scale for each', native, 'bytes', '-', OTHERS, 'above'),
        ('the same, zstd', native, 'zstd', '-', '#7b1fa2', 'below'),
        ('one scale for all channels, zstd', coarse, 'zstd', '', '#c2185b', 'right'),
        ('RGB, uint8, plain and zstd', ['RGB'], 'zstd', '', BASELINE, 'above'),
    ]
    for label, names, key, line, color, place in lines:
        names = sorted((name for name in names if key in photos.rows[name]), key=lambda name: photos.rows[name][key])
        spots = [(photos.rows[name][key] / 1e3, photos.top1(name, count)) for name in names]
        if spots:
            axis.plot(*zip(*spots), f'o{line}', color=color, label=label, markersize=5)
            annotate(axis, spots, [short(name) for name in names], place)
    axis.plot(ALL_VALUES / 1e3, photos.top1('RGB', count), 'o', color=BASELINE, markersize=5)
    annotate(axis, [(ALL_VALUES / 1e3, photos.top1('RGB', count))], ['RGB'], 'above')
    axis.set_xlabel('kB per image', color=INK)
    finish_axis(axis, 'EfficientNet-Lite0 with its ImageNet weights: accuracy over bytes', 'of 1,000 classes', count)
    axis.set_xscale('log')
    axis.set_xticks([3, 5, 10, 20, 40, 80, 150], ['3', '5', '10', '20', '40', '80', '150'])
    axis.minorticks_off()
    save_figure(figure, path)


if __name__ == '__main__':
    main()
