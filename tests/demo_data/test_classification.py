"""The demo data: what is written, that train and val share no pixel, that no run breaks another.

Every check of a picture starts from the JPEG and the photograph on disk, read with OpenCV alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('skimage')

from mmfreq.demo_data import TASKS, classification, make_demo_data
from mmfreq.demo_data import photos as demo_photos
from mmfreq.demo_data.photos import PHOTOS

ROOT = Path(__file__).parents[2]
PHOTO_FOLDER = Path(importlib.util.find_spec('skimage').origin).parent / 'data'
COUNTS = {'train': 12, 'val': 6}
SMALL = {'train_per_class': 1, 'val_per_class': 1}


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    make_demo_data(out, train_per_class=COUNTS['train'], val_per_class=COUNTS['val'])
    return out


@pytest.fixture
def two_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two classes alone, for the tests of folders: coins and camera, four crops with SMALL."""
    monkeypatch.setattr(classification, 'PHOTOS', {name: PHOTOS[name] for name in ('coins', 'camera')})


@pytest.fixture(scope='module')
def files(made: Path) -> list[dict[str, Any]]:
    return json.loads((made / 'manifest.json').read_text(encoding='utf-8'))['files']


@pytest.fixture(scope='module')
def photos() -> dict[str, np.ndarray]:
    return {name: cv2.imread(str(PHOTO_FOLDER / photo.file)) for name, photo in PHOTOS.items()}


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by path relative to ``folder``."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def covered(files: list[dict[str, Any]], name: str, split: str, shape: tuple) -> np.ndarray:
    """Mask of the pixels of a photograph that the crops of one split were cut from."""
    mask = np.zeros(shape[:2], bool)
    for entry in files:
        if entry['photo'] == name and entry['path'].startswith(f'{split}/'):
            x0, y0, x1, y1 = entry['box']
            mask[y0:y1, x0:x1] = True
    return mask


