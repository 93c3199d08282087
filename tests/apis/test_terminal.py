"""The terminal of a run says what a user needs, and an interruption loses little."""
import io
import runpy
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook, ParamSchedulerHook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import IterBasedTrainLoop, Runner
from numpy.testing import assert_allclose
from torch import nn

from mmfreq.apis import terminal
from mmfreq.apis.runs import train
from mmfreq.apis.snapshot import FILE, SnapshotHook
from mmfreq.apis.terminal import ProgressHook, headlines, quiet, run_tool

ROOT = Path(__file__).parents[2]


class Line(BaseModel):
    """Learn to double a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)

    def forward(self, inputs: torch.Tensor, mode: str = 'tensor') -> Any:
        return dict(loss=((self.layer(inputs) - 2 * inputs)**2).mean())


class Interrupt(Hook):
    """Interrupt before a step that counts from 0."""

    def __init__(self, step: int) -> None:
        self.step = step

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == self.step:
            raise KeyboardInterrupt


def runner(work_dir: Path, *hooks: Hook, resume: bool = False, epochs: int = 3) -> Runner:
    """Epochs of 4 steps, in each of which the learning rate is halved from 0.1 on."""
    torch.manual_seed(0)
    data = [dict(inputs=torch.ones(1) * i) for i in (1, 2, 3, 4)]
    loader = dict(dataset=data, batch_size=1, collate_fn=dict(type='default_collate'),
                  sampler=dict(type='DefaultSampler', shuffle=False))
    made = Runner(
        Line(), str(work_dir), loader, train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)), resume=resume,
        param_scheduler=dict(type='ExponentialLR', gamma=0.5, by_epoch=False),
        experiment_name=f'{work_dir.name}-{time.monotonic_ns()}')
    for hook in hooks:
        made.register_hook(hook)
    return made


def test_an_interrupted_epoch_is_kept_with_the_schedule_of_its_beginning(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr('mmfreq.apis.runs.SnapshotHook', lambda: SnapshotHook(seconds=0))
    monkeypatch.setattr('mmfreq.apis.runs._check_datasets', lambda *_: None)
    cut = runner(tmp_path, Interrupt(6))
    with pytest.raises(SystemExit) as stopped:
        train(cut)
    assert stopped.value.code == 130
    assert 'goes on from there, with that epoch from its beginning' in capsys.readouterr().err
    saved = torch.load(tmp_path / FILE, weights_only=False)
    whole = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    assert (saved['meta']['epoch'], saved['meta']['iter']) == (1, 4)
    assert_allclose(saved['state_dict']['layer.weight'], cut.model.layer.weight.detach())
    assert (saved['state_dict']['layer.weight'] != whole['state_dict']['layer.weight']).all()
    for part in ('param_schedulers', 'optimizer'):
        rate = saved[part][0]['_last_value'] if part == 'param_schedulers' else (
            [saved[part]['param_groups'][0]['lr']])
        assert_allclose(rate, 0.01 * 0.5**4)
    assert not (tmp_path / f'{FILE}.part').exists()

    rates = []

    class Record(Hook):
        def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
            rates.append((runner.iter, runner.optim_wrapper.param_groups[0]['lr']))

    train(runner(tmp_path, Record(), resume=True))
    assert_allclose(rates, [(step, 0.01 * 0.5**step) for step in range(4, 12)])


def test_more_epochs_of_fewer_steps_are_trained(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A run of 3 epochs with 4 steps each goes on to a fourth epoch, with 12 steps done of 4 x 2."""
    runner(tmp_path, epochs=3).train()
    more = runner(tmp_path, resume=True, epochs=4)
    more._train_dataloader.update(batch_size=2)
    hook = ProgressHook(io.StringIO(), 'own.py')
    more.cfg.train_dataloader = dict(batch_size=2)
    more.register_hook(hook)
    more.train()
    assert '\nepoch 4/4: loss ' in hook.out.getvalue()


def test_a_young_epoch_is_not_kept(tmp_path: Path) -> None:
    snapshot = SnapshotHook(seconds=60)
    runner(tmp_path, snapshot, epochs=1).train()
    assert not snapshot.save(None)
    assert not (tmp_path / FILE).exists()


