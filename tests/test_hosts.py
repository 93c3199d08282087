"""A plain import changes nothing in the hosts; setup() does what it says, through their extension points."""
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim import MultiStepLR, OneCycleLR
from mmengine.runner import CheckpointLoader
from numpy.testing import assert_array_equal
from tool_runs import Reduces

from mmfreq.errors import RefusedError

pytestmark = pytest.mark.usefixtures('hosts_set_up')
WEIGHTS = dict(state_dict={'a': torch.arange(3.)})
TORCHVISION_FILE = 'resnet18-f37072fd.pth'
needs_safe_globals = pytest.mark.skipif(not hasattr(torch.serialization, 'safe_globals'),
                                        reason='torch reads weights-only from 2.6 on')

# What today's mmengine, mmcv and torch consist of, before and after a plain import of mmfreq.
UNTOUCHED = '''
import signal, sys, warnings
import torch, mmengine, mmcv, mmengine.config.utils, mmengine.runner.checkpoint, mmcv.transforms, torch.hub

def state():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split('.')[0] in ('mmengine', 'mmcv') or name in ('torch.hub', 'torch.serialization'):
            for key, value in vars(module).items():
                found[name, key] = id(value)
                if isinstance(value, type) and value.__module__ == name:
                    found.update({(name, key, inner): id(item) for inner, item in vars(value).items()})
    return found

before, streams, finders = state(), (sys.stdout, sys.stderr), list(sys.meta_path)
handlers, filters = [signal.getsignal(number) for number in (2, 15)], list(warnings.filters)
import mmfreq, mmfreq.transforms, mmfreq.engine.hooks
after = state()
print(*[key for key, value in before.items() if after[key] != value])
assert streams == (sys.stdout, sys.stderr) and finders == sys.meta_path and filters == warnings.filters
assert handlers == [signal.getsignal(number) for number in (2, 15)] and 'mmcv._ext' not in sys.modules
'''


def test_a_plain_import_replaces_nothing() -> None:
    done = subprocess.run([sys.executable, '-c', UNTOUCHED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.strip()


def load(path: Any) -> Any:
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


@pytest.mark.parametrize('zipped', [True, False])
def test_checkpoints_of_a_runner_are_read(zipped: bool, tmp_path: Path) -> None:
    values = dict(half=np.float16(1.5), byte=np.uint8(7), long=np.int64(-3), flag=np.bool_(True),
                  text=np.str_('x'), shorts=np.array([1, -2], np.int16))
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    schedulers = [MultiStepLR(sgd, [3, 5, 5]).state_dict(), OneCycleLR(sgd, 1., total_steps=4).state_dict()]
    torch.save(dict(
        **WEIGHTS, optimizer=sgd.state_dict(), param_schedulers=schedulers,
        history=HistoryBuffer([1.5, 2.5, 5.0], [1, 1, 2]),
        meta=dict(values, config='open("marker", "w")', info=ConfigDict(classes=('a', 'b')))),
        tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    content = load(tmp_path / 'x.pth')
    assert_array_equal(content['state_dict']['a'].numpy(), [0, 1, 2])
    assert content['history'].mean() == 9 / 4
    assert content['param_schedulers'][0]['milestones'] == {3: 1, 5: 2}
    assert content['param_schedulers'][1]['total_steps'] == 4
    assert content['meta'].pop('info') == dict(classes=('a', 'b'))
    for key, value in values.items():
        assert_array_equal(content['meta'][key], value)
    if hasattr(torch.serialization, 'safe_globals'):
        assert 'config' not in content['meta']  # a Runner that resumes would execute it


@needs_safe_globals
@pytest.mark.parametrize('make', [
    lambda marker: Reduces(open, marker, 'w'), lambda marker: Reduces(eval, f'open({marker!r}, "w")'),
    lambda marker: Reduces(getattr, OrderedDict, 'fromkeys'),
    lambda marker: Reduces(getattr, HistoryBuffer, '__init__')])
@pytest.mark.parametrize('place', ['{folder}/x.pth', 'https://localhost/x.pth', 'torchvision://resnet18'])
def test_code_in_a_checkpoint_is_refused(make: Any, place: str, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    folder = tmp_path / 'hub/checkpoints'
    folder.mkdir(parents=True)
    file = folder / (TORCHVISION_FILE if 'torchvision' in place else 'x.pth')
    torch.save(dict(**WEIGHTS, x=make(str(tmp_path / 'marker'))), file)
    with pytest.raises(RefusedError, match=file.name):
        load(place.format(folder=folder))
    assert not (tmp_path / 'marker').exists()
    torch.load(file, weights_only=False)  # torch's own function is what it was


def test_downloads_land_in_the_cache_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    source = tmp_path / 'source.pth'
    torch.save(WEIGHTS, source)

    def download(url: str, file: str, *_: Any, progress: bool) -> None:
        assert url == 'https://localhost/weights/y.pth?download=1'
        Path(file).write_bytes(source.read_bytes())

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    assert_array_equal(load('https://localhost/weights/y.pth?download=1')['state_dict']['a'], [0, 1, 2])
    monkeypatch.setattr(torch.hub, 'download_url_to_file', None)  # the second time, the file is there
    load('https://localhost/weights/y.pth?download=1')
