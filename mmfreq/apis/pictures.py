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
    """Draw a horizontal bar from zero for each name, from the top, with a text at its end.

    By default, the first bar, the baseline, is grey.
    """
    colors = colors or [BASELINE, *[OTHERS] * (len(names) - 1)]
    bars = axis.barh(range(len(names)), values, color=colors, height=0.62)
    axis.bar_label(bars, texts, padding=4, color=INK)
    axis.set_yticks(range(len(names)), names, color=INK)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_title(title, loc='left', fontsize=11, color=INK)
    low, high = min(0, *values), max(0, *values)
    room = 0.09 * max(map(len, texts)) * (high - low or 1)  # for the texts
    axis.set_xlim(low - room * (low < 0), high + room)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
