"""What a selection of DCT channels keeps of an image, as a picture."""
from typing import Sequence

import numpy as np
from matplotlib.figure import Figure

from mmfreq.apis.pictures import INK, save_figure
from mmfreq.dct import blocks as dct
from mmfreq.dct.channels import ChannelSpec, channel_indices


def plot_channels(image: np.ndarray, selections: Sequence[ChannelSpec], path: str) -> None:
    """Draws a photo, its DCT channels as a mosaic, and what each selection of channels keeps of it.

    Args:
        image (np.ndarray): uint8 BGR (H, W, 3).
        selections (Sequence[str | list]): Channel selections, see :func:`mmfreq.dct.channels.channel_indices`.
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
        axis.set_title(title, loc='left', fontsize=11, color=INK)
        axis.axis('off')
    save_figure(figure, path)


def _mosaic(channels: np.ndarray) -> np.ndarray:
    """64 channels (h, w, 64) as 8x8 small pictures: uint8 (8h, 8w), zero in mid-grey, contrast by channel."""
    reach = np.percentile(np.abs(channels), 99, axis=(0, 1))
    scaled = np.clip(0.5 + channels / (2 * np.maximum(reach, 1e-6)), 0, 1)
    h, w = channels.shape[:2]
    tiles = scaled.reshape(h, w, 8, 8).transpose(2, 0, 3, 1)  # (8, h, 8, w)
    return np.rint(255 * tiles.reshape(8 * h, 8 * w)).astype(np.uint8)
