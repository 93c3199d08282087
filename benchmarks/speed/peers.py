"""Other ways from a photo to the same DCT channels, to measure :class:`~mmfreq.transforms.FusedBlockDCT` against.

Each is a function of a photo, uint8 BGR (H, W, 3) with sides that are multiples of 8, and gives float32 channels of the
same numbers: (h, w, C), or (C, h, w) where that is how it computes them. None of them is slowed down on purpose.
"""
import importlib.util
import os
import tempfile
from typing import Callable, Optional, Sequence

import cv2
import numpy as np
import torch

from mmfreq.dct import blocks as dct
from mmfreq.dct.block_map import BlockMap
from mmfreq.dct.stats import FreqStats

Peer = Callable[[np.ndarray], np.ndarray]


def scipy_peer(channels: Sequence[int], stats: FreqStats) -> Peer:
    """All 192 coefficients with scipy's ``dctn`` in float32, then selection and normalisation."""
    from scipy.fft import dctn
    mean, std = stats.mean[channels].astype(np.float32), stats.std[channels].astype(np.float32)

    def transform(image: np.ndarray) -> np.ndarray:
        samples = dct.to_ycbcr(image).astype(np.float32) - dct.LEVEL_SHIFT
        rows, cols = (side // 8 for side in image.shape[:2])
        cube = dctn(samples.reshape(rows, 8, cols, 8, 3), axes=(1, 3), norm='ortho')
        cube = cube.transpose(0, 2, 4, 1, 3).reshape(rows, cols, 192)
        return (cube[:, :, channels] - mean) / std

    return transform


def torch_peer(channels: Sequence[int], stats: FreqStats) -> Peer:
    """One strided convolution with the dense weights of :class:`~mmfreq.dct.block_map.BlockMap`: (C, h, w)."""
    block_map = BlockMap(channels, stats.mean, stats.std)
    weight = torch.tensor(block_map.kernel, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    bias = torch.tensor(block_map.bias, dtype=torch.float32)

    def transform(image: np.ndarray) -> np.ndarray:
        photo = torch.from_numpy(image).permute(2, 0, 1)[None].float()  # stays (H, W, 3) in memory
        return torch.conv2d(photo, weight, bias, stride=8)[0].numpy()

    return transform


def jpeg_peer(channels: Sequence[int], stats: FreqStats) -> Peer:
    """The route of the released DCTNet code: coefficients out of JPEG files.

    The photo is encoded at quality 100 with 4:2:0 subsampling for its Y, and once more at twice the size for Cb and Cr,
    whose subsampled planes then have the photo's size. OpenCV encodes (libjpeg-turbo), pyjpegio (libjpeg-turbo too)
    reads the coefficients back, through a file in memory since it takes no bytes. At quality 100 they are those of
    :func:`mmfreq.dct.blocks.block_dct`, rounded to integers; chroma differs by the resizing and subsampling.
    """
    import jpegio
    mean, std = stats.mean[channels].astype(np.float32), stats.std[channels].astype(np.float32)
    options = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    folder = '/dev/shm' if os.path.isdir('/dev/shm') else None

    def planes(image: np.ndarray) -> list[np.ndarray]:
        with tempfile.NamedTemporaryFile(dir=folder, suffix='.jpg') as file:
            file.write(cv2.imencode('.jpg', image, options)[1])
            file.flush()
            return jpegio.read(file.name).coef_arrays

    def transform(image: np.ndarray) -> np.ndarray:
        rows, cols = (side // 8 for side in image.shape[:2])
        enlarged = cv2.resize(image, (2 * image.shape[1], 2 * image.shape[0]), interpolation=cv2.INTER_LINEAR)
        chosen = [planes(image)[0], *planes(enlarged)[1:]]
        cube = np.concatenate([plane.reshape(rows, 8, cols, 8).transpose(0, 2, 1, 3).reshape(rows, cols, 64)
                               for plane in chosen], axis=2)
        return (cube[:, :, channels].astype(np.float32) - mean) / std

    return transform


_PEERS = {
    'scipy dctn, all 192 channels': (scipy_peer, 'scipy', 'scipy'),
    'torch conv2d, dense weights': (torch_peer, 'torch', 'torch'),
    'two JPEGs and back (DCTNet)': (jpeg_peer, 'jpegio', 'pyjpegio'),
}


def available_peers(channels: Sequence[int], stats: FreqStats) -> tuple[dict[str, Peer], list[str]]:
    """The peers whose libraries are installed, by name, and a note for each of the others."""
    found: dict[str, Optional[Peer]] = {}
    notes = []
    for name, (make, module, package) in _PEERS.items():
        if importlib.util.find_spec(module):
            found[name] = make(channels, stats)
        else:
            notes.append(f'{name}: not measured, {package} is not installed (pip install {package})')
    return found, notes
