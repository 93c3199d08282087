"""What the pictures share: colours, bars, writing a file."""
import io
from typing import Optional, Sequence

import matplotlib
from matplotlib.figure import Figure

from mmfreq.files import atomic_write_bytes

BASELINE, OTHERS, INK = '#8a8f98', '#2563a8', '#222222'


def save_figure(figure: Figure, path: str) -> None:
    """Write a figure as PNG or SVG, by the file's ending; replace the file whole."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.rpartition('.')[2], dpi=110, facecolor='white')
    atomic_write_bytes(path, buffer.getvalue())


def draw_bars(axis: 'matplotlib.axes.Axes', title: str, names: Sequence[str],
              values: Sequence[Optional[float]], pattern: str) -> None:
    """Draw a horizontal bar for each name, from zero.

    Args:
        axis (matplotlib.axes.Axes): Where to draw.
        title (str): What the bars show, with its unit.
        names (Sequence[str]): One a bar; the first, the baseline, is grey.
        values (Sequence[float | None]): Lengths; None is labelled "no figure".
        pattern (str): Format of the labels, as ``'{:.1f}'``.
    """
    lengths = [value or 0 for value in values]
    colors = [BASELINE, *[OTHERS] * (len(names) - 1)]
    bars = axis.barh(range(len(names)), lengths, color=colors, height=0.62)
    labels = ['no figure' if value is None else pattern.format(value) for value in values]
    axis.bar_label(bars, labels, padding=4, color=INK)
    axis.set_yticks(range(len(names)), names, color=INK)
    axis.set_title(title, loc='left', fontsize=11, color=INK)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.2 * max(max(lengths), 1e-12))
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
