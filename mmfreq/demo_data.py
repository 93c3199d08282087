"""Demo data cut from the photographs inside the scikit-image wheel: no download, a few seconds.

Classification: the class of a crop is the photograph it was cut from. Train and val crops come from
different cells of a checkerboard laid over each photograph (:data:`CELLS`), so they never share a
pixel while both see its top and bottom, left, middle and right.

Boxes are half open, (x0, y0, x1, y1) in source pixels; sizes are (width, height) in pixels.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

GENERATOR = 'mmfreq.demo_data'
VERSION = 1
"""Raise it with every change that alters a written byte: other versions are not reused."""

SPLITS = ('train', 'val')
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
JPEG_QUALITY = 92

_INSTALL = 'pip install scikit-image'
_STALE_SECONDS = 3600.0

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
"""Class name to photograph."""


def make_demo_data(
    out: str | Path,
    task: str = 'classification',
    train_per_class: int = 100,
    val_per_class: int = 30,
    seed: int = 0,
    force: bool = False,
) -> dict[str, Any]:
    """Write the demo data to the folder ``out``, or find it there already, and say which.

    The same arguments give the same bytes (with the same OpenCV). ``out`` appears complete or not
    at all: everything is written to a temporary folder beside it, renamed at the end.

    Args:
        out: Folder to make; its parents are made too.
        task: A key of :data:`TASKS`.
        train_per_class: Train crops per class, at least 1.
        val_per_class: Val crops per class, at least 1.
        seed: Any integer; another seed cuts other crops from the same cells.
        force: Make the folder anew if a run of this generator made it, with any arguments.

    Returns:
        What ``out/manifest.json`` holds: ``generator`` (str), ``version`` (int), ``arguments``
        (dict), ``photos`` (class name to ``file`` and ``size``) and ``files``, a list of dicts with
        ``path`` (str, POSIX, relative to ``out``), ``photo`` (class name), ``box``, ``flip`` (bool,
        left to right) and ``size`` (of the JPEG). Boxes and sizes are lists of int.

    Raises:
        ValueError: An unknown task, a count below 1 or a number that is not an integer.
        ImportError: scikit-image is not installed.
        FileNotFoundError: scikit-image lacks a photograph.
        FileExistsError: ``out`` exists and was not made by this generator (even with ``force``),
            or was made with other arguments, or is incomplete (without ``force``).
    """
    arguments = {
        'task': task,
        'train_per_class': train_per_class,
        'val_per_class': val_per_class,
        'seed': seed,
    }
    _check_arguments(arguments)
    out = Path(out).resolve()
    _remove_stale(out)
    if _is_reusable(out, arguments, force):
        print(f'{out} is complete already, made with the same arguments: nothing to do')
        return read_manifest(out)
    with _temporary_folder(out) as folder:
        manifest = {'generator': GENERATOR, 'version': VERSION, 'arguments': arguments}
        manifest |= TASKS[task](folder, arguments)
        text = json.dumps(manifest, indent=1) + '\n'
        (folder / 'manifest.json').write_text(text, encoding='utf-8')
        _put_in_place(folder, out)
    _report(out)
    return read_manifest(out)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder that this generator made; empty for anything else."""
    try:
        manifest = json.loads((Path(folder) / 'manifest.json').read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    is_ours = isinstance(manifest, dict) and manifest.get('generator') == GENERATOR
    return manifest if is_ours else {}


def load_photo(name: str) -> np.ndarray:
    """Read the photograph of a class: ``np.uint8`` (H, W, 3), BGR, grey ones with equal channels.

    Raises:
        ValueError: ``name`` is not a key of :data:`PHOTOS`.
        ImportError: scikit-image is not installed.
        FileNotFoundError: scikit-image lacks the photograph, or it cannot be decoded.
    """
    if name not in PHOTOS:
        raise ValueError(f'name must be one of {sorted(PHOTOS)}, got {name!r}')
    path = _photo_folder() / PHOTOS[name].file
    if not path.is_file():
        raise FileNotFoundError(f'scikit-image has no photograph {path}; {_INSTALL}')
    photo = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if photo is None:
        raise FileNotFoundError(f'cannot decode the photograph {path}; {_INSTALL}')
    return photo


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
    """Draw a box inside ``cell``, of random scale, aspect and place."""
    x0, y0, x1, y1 = cell
    side = rng.uniform(*CROP_SCALE) * math.sqrt((x1 - x0) * (y1 - y0))
    stretch = math.sqrt(MAX_ASPECT) ** rng.uniform(-1, 1)
    width = min(max(MIN_CROP, round(side * stretch)), x1 - x0)
    height = min(max(MIN_CROP, round(side / stretch)), y1 - y0)
    left = x0 + int(rng.random() * (x1 - x0 - width + 1))
    top = y0 + int(rng.random() * (y1 - y0 - height + 1))
    return left, top, left + width, top + height


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


def _write_classification(folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
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
        _write_jpeg(folder / entry['path'], crop)
    (folder / 'README.txt').write_text(_readme(), encoding='utf-8')
    sizes = {name: {'file': PHOTOS[name].file, 'size': _size(photos[name])} for name in PHOTOS}
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


def _write_jpeg(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    path.write_bytes(encoded.tobytes())


def _size(picture: np.ndarray) -> tuple[int, int]:
    return picture.shape[1], picture.shape[0]


def _readme() -> str:
    lines = [
        'Demo data for mmfreq, written by tools/make_demo_data.py; safe to delete and make again.',
        '',
        'Every JPEG is a crop of a photograph that ships with scikit-image (skimage/data); its',
        'class is the photograph. Train and val crops share no pixel; manifest.json names the',
        'photograph and the crop box of each file.',
        '',
        'Sources and terms, from the documentation of skimage.data, which has the links',
        '(https://scikit-image.org/docs/stable/api/skimage.data.html):',
        '',
    ]
    lines += [f'  {name:<11} {photo.file}: {photo.credit}' for name, photo in PHOTOS.items()]
    return '\n'.join(lines) + '\n'


TASKS: dict[str, Callable[[Path, dict[str, Any]], dict[str, Any]]] = {
    'classification': _write_classification,
}
"""Task name to the function that writes its files into a folder and returns its manifest keys."""


def _photo_folder() -> Path:
    """Folder ``skimage/data``, found without importing scikit-image."""
    spec = importlib.util.find_spec('skimage')
    if spec is None or spec.origin is None:
        raise ImportError(f'the demo data is cut from photographs of scikit-image: {_INSTALL}')
    return Path(spec.origin).parent / 'data'


def _check_arguments(arguments: dict[str, Any]) -> None:
    if arguments['task'] not in TASKS:
        raise ValueError(f'task must be one of {sorted(TASKS)}, got {arguments["task"]!r}')
    for key in ('train_per_class', 'val_per_class', 'seed'):
        value = arguments[key]
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f'{key} must be an integer, got {value!r}')
        if value < 1 and key != 'seed':
            raise ValueError(f'{key} must be at least 1, got {value}')


def _is_reusable(out: Path, arguments: dict[str, Any], force: bool) -> bool:
    """True: ``out`` is what these arguments give. False: it is to be written.

    Raises:
        FileExistsError: ``out`` is in the way and must not be replaced.
    """
    if not out.exists():
        return False
    manifest = read_manifest(out)
    if not manifest:
        raise FileExistsError(
            f'{out} exists and was not made by this tool (no manifest.json of {GENERATOR}); '
            'it is never replaced: choose another folder or move it away'
        )
    if force:
        return False
    made_with = {'version': manifest.get('version'), **manifest.get('arguments', {})}
    if made_with != {'version': VERSION, **arguments}:
        raise FileExistsError(
            f'{out} was made with {made_with}, asked for {arguments} of version {VERSION}; '
            'choose another folder, or replace it with --force'
        )
    missing = [e['path'] for e in manifest['files'] if not (out / e['path']).is_file()]
    if missing:
        raise FileExistsError(
            f'{out} lacks {len(missing)} of its files, such as {missing[0]}; '
            'make it anew with --force'
        )
    return True


def _temporary_prefix(out: Path) -> str:
    return f'.{out.name}.tmp-'


@contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    """A new empty folder beside ``out``, gone afterwards unless it was renamed."""
    folder = out.with_name(f'{_temporary_prefix(out)}{os.getpid()}')
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(folder: Path, out: Path) -> None:
    """Rename ``folder`` to ``out``, replacing an older ``out`` of this generator."""
    if not read_manifest(out):
        folder.rename(out)  # fails if something came in the way meanwhile
        return
    old = folder.with_name(f'{folder.name}-old')
    out.rename(old)
    folder.rename(out)
    shutil.rmtree(old)


def _remove_stale(out: Path) -> None:
    """Remove temporary folders that killed runs for the same ``out`` left beside it."""
    if not out.parent.is_dir():
        return
    pattern = re.compile(re.escape(_temporary_prefix(out)) + r'(\d+)(-old)?')
    for path in out.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match and _is_stale(path, int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_stale(path: Path, pid: int) -> bool:
    """Whether the run ``pid`` that made ``path`` ended: no such process, or made long ago."""
    is_old = time.time() - path.stat().st_mtime > _STALE_SECONDS
    return is_old or pid == os.getpid() or not _is_running(pid)


def _is_running(pid: int) -> bool:
    if os.name == 'nt':
        return True  # signal 0 is not harmless there: leave it to the folder's age
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _report(out: Path) -> None:
    manifest = read_manifest(out)
    counts = manifest['arguments']
    size = sum((out / entry['path']).stat().st_size for entry in manifest['files'])
    print(
        f'wrote {len(manifest["files"])} crops of {len(manifest["photos"])} photographs '
        f'({counts["train_per_class"]} train and {counts["val_per_class"]} val each), '
        f'{size / 1e6:.1f} MB, to {out}'
    )
