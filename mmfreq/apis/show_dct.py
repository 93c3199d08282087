"""Draw an image as selections of its DCT channels keep it."""
from typing import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmfreq.apis.pictures import INK, save_figure
from mmfreq.dct import blocks as dct
from mmfreq.dct.channels import channel_indices


def plot_channels(image: np.ndarray, selections: Sequence[str], path: str) -> None:
    """Draw an image, the energy of its luma's channels, and its rebuilds from named selections.

    The image is uint8 BGR (H, W, 3). The energy of a channel is its variance over the image; the
    title of a selection has its share of the energy. ``path`` is the PNG or SVG file to write.
    """
    coefficients = dct.block_dct(dct.to_ycbcr(image))
    energy = coefficients.reshape(-1, coefficients.shape[-1]).var(axis=0, dtype=np.float64)
    energy /= max(energy.sum(), 1e-12)
    size = 3.2 * len(selections) + 6.4, 3.2 * image.shape[0] / image.shape[1] + 0.25
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(1, len(selections) + 2)
    axes[0].imshow(image[:, :, ::-1])
    titles = ['image', 'energy of luma, % of all']
    _draw_energy(axes[1], 100 * energy[:64])
    for axis, name in zip(axes[2:], selections):
        indices = channel_indices(name)
        rebuilt = dct.coefficients_to_bgr(coefficients[:, :, indices], indices, image.shape)
        axis.imshow(rebuilt[:, :, ::-1])
        titles.append(f'{name}: {energy[indices].sum():.1%} of the energy')
    for axis, title in zip(axes, titles):
        axis.set_title(title, loc='left', fontsize=11, color=INK)
        axis.axis('off')
    save_figure(figure, path)


def _draw_energy(axis: 'matplotlib.axes.Axes', shares: np.ndarray) -> None:
    """Draw percentages of the energy (64,) as an 8x8 grid of shades and numbers."""
    grid = shares.reshape(8, 8)
    axis.imshow(np.log10(np.maximum(grid, 1e-3)), cmap='Blues', vmin=-3, vmax=2)
    for (v, u), share in np.ndenumerate(grid):
        text = f'{share:.0f}' if share >= 9.5 else f'{share:.1f}' if share >= 0.05 else '·'
        axis.text(u, v, text, ha='center', va='center', fontsize=7,
                  color='white' if share > 3 else INK)
