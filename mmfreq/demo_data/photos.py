"""The photographs inside the scikit-image wheel, and what every task does with them.

Boxes are half open, (x0, y0, x1, y1) in source pixels; sizes are (width, height) in pixels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

SPLITS = ('train', 'val')
JPEG_QUALITY = 92

_INSTALL = 'pip install scikit-image'

Box = tuple[int, int, int, int]


class Photo(NamedTuple):
    """A photograph of the scikit-image wheel; ``credit`` repeats the notes of ``skimage.data``."""

    file: str
    credit: str


PHOTOS = {
    'astronaut': Photo('astronaut.png', 'NASA; public domain'),
    'brick': Photo('brick.png', 'CC0Textures; CC0'),
    'camera': Photo('camera.png', 'Lav Varshney; CC0'),
    'chelsea': Photo('chelsea.png', 'Stefan van der Walt; CC0'),
    'coffee': Photo('coffee.png', 'Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0'),
    'coins': Photo('coins.png', 'Brooklyn Museum Collection; no known copyright restrictions'),
    'grass': Photo('grass.png', 'linolafett on DeviantArt; CC0'),
    'gravel': Photo('gravel.png', 'CC0Textures; CC0'),
    'hubble': Photo('hubble_deep_field.jpg', 'NASA, HubbleSite; public domain'),
    'motorcycle': Photo(
        'motorcycle_left.png',
        'Middlebury 2014 stereo benchmark, Scharstein et al., GCPR 2014; no licence stated',
    ),
    'retina': Photo('retina.jpg', 'Mikael Häggström, Wikimedia Commons; CC0'),
    'rocket': Photo('rocket.jpg', 'SpaceX; public domain'),
}
"""Name to photograph; the names are the classes of the classification task."""


def load_photo(name: str) -> np.ndarray:
    """Read the photograph ``name``: ``np.uint8`` (H, W, 3), BGR, grey ones with equal channels.

    Raises:
        ValueError: ``name`` is not a key of :data:`PHOTOS`.
        ImportError: scikit-image is not installed.
        FileNotFoundError: scikit-image lacks the photograph, or it cannot be decoded.
    """
    if name not in PHOTOS:
        raise ValueError(f'name must be one of {sorted(PHOTOS)}, got {name!r}')
    path = photo_folder() / PHOTOS[name].file
    if not path.is_file():
        raise FileNotFoundError(f'scikit-image has no photograph {path}; {_INSTALL}')
    photo = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if photo is None:
        raise FileNotFoundError(f'cannot decode the photograph {path}; {_INSTALL}')
    return photo


def cut(photo: np.ndarray, box: Box, flip: bool, size: tuple[int, int]) -> np.ndarray:
    """Cut ``box`` from ``photo``, mirror it left to right if ``flip``, and resample it to ``size``.

    Shrinks by area averaging and enlarges by cubic interpolation; only pixels inside the box count.
    """
    x0, y0, x1, y1 = box
    crop = photo[y0:y1, x0:x1]
    if flip:
        crop = crop[:, ::-1]
    shrinks = size[0] < x1 - x0
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(crop), size, interpolation=interpolation)


def write_jpeg(path: Path, picture: np.ndarray) -> None:
    """Write ``picture`` (BGR) to ``path`` at :data:`JPEG_QUALITY`; makes the folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    path.write_bytes(encoded.tobytes())


def size_of(picture: np.ndarray) -> tuple[int, int]:
    """Width and height of an array (H, W, ...)."""
    return picture.shape[1], picture.shape[0]


def credit_lines(names: Iterable[str]) -> list[str]:
    """The end of a README: where the photographs come from and their terms."""
    head = [
        'Sources and terms, from the documentation of skimage.data, which has the links',
        '(https://scikit-image.org/docs/stable/api/skimage.data.html):',
        '',
    ]
    return head + [f'  {name:<11} {PHOTOS[name].file}: {PHOTOS[name].credit}' for name in names]


def photo_folder() -> Path:
    """Folder ``skimage/data``, found without importing scikit-image."""
    spec = importlib.util.find_spec('skimage')
    if spec is None or spec.origin is None:
        raise ImportError(f'the demo data is cut from photographs of scikit-image: {_INSTALL}')
    return Path(spec.origin).parent / 'data'
