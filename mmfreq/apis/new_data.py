"""Read a user's data: class folders, a list of files and labels, or COCO annotations."""
import csv
import hashlib
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Optional

import cv2
import mmcv
import numpy as np
from tqdm import tqdm

from mmfreq.apis.predict import SUFFIXES
from mmfreq.engine.checkpoints import some_of
from mmfreq.errors import RefusedError

SPLITS = ('train', 'val', 'test')
_FORMS = ('expected ROOT/<class>/<images>, ROOT/{train,val}/<class>/<images>, COCO as FILE.json or '
          'ROOT/annotations/{train,val}.json, or a list FILE.csv')
_OTHER_FORMATS = {'Annotations/*.xml': 'Pascal VOC', '*/Annotations/*.xml': 'Pascal VOC',
                  'labels/*.txt': 'YOLO', 'labels/*/*.txt': 'YOLO', '*/labels/*.txt': 'YOLO'}


@dataclass
class Item:
    """An image."""
    path: str  # below the root of the data, or absolute
    label: Any  # its class; for COCO the id of one of its categories, or None
    split: str = 'train'
    entry: dict[str, Any] = field(default_factory=dict)  # of the COCO file
    digest: bytes = b''  # of the file, once it is read


@dataclass
class Data:
    """Images with labels or annotations."""
    root: Path
    items: list[Item] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)  # COCO files, by split
    coco: dict[str, dict[str, Any]] = field(default_factory=dict)  # their content
    prefixes: dict[str, str] = field(default_factory=dict)  # folders of their images
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # remarks for the user

    def of(self, split: str) -> list[Item]:
        """Return the images of a split."""
        return [item for item in self.items if item.split == split]

    def text(self, split: str) -> str:
        """Return a list for mmpretrain's CustomDataset or a COCO file; '' if the user's will do."""
        items, coco = self.of(split), self.coco.get(split) or self.coco.get('train')
        if not coco:
            numbers = {name: i for i, name in enumerate(self.classes)}
            return ''.join(f'{item.path} {numbers[item.label]}\n' for item in items)
        ids = {item.entry['id'] for item in items}
        parts = dict(images=[item.entry for item in items], annotations=[
            entry for entry in coco['annotations'] if entry['image_id'] in ids])
        return json.dumps({**coco, **parts}) if 0 < len(items) < len(coco['images']) else ''


def find_data(path: str, folders: Mapping[str, str]) -> Data:
    """Read labels or annotations of one of the forms in ``_FORMS``, without opening an image.

    A list's first line is ``file,label`` or ``file,label,split``; files are relative to its folder.
    ``folders`` holds those of a COCO split's images, by split.
    """
    source = Path(os.path.abspath(path))
    files = [('train', source)] if source.suffix == '.json' else [
        (split, file) for split in SPLITS for name in (split, f'instances_{split}*')
        for file in source.glob(f'annotations/{name}.json')]
    splits = dict(files)
    if len(splits) < len(files) or files and source.is_dir() and not {'train', 'val'} <= {*splits}:
        raise RefusedError(f'{source}/annotations: expected train.json and val.json, or one file '
                           f'instances_train*.json and one instances_val*.json, got '
                           f'{some_of([file.name for _, file in files])}')
    if not {*folders} <= {*splits}:
        raise RefusedError(f'--images: expected SPLIT=DIR for COCO data, got {some_of([*folders])}')
    if files:
        return _read_coco(source, splits, folders)
    return _read_list(source) if source.suffix == '.csv' else _read_class_folders(source)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob('[!.]*') if path.is_dir())


def _below(path: str, root: Path) -> str:
    """Return a path without ``.`` and ``..``, relative to ``root`` if it is below it."""
    full = Path(os.path.normpath(root / path))
    return full.relative_to(root).as_posix() if root in full.parents else str(full)


def _read_class_folders(root: Path) -> Data:
    for pattern, name in _OTHER_FORMATS.items():
        if any(root.glob(pattern)):
            raise RefusedError(f'{root}: {name} annotations; expected COCO, to which '
                               'supervision.DetectionDataset converts (pip install supervision)')
    data, parts = Data(root), _folders(root)
    names = {folder.name for folder in parts}
    is_split = bool(names & {*SPLITS})
    if not names or is_split and not {'train', 'val'} <= names <= {*SPLITS}:
        raise RefusedError(f'{root}: {_FORMS}; got the folders {some_of(sorted(names)) or "none"}')
    for folder in [inner for part in parts for inner in _folders(part)] if is_split else parts:
        images = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES]
        if not images or _folders(folder):
            raise RefusedError(f'{folder}: expected images ({" ".join(SUFFIXES)}) of one class, no '
                               f'folders; {_FORMS}')
        split = folder.parent.name if is_split else 'train'
        data.items += [Item(_below(file, root), folder.name, split) for file in images]
    return data


def _read_list(file: Path) -> Data:
    data, lines = Data(file.parent), {}
    rows = csv.reader(file.read_text(encoding='utf-8-sig').splitlines())
    header = next(rows, [])
    if header not in (['file', 'label'], ['file', 'label', 'split']):
        raise RefusedError(f'{file}: expected the header file,label or file,label,split, got '
                           f'{",".join(header)}')
    for row in filter(None, rows):
        where, cells = f'{file}: line {rows.line_num}', [cell.strip() for cell in row]
        if len(cells) != len(header) or not all(cells) or not {*cells[2:]} <= {*SPLITS}:
            raise RefusedError(f'{where}: expected {",".join(header)} (splits are '
                               f'{", ".join(SPLITS)}), got {",".join(row)}')
        data.items.append(Item(_below(cells[0], file.parent), *cells[1:]))
        first = lines.setdefault(data.items[-1].path, rows.line_num)
        if first < rows.line_num:
            raise RefusedError(f'{where}: {cells[0]} is in line {first}, too')
    return data


