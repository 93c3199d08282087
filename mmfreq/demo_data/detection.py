"""Detection: a COCO instance segmentation set of textured boxes, discs and stars on photographs.

Each object is a shape cut from one photograph and pasted on a crop of another, brightened or darkened. Its pixels are
those of its polygon's COCO mask, its edges hard, and objects keep clear of each other: the annotations are exact. Train
and val use different photographs (:data:`PHOTOS_OF`), for the background and for the objects.

Points are pixel coordinates (x, y) with the origin in the outer corner of the first pixel, as in COCO.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from mmfreq.demo_data.photos import PHOTOS, SPLITS, Box, credit_lines, cut, load_photo, size_of, write_jpeg

VERSION = 1
"""Raise it with every change that alters a written byte: other versions are not reused."""
COUNTS = {'train_images': 200, 'val_images': 50}

PHOTOS_OF = {
    'train': ('astronaut', 'brick', 'coffee', 'coins', 'grass', 'hubble', 'motorcycle', 'retina'),
    'val': ('camera', 'chelsea', 'gravel', 'rocket'),
}
"""The photographs of each split: in train five have colour and three are grey, in val two and two."""

SIZES = ((320, 240), (352, 264), (384, 288), (400, 300), (333, 250), (375, 281))
"""Sizes of the pictures, or of their transposes. Three fit a grid of 8 pixels, one of them a grid of 32."""
MAX_OBJECTS = 5
OBJECT_SIDE = (24, 140)
"""Range of the longer side of an object's bounding box; its logarithm is uniform."""
GAP = 3
"""Least distance in pixels between two objects, and between an object and the border of the picture."""
ZOOM = (1.0, 3.0)
"""Range of source pixels per pixel of an object, before clipping to the photograph."""
CROP_SIDE = 0.7
"""Least side of a background relative to the largest crop of its shape; smaller ones are drawn if not enlarged."""
MAX_SHIFT = 60
"""Largest brightening or darkening of an object, in grey levels."""
MIN_CONTRAST = 20.0
"""Nine tenths of an object's outline differ from the background by as much: see :func:`outline_contrast`."""

_TRIES = 200
_Choice = TypeVar('_Choice')


class Item(NamedTuple):
    """An object of a picture."""

    category: str
    polygon: list[float]
    """x, y of every corner in turn, in hundredths of a pixel."""
    place: Box
    """Where the cut from ``photo`` lies in the picture; the object's pixels lie inside."""
    photo: str
    box: Box
    flip: bool
    shift: int
    """Grey levels added to the cut."""


Scene = tuple[dict[str, Any], list[Item]]
"""Manifest entry of a picture, without its objects, and its objects."""


def box_corners(rng: random.Random) -> np.ndarray:
    """A rectangle up to twice as long as wide: float64 (4, 2), around the origin, of any size."""
    half = rng.uniform(0.5, 1)
    return np.array([(-1, -half), (1, -half), (1, half), (-1, half)])


def disc_corners(rng: random.Random) -> np.ndarray:
    """A circle or ellipse of 36 corners, with axes up to 1.4 to 1: float64 (36, 2), like :func:`box_corners`."""
    return _round(36) * (1, rng.uniform(1 / 1.4, 1))


def star_corners(rng: random.Random) -> np.ndarray:
    """A star of five points, slim or plump: float64 (10, 2), like :func:`box_corners`."""
    corners = _round(10)
    corners[1::2] *= rng.uniform(0.36, 0.5)
    return corners


def _round(count: int) -> np.ndarray:
    angles = [2 * math.pi * index / count for index in range(count)]
    return np.array([(math.cos(angle), math.sin(angle)) for angle in angles])


SHAPES: dict[str, Callable[[random.Random], np.ndarray]] = {
    'box': box_corners,
    'disc': disc_corners,
    'star': star_corners,
}
"""Category name to the function that draws its corners; category ids count from 1 in this order."""


