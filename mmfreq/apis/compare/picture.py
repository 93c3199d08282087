"""The comparison of models as a picture."""
from typing import Optional, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from mmfreq.apis.compare.measure import Row
from mmfreq.apis.compare.table import groups, headline_metrics, normalised_sizes, shown_metrics
from mmfreq.apis.pictures import BASELINE, INK, OTHERS, draw_bars, save_figure

_BARS = 6  # models that bar charts stay readable with
# Where a label may stand, in points from its marker: beside it, or further away with a line to it; nearest first.
_PLACES = sorted(((side * (8 + away), up) for side in (1, -1) for away in (0, 16, 32, 64, 96)
                  for up in range(-60, 61, 6)), key=lambda place: np.hypot(place[0], 1.5 * place[1]) - (place[0] > 0))


def plot_comparison(rows: Sequence[Row], path: str) -> None:
    """Draws the headline metrics over the input size, as the paper argues, and a small bar chart for each figure.

    One panel for each metric, and for each family where several are compared. Results of runs are filled, published
    ones hollow; the first row, the baseline, is grey. More than six models have no bar charts, if any has a result.
    """
    sizes = normalised_sizes(rows)
    panels = [(metric, [i for i in group if sizes[i] and metric in {**rows[i].metrics, **rows[i].paper}])
              for metric in headline_metrics(rows) for group in groups(rows)]
    panels = [(metric, members) for metric, members in panels if members]
    charts = _bar_charts(rows) if len(rows) <= _BARS or not panels else []
    lines = -(-len(charts) // 2)
    heights = [2 + 0.2 * len(members) for _, members in panels] + [lines * (0.75 + 0.3 * len(rows))] * bool(charts)
    if not heights:
        figure = Figure(figsize=(11, 1))
        figure.text(0.01, 0.5, f'no figures of {", ".join(row.name for row in rows)}', color=INK)
        save_figure(figure, path)
        return
    longest = max(len(row.name) for row in rows) if charts else 0  # names stand beside the bars of both columns
    figure = Figure(figsize=(11 + 0.16 * max(0, longest - 24), sum(heights) + 0.3), layout='constrained')
    figure.get_layout_engine().set(hspace=0.12, wspace=0.06)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    scatters = [(part.subplots(), metric, members) for part, (metric, members) in zip(parts, panels)]
    for axis, metric, members in scatters:
        _draw_over_size(axis, [rows[i] for i in members], [sizes[i] for i in members], metric)
        if sum(metric == other for other, _ in panels) > 1:
            axis.set_title(f'{rows[members[0]].family}: {axis.get_title(loc="left")}', loc='left', fontsize=11)
    if charts:
        axes = parts[-1].subplots(lines, 2, squeeze=False)
        for axis, (title, values, pattern) in zip(axes.flat, charts):
            draw_bars(axis, title, [row.name for row in rows], values, pattern)
        for axis in axes.flat[len(charts):]:
            axis.axis('off')
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # labels are placed once the panels stand
    names = short_names([row.name for row in rows])
    for axis, metric, members in scatters:
        points = [(sizes[i], rows[i].metrics.get(metric, rows[i].paper.get(metric))) for i in members]
        _label_points(axis, renderer, points, [names[i] for i in members])
    save_figure(figure, path)


def _bar_charts(rows: Sequence[Row]) -> list[tuple[str, list[Optional[float]], str]]:
    """Title, values and number format of every figure that any row has."""
    charts: list[tuple[str, list[Optional[float]], str]] = [
        *((key, [row.metrics.get(key) for row in rows], '{:.4g}') for key in shown_metrics(rows)),
        ('normalised input size', normalised_sizes(rows), '{:.3g}')]
    for title, field, unit, pattern in (
            ('input, kB per image', 'input_bytes', 1e3, '{:.1f}'), ('memory, MB per image', 'memory', 1e6, '{:.1f}'),
            ('parameters, millions', 'parameters', 1e6, '{:.2f}'), ('multiply-adds, billions', 'flops', 1e9, '{:.3f}'),
            ('loading, images/s', 'loader_rate', 1, '{:.0f}'), ('network, images/s', 'network_rate', 1, '{:.1f}')):
        values = [getattr(row, field) for row in rows]
        charts.append((title, [None if value is None else value / unit for value in values], pattern))
    return [chart for chart in charts if any(value is not None for value in chart[1])]


def short_names(names: Sequence[str]) -> list[str]:
    """Names without the parts, divided by ``_``, that all of them end with; whole where that would leave nothing."""
    parts = [name.split('_') for name in names]
    while len(names) > 1 and min(map(len, parts)) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return ['_'.join(part) for part in parts]


def _draw_over_size(axis: 'matplotlib.axes.Axes', rows: Sequence[Row], sizes: Sequence[float], metric: str) -> None:
    for i, (row, size) in enumerate(zip(rows, sizes)):
        color = OTHERS if i else BASELINE
        both = [values[metric] for values in (row.metrics, row.paper) if metric in values]
        axis.plot([size] * len(both), both, color=color, linewidth=1, zorder=1)
        for values, face in ((row.paper, 'white'), (row.metrics, color)):
            if metric in values:
                axis.scatter(size, values[metric], s=50, facecolor=face, edgecolor=color, linewidth=1.5, zorder=2)
    kinds = [name for name, present in (('filled: runs', any(metric in row.metrics for row in rows)),
                                        ('hollow: the paper', any(metric in row.paper for row in rows))) if present]
    axis.set_title(f'{metric} over normalised input size, 1 = RGB ({", ".join(kinds)})', loc='left', fontsize=11,
                   color=INK)
    ticks = sorted({float(f'{size:.3g}') for size in sizes})
    axis.set_xscale('log', base=2)
    axis.set_xlim(ticks[0] / 1.25, ticks[-1] * max(1.8, (ticks[-1] / ticks[0])**0.25))
    axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
    axis.minorticks_off()
    axis.margins(y=0.15)
    axis.grid(color='#e4e6ea', zorder=0)
    axis.tick_params(length=0, colors=INK)
    axis.spines[:].set_visible(False)


def _label_points(axis: 'matplotlib.axes.Axes', renderer: RendererAgg, points: Sequence[tuple[float, float]],
                  names: Sequence[str]) -> None:
    """Writes the names beside the points, each at the nearest place where it covers neither another nor a marker.

    Names of points above one another stand in the points' order.
    """
    reach = renderer.points_to_pixels(4.)
    drawn = axis.transData.transform([collection.get_offsets()[0] for collection in axis.collections])
    taken = [Bbox([point - reach, point + reach]) for point in drawn]
    frame = axis.get_window_extent()
    lowest: dict[float, float] = {}  # of the names so far, for each size
    for point, name in sorted(zip(points, names), key=lambda item: item[0], reverse=True):
        label = axis.annotate(name, point, xytext=_PLACES[0], textcoords='offset points', va='center', fontsize=8.5,
                              color=INK)
        label.set_in_layout(False)
        for place in _PLACES:
            label.set_position(place)
            label.set_horizontalalignment('left' if place[0] > 0 else 'right')
            label.update_positions(renderer)
            box = label.get_window_extent(renderer)
            if (not box.count_overlaps(taken) and frame.contains(*box.min) and frame.contains(*box.max)
                    and box.y0 <= lowest.get(point[0], np.inf)):
                break
        taken.append(box)
        lowest[point[0]] = box.y0
        if place != _PLACES[0]:
            axis.annotate('', point, xytext=place, textcoords='offset points',
                          arrowprops=dict(arrowstyle='-', color='#9aa0a8', linewidth=0.7, shrinkA=0, shrinkB=4))