def test_a_long_epoch_is_saved_from_time_to_time(tmp_path: Path) -> None:
    runner(tmp_path, SnapshotHook(seconds=0, every=0), epochs=1).train()
    saved = torch.load(tmp_path / FILE, weights_only=False)
    assert (saved['meta']['epoch'], saved['meta']['iter']) == (0, 0)
    assert (tmp_path / 'last_checkpoint').read_text() in (
        str(tmp_path / FILE), str(tmp_path / 'epoch_1.pth'))


def iterations(work_dir: Path, *hooks: Hook, resume: bool = False) -> Runner:
    """The same by iterations, without an end of epochs."""
    made = runner(work_dir, *hooks, resume=resume)
    made._train_loop = IterBasedTrainLoop(made, made._train_dataloader, max_iters=12)
    return made


@pytest.mark.parametrize('timed', [True, False])
def test_a_loop_of_iterations_goes_on_with_its_schedule(timed: bool, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is written behind step 6 has done 6 steps, as its schedule has."""
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda _: None)  # between turns of the data
    rates = []

    class Record(Hook):
        def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
            rates.append((runner.iter, runner.optim_wrapper.param_groups[0]['lr']))

    class Cut(Hook):
        """Interrupt where CheckpointHook may be interrupted, or where only the timed file is there."""
        priority = 'VERY_LOW'

        def after_train_iter(self, runner: Runner, batch_idx: int, *_: Any, **__: Any) -> None:
            if runner.iter == 5:
                raise KeyboardInterrupt

    snapshot = SnapshotHook(seconds=0, every=0 if timed else 1000)
    cut = iterations(tmp_path, snapshot, Cut())
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    if not timed:
        snapshot.save(cut)
    iterations(tmp_path, Record(), resume=True).train()
    assert_allclose(rates, [(step, 0.01 * 0.5**step) for step in range(6, 12)])


def test_a_flexible_runner_is_not_kept() -> None:
    """All of its processes would have to save at one moment; its clocks differ."""
    snapshot = SnapshotHook(seconds=0)
    flexible = SimpleNamespace(iter=0, param_schedulers=None, optim_wrapper=None)
    snapshot.before_train_epoch(flexible)
    assert not snapshot.save(flexible)


def ends(hook: ProgressHook, known: dict[str, Any], *epochs: tuple[float, str]) -> str:
    """The last line of a training that goes on with ``known``, and finds these figures and files."""
    loop = SimpleNamespace(epoch=0, iter=3, max_iters=3, max_epochs=9, val_loop=None, train_loop=None,
                           train_dataloader=[], message_hub=SimpleNamespace(runtime_info=known))
    hook.before_train(loop)
    hook.by_epoch = True
    for epoch, (figure, saved) in enumerate(epochs, 4):
        loop.epoch = epoch
        known.update({'last_ckpt': f'epoch_{epoch}.pth', **({'best_ckpt': saved} if saved else {})})
        hook.after_val_epoch(loop, {'accuracy/top1': figure})
    hook.after_train(loop)
    return hook.out.getvalue().splitlines()[-1]


def test_the_last_line_has_the_figure_of_the_checkpoint_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, 'describe_run', lambda *_: [])
    old = dict(best_ckpt='best_epoch_2.pth', best_score=80.)
    for known, epochs, expected in (
            ({}, [(50., 'b4.pth'), (40., '')], 'best: top-1 accuracy 50.00 % (epoch 4); checkpoint: b4.pth; '),
            (old, [(50., ''), (40., '')], 'best: 80 (before this run went on); checkpoint: best_epoch_2.pth; '),
            (old, [(50., ''), (90., 'b5.pth')], 'best: top-1 accuracy 90.00 % (epoch 5); checkpoint: b5.pth; '),
            ({}, [(50., ''), (40., '')], 'last: top-1 accuracy 40.00 % (epoch 5); checkpoint: epoch_5.pth; ')):
        line = ends(ProgressHook(io.StringIO(), 'my config.py'), dict(known), *epochs)
        assert line.startswith(expected)
        assert "next: mmfreq test 'my config.py' " in line


def test_a_loss_that_is_no_number_is_said_once() -> None:
    hook = ProgressHook(io.StringIO(), 'own.py')
    hook.by_epoch = True
    hook._begin(4, 0, 'epoch 1/1')
    for value in (1., float('nan'), float('nan')):
        hook.shown = -1e9  # as if the last line were long ago
        hook.after_train_iter(SimpleNamespace(epoch=0, max_epochs=1), 0, outputs=dict(loss=torch.tensor(value)))
    assert hook.out.getvalue().count('WARNING: the loss is nan: ') == 1


def test_progress_depends_on_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, out = [0.], io.StringIO()
    monkeypatch.setattr(terminal.time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(sys, 'stderr', io.StringIO())  # no terminal
    hook = ProgressHook(out, 'own.py')
    hook.by_epoch = True
    hook._begin(100, 0, 'epoch 1/10')
    assert out.getvalue().startswith('epoch 1/10   0% |')  # at once
    shown = []
    loop = SimpleNamespace(epoch=0, max_epochs=10)
    for _ in range(100):
        now[0] += 4  # seconds a step
        before = out.getvalue()
        hook.after_train_iter(loop, 0, outputs=dict(loss=torch.tensor(0.5)))
        if out.getvalue() != before:
            shown.append(now[0])
    assert shown[0] == 8  # the first multiple of 4 that is 5 seconds or more
    assert max(b - 1.25 * a for a, b in zip(shown, shown[1:])) <= 8
    assert len(shown) < 20
    assert 'loss 0.5' in out.getvalue()


def test_quiet_passes_warnings_on(capsys: pytest.CaptureFixture) -> None:
    with quiet() as out:
        logger = MMLogger('quiet', log_level='INFO')
        print('Line NMS is not compiled')
        logger.info('a long config')
        logger.warning('the disk is nearly full')
        logger.warning('"FileClient" will be deprecated in future')
        print('ours', file=out)
    print('after')
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].endswith('the disk is nearly full')
    assert lines[1:] == ['ours', 'after']
    logger.info('a line of a logger that was made inside')
    assert 'made inside' in capsys.readouterr().out
    with quiet():
        logger.info('again')
    assert not capsys.readouterr().out
    with quiet(verbose=True) as out:
        print('all')
    assert out is None
    assert capsys.readouterr().out == 'all\n'


@pytest.mark.parametrize(('what', 'code', 'line'), [
    (SystemExit('x.py: no such file'), 2, 'new.py: error: x.py: no such file\n'),
    (OSError(28, 'No space left', 'x.json'), 2, "new.py: error: x.json: No space left\n"),
    (FileExistsError(17, 'File exists', 'x'), 2, 'new.py: error: x: is a file; expected a folder\n'),
    (KeyboardInterrupt(), 130, 'new.py: interrupted\n'), (SystemExit(3), 3, '')])
def test_a_tool_ends_with_one_line(what: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, 'argv', ['tools/new.py'])
    with pytest.raises(SystemExit) as stopped:
        run_tool(Mock(side_effect=what))
    assert (stopped.value.code, capsys.readouterr().err) == (code, line)


def test_home_in_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', '/home/me')
    monkeypatch.setattr(sys, 'argv', ['new', '~/data', '--out=~/x.py', 'a~', '--cfg-options', 'a=b~'])
    run_tool(lambda: None)
    assert sys.argv[1:] == ['/home/me/data', '--out=/home/me/x.py', 'a~', '--cfg-options', 'a=b~']


@pytest.mark.parametrize('tool', sorted(ROOT.glob('tools/*.py')), ids=lambda path: path.stem)
def test_every_tool_ends_so(tool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr('argparse.ArgumentParser.parse_args', Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr(sys, 'argv', [str(tool)])
    with pytest.raises(SystemExit):
        runpy.run_path(str(tool), run_name='__main__')
    assert capsys.readouterr().err == f'{tool.name}: interrupted\n'


def test_headlines_are_in_words_and_per_cent() -> None:
    metrics = {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_50': 0.5, 'coco/segm_mAP': 0.125, 'time': 1.}
    assert headlines(metrics) == {'box AP, %': 25, 'mask AP, %': 12.5}
    assert headlines({'mine/score': 3., 'data_time': 1.}) == {'mine/score': 3.}
    assert {CheckpointHook.priority, ParamSchedulerHook.priority} == {'VERY_LOW', 'LOW'}
    assert ProgressHook.priority == 'LOWEST'
