"""The terminal of a run: what it is, how far it is, how it ended; the log file has everything."""
import logging
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, RUNNERS
from torch import nn

import mmfreq.engine  # noqa: F401  registers the hook and the runner
from mmfreq.apis.terminal import run_tool
from mmfreq.errors import RefusedError


@MODELS.register_module()
class Line(BaseModel):
    """Learn to double a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)

    def forward(self, inputs: torch.Tensor, mode: str = 'tensor') -> Any:
        return dict(loss=((self.layer(inputs) - 2 * inputs)**2).mean())


def config(work_dir: Path, **options: Any) -> Config:
    """Three epochs of four steps."""
    data = [dict(inputs=torch.ones(1) * i) for i in (1, 2, 3, 4)]
    loader = dict(dataset=data, batch_size=1, collate_fn=dict(type='default_collate'),
                  sampler=dict(type='DefaultSampler', shuffle=False))
    return Config(dict(
        model=dict(type='Line'), work_dir=str(work_dir), train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=3), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        runner_type='QuietRunner', default_hooks=dict(progress=dict(type='ProgressHook')),
        experiment_name=f'{work_dir.name}-{time.monotonic_ns()}', **options))


def test_a_quiet_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runner = RUNNERS.build(config(tmp_path))
    runner.train()
    output, errors = capsys.readouterr()
    assert 'train: ' in errors
    lines = [line for line in output.splitlines() if 'WARNING' not in line]
    assert [line.split()[0] for line in lines] == ['network', 'data', 'input', 'run', 'folder', 'checkpoint:']
    assert 'Line' in lines[0]
    assert '3 epochs, 0 steps are done, on cpu' in lines[3]
    assert lines[-1].endswith(f'{tmp_path}/epoch_3.pth')
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'loss: ' in log
    assert 'loss: ' not in output
    runner.logger.warning('the disk is nearly full')
    assert 'nearly full' in capsys.readouterr().out
    assert runner.logger.level <= logging.INFO


@pytest.mark.parametrize(('error', 'code', 'line'), [
    (RefusedError('x.py: no such file'), 2, 'new.py: error: x.py: no such file\n'),
    (SystemExit('expected a .py file'), 2, 'new.py: error: expected a .py file\n'),
    (KeyboardInterrupt(), 130, 'new.py: interrupted\n'), (SystemExit(3), 3, '')])
def test_a_tool_refuses_in_one_line(error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, 'argv', ['tools/new.py'])
    with pytest.raises(SystemExit) as stopped:
        run_tool(Mock(side_effect=error))
    assert (stopped.value.code, capsys.readouterr().err) == (code, line)


@pytest.mark.parametrize('error', [RuntimeError('in a model'), ValueError('in a head'), OSError(28, 'No space left')])
def test_errors_of_a_users_code_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as passed:
        run_tool(Mock(side_effect=error))
    assert passed.value is error
