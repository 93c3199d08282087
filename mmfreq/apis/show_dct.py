"""Draw what a selection of DCT channels keeps of an image."""
from typing import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmfreq.apis.pictures import INK, save_figure
from mmfreq.dct import blocks as dct
from mmfreq.dct.channels import ChannelSpec, channel_indices


def plot_channels(image: np.ndarray, selections: Sequence[ChannelSpec], path: str) -> None:
    """Draw an image, its luma's DCT channels and their energy, and what each selection keeps of it.

    The image is uint8 BGR (H, W, 3). The energy of a channel is its variance over the image; titles
    say how much of that of all 192 channels a selection has. ``path`` is the PNG or SVG file to
    write.
    """
    coefficients = dct.block_dct(dct.to_ycbcr(image))
    energy = coefficients.reshape(-1, coefficients.shape[-1]).var(axis=0, dtype=np.float64)
    energy /= max(energy.sum(), 1e-12)
    pictures = [('image', image[:, :, ::-1]),
                ('its 64 channels of luma', _mosaic(coefficients[:, :, :64]))]
    for selection in selections:
        indices = channel_indices(selection)
        rebuilt = dct.coefficients_to_bgr(coefficients[:, :, indices], indices, image.shape)
        name = selection if isinstance(selection, str) else f'{len(indices)} channels'
        pictures.append((f'{name}: {energy[indices].sum():.1%} of the energy', rebuilt[:, :, ::-1]))
    height = 3.2 * image.shape[0] / image.shape[1] + 0.25
    figure = Figure(figsize=(3.2 * len(pictures) + 3.2, height), layout='constrained')
    axes = list(figure.subplots(1, len(pictures) + 1))
    _draw_energy(axes.pop(2), 100 * energy[:64])
    for axis, (title, picture) in zip(axes, pictures):
        axis.imshow(picture, cmap='gray', vmin=0, vmax=255)
        axis.set_title(title, loc='left', fontsize=11, color=INK)
        axis.axis('off')
    save_figure(figure, path)


def _mosaic(channels: np.ndarray) -> np.ndarray:
    """Arrange (h, w, 64) as 8x8 pictures, uint8 (8h, 8w): one grey scale for all, zero mid-grey."""
    reach = np.percentile(np.abs(channels[:, :, 1:]), 99.5)  # frequency 0 saturates
    scaled = np.clip(0.5 + channels / (2 * max(reach, 1e-6)), 0, 1)
    h, w = channels.shape[:2]
    tiles = scaled.reshape(h, w, 8, 8).transpose(2, 0, 3, 1)  # (8, h, 8, w)
    return np.rint(255 * tiles.reshape(8 * h, 8 * w)).astype(np.uint8)


def _draw_energy(axis: 'matplotlib.axes.Axes', shares: np.ndarray) -> None:
    """Draw per cents of the energy (64,) as an 8x8 grid: a shade and a number each."""
    grid = shares.reshape(8, 8)
    axis.imshow(np.log10(np.maximum(grid, 1e-3)), cmap='Blues', vmin=-3, vmax=2)
    for (v, u), share in np.ndenumerate(grid):
        text = f'{share:.0f}' if share >= 9.5 else f'{share:.1f}' if share >= 0.05 else '·'
        axis.text(u, v, text, ha='center', va='center', fontsize=7,
                  color='white' if share > 3 else INK)
    axis.set_title('their energy, % of all', loc='left', fontsize=11, color=INK)
    axis.axis('off')