def polygon_area(polygon: list[float]) -> float:
    """Area by the shoelace formula, in pixels; exact for hundredths of a pixel."""
    x, y = np.reshape(polygon, (-1, 2)).T
    return round(abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2, 5)


def polygon_bounds(polygon: list[float]) -> list[float]:
    """Smallest x and y, width and height, as in COCO's ``bbox``."""
    corners = np.reshape(polygon, (-1, 2))
    return [round(float(v), 2) for v in (*corners.min(axis=0), *np.ptp(corners, axis=0))]


def polygon_mask(polygon: list[float], size: tuple[int, int]) -> np.ndarray:
    """The mask that COCO's ``annToMask`` gives: ``np.uint8`` (H, W) of 0 and 1."""
    width, height = size
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([polygon], height, width)))


def outline_contrast(picture: np.ndarray, mask: np.ndarray) -> float:
    """The contrast that an object has along at least nine tenths of its outline, in grey levels.

    At each of its outermost pixels the mean colour of the object nearby is compared to that of what surrounds it
    nearby, up to :data:`GAP` pixels away; their contrast is the mean absolute difference of the three channels.

    Args:
        picture: ``np.uint8`` (H, W, 3) with the object.
        mask: ``np.uint8`` (H, W), 1 for the object's pixels, 0 elsewhere.
    """
    difference = np.abs(_local_mean(picture, mask) - _local_mean(picture, 1 - mask)).mean(axis=2)
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return float(np.percentile(difference[mask > inner], 10))


