"""Classification: the class of a crop is the source image it was cut from.

Train and val crops come from different cells of a checkerboard laid over each source image
(:data:`CELLS`): they share no pixel, yet both see its top and bottom, left, middle and right.
"""
import math
import random
from pathlib import Path
from typing import Any

from tqdm import tqdm

from demo.images import IMAGES, Box, cut, load_image, write_jpeg, write_readme

CELLS = (('train', 'val', 'train'), ('val', 'train', 'val'))
"""Split of each cell of a grid of equal cells, by row and column."""
MIN_CROP = 64
"""Shortest side of a crop in pixels of the source image."""
CROP_SCALE = (0.45, 1.0)
"""Range of sqrt(crop area / cell area) before clipping to the cell."""
MAX_ASPECT = 1.5
"""Largest ratio of a crop's sides before clipping to the cell."""
SHORT_SIDE = (224, 288)
"""Range of the short side of a written image: a crop of 224 always fits."""


def cells_of(split: str, width: int, height: int) -> list[Box]:
    """Return the cells of :data:`CELLS` that belong to ``split`` in an image of this size."""
    cells, rows = [], len(CELLS)
    for row, splits in enumerate(CELLS):
        columns = len(splits)
        for column in range(columns):
            if splits[column] == split:
                cells.append((width * column // columns, height * row // rows,
                              width * (column + 1) // columns, height * (row + 1) // rows))
    return cells


def draw_box(cell: Box, rng: random.Random) -> Box:
    """Draw a box of random scale, aspect and place inside ``cell``."""
    x0, y0, x1, y1 = cell
    side = rng.uniform(*CROP_SCALE) * math.sqrt((x1 - x0) * (y1 - y0))
    stretch = math.sqrt(MAX_ASPECT) ** rng.uniform(-1, 1)
    width = min(max(MIN_CROP, round(side * stretch)), x1 - x0)
    height = min(max(MIN_CROP, round(side / stretch)), y1 - y0)
    left = x0 + int(rng.random() * (x1 - x0 - width + 1))
    top = y0 + int(rng.random() * (y1 - y0 - height + 1))
    return left, top, left + width, top + height


def plan_crop(name: str, split: str, number: int, shape: tuple[int, ...],
              seed: int) -> dict[str, Any]:
    """Return the manifest entry of a crop; it depends on nothing but these arguments."""
    # random() gives the same stream for a string in every Python and process.
    rng = random.Random(f'{seed}/{name}/{split}/{number}')
    cells = cells_of(split, shape[1], shape[0])
    box = draw_box(cells[number % len(cells)], rng)
    width, height = box[2] - box[0], box[3] - box[1]
    factor = rng.uniform(*SHORT_SIDE) / min(width, height)
    return dict(path=f'{split}/{name}/{number:03d}.jpg', source=name, box=box,
                flip=rng.random() < 0.5, size=(round(width * factor), round(height * factor)))


def write_classification(folder: Path, seed: int, train: int = 100,
                         val: int = 30) -> list[dict[str, Any]]:
    """Write ``<split>/<class>/<nnn>.jpg`` and ``README.txt``, ``train`` and ``val`` crops a class.

    Returns:
        list[dict]: Of each crop, ``path`` (POSIX, below ``folder``), ``source`` (name of its source
        image), ``box``, ``flip`` (left to right) and ``size`` of the JPEG.
    """
    files = []
    for name in tqdm(IMAGES, desc='cutting crops', unit='class'):
        image = load_image(name)
        for split, count in (('train', train), ('val', val)):
            for number in range(count):
                files.append(plan_crop(name, split, number, image.shape, seed))
                crop = cut(image, files[-1]['box'], files[-1]['flip'], files[-1]['size'])
                write_jpeg(folder / files[-1]['path'], crop)
    write_readme(folder, 'The class of a crop is its source image; train and val crops share no '
                 'pixel.', IMAGES)
    return files
