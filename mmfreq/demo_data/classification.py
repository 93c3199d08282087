"""Classification: the class of a crop is the photograph it was cut from.

Train and val crops come from different cells of a checkerboard laid over each photograph (:data:`CELLS`), so they never
share a pixel while both see its top and bottom, left, middle and right.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmfreq.demo_data.photos import PHOTOS, SPLITS, Box, credit_lines, cut, load_photo, size_of, write_jpeg

VERSION = 1
"""Raise it with every change that alters a written byte: other versions are not reused."""
COUNTS = {'train_per_class': 100, 'val_per_class': 30}

CELLS = (('train', 'val', 'train'), ('val', 'train', 'val'))
"""The split of each cell, by row and column, of the grid of equal cells laid over a photograph."""

MIN_CROP = 64
"""Shortest side of a crop, in source pixels."""
CROP_SCALE = (0.45, 1.0)
"""Range of sqrt(crop area / cell area) before clipping to the cell."""
MAX_ASPECT = 1.5
"""Largest width / height of a crop, and largest height / width, before clipping to the cell."""
SHORT_SIDE = (224, 288)
"""Range of the short side of a written picture: a crop of 224 always fits."""


def cells_of(split: str, width: int, height: int) -> list[Box]:
    """The cells of :data:`CELLS` that belong to ``split`` in a photograph of this size."""
    rows, columns = len(CELLS), len(CELLS[0])
    xs = [width * column // columns for column in range(columns + 1)]
    ys = [height * row // rows for row in range(rows + 1)]
    return [
        (xs[column], ys[row], xs[column + 1], ys[row + 1])
        for row in range(rows)
        for column in range(columns)
        if CELLS[row][column] == split
    ]


def draw_box(cell: Box, rng: random.Random) -> Box:
    """Draw a box inside ``input_stride``, of random scale, aspect and place."""
    x0, y0, x1, y1 = cell
    side = rng.uniform(*CROP_SCALE) * math.sqrt((x1 - x0) * (y1 - y0))
    stretch = math.sqrt(MAX_ASPECT) ** rng.uniform(-1, 1)
    width = min(max(MIN_CROP, round(side * stretch)), x1 - x0)
    height = min(max(MIN_CROP, round(side / stretch)), y1 - y0)
    left = x0 + int(rng.random() * (x1 - x0 - width + 1))
    top = y0 + int(rng.random() * (y1 - y0 - height + 1))
    return left, top, left + width, top + height


def write_classification(folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write ``<split>/<class>/<nnn>.jpg`` and ``README.txt``; return ``photos`` and ``files``."""
    photos = {name: load_photo(name) for name in PHOTOS}
    files = [
        _plan_crop(name, split, number, photos[name].shape, arguments['seed'])
        for split in SPLITS
        for name in PHOTOS
        for number in range(arguments[f'{split}_per_class'])
    ]
    for entry in tqdm(files, desc='cutting crops', unit='crop'):
        crop = cut(photos[entry['photo']], entry['box'], entry['flip'], entry['size'])
        write_jpeg(folder / entry['path'], crop)
    (folder / 'README.txt').write_text(_readme(), encoding='utf-8')
    sizes = {name: {'file': PHOTOS[name].file, 'size': size_of(photos[name])} for name in PHOTOS}
    return {'photos': sizes, 'files': files}


def _plan_crop(
    name: str, split: str, number: int, shape: tuple[int, ...], seed: int
) -> dict[str, Any]:
    """Decide crop ``number`` of a class and split; it depends on these arguments alone."""
    # Seeded by a string: the stream of random() is the same in every Python and process.
    rng = random.Random(f'{seed}/{name}/{split}/{number}')
    cells = cells_of(split, shape[1], shape[0])
    box = draw_box(cells[number % len(cells)], rng)
    width, height = box[2] - box[0], box[3] - box[1]
    factor = rng.uniform(*SHORT_SIDE) / min(width, height)
    return {
        'path': f'{split}/{name}/{number:03d}.jpg',
        'photo': name,
        'box': box,
        'flip': rng.random() < 0.5,
        'size': (round(width * factor), round(height * factor)),
    }


def describe_classification(manifest: dict[str, Any]) -> str:
    """What was written, in some words."""
    counts = manifest['arguments']
    return (
        f'{len(manifest["files"])} crops of {len(manifest["photos"])} photographs '
        f'({counts["train_per_class"]} train and {counts["val_per_class"]} val each)'
    )


def _readme() -> str:
    lines = [
        'Demo data for mmfreq, written by tools/make_demo_data.py; safe to delete and make again.',
        '',
        'Every JPEG is a crop of a photograph that ships with scikit-image (skimage/data); its',
        'class is the photograph. Train and val crops share no pixel; manifest.json names the',
        'photograph and the crop box of each file.',
        '',
        *credit_lines(PHOTOS),
    ]
    return '\n'.join(lines) + '\n'
