"""The folder of both tasks: whole or not at all, never replaced, the same bytes again; the tool."""
import hashlib
import json
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('skimage')

from demo import classification, make_demo_data
from demo.images import IMAGES

TASKS = ('classification', 'detection')
SMALL = {'train': 2, 'val': 1}


@pytest.fixture(autouse=True)
def two_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classification with coins and camera alone."""
    few = {name: IMAGES[name] for name in ('coins', 'camera')}
    monkeypatch.setattr(classification, 'IMAGES', few)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by path below ``folder``."""
    found = {}
    for path in sorted(folder.rglob('*')):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.mark.parametrize('task', TASKS)
def test_same_arguments_same_bytes(task: str, tmp_path: Path) -> None:
    manifest = make_demo_data(tmp_path / 'a', task, **SMALL)
    np.random.seed(7)
    make_demo_data(tmp_path / 'deep/er/b', task, **SMALL)
    made = hashes(tmp_path / 'a')
    assert hashes(tmp_path / 'deep/er/b') == made
    paths = {entry['path'] for entry in manifest['files']}
    extra = {'annotations/train.json', 'annotations/val.json'} if task == 'detection' else set()
    assert set(made) == paths | extra | {'manifest.json', 'README.txt'}
    written = json.loads((tmp_path / 'a/manifest.json').read_text())
    assert (written['task'], written['seed']) == (task, 0)
    assert written == json.loads(json.dumps(manifest))


@pytest.mark.parametrize('task', TASKS)
def test_another_seed_other_images_more_images_same_images(task: str, tmp_path: Path) -> None:
    for name, arguments in dict(few={}, other=dict(seed=1), many=dict(train=4, val=3)).items():
        make_demo_data(tmp_path / name, task, **{**SMALL, **arguments})
    few, other, many = (hashes(tmp_path / name) for name in ('few', 'other', 'many'))
    jpegs = [path for path in few if path.endswith('.jpg')]
    assert len(jpegs) == (3 if task == 'detection' else 6)
    for path in jpegs:
        assert few[path] == many[path] != other[path]


@pytest.mark.parametrize('error', [RuntimeError('full'), KeyboardInterrupt()])
@pytest.mark.parametrize('task', TASKS)
def test_interrupted_run_leaves_nothing(task: str, error: BaseException, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    encode, encoded = cv2.imencode, []

    def encode_two(*arguments: Any) -> Any:
        if len(encoded) == 2:
            raise error
        encoded.append(encode(*arguments))
        return encoded[-1]

    monkeypatch.setattr(cv2, 'imencode', encode_two)
    with pytest.raises(type(error)):
        make_demo_data(tmp_path / 'demo', task, **SMALL)
    assert len(encoded) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('is_folder', [False, True])
def test_what_exists_is_never_replaced(is_folder: bool, tmp_path: Path) -> None:
    path = tmp_path / 'demo'
    if is_folder:
        path.mkdir()
    (path / 'thesis.txt' if is_folder else path).write_text('years of work')
    before = hashes(tmp_path)
    with pytest.raises(FileExistsError, match=f'{path} exists'):
        make_demo_data(path, **SMALL)
    assert hashes(tmp_path) == before


def test_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, 'argv', ['demo', *arguments])
        runpy.run_module('demo', run_name='__main__')
        return capsys.readouterr().out

    assert 'wrote 6 images to data/demo\n' in run('--train', '2', '--val', '1')
    run('--task', 'detection', '--train', '2', '--val', '1', '--seed', '3')
    make_demo_data(tmp_path / 'here', 'detection', 3, **SMALL)
    assert hashes(tmp_path / 'data/demo_detection') == hashes(tmp_path / 'here')
    for arguments, words in (((), 'data/demo exists'), (('--out', 'x', '--train', '0'), 'train: .* got 0')):
        with pytest.raises(SystemExit):
            run(*arguments)
        assert re.search(words, capsys.readouterr().err)
    assert sorted(os.listdir(tmp_path)) == ['data', 'here']
