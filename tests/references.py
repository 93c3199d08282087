"""References in float64 that round nothing: JFIF's colours, torch's resize, NumPy's padding, scipy's DCT."""
from typing import Any, Optional, Sequence, Union

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dctn
from skimage import data

from mmfreq.dct.channels import channel_indices
from mmfreq.dct.stats import block_stats

FACE = np.ascontiguousarray(data.astronaut()[60:220, 150:370, ::-1])  # BGR, 160 x 220 pixels of a photograph


def noise(height: int, width: int, seed: int = 0, components: int = 3) -> np.ndarray:
    """Return a uint8 image (H, W, components) of independent random levels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, components), dtype=np.uint8)


def exact_ycbcr(image: np.ndarray, order: str = 'bgr') -> np.ndarray:
    """Convert colours by JFIF 1.02, section 7: (H, W, 3)."""
    red, green, blue = np.moveaxis(image.astype(np.float64), -1, 0)[::-1 if order == 'bgr' else 1]
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128], axis=-1)


def resized(pixels: np.ndarray, size: Sequence[int], antialias: bool = False) -> np.ndarray:
    """Resize bilinearly between pixel centres: (rows, columns, C)."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels).astype(np.float64)).permute(2, 0, 1)[None]
    return F.interpolate(tensor, tuple(size), mode='bilinear', antialias=antialias)[0].permute(1, 2, 0).numpy()


def exact_dct(samples: np.ndarray, n: int = 8) -> np.ndarray:
    """Return the coefficients of all padded, shifted blocks: (h, w, C*N*N)."""
    height, width, components = samples.shape
    padded = np.pad(samples.astype(np.float64) - 128, ((0, -height % n), (0, -width % n), (0, 0)), mode='edge')
    blocks = padded.reshape(padded.shape[0] // n, n, -1, n, components)
    return dctn(blocks, axes=(1, 3), norm='ortho').transpose(0, 2, 4, 1, 3).reshape(len(blocks), -1, components * n * n)


def exact(image: np.ndarray, channels: Any, stats: Optional[Union[str, dict]] = None, n: int = 8, upscale: int = 1,
          order: str = 'bgr') -> np.ndarray:
    """Return the channels (h, w, C) of an image of any number type, normalised if there are statistics."""
    samples = exact_ycbcr(image, order)
    if upscale > 1:
        samples = resized(samples, [side * upscale for side in samples.shape[:2]])
    chosen, cube = channel_indices(channels, n), exact_dct(samples, n)
    if stats is None:
        return cube[:, :, chosen]
    loaded = block_stats(stats, n)
    return ((cube - loaded.mean) / loaded.std)[:, :, chosen]
