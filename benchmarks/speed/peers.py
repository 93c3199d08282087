"""Other implementations of FusedBlockDCT, to compare its speed with.

Each is a function that takes an image, uint8 BGR (H, W, 3) with sides that are multiples of 8, and
returns the same normalised channels in float32: (h, w, C), or (C, h, w) if it computes them in this
order. Each is as fast as its library allows.
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
    """Return scipy's ``dctn`` of all 192 channels in float32, followed by selection and normalisation."""
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
    """Return one strided convolution with the dense weights of a BlockMap: (C, h, w)."""
    block_map = BlockMap(channels, stats.mean, stats.std)
    weight = torch.tensor(block_map.kernel, dtype=torch.float32)
    weight = weight.contiguous(memory_format=torch.channels_last)
    bias = torch.tensor(block_map.bias, dtype=torch.float32)

    def transform(image: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()  # still (H, W, 3) in memory
        return torch.conv2d(tensor, weight, bias, stride=8)[0].numpy()

    return transform


def jpeg_peer(channels: Sequence[int], stats: FreqStats) -> Peer:
    """Return the route of the released DCTNet code, which reads coefficients from JPEG files.

    Y comes from the image encoded at quality 100 with 4:2:0 subsampling. Cb and Cr come from the
    image encoded at twice the size, so that their subsampled planes have the size of the image.
    OpenCV encodes the image, and pyjpegio reads the coefficients from a file in memory; both use
    libjpeg-turbo. At quality 100, the coefficients of Y are those of
    :func:`mmfreq.dct.blocks.block_dct`, rounded to integers. Chroma also differs by the resizing
    and subsampling.
    """
    import jpegio
    mean, std = stats.mean[channels].astype(np.float32), stats.std[channels].astype(np.float32)
    options = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
               cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    folder = '/dev/shm' if os.path.isdir('/dev/shm') else None

    def planes(image: np.ndarray) -> list[np.ndarray]:
        with tempfile.NamedTemporaryFile(dir=folder, suffix='.jpg') as file:
            file.write(cv2.imencode('.jpg', image, options)[1])
            file.flush()
            return jpegio.read(file.name).coef_arrays

    def transform(image: np.ndarray) -> np.ndarray:
        rows, cols = (side // 8 for side in image.shape[:2])
        double = cv2.resize(image, (16 * cols, 16 * rows), interpolation=cv2.INTER_LINEAR)
        cube = np.stack([planes(image)[0], *planes(double)[1:]]).reshape(3, rows, 8, cols, 8)
        cube = cube.transpose(1, 3, 0, 2, 4).reshape(rows, cols, 192)
        return (cube[:, :, channels].astype(np.float32) - mean) / std

    return transform


_PEERS = {
    'scipy dctn, all 192 channels': (scipy_peer, 'scipy', 'scipy'),
    'torch conv2d, dense weights': (torch_peer, 'torch', 'torch'),
    'two JPEGs and back (DCTNet)': (jpeg_peer, 'jpegio', 'pyjpegio'),
}


def available_peers(channels: Sequence[int], stats: FreqStats) -> tuple[dict[str, Peer], list[str]]:
    """Return the peers whose libraries are installed, by name, and a note for each of the others."""
    peers: dict[str, Optional[Peer]] = {}
    notes = []
    for name, (make, module, package) in _PEERS.items():
        if importlib.util.find_spec(module):
            peers[name] = make(channels, stats)
        else:
            notes.append(f'{name}: not measured, {package} is not installed '
                         f'(pip install {package})')
    return peers, notes
