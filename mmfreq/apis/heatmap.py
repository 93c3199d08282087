"""Picture of how often gates keep each channel."""
from typing import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmfreq.apis.pictures import INK, save_figure
from mmfreq.dct.channels import COMPONENTS, zigzag_order
from mmfreq.selection.rates import OnRates


def plot_on_rates(rates: Sequence[OnRates], names: Sequence[str], path: str) -> None:
    """Draw how often gates keep each channel (Xu et al. 2020, Fig. 5).

    One line for each gate: three grids for Y, Cb and Cr, low frequencies at the upper left, with
    the zigzag index in each square and the on-rate as colour. Channels that a gate lacks are blank.
    ``names`` are the gates' titles, ``path`` is the PNG or SVG file to write.
    """
    figure = Figure(figsize=(10.6, 3.5 * len(rates) + 0.1), layout='constrained')
    lines = figure.subfigures(len(rates), 1, squeeze=False)[:, 0]
    for line, rate, name in zip(lines, rates, names):
        kept = rate.kept()
        line.suptitle(f'{name}: {kept["all"]:.1f} of {len(rate.channels)} channels kept per image',
                      x=0.01, ha='left', fontsize=11, color=INK)
        axes = line.subplots(1, 3)
        grid = np.full(3 * rate.block_size**2, np.nan)
        grid[rate.channels] = rate.on_rate
        for axis, component, values in zip(axes, COMPONENTS, np.split(grid, 3)):
            image = _draw_on_rates(axis, values.reshape(rate.block_size, -1))
            axis.set_title(f'{component}: {kept[component]:.1f}', fontsize=10, color=INK)
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
        label.set_in_layout(False)  # it lies inside its square
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    return image
