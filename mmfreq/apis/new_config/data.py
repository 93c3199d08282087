"""Find out what a user's data are: folders of classes, lists of files and labels, COCO sets."""
import csv
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Optional

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from mmfreq.apis.checks import IMAGE_ENDINGS, some_of
from mmfreq.apis.predict import SUFFIXES
from mmfreq.dct.channels import read_json
from mmfreq.files import atomic_write_text, files_below, full_path, read_lines

_FOLDERS = dict(train='train', training='train', val='val', valid='val', validation='val',
                test='test', testing='test')
_COLUMNS = {
    'file': ('file', 'filename', 'file_name', 'path', 'filepath', 'image', 'image_path', 'img'),
    'label': ('label', 'class', 'class_name', 'category', 'target'),
    'split': ('split', 'set', 'subset'),
}
_VAL_PART = 0.2  # of the images, where the data have no split
_SEED = 0


@dataclass
class Split:
    """The images of training, validation or test."""
    images: list[str]  # paths below the root
    labels: list[Any]  # the class of each; of a COCO image, its rarest one
    prefix: str = ''  # folder below the root: that of the class folders, or of COCO's images
    annotations: Optional[Path] = None  # COCO file
    coco: dict[str, Any] = field(default_factory=dict)  # what it holds
    listed: bool = False  # whether a list must say which images these are

    def only(self, indices: Iterable[int]) -> 'Split':
        """Return a part, which a list must name."""
        indices = sorted(indices)
        return Split([self.images[i] for i in indices], [self.labels[i] for i in indices],
                     self.prefix, self.annotations, self.coco, listed=True)


@dataclass
class Data:
    """Data of one task, below one folder."""
    root: Path
    splits: dict[str, Split]
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what a user has to know

    @property
    def is_coco(self) -> bool:
        """Whether the data are for detection."""
        return self.splits['train'].annotations is not None


def find_data(path: str, check: bool = True) -> Data:
    """Read a user's data, split them if they are not, and leave out what cannot be read.

    Args:
        path (str): A folder with a folder for each class, or with such folders in ``train/`` and
            ``val/``; a list of files and labels (CSV or text), or a folder with ``train.csv`` and
            ``val.csv``; a COCO file, or a folder that has some.
        check (bool): Whether to read every image. Defaults to True.

    Raises:
        ValueError: The data cannot be trained on; the message names the file or the class.
    """
    source = full_path(path)
    if not source.exists():
        raise ValueError(f'{path}: no such file or folder')
    files = _annotation_files(source)
    if not files:
        data = _class_folders(source)
    elif next(iter(files.values())).suffix == '.json':
        data = _coco_sets(source, files)
    else:
        data = _lists(files)
    if 'train' not in data.splits:
        raise ValueError(f'{path}: expected a split "train", found {", ".join(data.splits)}')
    if 'val' not in data.splits and 'test' in data.splits:
        data.splits['val'] = data.splits.pop('test')
        data.notes.append('there is no val: test serves for it')
    _check_two_classes(path, data)
    if check:
        _leave_out_unreadable(data)
        _check_two_classes(path, data)
    if 'val' not in data.splits:
        _split(data)
    _check_classes(data)
    return data


# Formats


def _annotation_files(source: Path) -> dict[str, Path]:
    """Return COCO files or lists by split; none where folders name the classes."""
    if source.is_file():
        found = [source]
        if _split_of(source.name) == 'train':
            found += sorted(source.parent.glob(f'*{source.suffix}'))
    else:
        found = [*sorted(source.glob('*.json')), *sorted(source.glob('*/*.json'))]
        found = [file for file in found if {'images', 'categories'} <= set(_head(file))]
        found = found or [file for ending in ('csv', 'txt') for file in source.glob(f'*.{ending}')
                          if _split_of(file.name)]
    if len(found) == 1:
        return {'train': found[0]}
    instances = [file for file in found if file.name.startswith('instances')]
    files: dict[str, Path] = {}
    for file in instances or found:
        split = _split_of(file.name) or _split_of(file.parent.name)
        if files.setdefault(split, file) != file and split:
            raise ValueError(f'{source}: both {files[split].name} and {file.name} may be the '
                             f'annotations of {split}; give the file')
    files.pop('', None)
    if found and not files:
        raise ValueError(f'{source}: {", ".join(file.name for file in found[:4])}: none has train '
                         'or val in its name; give the file')
    return files


def _split_of(name: str) -> str:
    found = re.search(r'(?<![a-z])(train|val|test)', name.lower())
    return found.group(1) if found else ''


