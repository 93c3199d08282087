"""Colours, bars and file writing that the pictures share."""
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
              values: Sequence[float], texts: Sequence[str],
              colors: Optional[Sequence[str]] = None) -> None:
    """Draw a horizontal bar from zero for each name, with a text at its end.

    The first bar, the baseline, is grey unless ``colors`` are given. NaN has a text alone.
    """
    lengths = [0 if value != value else value for value in values]
    colors = colors or [BASELINE, *[OTHERS] * (len(names) - 1)]
    bars = axis.barh(range(len(names)), lengths, color=colors, height=0.62)
    axis.bar_label(bars, texts, padding=4, color=INK)
    axis.set_xlim(0, 1.4 * max(*lengths, 1e-12))
    label_rows(axis, title, names)


def label_rows(axis: 'matplotlib.axes.Axes', title: str, names: Sequence[str]) -> None:
    """Write a title, and a name at each row from the top; leave out ticks and frame."""
    axis.set_title(title, loc='left', fontsize=11, color=INK)
    axis.set_yticks(range(len(names)), names, color=INK)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
