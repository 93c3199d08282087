"""Classification crops: what the manifest says, and that train and val share no pixel.

Every check of an image starts from the JPEG and its source on disk, read with OpenCV alone.
"""
import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('skimage')

from demo import classification, make_demo_data
from demo.images import IMAGES

SOURCE_FOLDER = Path(importlib.util.find_spec('skimage').origin).parent / 'data'
COUNTS = {'train': 12, 'val': 6}


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Folder, and the manifest entries of its images."""
    out = tmp_path_factory.mktemp('data') / 'demo'
    return out, make_demo_data(out, **COUNTS)['files']


@pytest.fixture(scope='module')
def sources() -> dict[str, np.ndarray]:
    return {name: cv2.imread(str(SOURCE_FOLDER / file)) for name, (file, _) in IMAGES.items()}


def covered(files: list[dict[str, Any]], name: str, split: str, shape: tuple) -> np.ndarray:
    """Mask of the pixels of a source image that the crops of one split were cut from."""
    mask = np.zeros(shape[:2], bool)
    for entry in files:
        if entry['source'] == name and entry['path'].startswith(f'{split}/'):
            x0, y0, x1, y1 = entry['box']
            mask[y0:y1, x0:x1] = True
    return mask


def test_writes_as_many_images_as_asked_for(made: tuple[Path, list]) -> None:
    found = Counter(path.parent.relative_to(made[0]).as_posix() for path in made[0].rglob('*.jpg'))
    assert found == {f'{split}/{name}': COUNTS[split] for split in COUNTS for name in IMAGES}
    assert len(IMAGES) == 12


def test_images_are_the_boxes_of_the_manifest(made: tuple[Path, list],
                                              sources: dict[str, np.ndarray]) -> None:
    for entry in made[1]:
        assert entry['path'].split('/')[1] == entry['source']
        x0, y0, x1, y1 = entry['box']
        crop = sources[entry['source']][y0:y1, x0:x1]
        assert crop.shape[:2] == (y1 - y0, x1 - x0)
        crop = cv2.flip(crop, 1) if entry['flip'] else crop
        width, height = entry['size']
        method = cv2.INTER_AREA if width < x1 - x0 else cv2.INTER_CUBIC
        expected = cv2.resize(crop, (width, height), interpolation=method)
        image = cv2.imread(str(made[0] / entry['path']))
        assert image.shape == (height, width, 3)
        assert cv2.absdiff(image, expected).mean() < 5, entry


@pytest.mark.parametrize('name', IMAGES)
def test_train_and_val_share_no_pixel(name: str, made: tuple[Path, list],
                                      sources: dict[str, np.ndarray]) -> None:
    shape, default_counts = sources[name].shape, []
    for split, count in (('train', 100), ('val', 30)):
        assert covered(made[1], name, split, shape).mean() > 0.25
        for number in range(count):
            default_counts.append(classification.plan_crop(name, split, number, shape, 1))
    for files in (made[1], default_counts):
        train, val = (covered(files, name, split, shape) for split in ('train', 'val'))
        assert np.count_nonzero(train & val) == 0
    assert np.mean(train | val) > 0.9
