"""Weights-only reading by mmengine's loader, with torch's unpickler and the one for old torch."""
import io
import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.infer import infer
from mmengine.logging import HistoryBuffer
from mmengine.optim import MultiStepLR, OneCycleLR
from mmengine.registry import init_default_scope
from mmengine.runner import checkpoint as checkpoint_module
from numpy.testing import assert_array_equal
from tool_runs import Reduces

from mmfreq.hosts import checkpoints
from mmfreq.hosts.checkpoints import RefusedCheckpointError

CONFIGS = Path(__file__).parents[2] / 'configs/demo'
WEIGHTS = dict(state_dict={'a': torch.arange(3.)})


@pytest.fixture(autouse=True, params=['old torch', 'torch'])
def unpickler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == 'old torch':
        monkeypatch.setattr(checkpoints, '_TORCH_TAKES_CLASSES', False)
    elif not checkpoints._TORCH_TAKES_CLASSES:
        pytest.skip('this torch has the other unpickler only')


def load(path: Path) -> Any:
    return infer._load_checkpoint(str(path))


@pytest.mark.parametrize('zipped', [True, False])
def test_what_a_runner_records_is_read(zipped: bool, tmp_path: Path) -> None:
    values = dict(half=np.float16(1.5), byte=np.uint8(7), long=np.int64(-3), flag=np.bool_(True),
                  text=np.str_('x'), shorts=np.array([1, -2], np.int16),
                  halves=np.array([0.5, 2], np.float16))
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    schedulers = [MultiStepLR(sgd, [3, 5, 5]).state_dict(), OneCycleLR(sgd, 1., total_steps=4).state_dict()]
    optimizer = sgd.state_dict()
    content = dict(
        **WEIGHTS, optimizer=optimizer, param_schedulers=schedulers, history=HistoryBuffer([1.5, 2.5, 5.0], [1, 1, 2]),
        meta=dict(values, config='open("marker", "w")', info=ConfigDict(classes=('a', 'b'))))
    torch.save(content, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    found = load(tmp_path / 'x.pth')
    assert_array_equal(found['state_dict']['a'].numpy(), [0, 1, 2])
    assert found['history'].mean() == 9 / 4
    assert found['optimizer'] == optimizer
    assert found['param_schedulers'][0]['milestones'] == {3: 1, 5: 2}
    assert found['param_schedulers'][1]['total_steps'] == 4
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


@pytest.mark.parametrize('code', [
    b'(cos\nsystem\nX\x02\x00\x00\x00iditR.', b'(X\x02\x00\x00\x00idios\nsystem\n.',
    b'ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb.'])
def test_the_old_unpickler_refuses_other_opcodes(code: bytes) -> None:
    with pytest.raises((pickle.UnpicklingError, KeyError)):
        checkpoints._PICKLE.load(io.BytesIO(code))


def whole_file() -> bytes:
    file = io.BytesIO()
    torch.save(dict(a=torch.zeros(1000)), file)
    return file.getvalue()


@pytest.mark.parametrize(('content', 'message'), [
    (whole_file()[:2000], 'it is damaged, or .*'),
    (b'', 'the file is empty'),
    (bytes(1000), 'it is damaged, or .*'),
    (b'<html>Not Found</html>', 'it is damaged, or .*'),
    ([torch.zeros(1)], 'expected a state dict, .*, got list'),
    ({}, 'expected a state dict, .*, got nothing'),
    (dict(state_dict={}), 'expected a state dict, .*, got nothing'),
])
def test_broken_files_give_one_line(content: Any, message: str, tmp_path: Path) -> None:
    if isinstance(content, bytes):
        (tmp_path / 'x.pth').write_bytes(content)
    else:
        torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(RefusedCheckpointError) as refused:
        load(tmp_path / 'x.pth')
    assert re.fullmatch(rf'checkpoint: refused .*x\.pth: {message}', str(refused.value))


@pytest.mark.parametrize(('weights', 'fits'), [
    (dict(bias=torch.ones(2)), True),
    ({'module.bias': torch.ones(2)}, True),  # as DataParallel leaves it
    (dict(bias=torch.ones(3), other=torch.ones(2)), False),
])
def test_weights_none_of_which_fits_are_refused(weights: dict, fits: bool, tmp_path: Path) -> None:
    model, file = torch.nn.Linear(4, 2), str(tmp_path / 'x.pth')
    torch.save(weights, file)
    if fits:
        checkpoint_module.load_checkpoint(model, file)
        assert_array_equal(model.bias.detach().numpy(), [1, 1])
    else:
        with pytest.raises(RefusedCheckpointError,
                           match=r'^checkpoint: refused \S+x\.pth: none of its weights \(bias, '
                                 r'other, ...\) fits Linear \(weight, bias, ...\)$'):
            checkpoint_module.load_checkpoint(model, file)


@pytest.mark.parametrize('prefix', ['backbone.', 'module.backbone.', ''])
def test_weights_may_have_the_prefix_of_the_model_that_they_were_part_of(prefix: str, tmp_path: Path) -> None:
    model = torch.nn.Sequential(OrderedDict(layer1=torch.nn.Sequential(OrderedDict(conv=torch.nn.Linear(2, 3)))))
    weights = {f'{prefix}{key}': torch.full_like(value, 7) for key, value in model.state_dict().items()}
    torch.save(dict(state_dict={**weights, 'head.fc.bias': torch.zeros(5)}), tmp_path / 'x.pth')
    checkpoint_module.load_checkpoint(model, str(tmp_path / 'x.pth'), revise_keys=[(rf'^{re.escape(prefix)}', '')])
    assert all((weight == 7).all() for weight in model.state_dict().values())


@pytest.mark.parametrize('host', ['mmpretrain', 'mmdet'])
def test_the_hosts_inferencers_read_weights_only(host: str, tmp_path: Path) -> None:
    init_default_scope(host)
    if host == 'mmdet':
        from mmdet.apis import DetInferencer as Inferencer
        cfg = Config.fromfile(CONFIGS / 'mask-rcnn_r18-dct24s_demo.py')
    else:
        from mmpretrain import ImageClassificationInferencer as Inferencer
        cfg = Config.fromfile(CONFIGS / 'resnet18-dct24s_demo.py')
    marker, file = tmp_path / 'marker', str(tmp_path / 'x.pth')
    for content, message in ((dict(**WEIGHTS, x=Reduces(open, str(marker), 'w')), 'it holds more'),
                             (WEIGHTS, 'none of its weights')):
        torch.save(content, file)
        with pytest.raises(RefusedCheckpointError, match=rf'refused .*x\.pth: {message}'):
            Inferencer(cfg, file, device='cpu')
    assert not marker.exists()


def test_torch_itself_stays_as_it_is(tmp_path: Path) -> None:
    content = dict(x=OrderedDict, y=Reduces(len, 'abc'))
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(RefusedCheckpointError):
        load(tmp_path / 'x.pth')
    assert torch.load(tmp_path / 'x.pth', weights_only=False) == dict(x=OrderedDict, y=3)
    assert not [name for name in os.environ if name.endswith('WEIGHTS_ONLY_LOAD')]


def test_checkpoints_are_named_by_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    (tmp_path / 'hub/checkpoints').mkdir(parents=True)
    torch.save(dict(state_dict=dict(bias=torch.tensor([7., 8])), meta=dict(values=np.float16(2))),
               tmp_path / 'hub/checkpoints/good.pth')
    model = torch.nn.Linear(1, 2)
    checkpoint_module.load_checkpoint(model, 'https://localhost/good.pth')
    assert model.bias.tolist() == [7, 8]


def test_downloads_are_read_weights_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    (tmp_path / 'hub/checkpoints').mkdir(parents=True)
    marker = tmp_path / 'marker'
    torch.save(dict(x=Reduces(open, str(marker), 'w')), tmp_path / 'hub/checkpoints/evil.pth')
    with pytest.raises(RefusedCheckpointError, match=r'refused https://localhost/evil\.pth: '):
        checkpoint_module.load_checkpoint(torch.nn.Linear(1, 1), 'https://localhost/evil.pth')
    assert not marker.exists()


def test_a_damaged_file_is_named_with_others_to_take(tmp_path: Path) -> None:
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        checkpoint_module.save_checkpoint(WEIGHTS, str(tmp_path / name))
    whole = (tmp_path / 'epoch_2.pth').read_bytes()
    (tmp_path / 'epoch_2.pth').write_bytes(whole[:len(whole) // 2])
    with pytest.raises(RefusedCheckpointError, match=f'refused {tmp_path}/epoch_2.pth: it is damaged, .*; others '
                                                     'there: epoch_1.pth$'):
        load(tmp_path / 'epoch_2.pth')


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / 'run/best.pth'
    checkpoint_module.save_checkpoint(WEIGHTS, str(file))
    before = file.read_bytes()
    monkeypatch.setattr(os, 'replace', Mock(side_effect=KeyboardInterrupt))  # the last moment of all
    with pytest.raises(KeyboardInterrupt):
        checkpoint_module.save_checkpoint(dict(state_dict={'a': torch.ones(9)}), str(file))
    assert [path.name for path in file.parent.iterdir()] == ['best.pth']
    assert file.read_bytes() == before
