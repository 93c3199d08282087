"""The comparison as a Markdown table, as JSON, and as a picture."""
import json
import math
from dataclasses import asdict
from typing import NamedTuple, Optional, Sequence

from matplotlib.figure import Figure

from mmfreq.apis.compare.rows import Estimate, Row
from mmfreq.apis.compare.runs import METRICS
from mmfreq.apis.pictures import BASELINE, OTHERS, draw_bars, save_figure
from mmfreq.files import atomic_write_text

# Words, attribute of a row, unit, format.
_COSTS = (
    ('input size, RGB = 1', 'normalised_size', 1, '.4g'),
    ('bytes per image', 'input_bytes', 1, ',.0f'),
    ('parameters, M', 'parameters', 1e6, '.2f'),
    ('multiply-adds, G', 'flops', 1e9, '.3f'),
    ('memory per image, MB', 'memory', 1e6, '.1f'),
    ('loading, images/s', 'loader_rate', 1, '.0f'),
    ('network, images/s', 'network_rate', 1, '.1f'),
)


class Column(NamedTuple):
    """A column of the table."""
    title: str
    cells: list[str]
    values: Sequence[float] = ()  # the bars of the picture, 0 without a figure; none for words


def columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns with any figure: known metrics, or all if none is known; input; costs."""
    names = dict.fromkeys(key for row in rows for key in (*row.metrics, *row.paper))
    table = [Column('model', [row.name for row in rows])]
    for key in [key for key in METRICS if key in names] or names:
        words, _, factor = METRICS.get(key, (key, '', 1))
        table += [
            _figures(words, [row.metrics.get(key) for row in rows], factor),
            _figures(f'{words}, published', [row.paper.get(key) for row in rows], factor),
            _figures(f'{words}, difference', [row.difference.get(key) for row in rows], factor,
                     '+.2f')]
    table += [Column('results from', [row.source or '-' for row in rows]),
              Column('input', ['x'.join(map(str, row.input_shape or '-')) for row in rows])]
    for title, attribute, unit, form in _COSTS:
        costs = [getattr(row, attribute) for row in rows]
        table.append(_figures(title, [None if cost is None else Estimate(cost) for cost in costs],
                              1 / unit, form))
    return [column for column in table if {*column.cells} != {'-'}]


def _figures(title: str, figures: Sequence[Optional[Estimate]], factor: float,
             form: str = '.2f') -> Column:
    cells, values = [], []
    for figure in figures:
        values.append(figure.mean * factor if figure else 0)
        cells.append(format(values[-1], form) if figure else '-')
        if figure and figure.error is not None:
            cells[-1] += f' ± {figure.error * factor:.2f} ({figure.runs})'
    return Column(title, cells, values)


def markdown_table(rows: Sequence[Row]) -> str:
    """Return the comparison as a Markdown table, aligned for a terminal, with notes below it."""
    lines: list[list[str]] = [[] for _ in range(len(rows) + 2)]
    for i, column in enumerate(columns(rows)):
        width, side = max(map(len, (column.title, *column.cells))), '>' if i else '<'
        rule = (':' + '-' * (width - 1))[::-1 if i else 1]
        for line, cell in zip(lines, (column.title, rule, *column.cells)):
            line.append(format(cell, f'{side}{width}'))
    table = [f'| {" | ".join(line)} |' for line in lines]
    notes = []
    if any(row.difference for row in rows):
        notes.append('- differences are to the first row of the same family of networks on the same data')
    if '±' in ''.join(table):
        notes.append('- ±: standard deviation of results, standard error of paired differences; '
                     'in brackets the number of runs or pairs')
    return '\n'.join([*table, '', *notes]).rstrip() + '\n'


def plot_comparison(rows: Sequence[Row], path: str) -> None:
    """Draw a bar for each metric and cost of each model; the baseline of each family is grey.

    ``path`` is the PNG or SVG file to write.
    """
    panels = [column for column in columns(rows) if column.values]
    lines = math.ceil(len(panels) / 6) or 1
    width = math.ceil(len(panels) / lines) or 1
    size = 3 + 2.4 * width, lines * (0.7 + 0.3 * len(rows))
    figure = Figure(figsize=size, layout='constrained')
    axes = list(figure.subplots(lines, width, sharey=True, squeeze=False).flat)
    first = {row.family: i for i, row in reversed([*enumerate(rows)])}
    colors = [BASELINE if first[row.family] == i else OTHERS for i, row in enumerate(rows)]
    for axis, column in zip(axes, panels):
        draw_bars(axis, column.title, [row.name for row in rows], column.values, column.cells,
                  colors)
    for axis in axes[len(panels):]:
        axis.axis('off')
    save_figure(figure, path)


def save_comparison(rows: Sequence[Row], prefix: str) -> list[str]:
    """Write ``PREFIX.md``, ``.json`` and ``.png``; return their names."""
    atomic_write_text(f'{prefix}.md', markdown_table(rows))
    atomic_write_text(f'{prefix}.json', json.dumps([asdict(row) for row in rows], indent=1) + '\n')
    plot_comparison(rows, f'{prefix}.png')
    return [f'{prefix}.{suffix}' for suffix in ('md', 'json', 'png')]
