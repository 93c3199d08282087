"""Demo data made from the photographs inside the scikit-image wheel: no download, some seconds.

Each task has its own module: :mod:`~mmfreq.demo_data.classification` and :mod:`~mmfreq.demo_data.detection`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mmfreq.demo_data import classification, detection
from mmfreq.demo_data.folder import (
    GENERATOR,
    is_reusable,
    put_in_place,
    read_manifest,
    remove_stale,
    temporary_folder,
    written_paths,
)

__all__ = ['TASKS', 'Task', 'make_demo_data', 'read_manifest']


class Task(NamedTuple):
    """What :func:`make_demo_data` needs to know of a task."""

    version: int
    """Folders of another version are not reused."""
    counts: dict[str, int]
    """Name and default of each argument that the task has besides those of all tasks; all are counts."""
    write: Callable[[Path, dict[str, Any]], dict[str, Any]]
    """Writes the files into a folder; gives what the manifest says of them."""
    describe: Callable[[dict[str, Any]], str]
    """Sums up a manifest in some words."""


TASKS = {
    'classification': Task(
        classification.VERSION,
        classification.COUNTS,
        classification.write_classification,
        classification.describe_classification,
    ),
    'detection': Task(
        detection.VERSION,
        detection.COUNTS,
        detection.write_detection,
        detection.describe_detection,
    ),
}


def make_demo_data(
    out: str | Path, task: str = 'classification', seed: int = 0, force: bool = False, **counts: int
) -> dict[str, Any]:
    """Write the demo data to the folder ``out``, or find it there already, and say which.

    The same arguments give the same bytes (with the same OpenCV). ``out`` appears complete or not at all: everything is
    written to a temporary folder beside it, renamed at the end.

    Args:
        out: Folder to make; its parents are made too.
        task: A key of :data:`TASKS`.
        seed: Any integer; another seed gives other pictures from the same parts of the photographs.
        force: Make the folder anew if a run of this generator made it, with any arguments.
        **counts: For classification ``train_per_class`` (100) and ``val_per_class`` (30), crops per class; for
            detection ``train_images`` (200) and ``val_images`` (50), pictures in all. At least 1.

    Returns:
        What ``out/manifest.json`` holds: ``generator`` (str), ``version`` (int), ``arguments`` (dict), ``photos`` (name
        to ``file``, ``size`` and, for detection, ``split``) and ``files``, a list of dicts with ``path`` (str, POSIX,
        relative to ``out``), ``photo`` (name), ``box``, ``flip`` (bool, left to right) and ``size`` (of the JPEG).
        Boxes and sizes are lists of int. Detection adds ``annotations`` (paths of the COCO files) and, to each file,
        ``objects``: see :func:`mmfreq.demo_data.detection.write_detection`.

    Raises:
        ValueError: An unknown task, a count that the task does not have, a count below 1 or a number that is not an
            integer.
        ImportError: scikit-image is not installed.
        FileNotFoundError: scikit-image lacks a photograph.
        FileExistsError: ``out`` exists and was not made by this generator (even with ``force``), or was made with other
            arguments, or is incomplete (without ``force``).
    """
    arguments = _check_arguments(task, counts, seed)
    out = Path(out).resolve()
    remove_stale(out)
    if is_reusable(out, TASKS[task].version, arguments, force):
        print(f'{out} is complete already, made with the same arguments: nothing to do')
        return read_manifest(out)
    with temporary_folder(out) as folder:
        manifest = {'generator': GENERATOR, 'version': TASKS[task].version, 'arguments': arguments}
        manifest |= TASKS[task].write(folder, arguments)
        text = json.dumps(manifest, indent=1) + '\n'
        (folder / 'manifest.json').write_text(text, encoding='utf-8')
        put_in_place(folder, out)
    _report(out)
    return read_manifest(out)


def _check_arguments(task: str, counts: dict[str, int], seed: int) -> dict[str, Any]:
    """The arguments as the manifest has them, defaults filled in."""
    if task not in TASKS:
        raise ValueError(f'task must be one of {sorted(TASKS)}, got {task!r}')
    known = TASKS[task].counts
    foreign = [name for name in counts if name not in known]
    if foreign:
        raise ValueError(f'{", ".join(foreign)}: not for task {task}, which takes {", ".join(known)}')
    numbers = {**known, **counts, 'seed': seed}
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f'{name} must be an integer, got {value!r}')
        if value < 1 and name != 'seed':
            raise ValueError(f'{name} must be at least 1, got {value}')
    return {'task': task, **numbers}


def _report(out: Path) -> None:
    manifest = read_manifest(out)
    size = sum((out / path).stat().st_size for path in written_paths(manifest))
    words = TASKS[manifest['arguments']['task']].describe(manifest)
    print(f'wrote {words}, {size / 1e6:.1f} MB, to {out}')
