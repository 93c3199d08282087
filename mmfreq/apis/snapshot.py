"""Keep what a long epoch has learnt when a training is interrupted."""
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmfreq.files import atomic_write_text

FILE = 'interrupted.pth'


class SnapshotHook(Hook):
    """Save ``interrupted.pth`` within epochs, from time to time and when training is interrupted.

    CheckpointHook saves whole epochs. A resumed run takes the file's weights and optimizer and
    trains the epoch from its beginning, at its learning rates; a loop over iterations goes on where
    it was. Epochs that end sooner than ``seconds`` are not saved so; nor is a FlexibleRunner, all of
    whose processes would have to save at one moment.

    Args:
        seconds (float): Age that an epoch must have. Defaults to 60.
        every (float): Seconds between two files, in case the machine stops. Defaults to 1200.
    """
    # behind EMAHook, which swaps the weights that are saved, and ParamSchedulerHook; before
    # CheckpointHook, whose work may be interrupted
    priority = 75

    def __init__(self, seconds: float = 60, every: float = 1200) -> None:
        self.seconds, self.every = seconds, every
        self._running = self._saving = False

    def before_train_epoch(self, runner: Runner) -> None:
        """Remember the schedule as it is at the beginning of the epoch."""
        self._begun = self._saved = time.monotonic()
        self._start = self._done = runner.iter
        schedulers = runner.param_schedulers
        self._schedule = deepcopy([scheduler.state_dict() for scheduler in schedulers]
                                  if isinstance(schedulers, list) else None)
        self._groups = []
        for group in getattr(runner.optim_wrapper, 'param_groups', ()):
            self._groups.append({key: deepcopy(group[key]) for key in group if key != 'params'})
        self._running = True

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: Any = None) -> None:
        """Save if the last file is old."""
        self._done = runner.iter + 1  # the loop counts later
        if time.monotonic() - self._saved > self.every:
            self.save(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Leave the rest to CheckpointHook."""
        self._running = False

    def save(self, runner: Runner) -> bool:
        """Save, if an epoch is running that is old enough; return whether it was."""
        young = not self._running or time.monotonic() - self._begun < self.seconds
        if young or not isinstance(runner, Runner):
            return False
        self._saving = True
        try:
            by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
            done = dict(epoch=runner.epoch, iter=self._start if by_epoch else self._done)
            runner.save_checkpoint(runner.work_dir, FILE, meta=done)
        finally:
            self._saving = False
        if is_main_process():
            path = Path(runner.work_dir, FILE)
            atomic_write_text(Path(runner.work_dir, 'last_checkpoint'), str(path.absolute()))
        self._saved = time.monotonic()
        return True

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Set the schedule in a file of an unfinished epoch back to the epoch's beginning."""
        if not self._saving or not isinstance(runner.train_loop, EpochBasedTrainLoop):
            return
        if self._schedule is not None and 'param_schedulers' in checkpoint:
            checkpoint['param_schedulers'] = self._schedule
        for group, start in zip(checkpoint['optimizer'].get('param_groups', ()), self._groups):
            group.update(start)
