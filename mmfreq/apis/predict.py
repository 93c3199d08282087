"""The image files that a command names, and predictions in words."""
import os
from collections import Counter
from pathlib import Path
from typing import Any, Sequence

from mmfreq.errors import RefusedError

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


def find_images(paths: Sequence[str], out_dir: str) -> dict[str, Path]:
    """Return image files, and those in folders, by their path below the folder they have in common.

    Folders are searched with their subfolders, except ``out_dir``, the folder for results.
    """
    out, images = Path(os.path.abspath(out_dir)), []
    for path in map(Path, map(os.path.abspath, paths)):
        files = [path] if path.is_file() else [
            file for file in _below(path) if file.suffix.lower() in SUFFIXES and out not in file.parents]
        if not files:
            raise RefusedError(f'{path}: expected images ({" ".join(SUFFIXES)}), got none')
        images += files
    common = os.path.commonpath([image.parent for image in images])
    named = {image.relative_to(common).as_posix(): image for image in images}
    for picture in {out / f'{name}.png' for name in named} & {*images}:
        raise RefusedError(f'{picture}: output would overwrite the input')
    return named


def _below(folder: Path) -> list[Path]:
    """Return the files below a folder, and below linked ones unless they contain the link."""
    files = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [name for name in folders if not Path(real).is_relative_to(os.path.realpath(f'{parent}/{name}'))]
        files += [Path(parent, name) for name in names]
    return sorted(files)


def in_words(prediction: dict[str, Any], score_thr: float) -> str:
    """Return a prediction of :meth:`mmfreq.apis.inference.Model.predict` in a few words.

    They are the class and its score, all classes of a multi-label classifier, or how many detections of
    each class have a higher score than ``score_thr``.
    """
    if 'pred_class' in prediction:
        return f'{prediction["pred_class"]} {prediction["pred_score"]:.3f}'
    names = prediction.get('pred_classes')
    if names is None:
        pairs = zip(prediction['classes'], prediction['scores'])
        found = Counter(name for name, score in pairs if score > score_thr)
        names = [f'{count} {name}' for name, count in found.items()]
    return ', '.join(names) or 'nothing'
