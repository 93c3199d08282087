"""The images inside the scikit-image wheel, and what both tasks do with them.

Boxes are half open, (x0, y0, x1, y1) in pixels of the source image; sizes are (width, height).
"""
import importlib.util
from pathlib import Path
from typing import Iterable

import cv2
import numpy as np

Box = tuple[int, int, int, int]

IMAGES = {
    'astronaut': ('astronaut.png', 'NASA; public domain'),
    'brick': ('brick.png', 'CC0Textures; CC0'),
    'camera': ('camera.png', 'Lav Varshney; CC0'),
    'chelsea': ('chelsea.png', 'Stefan van der Walt; CC0'),
    'coffee': ('coffee.png', 'Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0'),
    'coins': ('coins.png', 'Brooklyn Museum Collection; no known copyright restrictions'),
    'grass': ('grass.png', 'linolafett on DeviantArt; CC0'),
    'gravel': ('gravel.png', 'CC0Textures; CC0'),
    'hubble': ('hubble_deep_field.jpg', 'NASA, HubbleSite; public domain'),
    'motorcycle': ('motorcycle_left.png', 'Middlebury 2014 stereo benchmark, Scharstein et al., '
                   'GCPR 2014; no licence stated'),
    'retina': ('retina.jpg', 'Mikael Häggström, Wikimedia Commons; CC0'),
    'rocket': ('rocket.jpg', 'SpaceX; public domain'),
}
"""Name of a source image, which is its class, to its file and its credit from ``skimage.data``."""


def load_image(name: str) -> np.ndarray:
    """Read a source image: uint8 BGR (H, W, 3), a grey one with equal components.

    Raises:
        ImportError: scikit-image is not installed.
        FileNotFoundError: Its file is missing or cannot be decoded.
    """
    spec = importlib.util.find_spec('skimage')  # found without importing it
    if spec is None or spec.origin is None:
        raise ImportError('no scikit-image, which holds the images: pip install scikit-image')
    path = Path(spec.origin).parent / 'data' / IMAGES[name][0]
    image = cv2.imread(str(path))
    if image is None:
        raise FileNotFoundError(f'{path} is missing or broken: pip install scikit-image')
    return image


def cut(image: np.ndarray, box: Box, flip: bool, size: tuple[int, int]) -> np.ndarray:
    """Cut ``box`` from ``image``, mirror it left to right if ``flip``, resample it to ``size``.

    Areas are averaged to shrink, cubic interpolation enlarges; only pixels inside the box count.
    """
    x0, y0, x1, y1 = box
    crop = image[y0:y1, x0:x1][:, ::-1 if flip else 1]
    interpolation = cv2.INTER_AREA if size[0] < x1 - x0 else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(crop), size, interpolation=interpolation)


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write a BGR image as a JPEG of quality 92; make its folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    path.write_bytes(encoded.tobytes())


def write_readme(folder: Path, description: str, names: Iterable[str]) -> None:
    """Write ``README.txt``: what the files are, where the images come from, and their terms."""
    lines = ['Demo data for mmfreq, written by "python -m demo"; safe to delete.',
             'Cut from images that ship with scikit-image; manifest.json says what from where.',
             description, '', 'Sources and terms, from the documentation of skimage.data:',
             'https://scikit-image.org/docs/stable/api/skimage.data.html', '']
    for name in names:
        lines.append(f'  {name:<11} {IMAGES[name][0]}: {IMAGES[name][1]}')
    (folder / 'README.txt').write_text('\n'.join(lines) + '\n', encoding='utf-8')
