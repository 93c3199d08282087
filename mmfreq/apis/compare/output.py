"""The comparison as a Markdown table, as JSON, and as a picture."""
import json
import math
from dataclasses import asdict
from typing import NamedTuple, Optional, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmfreq.apis.compare.rows import Row
from mmfreq.apis.compare.runs import METRICS
from mmfreq.apis.pictures import BASELINE, INK, OTHERS, draw_bars, label_rows, save_figure
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
    """A column of the table, and the numbers that the picture shows of it; NaN: no figure."""
    title: str
    cells: list[str]
    values: Optional[np.ndarray] = None
    errors: Optional[np.ndarray] = None  # of a metric


def columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns with any figure: known metrics, or all if none is known; input; costs."""
    names = dict.fromkeys(key for row in rows for key in (*row.metrics, *row.paper))
    table = [Column('model', [row.name for row in rows])]
    for key in [key for key in METRICS if key in names] or names:
        words, _, factor = METRICS.get(key, (key, '', 1))
        deltas = [row.difference.get(key, {}) for row in rows]
        table += [
            _metric(words, [(row.metrics.get(key), row.spread.get(key), len(row.seeds))
                            for row in rows], factor),
            _metric(f'{words}, published', [(row.paper.get(key), None, 0) for row in rows], factor),
            _metric(f'{words}, difference', [(delta.get('mean'), delta.get('error'), delta.get('seeds'))
                                             for delta in deltas], factor, '+.2f')]
    table += [Column('results from', [row.source or '-' for row in rows]),
              Column('input', ['x'.join(map(str, row.input_shape or '-')) for row in rows])]
    for words, attribute, unit, form in _COSTS:
        values = np.array([getattr(row, attribute) for row in rows], float) / unit
        table.append(Column(words, _cells(values, form), values))
    return [column for column in table if {*column.cells} != {'-'}]


def _cells(values: Sequence[float], form: str) -> list[str]:
    return ['-' if np.isnan(value) else format(value, form) for value in values]


def _metric(title: str, figures: Sequence[tuple], factor: float, form: str = '.2f') -> Column:
    """Return a column of values, their errors, and the numbers of runs that these are over."""
    values, errors, counts = np.array(figures, float).T * [[factor], [factor], [1]]
    cells = _cells(values, form)
    for i in np.flatnonzero(~np.isnan(errors)):
        cells[i] += f' ± {errors[i]:.2f} ({counts[i]:.0f})'
    return Column(title, cells, None if form == '+.2f' else values, errors)


def markdown_table(rows: Sequence[Row]) -> str:
    """Return the comparison as a Markdown table, aligned for a terminal, with notes below it."""
    lines = [[], [], *[[] for _ in rows]]
    for i, column in enumerate(columns(rows)):
        width, side = max(map(len, (column.title, *column.cells))), '>' if i else '<'
        rule = (':' + '-' * (width - 1))[::-1 if i else 1]
        for line, cell in zip(lines, (column.title, rule, *column.cells)):
            line.append(format(cell, f'{side}{width}'))
    table = [f'| {" | ".join(line)} |' for line in lines]
    return '\n'.join([*table, '', *[f'- {note}' for note in _notes(rows)]]).rstrip() + '\n'


def _notes(rows: Sequence[Row]) -> list[str]:
    """Return the notes of the rows, each once, and how to read sizes and errors."""
    names: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            names.setdefault(note, []).append(row.name)
    notes = [f'{", ".join(having)}: {note}' for note, having in names.items()]
    if any(row.difference for row in rows):
        notes.append('differences are to the first row of the same family of networks')
    if any(row.spread for row in rows):
        notes.append('±: standard deviation of results, standard error of paired differences; in '
                     'brackets the number of runs or pairs')
    return notes


def plot_comparison(rows: Sequence[Row], path: str) -> None:
    """Draw a panel for each metric and cost, with a line for each model; baselines are grey.

    Metrics are dots with their standard deviation over seeds. ``path`` is a PNG or SVG file.
    """
    panels = [column for column in columns(rows) if column.values is not None]
    lines = math.ceil(len(panels) / 6) or 1
    width = math.ceil(len(panels) / lines) or 1
    figure = Figure(figsize=(3 + 2.4 * width, lines * (0.7 + 0.3 * len(rows))), layout='constrained')
    axes = list(figure.subplots(lines, width, sharey=True, squeeze=False).flat)
    first = {row.family: i for i, row in reversed([*enumerate(rows)])}
    colors = [BASELINE if first[row.family] == i else OTHERS for i, row in enumerate(rows)]
    names = [row.name for row in rows]
    for axis, column in zip(axes, panels):
        if column.errors is None:
            draw_bars(axis, column.title, names, column.values, column.cells, colors)
        else:
            _draw_dots(axis, column, names, colors)
    for axis in axes[len(panels):]:
        axis.axis('off')
    save_figure(figure, path)


def _draw_dots(axis: 'matplotlib.axes.Axes', column: Column, names: Sequence[str],
               colors: Sequence[str]) -> None:
    """Draw a dot with its error for each row; 5 % of a value never look like more than that."""
    values, errors = column.values, np.nan_to_num(column.errors)
    for place, cell in enumerate(column.cells):
        axis.errorbar(values[place], place, xerr=errors[place], fmt='o', color=colors[place], capsize=3)
        axis.text(1, place, cell, transform=axis.get_yaxis_transform(), ha='right', va='center', color=INK)
    low, high = np.nanmin(values - errors), np.nanmax(values + errors)
    reach = max(high - low, 0.05 * abs(high), 1e-9)
    axis.set_xlim(low - 0.1 * reach, low + 1.8 * reach)
    label_rows(axis, column.title, names)


def save_comparison(rows: Sequence[Row], prefix: str) -> list[str]:
    """Write ``PREFIX.md``, ``.json`` and ``.png``; return their names."""
    atomic_write_text(f'{prefix}.md', markdown_table(rows))
    atomic_write_text(f'{prefix}.json', json.dumps([asdict(row) for row in rows], indent=1) + '\n')
    plot_comparison(rows, f'{prefix}.png')
    return [f'{prefix}.{suffix}' for suffix in ('md', 'json', 'png')]