def _head(file: Path) -> dict[str, Any]:
    try:
        return read_json(file, 'annotations')
    except ValueError:
        return {}


def _class_folders(source: Path) -> Data:
    parts = {}
    for folder in _folders(source):
        split = _FOLDERS.get(folder.name.lower())
        if split in parts:
            raise ValueError(f'{source}: both {parts[split].name} and {folder.name} may be {split}')
        if split:
            parts[split] = folder
    splits = {}
    for split, folder in (parts if 'train' in parts else {'train': source}).items():
        splits[split] = _class_split(source, folder)
    return Data(source, splits)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir()
                  if path.is_dir() and not path.name.startswith(('.', '__')))


def _below(folder: Path, root: Path) -> str:
    return '' if folder == root else folder.relative_to(root).as_posix()


def _class_split(root: Path, folder: Path) -> Split:
    split = Split([], [], _below(folder, root))
    if not _folders(folder):
        count = sum(path.suffix.lower() in SUFFIXES for path in folder.iterdir())
        raise ValueError(f'{folder}: expected a folder of images for each class, found '
                         f'{f"{count} images and " if count else ""}no folders, nor a .json file of COCO annotations')
    empty = []
    for part in _folders(folder):
        found = [file for file in files_below(part) if file.suffix.lower() in SUFFIXES]
        split.images += [file.relative_to(root).as_posix() for file in found]
        split.labels += [part.name] * len(found)
        split.listed |= any(file.suffix.lower() not in IMAGE_ENDINGS for file in found)
        empty += [] if found else [part.name]
    if not split.images:
        raise ValueError(f'{folder}: no images ({" ".join(SUFFIXES)}) in {len(empty)} folders')
    if empty:
        raise ValueError(f'{folder}: folders without images: {some_of(empty)}; remove them, or fill '
                         'them')
    split.listed |= any(path.name.startswith(('.', '__')) for path in folder.iterdir()
                        if path.is_dir())
    return split


def _lists(files: dict[str, Path]) -> Data:
    root, splits = next(iter(files.values())).parent, {}
    for name, file in files.items():
        lines: dict[str, int] = {}
        for line, image, label, part in _rows(file):
            if image in lines:
                raise ValueError(f'{file}: {image} is there twice, in lines {lines[image]} and '
                                 f'{line}')
            lines[image] = line
            if part and part.lower() not in _FOLDERS:
                raise ValueError(f'{file}: line {line}: expected a split of {", ".join(_FOLDERS)}, '
                                 f'got {part!r}')
            split = splits.setdefault(_FOLDERS.get(part.lower(), name), Split([], [], listed=True))
            split.images.append(image)
            split.labels.append(label)
    return Data(root, splits)


def _rows(file: Path) -> Iterable[tuple[int, str, str, str]]:
    """Yield line number, image, label and split of a list's lines."""
    lines = read_lines(file, 'utf-8-sig')
    mark = next((mark for mark in ',;\t' if lines and mark in lines[0]), None)
    rows = list(csv.reader(lines, delimiter=mark)) if mark else [
        line.strip().rsplit(maxsplit=1) for line in lines]
    columns, first = {'file': 0, 'label': 1}, 0
    names = [cell.strip().lower() for cell in rows[0]] if rows else []
    if any(name in known for known in _COLUMNS.values() for name in names):
        first = 1
        for column, known in _COLUMNS.items():
            columns.update((column, i) for i, name in enumerate(names) if name in known)
    for number, row in enumerate(rows[first:], first + 1):
        complete = len(row) > max(columns.values()) and row[columns['file']].strip()
        if row and not (complete and row[columns['label']].strip()):
            raise ValueError(f'{file}: line {number}: expected a file and a label, got '
                             f'{lines[number - 1]!r}')
        if row:
            part = row[columns['split']].strip() if 'split' in columns else ''
            yield number, row[columns['file']].strip(), row[columns['label']].strip(), part
    if len(rows) <= first:
        raise ValueError(f'{file}: expected lines with a file and a label, found none')


def _coco_sets(source: Path, files: dict[str, Path]) -> Data:
    root = source if source.is_dir() else source.parent
    content = {split: _coco(file) for split, file in files.items()}
    folders = {split: _image_folder(root, file, content[split]['images'][0]['file_name'], split)
               for split, file in files.items()}
    if any(root not in (folder, *folder.parents) for folder in folders.values()):
        root = root.parent
    splits = {}
    for split, coco in content.items():
        prefix = _below(folders[split], root)
        names = [f'{prefix}/{image["file_name"]}'.lstrip('/') for image in coco['images']]
        splits[split] = Split(names, _rarest(coco), prefix, files[split], coco)
    return Data(root, splits)


