"""Detection: a COCO instance segmentation set of textured boxes, discs and stars on images.

Each object is a shape cut from one source image and pasted on a crop of another, brightened or
darkened. Its pixels are those of its polygon's COCO mask, its edges are hard, and objects do not
touch: the annotations are exact. Train and val use different source images (:data:`SOURCES`).

Points are pixel coordinates (x, y) with the origin in the outer corner of the first pixel.
"""
import json
import math
import random
from pathlib import Path
from typing import Any, Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from demo.images import Box, cut, load_image, write_jpeg, write_readme

SOURCES = {
    'train': ('astronaut', 'brick', 'coffee', 'coins', 'grass', 'hubble', 'motorcycle', 'retina'),
    'val': ('camera', 'chelsea', 'gravel', 'rocket'),
}
"""Source images of each split: in train five have colour and three are grey, in val two and two."""
CLASSES = ('box', 'disc', 'star')
"""Category ids count from 1 in this order."""
SIZES = ((320, 240), (352, 264), (384, 288), (400, 300), (333, 250), (375, 281))
"""Sizes of the images, or of their transposes; three fit a grid of 8 pixels, one a grid of 32."""
MAX_OBJECTS = 5
OBJECT_SIDE = (24, 140)
"""Range of the longer side of an object's bounding box; its logarithm is uniform."""
GAP = 3
"""Least distance in pixels between two objects, and between an object and the image's border."""
ZOOM = (1.0, 3.0)
"""Range of source pixels per pixel of an object, before clipping to the source image."""
CROP_SIDE = 0.7
"""Least side of a background relative to the largest crop of its shape."""
MAX_SHIFT = 60  # grey levels by which an object is brightened or darkened
MIN_CONTRAST = 20.0  # least outline_contrast of an object
MAX_TRIES = 200  # for each object but the first


def draw_corners(category: str, rng: random.Random) -> np.ndarray:
    """Draw a shape around the origin, of any size: float64 (corners, 2)."""
    if category == 'box':  # up to twice as long as wide
        half = rng.uniform(0.5, 1)
        return np.array([(-1, -half), (1, -half), (1, half), (-1, half)])
    count = 36 if category == 'disc' else 10
    angles = [2 * math.pi * index / count for index in range(count)]
    corners = np.array([(math.cos(angle), math.sin(angle)) for angle in angles])
    if category == 'disc':  # an ellipse with axes up to 1.4 to 1
        return corners * (1, rng.uniform(1 / 1.4, 1))
    corners[1::2] *= rng.uniform(0.36, 0.5)  # five points, slim or plump
    return corners


def draw_polygon(category: str, size: tuple[int, int], rng: random.Random) -> list[float]:
    """Draw a polygon of random form, direction and size somewhere in an image of ``size``."""
    corners = draw_corners(category, rng)
    angle = rng.uniform(0, 2 * math.pi)
    turn = np.array([(math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))])
    corners = corners @ turn
    side = math.exp(rng.uniform(*map(math.log, OBJECT_SIDE)))
    corners = (corners - corners.min(axis=0)) * (side / np.ptp(corners, axis=0).max())
    room = np.array(size) - 2 * GAP - corners.max(axis=0)
    corners = corners + GAP + room * (rng.random(), rng.random())
    return [round(float(value), 2) for value in corners.ravel()]


def polygon_mask(polygon: list[float], size: tuple[int, int]) -> np.ndarray:
    """Return the mask that COCO's ``annToMask`` gives: uint8 (H, W) of 0 and 1."""
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([polygon], size[1], size[0])))


