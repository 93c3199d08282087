"""Pictures: the comparison of models, and what a choice of DCT channels keeps of a photo."""
import io
from typing import TYPE_CHECKING, Optional, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from mmfreq import dct
from mmfreq.channels import COMPONENTS, ChannelSpec, channel_indices, zigzag_order
from mmfreq.comparison import Row
from mmfreq.comparison_table import groups, headline_metrics, normalised_sizes, shown_metrics
from mmfreq.files import atomic_write_bytes
from mmfreq.on_rates import OnRates

if TYPE_CHECKING:
    import mmfreq.benchmark

_BASELINE, _OTHERS, _INK = '#8a8f98', '#2563a8', '#222222'
_BARS = 6  # models that bar charts stay readable with
# Where a label may stand, in points from its marker: beside it, or further away with a line to it; nearest first.
_PLACES = sorted(((side * (8 + away), up) for side in (1, -1) for away in (0, 16, 32, 64, 96)
                  for up in range(-60, 61, 6)), key=lambda place: np.hypot(place[0], 1.5 * place[1]) - (place[0] > 0))


def save_figure(figure: Figure, path: str) -> None:
    """Writes a figure as PNG or SVG, by the file's ending; replaces the file whole."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.rpartition('.')[2], dpi=110, facecolor='white')
    atomic_write_bytes(path, buffer.getvalue())


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
        figure.text(0.01, 0.5, f'no figures of {", ".join(row.name for row in rows)}', color=_INK)
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
            _draw_bars(axis, title, [row.name for row in rows], values, pattern)
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
        color = _OTHERS if i else _BASELINE
        both = [values[metric] for values in (row.metrics, row.paper) if metric in values]
        axis.plot([size] * len(both), both, color=color, linewidth=1, zorder=1)
        for values, face in ((row.paper, 'white'), (row.metrics, color)):
            if metric in values:
                axis.scatter(size, values[metric], s=50, facecolor=face, edgecolor=color, linewidth=1.5, zorder=2)
    kinds = [name for name, present in (('filled: runs', any(metric in row.metrics for row in rows)),
                                        ('hollow: the paper', any(metric in row.paper for row in rows))) if present]
    axis.set_title(f'{metric} over normalised input size, 1 = RGB ({", ".join(kinds)})', loc='left', fontsize=11,
                   color=_INK)
    ticks = sorted({float(f'{size:.3g}') for size in sizes})
    axis.set_xscale('log', base=2)
    axis.set_xlim(ticks[0] / 1.25, ticks[-1] * max(1.8, (ticks[-1] / ticks[0])**0.25))
    axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
    axis.minorticks_off()
    axis.margins(y=0.15)
    axis.grid(color='#e4e6ea', zorder=0)
    axis.tick_params(length=0, colors=_INK)
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
                              color=_INK)
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


def plot_benchmark(sections: 'Sequence[mmfreq.benchmark.Section]', path: str) -> None:
    """Draws one bar chart for each table of a benchmark; the first bar, the baseline, is grey."""
    columns = 2
    lines = [sections[i:i + columns] for i in range(0, len(sections), columns)]
    heights = [0.75 + 0.3 * max(len(section.entries) for section in line) for line in lines]
    figure = Figure(figsize=(15, sum(heights) + 0.3), layout='constrained')
    figure.get_layout_engine().set(hspace=0.12, wspace=0.06)
    axes = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
    for axis, section in zip(axes.flat, sections):
        values = [entry.median for entry in section.entries]
        _draw_bars(axis, f'{section.title}, {section.unit}', [entry.name for entry in section.entries], values,
                   '{:,.0f}' if max(values) >= 1000 else '{:.3g}')
    for axis in axes.flat[len(sections):]:
        axis.axis('off')
    save_figure(figure, path)


def _draw_bars(axis: 'matplotlib.axes.Axes', title: str, names: Sequence[str], values: Sequence[Optional[float]],
               pattern: str) -> None:
    lengths = [value or 0 for value in values]
    colors = [_BASELINE, *[_OTHERS] * (len(names) - 1)]
    bars = axis.barh(range(len(names)), lengths, color=colors, height=0.62)
    labels = ['no figure' if value is None else pattern.format(value) for value in values]
    axis.bar_label(bars, labels, padding=4, color=_INK)
    axis.set_yticks(range(len(names)), names, color=_INK)
    axis.set_title(title, loc='left', fontsize=11, color=_INK)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.2 * max(max(lengths), 1e-12))
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def plot_channels(image: np.ndarray, selections: Sequence[ChannelSpec], path: str) -> None:
    """Draws a photo, its DCT channels as a mosaic, and what each selection of channels keeps of it.

    Args:
        image (np.ndarray): uint8 BGR (H, W, 3).
        selections (Sequence[str | list]): Channel selections, see :func:`mmfreq.channels.channel_indices`.
        path (str): PNG or SVG file to write.
    """
    coefficients = dct.block_dct(dct.to_ycbcr(image))
    pictures = [('photo', image[:, :, ::-1]), ('DCT channels of Y', _mosaic(coefficients[:, :, :64]))]
    for selection in selections:
        indices = channel_indices(selection)
        rebuilt = dct.coefficients_to_bgr(coefficients[:, :, indices], indices, image.shape)
        name = selection if isinstance(selection, str) else f'{len(indices)} channels'
        pictures.append((f'rebuilt from {name}', rebuilt[:, :, ::-1]))
    height = 3.2 * image.shape[0] / image.shape[1] + 0.25
    figure = Figure(figsize=(3.2 * len(pictures), height), layout='constrained')
    for axis, (title, picture) in zip(figure.subplots(1, len(pictures)), pictures):
        axis.imshow(picture, cmap='gray', vmin=0, vmax=255)
        axis.set_title(title, loc='left', fontsize=11, color=_INK)
        axis.axis('off')
    save_figure(figure, path)


def _mosaic(channels: np.ndarray) -> np.ndarray:
    """64 channels (h, w, 64) as 8x8 small pictures: uint8 (8h, 8w), zero in mid-grey, contrast by channel."""
    reach = np.percentile(np.abs(channels), 99, axis=(0, 1))
    scaled = np.clip(0.5 + channels / (2 * np.maximum(reach, 1e-6)), 0, 1)
    h, w = channels.shape[:2]
    tiles = scaled.reshape(h, w, 8, 8).transpose(2, 0, 3, 1)  # (8, h, 8, w)
    return np.rint(255 * tiles.reshape(8 * h, 8 * w)).astype(np.uint8)


def plot_on_rates(rates: Sequence[OnRates], names: Sequence[str], path: str) -> None:
    """Draws how often gates keep each channel (Xu et al. 2020, Fig. 5).

    One line for each gate: three grids for Y, Cb and Cr, low frequencies at the upper left, with the zigzag index in
    each square and the on-rate as colour. Channels that a gate does not have are blank.

    Args:
        rates (Sequence[OnRates]): On-rates.
        names (Sequence[str]): A title for each of them.
        path (str): PNG or SVG file to write.
    """
    figure = Figure(figsize=(10.6, 3.5 * len(rates) + 0.1), layout='constrained')
    lines = figure.subfigures(len(rates), 1, squeeze=False)[:, 0]
    for line, rate, name in zip(lines, rates, names):
        kept = rate.kept()
        line.suptitle(f'{name}: {kept["all"]:.1f} of {len(rate.channels)} channels kept per image', x=0.01, ha='left',
                      fontsize=11, color=_INK)
        axes = line.subplots(1, 3)
        grid = np.full(3 * rate.block_size**2, np.nan)
        grid[rate.channels] = rate.on_rate
        for axis, component, values in zip(axes, COMPONENTS, np.split(grid, 3)):
            image = _draw_on_rates(axis, values.reshape(rate.block_size, -1))
            axis.set_title(f'{component}: {kept[component]:.1f}', fontsize=10, color=_INK)
        line.colorbar(image, ax=axes, shrink=0.9, label='on-rate')
    save_figure(figure, path)


def _draw_on_rates(axis: 'matplotlib.axes.Axes', rates: np.ndarray) -> 'matplotlib.image.AxesImage':
    size = len(rates)
    image = axis.imshow(np.ma.masked_invalid(rates), cmap='viridis', vmin=0, vmax=1)
    for zigzag, index in enumerate(zigzag_order(size)):
        row, column = divmod(index, size)
        rate = rates[row, column]
        color = '#b0b0b0' if np.isnan(rate) else '#000000' if rate > 0.6 else '#ffffff'
        label = axis.text(column, row, zigzag, ha='center', va='center', fontsize=8, color=color)
        label.set_in_layout(False)  # it lies inside its square: the layout need not measure it
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    return image