def _coco(file: Path) -> dict[str, Any]:
    coco = read_json(file, 'annotations')
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(coco.get(key), list) or not coco[key]:
            raise ValueError(f'{file}: expected a COCO file with images, annotations and '
                             f'categories, found no {key}')
    for key, part in (('name', 'categories'), ('id', 'categories'), ('file_name', 'images'),
                      ('id', 'images'), ('id', 'annotations')):
        counts = Counter(entry.get(key) for entry in coco[part])
        twice = [str(value) for value, count in counts.items() if count > 1 or value is None]
        if twice:
            raise ValueError(f'{file}: expected every {key} in {part} once, got {some_of(twice)} '
                             'more than once or not at all')
    categories = {category['id'] for category in coco['categories']}
    for entry in coco['annotations']:
        box = entry.get('bbox')
        boxed = isinstance(box, list) and len(box) == 4 and np.isfinite(box).all()
        if not boxed or 'image_id' not in entry or entry.get('category_id') not in categories:
            got = {key: value for key, value in entry.items() if key != 'segmentation'}
            raise ValueError(f'{file}: expected annotations with image_id, category_id (of '
                             f'categories) and bbox (4 numbers), got {got}')
    return coco


def _image_folder(root: Path, file: Path, image: str, split: str) -> Path:
    """Return the folder that a COCO file's names are relative to."""
    parents = [file.parent, root, root.parent] if root == file.parent else [file.parent, root]
    for parent in parents:
        inner = [folder for folder in _folders(parent) if _split_of(folder.name) in (split, '')]
        inner += [deeper for folder in inner for deeper in _folders(folder)]
        for folder in (*inner, parent):
            if (folder / image).is_file():
                return folder
    raise ValueError(f'{file}: its first image, {image}, is in no folder of {root}')


def _rarest(coco: dict[str, Any]) -> list[Any]:
    """Return each image's category with the fewest annotations; None without annotations."""
    counts = Counter(annotation['category_id'] for annotation in coco['annotations'])
    rarest: dict[Any, Any] = {}
    for annotation in coco['annotations']:
        image, category = annotation['image_id'], annotation['category_id']
        rarest[image] = min(category, rarest.get(image, category), key=lambda key: counts[key])
    names = {category['id']: category['name'] for category in coco['categories']}
    return [names.get(rarest.get(image['id'])) for image in coco['images']]


# Checks


def _leave_out_unreadable(data: Data) -> None:
    """Read all images; note their sizes, and those that cannot be read."""
    sizes, bad = [], []
    for name, split in data.splits.items():
        paths = [data.root / image for image in split.images]
        with ThreadPoolExecutor() as pool:
            found = list(tqdm(pool.map(_size, paths), f'reading {name}', len(paths), unit='image'))
        sizes += [size for size in found if size]
        bad += [split.images[i] for i, size in enumerate(found) if not size]
        if not all(found):
            data.splits[name] = split.only(np.flatnonzero([size is not None for size in found]))
    if not sizes:
        raise ValueError(f'{data.root}: none of {len(bad)} images can be read: {some_of(bad)}')
    sides = np.array(sizes)
    low, (width, height), high = np.quantile(sides, (0, 0.5, 1), axis=0, method='nearest')
    data.notes.append(f'sizes: {width}x{height} pixels (median), widths from {low[0]} to {high[0]}, heights from '
                      f'{low[1]} to {high[1]}')
    if bad:
        data.notes.append(f'unreadable, left out: {some_of(bad, 20)}')


def _size(path: Path) -> Optional[tuple[int, int]]:
    """Return (width, height); None if the file cannot be decoded."""
    try:
        with Image.open(path) as image:
            size = image.size
        reduced = cv2.IMREAD_REDUCED_COLOR_8 if min(size) > 8 else cv2.IMREAD_COLOR
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), reduced)
    except (OSError, ValueError, Image.DecompressionBombError, cv2.error):
        return None
    return None if pixels is None else size


def _split(data: Data) -> None:
    """Split the training images: of each class the same part, at random, always the same."""
    whole, chosen = data.splits['train'], set()
    labels = np.array([str(label) for label in whole.labels])
    rng = np.random.default_rng(_SEED)
    for label, count in sorted(Counter(labels.tolist()).items()):
        if count < 2 and not data.is_coco:
            raise ValueError(f'{data.root}: class {label} has 1 image; it takes 2 to split it into '
                             'train and val')
        places = rng.permutation(np.flatnonzero(labels == label))
        chosen.update(places[:max(round(_VAL_PART * count), count > 1)].tolist())
    data.splits['train'] = whole.only(set(range(len(labels))) - chosen)
    data.splits['val'] = whole.only(chosen)
    data.notes.append(f'there is no val: {_VAL_PART:.0%} of each class, drawn at random')


