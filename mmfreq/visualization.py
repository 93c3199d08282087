"""Pictures: the comparison of models, and what a choice of DCT channels keeps of a photo."""
import io
from typing import TYPE_CHECKING, Callable, Optional, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmfreq import dct
from mmfreq.channels import COMPONENTS, ChannelSpec, channel_indices, zigzag_order
from mmfreq.comparison import Row, shown_metrics
from mmfreq.files import atomic_write_bytes
from mmfreq.on_rates import OnRates

if TYPE_CHECKING:
    import mmfreq.benchmark

_BASELINE, _OTHERS, _INK = '#8a8f98', '#2563a8', '#222222'


def save_figure(figure: Figure, path: str) -> None:
    """Writes a figure as PNG or SVG, by the file's ending; replaces the file whole."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.rpartition('.')[2], dpi=110, facecolor='white')
    atomic_write_bytes(path, buffer.getvalue())


def plot_comparison(rows: Sequence[Row], path: str) -> None:
    """Draws the headline metric over the input size, as the paper argues, and a small bar chart for each figure.

    The first row, the baseline, is grey; published results are hollow.
    """
    panels: list[tuple[str, Callable[[Row], Optional[float]], str]] = [
        *((key, lambda row, key=key: row.metrics.get(key), '{:.4g}') for key in shown_metrics(rows)),
        ('normalised input size', lambda row: row.input_values / rows[0].input_values, '{:.3g}'),
        ('input, kB per image', lambda row: row.input_bytes / 1000, '{:.1f}'),
        ('memory, MB per image', lambda row: row.memory / 1e6, '{:.1f}'),
        ('parameters, millions', lambda row: row.parameters / 1e6, '{:.2f}'),
        ('multiply-adds, billions', lambda row: row.flops / 1e9, '{:.3f}'),
        ('loading, images/s', lambda row: row.loader_rate, '{:.0f}'),
        ('network, images/s', lambda row: row.network_rate, '{:.1f}'),
    ]
    columns = 2
    lines = -(-len(panels) // columns)
    points = [(row, key) for key in shown_metrics(rows)[:1] for row in rows if key in {**row.metrics, **row.paper}]
    heights = [lines * (0.75 + 0.3 * len(rows)) + 0.3, *([3.6] if points else [])]
    figure = Figure(figsize=(11, sum(heights)), layout='constrained')
    figure.get_layout_engine().set(hspace=0.12, wspace=0.06)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    if points:
        _draw_over_size(parts[1].subplots(), rows, points[0][1])
    axes = parts[0].subplots(lines, columns, squeeze=False)
    for axis, (title, value, pattern) in zip(axes.flat, panels):
        _draw_bars(axis, title, [row.name for row in rows], [value(row) for row in rows], pattern)
    for axis in axes.flat[len(panels):]:
        axis.axis('off')
    save_figure(figure, path)


def _draw_over_size(axis: 'matplotlib.axes.Axes', rows: Sequence[Row], metric: str) -> None:
    for i, row in enumerate(rows):
        color = _OTHERS if i else _BASELINE
        size = row.input_values / rows[0].input_values
        for value, face, where in ((row.metrics.get(metric), color, ''), (row.paper.get(metric), 'white', ' (paper)')):
            if value is not None:
                axis.scatter(size, value, s=60, facecolor=face, edgecolor=color, linewidth=1.5, zorder=2)
                axis.annotate(row.name + where, (size, value), xytext=(7, -3), textcoords='offset points', fontsize=9,
                              color=_INK)
    axis.set_title(f'{metric} over input size (1 = {rows[0].name})', loc='left', fontsize=11, color=_INK)
    axis.margins(x=0.25, y=0.15)
    axis.grid(color='#e4e6ea', zorder=0)
    axis.tick_params(length=0, colors=_INK)
    axis.spines[:].set_visible(False)


def plot_benchmark(sections: 'Sequence[mmfreq.benchmark.Section]', path: str) -> None:
    """Draws one bar chart for each table of a benchmark; the first bar, the baseline, is grey."""
    columns = 2
    lines = [sections[i:i + columns] for i in range(0, len(sections), columns)]
    heights = [0.75 + 0.3 * max(len(section.entries) for section in line) for line in lines]
    figure = Figure(figsize=(13, sum(heights) + 0.3), layout='constrained')
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
