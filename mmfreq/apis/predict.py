"""The image files that a command names."""
import os
from pathlib import Path
from typing import Sequence

from mmfreq.errors import RefusedError

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


def find_images(paths: Sequence[str], out_dir: str) -> dict[str, Path]:
    """Return image files, and those in folders, by their path below the folder they have in common.

    Folders are searched with their subfolders, except ``out_dir``, the folder for results.
    """
    out, images = Path(os.path.abspath(out_dir)), []
    for path in map(Path, map(os.path.abspath, paths)):
        below = sorted(Path(parent, name) for parent, _, names in os.walk(path, followlinks=True) for name in names)
        files = [path] if path.is_file() else [
            file for file in below if file.suffix.lower() in SUFFIXES and out not in file.parents]
        if not files:
            raise RefusedError(f'{path}: expected images ({" ".join(SUFFIXES)}), got none')
        images += files
    common = os.path.commonpath([image.parent for image in images])
    named = {image.relative_to(common).as_posix(): image for image in images}
    for picture in {out / f'{name}.png' for name in named} & {*images}:
        raise RefusedError(f'{picture}: output would overwrite the input')
    return named
