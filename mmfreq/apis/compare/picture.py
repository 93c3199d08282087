"""The comparison of models as a picture, and all of its files."""
import json
from typing import Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from mmfreq.apis.compare.rows import Row
from mmfreq.apis.compare.runs import METRICS
from mmfreq.apis.compare.table import (
    csv_table,
    groups,
    headline_metrics,
    markdown_table,
    normalised_sizes,
    plain_rows,
    shown_metrics,
)
from mmfreq.apis.pictures import BASELINE, INK, OTHERS, draw_bars, save_figure
from mmfreq.files import atomic_write_text

_BARS = 6  # models that bar charts stay readable with
_RANGE = 5.  # percentage points that an accuracy axis spans at least
# Where a label may stand, in points from its marker: beside it, or further away with a line to it.
_PLACES = [(side * (8 + away), up) for side in (1, -1) for away in (0, 16, 32, 64, 96)
           for up in range(-60, 61, 6)]
_PLACES.sort(key=lambda place: np.hypot(place[0], 1.5 * place[1]) - (place[0] > 0))  # nearest first


def plot_comparison(rows: Sequence[Row], path: str) -> None:
    """Draw the headline metrics over the input size, and a small bar chart of each figure.

    One panel for each metric, and for each family where several are compared. Results of runs are
    filled, with their standard deviation over seeds; published ones are hollow. The baseline is
    grey. More than six models have no bar charts if any has a result.

    Args:
        rows (Sequence[Row]): What to draw.
        path (str): PNG or SVG file to write.
    """
    sizes = normalised_sizes(rows)
    panels = []
    for metric in headline_metrics(rows):
        for group in groups(rows):
            members = [i for i in group if sizes[i] and (
                metric in rows[i].metrics or metric in rows[i].paper)]
            panels += [(metric, members)] if members else []
    charts = _bar_charts(rows) if len(rows) <= _BARS or not panels else []
    lines = -(-len(charts) // 2)
    heights = [2 + 0.2 * len(members) for _, members in panels]
    heights += [lines * (0.75 + 0.3 * len(rows))] if charts else []
    if not heights:
        figure = Figure(figsize=(11, 1))
        figure.text(0.01, 0.5, f'no figures of {", ".join(row.name for row in rows)}', color=INK)
        save_figure(figure, path)
        return
    longest = max(len(row.name) for row in rows) if charts else 0  # names stand beside all bars
    width = 11 + 0.16 * max(0, longest - 24)
    figure = Figure(figsize=(width, sum(heights) + 0.3), layout='constrained')
    figure.get_layout_engine().set(hspace=0.12, wspace=0.06)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    drawn = []
    for part, (metric, members) in zip(parts, panels):
        several = [other for other, _ in panels].count(metric) > 1
        family = f'{rows[members[0]].family}: ' if several else ''
        axis = part.subplots()
        points = _draw_over_size(axis, [rows[i] for i in members], [sizes[i] for i in members],
                                 metric, family)
        drawn.append((axis, points, members))
    if charts:
        cells = parts[-1].subplots(lines, 2, squeeze=False).ravel()
        for axis, (title, values, errors, pattern) in zip(cells, charts):
            draw_bars(axis, title, [row.name for row in rows], values, pattern, errors)
        for axis in cells[len(charts):]:
            axis.axis('off')
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # labels are placed once the panels stand
    names = short_names([row.name for row in rows])
    for axis, points, members in drawn:
        _label_points(axis, renderer, points, [names[i] for i in members])
    save_figure(figure, path)


def _bar_charts(rows: Sequence[Row]) -> list[tuple[str, list, list, str]]:
    """Return title, values, errors and number format of every figure that any row has."""
    charts = []
    for key in shown_metrics(rows):
        label, _, factor = METRICS.get(key, (key, '', 1))
        values = [row.metrics[key] * factor if key in row.metrics else None for row in rows]
        errors = [row.spread.get(key, 0) * factor for row in rows]
        charts.append((label, values, errors, '{:.4g}'))
    charts.append(('normalised input size', normalised_sizes(rows), [], '{:.3g}'))
    for title, name, unit, pattern in (
            ('input, kB per image', 'input_bytes', 1e3, '{:.1f}'),
            ('memory, MB per image', 'memory', 1e6, '{:.1f}'),
            ('parameters, millions', 'parameters', 1e6, '{:.2f}'),
            ('multiply-adds, billions', 'flops', 1e9, '{:.3f}'),
            ('loading, images/s', 'loader_rate', 1, '{:.0f}'),
            ('network, images/s', 'network_rate', 1, '{:.1f}')):
        found = [getattr(row, name) for row in rows]
        charts.append((title, [value and value / unit for value in found], [], pattern))
    return [chart for chart in charts if set(chart[1]) != {None}]


def short_names(names: Sequence[str]) -> list[str]:
    """Return the names without the parts, divided by ``_``, that all of them end with."""
    parts = [name.split('_') for name in names]
    while len(names) > 1 and min(map(len, parts)) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return ['_'.join(part) for part in parts]


def _draw_over_size(axis: 'matplotlib.axes.Axes', rows: Sequence[Row], sizes: Sequence[float],
                    metric: str, family: str) -> list[tuple[float, float]]:
    """Draw one panel; return the points to label."""
    label, _, factor = METRICS.get(metric, (metric, '', 1))
    points, kinds = [], {}
    for i, (row, size) in enumerate(zip(rows, sizes)):
        color = OTHERS if i else BASELINE
        for values, face, kind in ((row.paper, 'white', 'hollow: the paper'),
                                   (row.metrics, color, 'filled: runs')):
            if metric in values:
                kinds[kind] = None
                point = size, values[metric] * factor
                axis.scatter(*point, s=50, facecolor=face, edgecolor=color, linewidth=1.5, zorder=3)
        if metric in row.metrics and metric in row.paper:
            axis.plot([size] * 2, [row.paper[metric] * factor, point[1]], color=color, linewidth=1)
        if metric in row.spread:
            kinds['bars: standard deviation over seeds'] = None
            axis.errorbar(*point, row.spread[metric] * factor, color=color, capsize=4, zorder=2)
        points.append(point)
    axis.set_title(f'{family}{label}, over normalised input size, 1 = RGB ({", ".join(kinds)})',
                   loc='left', fontsize=11, color=INK)
    ticks = sorted({float(f'{size:.3g}') for size in sizes})
    axis.set_xscale('log', base=2)
    axis.set_xlim(ticks[0] / 1.25, ticks[-1] * max(1.8, (ticks[-1] / ticks[0])**0.25))
    axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
    axis.minorticks_off()
    axis.margins(y=0.15)
    low, high = axis.get_ylim()
    least = _RANGE if metric in METRICS else 0.05 * max(abs(low), abs(high))
    middle, reach = (low + high) / 2, max(high - low, least) / 2
    axis.set_ylim(middle - reach, middle + reach)
    axis.grid(color='#e4e6ea', zorder=0)
    axis.tick_params(length=0, colors=INK)
    axis.spines[:].set_visible(False)
    return points


def _label_points(axis: 'matplotlib.axes.Axes', renderer: RendererAgg,
                  points: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    """Write the names beside the points, each at the nearest place that covers nothing.

    Names of points above one another stand in the points' order.
    """
    reach = renderer.points_to_pixels(4.)
    markers = [item for item in axis.collections if isinstance(item, PathCollection)]
    drawn = axis.transData.transform([marker.get_offsets()[0] for marker in markers])
    taken = [Bbox([point - reach, point + reach]) for point in drawn]
    frame = axis.get_window_extent()
    lowest: dict[float, float] = {}  # of the names so far, for each size
    for point, name in sorted(zip(points, names), key=lambda item: item[0], reverse=True):
        label = axis.annotate(name, point, xytext=_PLACES[0], textcoords='offset points',
                              va='center', fontsize=8.5, color=INK)
        label.set_in_layout(False)
        for place in _PLACES:
            label.set_position(place)
            label.set_horizontalalignment('left' if place[0] > 0 else 'right')
            label.update_positions(renderer)
            box = label.get_window_extent(renderer)
            inside = frame.contains(*box.min) and frame.contains(*box.max)
            if inside and not box.count_overlaps(taken) and box.y0 <= lowest.get(point[0], np.inf):
                break
        taken.append(box)
        lowest[point[0]] = box.y0
        if place != _PLACES[0]:
            axis.annotate('', point, xytext=place, textcoords='offset points', arrowprops=dict(
                arrowstyle='-', color='#9aa0a8', linewidth=0.7, shrinkA=0, shrinkB=4))


def save_comparison(rows: Sequence[Row], prefix: str) -> list[str]:
    """Write ``PREFIX.md``, ``.csv``, ``.json`` and ``.png``; return their names."""
    atomic_write_text(f'{prefix}.md', markdown_table(rows))
    atomic_write_text(f'{prefix}.csv', csv_table(rows))
    atomic_write_text(f'{prefix}.json', json.dumps(plain_rows(rows), indent=1) + '\n')
    plot_comparison(rows, f'{prefix}.png')
    return [f'{prefix}.{suffix}' for suffix in ('md', 'csv', 'json', 'png')]
