"""The tool: a bad file does not end a batch, and no picture overwrites another one."""
import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from shipped import save_untrained, shipped

from mmfreq.apis.predict import find_images, in_words
from mmfreq.errors import RefusedError

CONFIG = 'resnet18-dct24s_demo'


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model and two images."""
    folder = tmp_path_factory.mktemp('prediction')
    classes = [f'class {i}' for i in range(12)]
    save_untrained(shipped(f'demo/{CONFIG}.py'), folder / 'x.pth', classes)
    for name in ('a/1.png', 'b/1.png'):
        (folder / 'images' / name).parent.mkdir(parents=True)
        cv2.imwrite(str(folder / 'images' / name), np.full((80, 60, 3), 99, np.uint8))
    return folder


def test_images_have_different_names(tmp_path: Path) -> None:
    for name in ('a/1.jpg', 'a/1.PNG', 'a/1.jpg.png', 'b/1.jpg', 'b/notes.txt', 'out/1.jpg.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(*paths: str, out: str = 'out') -> list[str]:
        return list(find_images([str(tmp_path / path) for path in paths], str(tmp_path / out)))

    (tmp_path / 'linked').mkdir()
    (tmp_path / 'linked/far').symlink_to(tmp_path / 'b')
    (tmp_path / 'b/loop').symlink_to(tmp_path)  # a link to what contains it is not followed
    assert names('linked') == ['1.jpg']
    (tmp_path / 'b/loop').unlink()
    shutil.rmtree(tmp_path / 'linked')
    assert names('') == names('a', 'b') == ['a/1.PNG', 'a/1.jpg', 'a/1.jpg.png', 'b/1.jpg']
    assert names('b/1.jpg', 'b/notes.txt', 'b') == ['1.jpg', 'notes.txt']
    assert find_images([str(tmp_path / 'b')], 'out') == {'1.jpg': tmp_path / 'b/1.jpg'}
    for paths, message in {('out', ): 'expected images .*got none', ('y.jpg', ): 'y.jpg: .*got none',
                           ('a/1.jpg', 'a/1.jpg.png'): '1.jpg.png: output would overwrite'}.items():
        with pytest.raises(RefusedError, match=message):
            names(*paths, out='a' if len(paths) == 2 else 'out')


def test_predictions_in_words() -> None:
    boxes = dict(classes=['cat', 'dog', 'cat', 'cat'], scores=[0.9, 0.8, 0.5, 0.1])
    assert in_words(boxes, 0.3) == '2 cat, 1 dog'
    assert in_words(boxes, 0.9) == in_words(dict(pred_classes=[]), 0.3) == 'nothing'
    assert in_words(dict(pred_classes=['a', 'b'], pred_scores=[]), 0.3) == 'a, b'


def test_files_that_fail_are_named_and_the_others_are_predicted(
        folder: Path, tmp_path: Path, run_tool: Any, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'empty.jpg').touch()
    (tmp_path / 'text.jpg').write_text('no image')
    (tmp_path / 'huge.png').write_bytes(b'P6\n40000 40000\n255\n')  # OpenCV raises for its pixels
    with pytest.raises(SystemExit, match='^1$'):
        run_tool('predict', CONFIG, folder / 'x.pth', folder / 'images', *tmp_path.iterdir(),
                 '--out', tmp_path / 'out', '--device', 'cpu')
    output, errors = capsys.readouterr()
    assert '2 of 5 images' in output
    for word in ('/empty.jpg: ', '/text.jpg: ', '/huge.png: ', 'CV_IO_MAX_IMAGE_PIXELS'):
        assert errors.count(word) == 1
    predictions = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert [name[-14:] for name in predictions] == ['images/a/1.png', 'images/b/1.png']
    for name, prediction in predictions.items():
        best = np.argmax(prediction['pred_scores'])
        assert prediction['pred_class'] == f'class {best}'
        assert f'{name}: class {best} {prediction["pred_scores"][best]:.3f}\n' in output
        assert cv2.imread(str(tmp_path / 'out' / f'{name}.png')).shape == (80, 60, 3)


def test_an_error_of_every_file_keeps_its_traceback(folder: Path, tmp_path: Path, run_tool: Any,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one of the config or of a user's own code."""
    monkeypatch.setattr('mmfreq.apis.inference.Model.samples', Mock(side_effect=ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        run_tool('predict', CONFIG, folder / 'x.pth', folder, '--out', tmp_path, '--device', 'cpu')


def test_an_interruption_keeps_what_was_predicted(folder: Path, tmp_path: Path, run_tool: Any,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    images = [np.zeros((9, 9, 3), np.uint8), KeyboardInterrupt]
    monkeypatch.setattr('mmfreq.apis.inference.pixels', Mock(side_effect=images))
    with pytest.raises(SystemExit, match='^130$'):
        run_tool('predict', CONFIG, folder / 'x.pth', folder, '--out', tmp_path, '--device', 'cpu')
    assert len(json.loads((tmp_path / 'predictions.json').read_text())) == 1