def outline_contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """Compute the contrast of an object along at least nine tenths of its outline, in grey levels.

    At each of its outermost pixels, the mean colour of the object nearby is compared to that of
    its surroundings up to :data:`GAP` pixels away: mean absolute difference of the components.

    Args:
        image (np.ndarray): uint8 (H, W, 3) with the object.
        mask (np.ndarray): uint8 (H, W), 1 for the object's pixels, 0 elsewhere.
    """
    difference = np.abs(_local_mean(image, mask) - _local_mean(image, 1 - mask)).mean(axis=2)
    square = np.ones((3, 3), np.uint8)
    inner = cv2.erode(mask, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return float(np.percentile(difference[mask > inner], 10))


def _local_mean(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Average the masked pixels around each pixel: float32 (H, W, 3), 0 where there are none."""
    window = dict(ksize=(2 * GAP + 1, 2 * GAP + 1), normalize=False, borderType=cv2.BORDER_CONSTANT)
    weight = mask.astype(np.float32)[..., None]
    total = cv2.boxFilter(image * weight, -1, **window)
    return total / np.maximum(cv2.boxFilter(weight, -1, **window), 1)[..., None]


def _largest_zoom(image: np.ndarray, size: tuple[int, int]) -> float:
    return min(image.shape[1] / size[0], image.shape[0] / size[1])


def draw_crop(image: np.ndarray, size: tuple[int, int], zoom: float, rng: random.Random) -> Box:
    """Draw a box ``zoom`` times as large as ``size``, as far as the image allows."""
    zoom = min(zoom, _largest_zoom(image, size))
    width = min(round(size[0] * zoom), image.shape[1])
    height = min(round(size[1] * zoom), image.shape[0])
    left = int(rng.random() * (image.shape[1] - width + 1))
    top = int(rng.random() * (image.shape[0] - height + 1))
    return left, top, left + width, top + height


def _pick(choices: Sequence, rng: random.Random) -> Any:
    return choices[int(rng.random() * len(choices))]


def _draw_item(category: str, size: tuple[int, int], sources: dict[str, np.ndarray],
               rng: random.Random) -> dict[str, Any]:
    """Draw an object of an image: see :func:`write_detection`."""
    polygon = draw_polygon(category, size, rng)
    xs, ys = polygon[::2], polygon[1::2]
    place = math.floor(min(xs)), math.floor(min(ys)), math.ceil(max(xs)), math.ceil(max(ys))
    name = _pick(list(sources), rng)
    box_size = place[2] - place[0], place[3] - place[1]
    box = draw_crop(sources[name], box_size, rng.uniform(*ZOOM), rng)
    return dict(category=category, polygon=polygon, place=place, source=name, box=box,
                flip=rng.random() < 0.5, shift=round(rng.uniform(-MAX_SHIFT, MAX_SHIFT)))


def _paste(image: np.ndarray, taken: np.ndarray, source: np.ndarray,
           item: dict[str, Any]) -> bool:
    """Paste an object and mark its pixels in ``taken``, unless it is too near or too faint."""
    x0, y0, x1, y1 = item['place']
    around = (slice(y0 - GAP, y1 + GAP), slice(x0 - GAP, x1 + GAP))
    mask = polygon_mask(item['polygon'], image.shape[1::-1])[around]
    if (cv2.dilate(mask, np.ones((2 * GAP + 1, 2 * GAP + 1), np.uint8)) & taken[around]).any():
        return False
    texture = cut(source, item['box'], item['flip'], (x1 - x0, y1 - y0)).astype(np.int16)
    texture = (texture + item['shift']).clip(0, 255).astype(np.uint8)
    texture = np.pad(texture, ((GAP, GAP), (GAP, GAP), (0, 0)))
    pasted = np.where(mask[..., None], texture, image[around])
    if outline_contrast(pasted, mask) < MIN_CONTRAST:
        return False
    image[around] = pasted
    taken[around] |= mask
    return True


def _add_objects(image: np.ndarray, sources: dict[str, np.ndarray], count: int,
                 rng: random.Random) -> list[dict[str, Any]]:
    """Paste up to ``count`` objects, at least one, as many as there is place for."""
    items: list[dict[str, Any]] = []
    taken = np.zeros(image.shape[:2], np.uint8)
    category, tries = _pick(CLASSES, rng), 0
    while len(items) < count and (tries < MAX_TRIES or not items):
        item = _draw_item(category, image.shape[1::-1], sources, rng)
        tries += 1
        if _paste(image, taken, sources[item['source']], item):
            items.append(item)
            category, tries = _pick(CLASSES, rng), 0
    return items


def draw_scene(name: str, sources: dict[str, np.ndarray],
               rng: random.Random) -> tuple[np.ndarray, dict[str, Any]]:
    """Draw an image with ``name`` as its background and objects cut from the other sources.

    Returns:
        tuple[np.ndarray, dict]: uint8 BGR (H, W, 3), and its manifest entry without ``path``.
    """
    size = _pick(SIZES, rng)
    size = _pick((size, size[::-1]), rng)
    largest = _largest_zoom(sources[name], size)
    zoom = rng.uniform(min(1.0, CROP_SIDE * largest), largest)
    box = draw_crop(sources[name], size, zoom, rng)
    flip = rng.random() < 0.5
    image = cut(sources[name], box, flip, size)
    others = {other: source for other, source in sources.items() if other != name}
    objects = _add_objects(image, others, 1 + int(rng.random() * MAX_OBJECTS), rng)
    return image, dict(source=name, box=box, flip=flip, size=size, objects=objects)


def annotation(number: int, image_id: int, item: dict[str, Any]) -> dict[str, Any]:
    """Return the COCO annotation of an object: area by the shoelace formula, in pixels."""
    corners = np.reshape(item['polygon'], (-1, 2))
    x, y = corners.T
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    bounds = (*corners.min(axis=0), *np.ptp(corners, axis=0))
    return dict(id=number, image_id=image_id, category_id=CLASSES.index(item['category']) + 1,
                segmentation=[item['polygon']], area=round(area, 5),
                bbox=[round(float(value), 2) for value in bounds], iscrowd=0)


def coco_dict(split: str, files: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the COCO annotations of a split's manifest entries; all ids count from 1."""
    images, annotations = [], []
    for image_id, entry in enumerate(files, 1):
        images.append(dict(id=image_id, license=1, file_name=Path(entry['path']).name,
                           width=entry['size'][0], height=entry['size'][1]))
        for item in entry['objects']:
            annotations.append(annotation(len(annotations) + 1, image_id, item))
    categories = [dict(id=i, name=name, supercategory='shape') for i, name in enumerate(CLASSES, 1)]
    return dict(info=dict(description=f'mmfreq detection demo, {split}', version='1'),
                licenses=[dict(id=1, name='differ by photograph: see README.txt', url='')],
                images=images, annotations=annotations, categories=categories)


def write_detection(folder: Path, seed: int, train: int = 200,
                    val: int = 50) -> list[dict[str, Any]]:
    """Write ``<split>/<nnn>.jpg``, ``annotations/<split>.json`` and ``README.txt``.

    Returns:
        list[dict]: Of each image, ``path`` (POSIX, below ``folder``), the background's ``source``,
        ``box``, ``flip`` and ``size``, and ``objects``, in the order of their annotations: dicts
        with ``category``, ``polygon`` (x, y of every corner in turn, in hundredths of a pixel),
        ``place`` (box in the image that holds the object), ``source``, ``box``, ``flip`` and
        ``shift``. An object is that cut, resampled to the size of ``place``, plus ``shift`` grey
        levels, where the mask of its annotation is 1.
    """
    files = []
    for split, count in (('train', train), ('val', val)):
        sources = {name: load_image(name) for name in SOURCES[split]}
        entries = []
        for number in tqdm(range(count), desc=f'making {split} images', unit='image'):
            rng = random.Random(f'{seed}/detection/{split}/{number}')
            image, entry = draw_scene(SOURCES[split][number % len(sources)], sources, rng)
            entries.append(dict(path=f'{split}/{number:03d}.jpg', **entry))
            write_jpeg(folder / entries[-1]['path'], image)
        path = folder / 'annotations' / f'{split}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(coco_dict(split, entries)) + '\n')
        files += entries
    write_readme(folder, 'annotations/*.json has classes, boxes and polygons in the format of '
                 'COCO.\nTrain and val share no source image.', sum(SOURCES.values(), ()))
    return files
