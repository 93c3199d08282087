"""Weights-only reading through mmengine's loader, with torch's unpickler and with the one for torch before 2.6."""
import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.infer import infer
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint as checkpoint_module
from numpy.testing import assert_array_equal

from mmfreq.hosts import checkpoints
from mmfreq.hosts.checkpoints import RefusedCheckpointError

WEIGHTS = dict(state_dict={'a': torch.arange(3.)})


class Reduces:
    """An object whose unpickling calls ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.fixture(autouse=True, params=['old torch', 'torch'])
def unpickler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == 'old torch':
        monkeypatch.setattr(checkpoints, '_TORCH_TAKES_CLASSES', False)
    elif not checkpoints._TORCH_TAKES_CLASSES:
        pytest.skip('this torch has the other unpickler only')


def load(path: Path) -> Any:
    return infer._load_checkpoint(str(path))


def test_what_a_runner_records_is_read(tmp_path: Path) -> None:
    scheduler = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1).state_dict()
    values = dict(half=np.float16(1.5), byte=np.uint8(7), long=np.int64(-3), flag=np.bool_(True), text=np.str_('x'),
                  shorts=np.array([1, -2], np.int16), halves=np.array([0.5, 2], np.float16))
    content = dict(**WEIGHTS, optimizer=scheduler, history=HistoryBuffer([1.5, 2.5, 5.0], [1, 1, 2]),
                   meta=dict(values, config='open("marker", "w")', info=ConfigDict(classes=('a', 'b'))))
    torch.save(content, tmp_path / 'x.pth')
    torch.save(content, tmp_path / 'legacy.pth', _use_new_zipfile_serialization=False)
    for name in ('x.pth', 'legacy.pth'):
        found = load(tmp_path / name)
        assert_array_equal(found['state_dict']['a'].numpy(), [0, 1, 2])
        assert found['history'].mean() == 9 / 4
        assert found['optimizer'] == scheduler
        assert found['meta'].pop('info') == dict(classes=('a', 'b'))
        assert 'config' not in found['meta']  # a Runner that resumes would execute it
        for key, value in values.items():
            assert_array_equal(found['meta'][key], value)
            assert found['meta'][key].dtype == value.dtype


@pytest.mark.parametrize('make', [
    lambda marker: Reduces(open, marker, 'w'),
    lambda marker: Reduces(eval, f'open({marker!r}, "w")'),
    lambda marker: Reduces(getattr, OrderedDict, 'fromkeys'),
    lambda marker: Reduces(getattr, HistoryBuffer, '__init__'),
    lambda marker: Reduces(getattr, HistoryBuffer, '_statistics_methods'),
    lambda marker: Reduces(HistoryBuffer.mean, HistoryBuffer([1.0], [1])),
])
@pytest.mark.parametrize('zipped', [True, False])
def test_code_is_refused_by_name(make: Any, zipped: bool, tmp_path: Path) -> None:
    torch.save(dict(**WEIGHTS, x=make(str(tmp_path / 'marker'))), tmp_path / 'evil.pth',
               _use_new_zipfile_serialization=zipped)
    with pytest.raises(RefusedCheckpointError, match=r'^checkpoint: refused .*evil\.pth: [^\n]*$'):
        load(tmp_path / 'evil.pth')
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize('code', [b'(cos\nsystem\nX\x02\x00\x00\x00iditR.', b'(X\x02\x00\x00\x00idios\nsystem\n.',
                                  b'ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb.'])
def test_the_old_unpickler_refuses_other_opcodes(code: bytes) -> None:
    with pytest.raises((pickle.UnpicklingError, KeyError)):
        checkpoints._WeightsOnlyPickle.load(io.BytesIO(code))


def whole_file() -> bytes:
    file = io.BytesIO()
    torch.save(dict(a=torch.zeros(1000)), file)
    return file.getvalue()


@pytest.mark.parametrize(('content', 'message'), [
    (whole_file()[:2000], 'it is damaged'),
    (b'', 'it is damaged'),
    (bytes(1000), 'it is damaged'),
    (b'<html>Not Found</html>', 'it is damaged'),
    ([torch.zeros(1)], 'expected a state dict, .*, got list'),
    ({}, 'expected a state dict, .*, got nothing'),
    (dict(state_dict={}), 'expected a state dict, .*, got nothing'),
])
def test_broken_files_give_one_line(content: Any, message: str, tmp_path: Path) -> None:
    if isinstance(content, bytes):
        (tmp_path / 'x.pth').write_bytes(content)
    else:
        torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(RefusedCheckpointError, match=rf'^checkpoint: refused .*x\.pth: {message}[^\n]*$'):
        load(tmp_path / 'x.pth')


def test_torch_itself_stays_as_it_is(tmp_path: Path) -> None:
    torch.save(dict(**WEIGHTS, x=OrderedDict, y=HistoryBuffer([1.0], [1])), tmp_path / 'own.pth')
    with pytest.raises(RefusedCheckpointError):
        torch.save(dict(x=Reduces(len, 'abc')), tmp_path / 'other.pth')
        load(tmp_path / 'other.pth')
    assert torch.load(tmp_path / 'own.pth', weights_only=False)['y'].mean() == 1
    assert torch.load(tmp_path / 'other.pth', weights_only=False) == dict(x=3)
    assert not [name for name in os.environ if name.endswith('WEIGHTS_ONLY_LOAD')]


def test_downloads_are_read_weights_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    (tmp_path / 'hub/checkpoints').mkdir(parents=True)
    torch.save(dict(x=Reduces(open, str(tmp_path / 'marker'), 'w')), tmp_path / 'hub/checkpoints/evil.pth')
    with pytest.raises(RefusedCheckpointError, match=r'refused https://localhost/evil\.pth: '):
        checkpoint_module.load_checkpoint(torch.nn.Linear(1, 1), 'https://localhost/evil.pth')
    assert not (tmp_path / 'marker').exists()