def break_after(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """Let the writing of the JPEG number ``count`` (from 0) raise ``error``."""
    encode, encoded = cv2.imencode, []

    def encode_some(*arguments: Any) -> tuple[bool, np.ndarray]:
        if len(encoded) == count:
            raise error
        encoded.append(encode(*arguments))
        return encoded[-1]

    monkeypatch.setattr(cv2, 'imencode', encode_some)


def test_writes_as_many_files_as_asked_for(made: Path, files: list[dict[str, Any]]) -> None:
    found = Counter(path.parent.relative_to(made).as_posix() for path in made.rglob('*.jpg'))
    assert found == {f'{split}/{name}': COUNTS[split] for split in COUNTS for name in PHOTOS}
    assert len(PHOTOS) == 12
    on_disk = {path.relative_to(made).as_posix() for path in made.rglob('*') if path.is_file()}
    assert on_disk == {entry['path'] for entry in files} | {'manifest.json', 'README.txt'}


def test_manifest_says_how_it_was_made(made: Path, photos: dict[str, np.ndarray]) -> None:
    manifest = json.loads((made / 'manifest.json').read_text(encoding='utf-8'))
    assert manifest['version'] == classification.VERSION
    assert manifest['arguments'] == {
        'task': 'classification',
        'train_per_class': 12,
        'val_per_class': 6,
        'seed': 0,
    }
    for name, photo in photos.items():
        size = [photo.shape[1], photo.shape[0]]
        assert manifest['photos'][name] == {'file': PHOTOS[name].file, 'size': size}


def test_readme_names_every_source(made: Path) -> None:
    text = (made / 'README.txt').read_text(encoding='utf-8')
    assert 'scikit-image' in text
    assert [name for name, photo in PHOTOS.items() if photo.file not in text] == []


def test_pictures_are_the_boxes_of_the_manifest(
    made: Path, files: list[dict[str, Any]], photos: dict[str, np.ndarray]
) -> None:
    for entry in files:
        assert entry['path'].split('/')[1] == entry['photo']
        x0, y0, x1, y1 = entry['box']
        crop = photos[entry['photo']][y0:y1, x0:x1]
        assert crop.shape[:2] == (y1 - y0, x1 - x0)
        crop = cv2.flip(crop, 1) if entry['flip'] else crop
        width, height = entry['size']
        method = cv2.INTER_AREA if width < x1 - x0 else cv2.INTER_CUBIC
        expected = cv2.resize(crop, (width, height), interpolation=method)
        picture = cv2.imread(str(made / entry['path']))
        assert picture.shape == (height, width, 3)
        assert cv2.absdiff(picture, expected).mean() < 5, entry


@pytest.mark.parametrize('name', PHOTOS)
def test_train_and_val_share_no_pixel(
    name: str, files: list[dict[str, Any]], photos: dict[str, np.ndarray]
) -> None:
    train = covered(files, name, 'train', photos[name].shape)
    val = covered(files, name, 'val', photos[name].shape)
    assert train.mean() > 0.25
    assert val.mean() > 0.25
    assert np.count_nonzero(train & val) == 0


def test_parts_of_default_counts_share_no_pixel(photos: dict[str, np.ndarray]) -> None:
    for name, photo in photos.items():
        masks = []
        for split, count in (('train', 100), ('val', 30)):
            plan = [classification._plan_crop(name, split, i, photo.shape, 1) for i in range(count)]
            masks.append(covered(plan, name, split, photo.shape))
        assert np.count_nonzero(masks[0] & masks[1]) == 0
        assert np.mean(masks[0] | masks[1]) > 0.9


@pytest.mark.parametrize('name', PHOTOS)
def test_scale_and_aspect_vary(name: str, files: list[dict[str, Any]]) -> None:
    boxes = np.array([entry['box'] for entry in files if entry['photo'] == name])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert min(widths.min(), heights.min()) >= 64
    assert widths.max() / widths.min() >= 1.5
    assert heights.max() / heights.min() >= 1.5
    assert np.ptp(np.log(widths / heights)) > 0.4


def test_sizes_and_flips(files: list[dict[str, Any]]) -> None:
    short = np.array([min(entry['size']) for entry in files])
    assert short.min() >= 224
    assert short.max() <= 288
    assert 0.35 < np.mean([entry['flip'] for entry in files]) < 0.65


def test_cells_of_worked_example() -> None:
    assert classification.cells_of('train', 30, 20) == [
        (0, 0, 10, 10),
        (20, 0, 30, 10),
        (10, 10, 20, 20),
    ]
    assert classification.cells_of('val', 30, 20) == [
        (10, 0, 20, 10),
        (0, 10, 10, 20),
        (20, 10, 30, 20),
    ]


def test_cut_worked_example() -> None:
    photo = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    kept = demo_photos.cut(photo, (1, 2, 4, 4), False, (3, 2))
    np.testing.assert_array_equal(kept, photo[2:4, 1:4])
    mirrored = demo_photos.cut(photo, (1, 2, 4, 4), True, (3, 2))
    np.testing.assert_array_equal(mirrored, photo[2:4, 3:0:-1])


def test_same_seed_same_bytes(made: Path, tmp_path: Path) -> None:
    np.random.seed(7)
    make_demo_data(tmp_path / 'again', train_per_class=12, val_per_class=6)
    assert hashes(tmp_path / 'again') == hashes(made)


def test_another_seed_other_crops_more_crops_same_crops(made: Path, tmp_path: Path) -> None:
    make_demo_data(tmp_path / 'few', **SMALL)
    make_demo_data(tmp_path / 'other', **SMALL, seed=1)
    few, other, many = hashes(tmp_path / 'few'), hashes(tmp_path / 'other'), hashes(made)
    jpegs = [path for path in few if path.endswith('.jpg')]
    assert len(jpegs) == 24
    assert all(few[path] == many[path] for path in jpegs)
    assert all(few[path] != other[path] for path in jpegs)


@pytest.mark.usefixtures('two_photos')
def test_second_run_reuses(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first = make_demo_data(tmp_path / 'demo', **SMALL)
    assert 'wrote 4 crops of 2 photographs' in capsys.readouterr().out
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / 'demo').rglob('*')}
    second = make_demo_data(tmp_path / 'demo', **SMALL)
    assert 'nothing to do' in capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / 'demo').rglob('*')}
    assert first == second


