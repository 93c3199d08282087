"""The suite runs in two processes (-n 2; -n 0 for one), each with one thread, so that they do not fight for cores."""
import os

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ['CUDA_VISIBLE_DEVICES'] = ''

import runpy  # noqa: E402
import sys  # noqa: E402
from functools import cache  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Callable, Iterator  # noqa: E402

import cv2  # noqa: E402
import mmengine.config.utils  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import yapf.yapflib.yapf_api  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from mmengine.runner import CheckpointLoader  # noqa: E402

import mmfreq  # noqa: E402, F401  before any host, whose detectors would otherwise stay without nms

torch.set_num_threads(1)
cv2.setNumThreads(0)
# The first backward pass starts threads if there are other devices, as after an export to ONNX; copies of this process
# (tool_runs.py) could not train then. Now there are none yet.
torch.ones(1, requires_grad=True).sum().backward()
# What mmengine does again for every config: read the index of all models, and lay the text out.
mmengine.config.utils.load = cache(mmengine.config.utils.load)
yapf.yapflib.yapf_api.FormatCode = lambda text, **_: (text, True)

# Each process takes one file after another; the longest come first, so that none is left alone at the end.
LONGEST = ['test_backbones.py', 'test_export_detector.py', 'test_freqify.py', 'test_rows.py', 'test_export.py',
           'test_training.py']


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files come first."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture
def quick_init(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give new layers constant weights, which takes no time: for networks whose shapes count, or that are loaded."""
    for name in ('kaiming_normal_', 'kaiming_uniform_', 'normal_', 'trunc_normal_', 'uniform_', 'xavier_uniform_'):
        monkeypatch.setattr(torch.nn.init, name, lambda weight, *_, **__: weight.detach().fill_(0.01))


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a tool in this process, by its name and with arguments."""

    def run(name: str, *arguments: Any) -> None:
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, arguments)])
        with DefaultScope.overwrite_default_scope('mmengine'):
            runpy.run_path(str(Path(__file__).parents[1] / f'tools/{name}.py'), run_name='__main__')

    return run


@pytest.fixture(scope='module')
def hosts_set_up() -> Iterator[None]:
    """Call mmfreq.setup(), and take back at the end of the module what it changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointLoader, '_schemes', CheckpointLoader._schemes.copy())
        patch.setattr(Config, '_get_cfg_path', Config.__dict__['_get_cfg_path'])
        mmfreq.setup()
        yield
