"""The comparison of models as a picture, and all of its files."""
import json
import math
from typing import Sequence

import matplotlib
from matplotlib.figure import Figure

from mmfreq.apis.compare.rows import Row
from mmfreq.apis.compare.runs import METRICS
from mmfreq.apis.compare.table import (
    cost_columns,
    csv_table,
    families,
    headline_metrics,
    markdown_table,
    normalised_sizes,
    plain_rows,
)
from mmfreq.apis.pictures import BASELINE, INK, draw_bars, save_figure
from mmfreq.files import atomic_write_text

_BARS = 6  # models that bar charts stay readable with
_RANGE = 5.  # percentage points that an accuracy axis spans at least
_MARKERS = 'osD^v<>PXh*p'  # of the rows, one after the other; the first one's is the baseline's


def plot_comparison(rows: Sequence[Row], path: str) -> None:
    """Draw the headline metrics over the input size, and a small bar chart of each cost.

    One panel for each metric and family, whose baseline is a grey dot. Results of runs are filled,
    with their standard deviation over seeds; that of one run is the standard error of an accuracy
    on so many images. Published results are hollow. More than six models have no bar charts if any
    has a result. ``path`` is the PNG or SVG file to write.
    """
    panels = []
    for metric in headline_metrics(rows):
        for members in families(rows):
            members = [i for i in members if rows[i].input_shape and (
                metric in rows[i].metrics or metric in rows[i].paper)]
            panels += [(metric, members)] if members else []
    charts = cost_columns(rows) if len(rows) <= _BARS or not panels else []
    lines = -(-len(charts) // 2)
    layout = [[f'panel {i}'] * 2 for i in range(len(panels))]
    layout += [[f'chart {2 * i}', f'chart {2 * i + 1}'] for i in range(lines)]
    heights = [max(3, 1 + 0.3 * len(members)) for _, members in panels]
    heights += [0.75 + 0.3 * len(rows)] * lines
    width = 11 + 0.16 * max(0, max(len(row.name) for row in rows) - 24)
    figure = Figure(figsize=(width, sum(heights)), layout='constrained')
    figure.get_layout_engine().set(hspace=0.06)
    axes = figure.subplot_mosaic(layout, height_ratios=heights)
    for i, (metric, members) in enumerate(panels):
        _draw_over_size(axes[f'panel {i}'], rows, members, metric)
    for i, column in enumerate(charts):
        values = [value and value / column.unit for value in column.values]
        pattern = f'{{:{column.pattern}}}{column.suffix}'
        draw_bars(axes[f'chart {i}'], column.name, [row.name for row in rows], values, pattern)
    if len(charts) % 2:
        axes[f'chart {len(charts)}'].axis('off')
    save_figure(figure, path)


def _draw_over_size(axis: 'matplotlib.axes.Axes', rows: Sequence[Row], members: Sequence[int],
                    metric: str) -> None:
    """Draw one panel: a metric of the rows ``members`` over their normalised sizes."""
    label, _, factor = METRICS.get(metric, (metric, '', 1))
    sizes, colors = normalised_sizes(rows), matplotlib.colormaps['tab10'].colors
    for number, i in enumerate(members):
        row, size = rows[i], sizes[i]
        color = colors[(number - 1) % len(colors)] if number else BASELINE
        marker = _MARKERS[number % len(_MARKERS)]
        if metric in row.metrics:
            value, error = row.metrics[metric] * factor, _error(row, metric) * factor
            text = f'{row.name}: {value:.4g}' + (f' ± {error:.2g}' if error else '')
            axis.errorbar(size, value, error or None, fmt=marker, color=color, capsize=4,
                          markersize=7, label=text)
        if metric in row.paper:
            value = row.paper[metric] * factor
            axis.errorbar(size, value, fmt=marker, color=color, markerfacecolor='none',
                          markersize=7, label=f'{row.name}, paper: {value:.5g}')
    axis.set_title(f'{row.family}: {label}, over the values of an input, RGB = 1', loc='left',
                   fontsize=11, color=INK)
    axis.legend(loc='upper left', bbox_to_anchor=(1, 1), frameon=False, fontsize=9, labelcolor=INK)
    ticks = sorted({float(f'{sizes[i]:.3g}') for i in members})
    axis.set_xscale('log', base=2)
    axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
    axis.minorticks_off()
    axis.margins(0.1, 0.15)
    low, high = axis.get_ylim()
    least = _RANGE if metric in METRICS else 0.05 * max(abs(low), abs(high))
    middle, reach = (low + high) / 2, max(high - low, least) / 2
    axis.set_ylim(middle - reach, middle + reach)
    axis.grid(color='#e4e6ea', zorder=0)
    axis.tick_params(length=0, colors=INK)
    axis.spines[:].set_visible(False)


def _error(row: Row, metric: str) -> float:
    """Return the standard deviation over seeds; of one run the standard error of its accuracy."""
    if metric in row.spread or not row.tested or metric != 'accuracy/top1':
        return row.spread.get(metric, 0)
    return math.sqrt(row.metrics[metric] * (100 - row.metrics[metric]) / row.tested)


def save_comparison(rows: Sequence[Row], prefix: str) -> list[str]:
    """Write ``PREFIX.md``, ``.csv``, ``.json`` and ``.png``; return their names."""
    atomic_write_text(f'{prefix}.md', markdown_table(rows))
    atomic_write_text(f'{prefix}.csv', csv_table(rows))
    atomic_write_text(f'{prefix}.json', json.dumps(plain_rows(rows), indent=1) + '\n')
    plot_comparison(rows, f'{prefix}.png')
    return [f'{prefix}.{suffix}' for suffix in ('md', 'csv', 'json', 'png')]