def _read_coco(source: Path, files: dict[str, Path], folders: Mapping[str, str]) -> Data:
    root = source.parent if source.suffix == '.json' else source
    data = Data(root.parent if root.name == 'annotations' else root, files=files)
    for split, file in files.items():
        coco = data.coco[split] = json.loads(file.read_text(encoding='utf-8'))
        folder = Path(os.path.abspath(folders[split])) if split in folders else _image_folder(
            data.root, file, split, coco['images'][0]['file_name'])
        data.prefixes[split] = '' if folder == data.root else _below(folder, data.root)
        labels = {entry['image_id']: entry['category_id'] for entry in coco['annotations']}
        unknown = labels.keys() - {image['id'] for image in coco['images']}
        if unknown:
            raise RefusedError(f'{file}: {len(unknown)} of {len(labels)} values of image_id are of no image')
        data.items += [Item(_below(folder / image['file_name'], data.root), labels.get(image['id']),
                            split, image) for image in coco['images']]
    data.classes = [entry['name'] for entry in data.coco['train']['categories']]
    return data


def _image_folder(root: Path, file: Path, split: str, image: str) -> Path:
    """Return the one folder with the image: the root, or a folder named after the split or its file."""
    names = {split, file.stem.removeprefix('instances_')}
    folders = [root, *(root / parent / name for name in sorted(names) for parent in ('', 'images'))]
    fitting = [folder for folder in folders if (folder / image).is_file()]
    if len(fitting) != 1:
        raise RefusedError(f'{file}: expected one folder with {image}, got '
                           f'{some_of(fitting) or "none"}; --images {split}=DIR names it')
    return fitting[0]


def complete(data: Data, check: bool) -> None:
    """Draw images for validation if the data have no split, and set the classes and the notes.

    With ``check``, read the images; unreadable ones are left out.
    """
    if check:
        _read_images(data)
    if len(data.of('train')) == len(data.items):
        _draw_val(data)
    owners: dict[Any, str] = {}
    shared = [item.path for item in data.items if item.split != owners.setdefault(
        item.digest or os.path.realpath(data.root / item.path), item.split)]
    if shared:
        raise RefusedError(f'{data.root}: {len(shared)} images are in two splits: {some_of(shared)}')
    data.classes = data.classes or sorted({item.label for item in data.of('train')})
    sizes = ', '.join(f'{len(data.of(split)):,} {split}' for split in SPLITS)
    data.notes[:0] = [f'{data.root}: {sizes} images',
                      f'classes ({len(data.classes)}): {some_of(data.classes, 10)}']
    labels = {split: {item.label for item in data.of(split)} for split in SPLITS}
    others = [] if data.coco else sorted((labels['val'] | labels['test']) - labels['train'])
    few = len(labels['train']) < (1 if data.coco else 2)
    if few or not labels['val'] or others:
        raise RefusedError('expected images for train and val, of the same two or more classes'
                           f'{others and f" ({some_of(others)} are not in train)" or ""}; '
                           f'{"; ".join(data.notes)}')


def _read_images(data: Data) -> None:
    """Leave out unreadable images; refuse other sizes than those that a COCO file states."""
    def read(item: Item) -> Optional[tuple[int, int]]:
        """Return (width, height) as the hosts decode the file, None if they cannot; note its digest."""
        try:
            content = (data.root / item.path).read_bytes()
            item.digest = hashlib.sha256(content).digest()
            return mmcv.imfrombytes(content).shape[1::-1]
        except (OSError, AttributeError, cv2.error):  # AttributeError: None instead of an image
            return None

    with ThreadPoolExecutor() as pool:
        sizes = list(tqdm(pool.map(read, data.items), 'reading', len(data.items), unit='image',
                          disable=None))
    wrong = [item.path for item, size in zip(data.items, sizes) if item.entry and size not in (
        None, (item.entry.get('width'), item.entry.get('height')))]
    if wrong:
        raise RefusedError(f'{data.root}: {len(wrong)} images do not have the size that the annotation '
                           f'file states, after a turn that EXIF may ask for: {some_of(wrong)}')
    bad = [item.path for item, size in zip(data.items, sizes) if not size]
    data.items = [item for item, size in zip(data.items, sizes) if size]
    data.notes += [f'{len(bad)} unreadable images, left out: {some_of(bad, 20)}'] if bad else []


def _draw_val(data: Data) -> None:
    """Move a fifth of each class from train to val; images with equal bytes stay in train."""
    copies, counts = Counter(item.digest or item.path for item in data.items), Counter()
    for i in np.random.default_rng(0).permutation(len(data.items)):
        item = data.items[i]
        if copies[item.digest or item.path] == 1:
            counts[item.label] += 1
            item.split = 'val' if counts[item.label] % 5 == 2 else 'train'
    data.notes.append('the data have no split: a fifth of each class, drawn at random, is for val')