def _check_two_classes(path: str, data: Data) -> None:
    """Refuse fewer than two classes to tell apart."""
    found = set(data.splits['train'].labels)
    if len(found) < 2 and not data.is_coco:
        unread = [note for note in data.notes if note.startswith('unreadable')]
        raise ValueError('; '.join((f'{path}: expected images of at least two classes, found '
                                    f'{some_of([*found])} alone', *unread)))


def _check_classes(data: Data) -> None:
    """Set the classes; refuse what cannot be learnt."""
    train = data.splits['train']
    used = set(train.labels)
    if data.is_coco:
        used = _annotated(train)
        names = [entry['name'] for entry in train.coco['categories']]
        data.classes = [name for name in names if name in used]
        unused = [name for name in names if name not in used]
        data.notes += [f'categories without annotations, left out: {some_of(unused)}'] * bool(unused)
    else:
        numbers = all(re.fullmatch(r'\d+', label) for label in used)
        # class folders are numbered by the host, in the order of their names as text
        listed = all(split.listed for split in data.splits.values())
        data.classes = sorted(used, key=int if numbers and listed else str)
    twins = [name for name, count in Counter(map(str.casefold, data.classes)).items() if count > 1]
    if twins:
        raise ValueError(f'{data.root}: classes that differ in case only: {some_of(twins)}')
    for name, split in data.splits.items():
        _check_split(data, name, split)


def _annotated(split: Split) -> set[str]:
    """Return the categories that images of a COCO split have annotations of."""
    names = {entry['id']: entry['name'] for entry in split.coco['categories']}
    ids = {entry['id'] for entry in _kept_images(split)}
    found = {entry['category_id'] for entry in split.coco['annotations'] if entry['image_id'] in ids}
    return {names[key] for key in found & set(names)}


def _kept_images(split: Split) -> list[dict[str, Any]]:
    kept, prefix = set(split.images), f'{split.prefix}/'.lstrip('/')
    return [entry for entry in split.coco['images'] if prefix + entry['file_name'] in kept]


def _check_split(data: Data, name: str, split: Split) -> None:
    found = set(split.labels) - {None}
    if data.is_coco:
        order = [entry['name'] for entry in split.coco['categories']]
        if [entry for entry in order if entry in data.classes] != data.classes:
            raise ValueError(f'{split.annotations}: expected the categories {some_of(data.classes)} '
                             f'in this order, as in train, found {some_of(order)}')
        found = _annotated(split) & set(data.classes)
    unknown = sorted(found - set(data.classes))
    if unknown:
        raise ValueError(f'{data.root}: {name} has classes that train has not: {some_of(unknown)}')
    missing = [label for label in data.classes if label not in found]
    if missing:
        split.listed |= not data.is_coco  # the hosts number the folders that are there
        data.notes.append(f'{name} has no image of {some_of(missing)}: no figure will speak of '
                          f'{"them" if len(missing) > 1 else "it"}')


# Reports and lists


def describe(data: Data) -> list[str]:
    """Return lines that say what was found."""
    counts = [f'{len(split.images):,} {name}' for name, split in data.splits.items()]
    per = Counter(label for split in data.splits.values() for label in split.labels)
    classes = [f'{name} ({per[name]:,})' for name in data.classes]
    if data.is_coco:
        classes = data.classes
    return [f'{data.root}: {" + ".join(counts)} images',
            f'{len(data.classes)} {"classes" if len(classes) > 1 else "class"}: '
            f'{some_of(classes, 10)}', *data.notes]


def write_list(data: Data, name: str, path: Path) -> None:
    """Write which images a split has: a list for CustomDataset, or a COCO file."""
    split = data.splits[name]
    if data.is_coco:
        images = _kept_images(split)
        ids = {entry['id'] for entry in images}
        kept = [entry for entry in split.coco['annotations'] if entry['image_id'] in ids]
        text = json.dumps({**split.coco, 'images': images, 'annotations': kept})
    else:
        pairs = zip(split.images, map(data.classes.index, split.labels))
        text = ''.join(f'{image} {label}\n' for image, label in pairs)
    atomic_write_text(path, text)
