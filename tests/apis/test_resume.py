"""What of a changed config a resumed training leaves aside is said; what cannot go on is refused."""
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mmfreq.apis.resume import ResumeCheckHook, forget_best_elsewhere
from mmfreq.hosts.checkpoints import RefusedCheckpointError

COSINE = dict(type='CosineAnnealingLR', T_max=10, by_epoch=True, end=10)


def training(lines: list[str], schedule: dict, optimizer: type = torch.optim.SGD, size: int = 2,
             **options: Any) -> SimpleNamespace:
    wrapper = OptimWrapper(optimizer(nn.Linear(size, 1).parameters(), **{'lr': 0.1, **options}))
    schedulers = [PARAM_SCHEDULERS.build(dict(schedule, optimizer=wrapper))]
    return SimpleNamespace(optim_wrapper=wrapper, param_schedulers=schedulers, _resume=True, _load_from='x.pth',
                           cfg=Config(dict(param_scheduler=schedule)), work_dir='',
                           logger=SimpleNamespace(warning=lines.append))


def saved() -> dict[str, Any]:
    """The checkpoint of a training behind its third epoch."""
    run = training([], COSINE, momentum=0.9)
    for _ in range(3):
        run.optim_wrapper.step()
        run.param_schedulers[0].step()
    return dict(message_hub={}, meta=dict(epoch=3, iter=12), optimizer=run.optim_wrapper.state_dict(),
                param_schedulers=[run.param_schedulers[0].state_dict()])


@pytest.mark.parametrize(('changes', 'schedule', 'said'), [
    ({}, {}, ''),
    (dict(lr=0.01), {}, 'lr=0.1 (config: 0.01)'),
    (dict(momentum=0.5), {}, 'momentum=0.9 (config: 0.5)'),
    ({}, dict(T_max=20, end=20), 'CosineAnnealingLR.T_max=10 (config: 20), CosineAnnealingLR.end=10 (config: 20)')])
def test_what_does_not_count_is_said(changes: dict, schedule: dict, said: str) -> None:
    lines: list[str] = []
    run = training(lines, {**COSINE, **schedule}, **{'momentum': 0.9, **changes})
    ResumeCheckHook().after_load_checkpoint(run, saved())
    found = [line for line in lines if said.partition(', ')[0] in line and said.rpartition(', ')[2] in line]
    assert len(lines) == len(found) == bool(said)


@pytest.mark.parametrize(('drop', 'options', 'message'), [
    ('message_hub', {}, 'x.pth: expected the checkpoint of a training, found no message_hub in it; to .*load_from'),
    ('optimizer', {}, 'found no optimizer'),
    ('', dict(optimizer=torch.optim.Adam), 'expected the state of .*betas.*, found 2 parameters .*momentum'),
    ('', dict(optimizer=torch.optim.Adam, size=3), 'expected the state of')])
def test_what_cannot_go_on_is_refused(drop: str, options: dict, message: str) -> None:
    checkpoint = saved()
    checkpoint.pop(drop, None)
    with pytest.raises(RefusedCheckpointError, match=message):
        ResumeCheckHook().after_load_checkpoint(training([], COSINE, **options), checkpoint)


def test_the_best_checkpoint_of_another_run_is_not_deleted(tmp_path: Path) -> None:
    """CheckpointHook deletes what ``best_ckpt`` names once there is a better one."""
    hub = dict(runtime_info=dict(best_ckpt='/elsewhere/best_2.pth', best_score=80., epoch=2),
               resumed_keys=dict(best_ckpt=True, best_score=True, epoch=True))
    forget_best_elsewhere(hub, str(tmp_path))
    assert hub == dict(runtime_info=dict(epoch=2), resumed_keys=dict(epoch=True))
    (tmp_path / 'best_2.pth').touch()  # a work dir that has moved
    known = {'best_ckpt_a/b': '/elsewhere/best_2.pth', 'best_score_a/b': 80.}
    forget_best_elsewhere(dict(runtime_info=known), str(tmp_path))
    assert known == {'best_ckpt_a/b': str(tmp_path / 'best_2.pth'), 'best_score_a/b': 80.}