@pytest.mark.parametrize('error', [RuntimeError('full'), KeyboardInterrupt()])
@pytest.mark.usefixtures('two_photos')
def test_interrupted_run_leaves_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        break_after(patch, 3, error)
        with pytest.raises(type(error)):
            make_demo_data(tmp_path / 'demo', **SMALL)
    assert list(tmp_path.iterdir()) == []
    assert len(make_demo_data(tmp_path / 'demo', **SMALL)['files']) == 4


@pytest.mark.usefixtures('two_photos')
def test_interrupted_force_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_demo_data(tmp_path / 'demo', **SMALL)
    before = hashes(tmp_path / 'demo')
    break_after(monkeypatch, 3, RuntimeError('full'))
    with pytest.raises(RuntimeError, match='full'):
        make_demo_data(tmp_path / 'demo', **SMALL, seed=1, force=True)
    assert hashes(tmp_path / 'demo') == before
    assert list(tmp_path.iterdir()) == [tmp_path / 'demo']


@pytest.mark.usefixtures('two_photos')
def test_leftovers_of_killed_runs_are_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, '-c', ''])
    dead.wait()
    names = [f'.demo.tmp-{dead.pid}', f'.demo.tmp-{dead.pid}-old', f'.demo.tmp-{os.getpid()}']
    kept = [f'.demo.tmp-{os.getppid()}', f'.other.tmp-{dead.pid}', '.demo.tmp-notes']
    for name in names + kept:
        (tmp_path / name / 'train').mkdir(parents=True)
    make_demo_data(tmp_path / 'demo', **SMALL)
    assert {path.name for path in tmp_path.iterdir()} == {'demo', *kept}


@pytest.mark.usefixtures('two_photos')
def test_long_untouched_leftover_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / f'.demo.tmp-{os.getppid()}'
    folder.mkdir()
    os.utime(folder, (0, 0))
    make_demo_data(tmp_path / 'demo', **SMALL)
    assert not folder.exists()


@pytest.mark.parametrize('force', [False, True])
@pytest.mark.parametrize('manifest', [None, '{', '[]', '{"generator": "another"}'])
def test_foreign_folder_is_refused(manifest: str | None, force: bool, tmp_path: Path) -> None:
    (tmp_path / 'demo').mkdir()
    (tmp_path / 'demo' / 'thesis.txt').write_text('years of work')
    if manifest is not None:
        (tmp_path / 'demo' / 'manifest.json').write_text(manifest)
    before = hashes(tmp_path)
    with pytest.raises(FileExistsError, match='not made by this tool'):
        make_demo_data(tmp_path / 'demo', **SMALL, force=force)
    assert hashes(tmp_path) == before


@pytest.mark.parametrize('force', [False, True])
def test_file_in_the_way_is_refused(force: bool, tmp_path: Path) -> None:
    (tmp_path / 'demo').write_text('a file')
    with pytest.raises(FileExistsError, match='not made by this tool'):
        make_demo_data(tmp_path / 'demo', **SMALL, force=force)
    assert (tmp_path / 'demo').read_text() == 'a file'


@pytest.mark.usefixtures('two_photos')
def test_other_arguments_need_force(tmp_path: Path) -> None:
    make_demo_data(tmp_path / 'demo', **SMALL)
    with pytest.raises(FileExistsError, match="'seed': 0.*'seed': 1.*--force"):
        make_demo_data(tmp_path / 'demo', **SMALL, seed=1)
    assert make_demo_data(tmp_path / 'demo', **SMALL, seed=1, force=True)['arguments']['seed'] == 1
    make_demo_data(tmp_path / 'fresh', **SMALL, seed=1)
    assert hashes(tmp_path / 'demo') == hashes(tmp_path / 'fresh')


