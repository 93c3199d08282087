"""Demo data made from the images inside the scikit-image wheel: no download, a few seconds."""
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Union

from demo.classification import write_classification
from demo.detection import write_detection
from mmfreq.dct.blocks import check_positive_int

TASKS = {'classification': write_classification, 'detection': write_detection}


def make_demo_data(out: Union[str, Path], task: str = 'classification', seed: int = 0,
                   **counts: int) -> dict[str, Any]:
    """Write the demo data of a task to the new folder ``out``, which appears whole or not at all.

    The same arguments give the same bytes with the same OpenCV; higher counts only add images.

    Args:
        out (str | Path): Folder to make, with its parents.
        task (str): A key of :data:`TASKS`.
        seed (int): Another seed cuts other boxes from the same source images.
        **counts (int): ``train`` and ``val``, at least 1: crops per class for classification
            (100 and 30), images for detection (200 and 50).

    Returns:
        dict: What ``manifest.json`` holds: ``task``, ``seed``, and ``files``, what each image was
        made of: see ``write_classification`` and ``write_detection``.

    Raises:
        ValueError: Unknown task, or a count below 1.
        FileExistsError: ``out`` exists.
        ImportError: scikit-image is not installed.
        FileNotFoundError: scikit-image lacks a source image.
    """
    if task not in TASKS:
        raise ValueError(f'task: expected one of {", ".join(TASKS)}, got {task!r}')
    for name, count in counts.items():
        check_positive_int(name, count)
    out = Path(out).resolve()
    if out.exists():
        raise FileExistsError(f'{out} exists: choose another folder, or delete it first')
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as temporary:
        folder = Path(temporary, 'data')
        manifest = dict(task=task, seed=seed, files=TASKS[task](folder, seed, **counts))
        (folder / 'manifest.json').write_text(json.dumps(manifest, indent=1) + '\n')
        folder.rename(out)
    return manifest