def _local_mean(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean colour of the masked pixels in the square around each pixel, float32 (H, W, 3); 0 where there are none."""
    window = {'ksize': (2 * GAP + 1, 2 * GAP + 1), 'normalize': False, 'borderType': cv2.BORDER_CONSTANT}
    weight = mask.astype(np.float32)[..., None]
    total = cv2.boxFilter(picture * weight, -1, **window)
    return total / np.maximum(cv2.boxFilter(weight, -1, **window), 1)[..., None]


def draw_polygon(category: str, size: tuple[int, int], rng: random.Random) -> list[float]:
    """Draw the outline of an object: of random form, direction and size, somewhere in a picture of ``size``."""
    corners = SHAPES[category](rng)
    angle = rng.uniform(0, 2 * math.pi)
    turn = np.array([(math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))])
    corners = corners @ turn
    side = math.exp(rng.uniform(*map(math.log, OBJECT_SIDE)))
    corners = (corners - corners.min(axis=0)) * (side / np.ptp(corners, axis=0).max())
    room = np.array(size) - 2 * GAP - corners.max(axis=0)
    corners = corners + GAP + room * (rng.random(), rng.random())
    return [round(float(value), 2) for value in corners.ravel()]


def draw_crop(photo: np.ndarray, size: tuple[int, int], zoom: float, rng: random.Random) -> Box:
    """Draw a box ``zoom`` times as large as ``size``, as far as the photograph allows, somewhere in it."""
    zoom = min(zoom, _largest_zoom(photo, size))
    photo_width, photo_height = size_of(photo)
    width, height = min(round(size[0] * zoom), photo_width), min(round(size[1] * zoom), photo_height)
    left = int(rng.random() * (photo_width - width + 1))
    top = int(rng.random() * (photo_height - height + 1))
    return left, top, left + width, top + height


def _largest_zoom(photo: np.ndarray, size: tuple[int, int]) -> float:
    return min(whole / part for whole, part in zip(size_of(photo), size))


def _pick(choices: Sequence[_Choice], rng: random.Random) -> _Choice:
    return choices[int(rng.random() * len(choices))]


def draw_scene(
    name: str, photos: dict[str, np.ndarray], rng: random.Random
) -> tuple[np.ndarray, dict[str, Any], list[Item]]:
    """Draw a picture with photograph ``name`` as the background, and the others as objects.

    Returns:
        Its pixels, ``np.uint8`` (H, W, 3) in BGR; its manifest entry, but for ``path`` and ``objects``; its 1 to
        :data:`MAX_OBJECTS` objects.
    """
    size = _pick(SIZES, rng)
    size = _pick((size, size[::-1]), rng)
    largest = _largest_zoom(photos[name], size)
    box = draw_crop(photos[name], size, rng.uniform(min(1.0, CROP_SIDE * largest), largest), rng)
    entry = {'photo': name, 'box': box, 'flip': rng.random() < 0.5, 'size': size}
    picture = cut(photos[name], box, entry['flip'], size)
    others = {other: photo for other, photo in photos.items() if other != name}
    return picture, entry, _add_objects(picture, others, 1 + int(rng.random() * MAX_OBJECTS), rng)


def _add_objects(picture: np.ndarray, photos: dict[str, np.ndarray], count: int, rng: random.Random) -> list[Item]:
    """Paste ``count`` objects into ``picture``, or fewer, but not none, where there is no place for more."""
    items: list[Item] = []
    taken = np.zeros(picture.shape[:2], np.uint8)
    category, tries = _pick(list(SHAPES), rng), 0
    while len(items) < count and (tries < _TRIES or not items):
        item = _draw_item(category, size_of(picture), photos, rng)
        tries += 1
        if _paste(picture, taken, photos, item):
            items.append(item)
            category, tries = _pick(list(SHAPES), rng), 0
    return items


def _draw_item(category: str, size: tuple[int, int], photos: dict[str, np.ndarray], rng: random.Random) -> Item:
    polygon = draw_polygon(category, size, rng)
    place = _pixels_around(polygon)
    photo = _pick(list(photos), rng)
    box = draw_crop(photos[photo], (place[2] - place[0], place[3] - place[1]), rng.uniform(*ZOOM), rng)
    return Item(category, polygon, place, photo, box, rng.random() < 0.5, round(rng.uniform(-MAX_SHIFT, MAX_SHIFT)))


def _pixels_around(polygon: list[float]) -> Box:
    xs, ys = polygon[::2], polygon[1::2]
    return math.floor(min(xs)), math.floor(min(ys)), math.ceil(max(xs)), math.ceil(max(ys))


def _paste(picture: np.ndarray, taken: np.ndarray, photos: dict[str, np.ndarray], item: Item) -> bool:
    """Paste the object and mark its pixels in ``taken``, unless it is too near to another or hard to see."""
    x0, y0, x1, y1 = item.place
    around = (slice(y0 - GAP, y1 + GAP), slice(x0 - GAP, x1 + GAP))
    mask = polygon_mask(item.polygon, size_of(picture))[around]
    if (cv2.dilate(mask, np.ones((2 * GAP + 1, 2 * GAP + 1), np.uint8)) & taken[around]).any():
        return False
    texture = cut(photos[item.photo], item.box, item.flip, (x1 - x0, y1 - y0)).astype(np.int16) + item.shift
    texture = np.pad(texture.clip(0, 255).astype(np.uint8), ((GAP, GAP), (GAP, GAP), (0, 0)))
    pasted = np.where(mask[..., None], texture, picture[around])
    if outline_contrast(pasted, mask) < MIN_CONTRAST:
        return False
    picture[around] = pasted
    taken[around] |= mask
    return True


def write_detection(folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write ``<split>/<nnn>.jpg``, ``annotations/<split>.json`` and ``README.txt``.

    Returns:
        ``photos``, ``annotations`` and ``files`` of the manifest. Each file has ``objects``, in the order of its
        annotations: dicts with ``place`` (box in the picture), ``photo``, ``box``, ``flip`` and ``shift`` (int, grey
        levels). An object is that cut of that photograph, resampled to the size of ``place``, with ``shift`` added and
        clipped to 0..255; its annotation's mask says which pixels of ``place`` show it.
    """
    photos = {split: {name: load_photo(name) for name in PHOTOS_OF[split]} for split in SPLITS}
    plan = [(split, number) for split in SPLITS for number in range(arguments[f'{split}_images'])]
    scenes: dict[str, list[Scene]] = {split: [] for split in SPLITS}
    for split, number in tqdm(plan, desc='making pictures', unit='picture'):
        # Seeded by a string, as in classification: the picture depends on nothing else.
        rng = random.Random(f'{arguments["seed"]}/detection/{split}/{number}')
        background = PHOTOS_OF[split][number % len(PHOTOS_OF[split])]
        picture, entry, items = draw_scene(background, photos[split], rng)
        entry = {'path': f'{split}/{number:03d}.jpg', **entry}
        write_jpeg(folder / entry['path'], picture)
        scenes[split].append((entry, items))
    for split in SPLITS:
        _write_json(folder / _annotation_path(split), coco_dict(split, scenes[split]))
    (folder / 'README.txt').write_text(_readme(), encoding='utf-8')
    return {
        'photos': _photo_entries(photos),
        'annotations': [_annotation_path(split) for split in SPLITS],
        'files': _file_entries(scenes),
    }


def _photo_entries(photos: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
    return {
        name: {'file': PHOTOS[name].file, 'size': size_of(photo), 'split': split}
        for split in SPLITS
        for name, photo in photos[split].items()
    }


def _file_entries(scenes: dict[str, list[Scene]]) -> list[dict[str, Any]]:
    return [
        {**entry, 'objects': [_object_entry(item) for item in items]}
        for split in SPLITS
        for entry, items in scenes[split]
    ]


def coco_dict(split: str, scenes: list[Scene]) -> dict[str, Any]:
    """The COCO annotations of a split; ids of images, annotations and categories count from 1."""
    images, annotations = [], []
    for image_id, (entry, items) in enumerate(scenes, 1):
        width, height = entry['size']
        name = entry['path'].split('/')[-1]
        images.append({'id': image_id, 'license': 1, 'file_name': name, 'width': width, 'height': height})
        annotations += [_annotation(len(annotations) + index, image_id, item) for index, item in enumerate(items, 1)]
    return {
        'info': {'description': f'mmfreq detection demo, {split}', 'version': str(VERSION)},
        'licenses': [{'id': 1, 'name': 'differ by photograph: see README.txt', 'url': ''}],
        'images': images,
        'annotations': annotations,
        'categories': [{'id': index, 'name': name, 'supercategory': 'shape'} for index, name in enumerate(SHAPES, 1)],
    }


def _annotation(annotation_id: int, image_id: int, item: Item) -> dict[str, Any]:
    return {
        'id': annotation_id,
        'image_id': image_id,
        'category_id': list(SHAPES).index(item.category) + 1,
        'segmentation': [item.polygon],
        'area': polygon_area(item.polygon),
        'bbox': polygon_bounds(item.polygon),
        'iscrowd': 0,
    }


def _object_entry(item: Item) -> dict[str, Any]:
    return {'place': item.place, 'photo': item.photo, 'box': item.box, 'flip': item.flip, 'shift': item.shift}


def _annotation_path(split: str) -> str:
    return f'annotations/{split}.json'


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + '\n', encoding='utf-8')


def describe_detection(manifest: dict[str, Any]) -> str:
    """What was written, in some words."""
    counts = manifest['arguments']
    objects = sum(len(entry['objects']) for entry in manifest['files'])
    return (
        f'{len(manifest["files"])} pictures ({counts["train_images"]} train and {counts["val_images"]} val) '
        f'with {objects} objects of {len(SHAPES)} classes'
    )


def _readme() -> str:
    lines = [
        'Demo data for mmfreq, written by tools/make_demo_data.py; safe to delete and make again.',
        '',
        'Every JPEG is a crop of a photograph that ships with scikit-image (skimage/data), with',
        f'objects ({", ".join(SHAPES)}) cut from other such photographs. annotations/*.json has their',
        'classes, boxes and polygons in the format of COCO; manifest.json says what each picture and',
        'object was cut from. Train and val share no photograph.',
        '',
    ]
    for split in SPLITS:
        lines.append(f'{split}: {", ".join(PHOTOS_OF[split])}')
    lines += ['', *credit_lines(name for split in SPLITS for name in PHOTOS_OF[split])]
    return '\n'.join(lines) + '\n'