@pytest.mark.usefixtures('two_photos')
def test_other_version_needs_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_demo_data(tmp_path / 'demo', **SMALL)
    newer = TASKS['classification']._replace(version=classification.VERSION + 1)
    monkeypatch.setitem(TASKS, 'classification', newer)
    with pytest.raises(FileExistsError, match='--force'):
        make_demo_data(tmp_path / 'demo', **SMALL)


@pytest.mark.usefixtures('two_photos')
def test_incomplete_folder_needs_force(tmp_path: Path) -> None:
    make_demo_data(tmp_path / 'demo', **SMALL)
    (tmp_path / 'demo/val/coins/000.jpg').unlink()
    with pytest.raises(FileExistsError, match='lacks 1 of its files, such as val/coins/000.jpg'):
        make_demo_data(tmp_path / 'demo', **SMALL)
    make_demo_data(tmp_path / 'demo', **SMALL, force=True)
    assert (tmp_path / 'demo/val/coins/000.jpg').is_file()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'train_per_class': 0}, 'train_per_class must be at least 1, got 0'),
        ({'val_per_class': -3}, 'val_per_class must be at least 1, got -3'),
        ({'val_per_class': 2.5}, 'val_per_class must be an integer, got 2.5'),
        ({'train_per_class': True}, 'train_per_class must be an integer, got True'),
        ({'seed': None}, 'seed must be an integer, got None'),
        ({'task': 'poetry'}, r"task must be one of \['classification', 'detection'\], got 'poetry'"),
        ({'val_images': 3}, 'val_images: not for task classification, which takes train_per_class, val_per_class'),
        ({'colour': 3}, 'colour: not for task classification'),
    ],
)
def test_invalid_arguments(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        make_demo_data(tmp_path / 'demo', **arguments)
    assert list(tmp_path.iterdir()) == []


def test_missing_scikit_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='pip install scikit-image'):
        make_demo_data(tmp_path / 'demo', **SMALL)


def test_missing_or_broken_photograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_photos, 'photo_folder', lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match=r'coins\.png; pip install scikit-image'):
        demo_photos.load_photo('coins')
    (tmp_path / 'coins.png').write_bytes(b'no picture')
    with pytest.raises(FileNotFoundError, match='cannot decode'):
        demo_photos.load_photo('coins')
    with pytest.raises(ValueError, match="got 'dog'"):
        demo_photos.load_photo('dog')


def run_tool(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, str(ROOT / 'tools/make_demo_data.py'), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_tool_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, 'argv', ['make_demo_data.py', '--help'])
    with pytest.raises(SystemExit, match='^0$'):
        runpy.run_path(str(ROOT / 'tools/make_demo_data.py'))['main']()
    text = capsys.readouterr().out
    counts = [f'--{name.replace("_", "-")}' for task in TASKS.values() for name in task.counts]
    assert len(counts) == 4
    assert [option for option in ('--task', '--out', '--seed', '--force', *counts) if option not in text] == []


def test_tool_in_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    out = str(tmp_path / 'demo')
    done = run_tool('--out', out, '--train-per-class', '2', '--val-per-class', '1')
    assert done.returncode == 0, done.stderr
    assert 'wrote 36 crops' in done.stdout
    make_demo_data(tmp_path / 'here', train_per_class=2, val_per_class=1)
    assert hashes(tmp_path / 'demo') == hashes(tmp_path / 'here')


def test_tool_reports_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = runpy.run_path(str(ROOT / 'tools/make_demo_data.py'))['main']
    arguments = ['--out', str(tmp_path / 'demo'), '--train-per-class', '0']
    monkeypatch.setattr(sys, 'argv', ['make_demo_data.py', *arguments])
    with pytest.raises(SystemExit, match='make_demo_data: train_per_class must be at least 1, got'):
        main()
