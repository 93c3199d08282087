"""Check that a training can go on from a checkpoint; say what of a changed config it leaves aside."""
from pathlib import Path
from typing import Any, Iterator

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmfreq.apis.checks import naming
from mmfreq.config.inspect import iter_dicts
from mmfreq.hosts.checkpoints import RefusedCheckpointError


class ResumeCheckHook(Hook):
    """Refuse to resume what is no training of this optimizer; warn of settings that do not count.

    The state of the optimizer and of the schedule comes from the checkpoint, with their settings.
    """
    priority = 'VERY_LOW'  # with CheckpointCheckHook

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare, before the Runner takes the state."""
        if not runner._resume or not isinstance(runner.optim_wrapper, OptimWrapper):
            return
        with naming(runner._load_from):
            check_resumable(checkpoint, runner.optim_wrapper.param_groups)
        if not ((runner.cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('out_dir'):
            forget_best_elsewhere(checkpoint['message_hub'], runner.work_dir)
        groups = checkpoint['optimizer']['param_groups']
        changes = dict(_changed_groups(groups, runner.optim_wrapper.param_groups))
        if isinstance(runner.param_schedulers, list):
            names = {'begin', 'end'}.union(*iter_dicts(runner.cfg.get('param_scheduler')))
            changes.update(_changed_schedule(checkpoint, runner.param_schedulers, names))
        if changes:
            said = [f'{name}={old} (config: {new})' for name, (old, new) in changes.items()]
            runner.logger.warning('resume: optimizer and schedule go on as in the checkpoint, with '
                                  f'{", ".join(said)}; to train with the config\'s values, start '
                                  'from the weights alone: --cfg-options load_from=FILE')


def forget_best_elsewhere(hub: dict[str, dict], work_dir: str) -> None:
    """Name the best checkpoint in ``work_dir`` instead of one elsewhere; forget it if it is not there.

    CheckpointHook deletes the file that is named when it finds a better one, be it another run's.

    Args:
        hub (dict): ``message_hub`` of a checkpoint; changed in place.
        work_dir (str): Folder of the run that goes on.
    """
    known, resumed = hub.get('runtime_info', {}), hub.get('resumed_keys', {})
    for key in [key for key in known if key.startswith('best_ckpt')]:
        here = Path(work_dir, Path(known[key]).name)
        if here.is_file():
            known[key] = str(here)
        else:
            for name in (key, key.replace('ckpt', 'score', 1)):
                known.pop(name, None)
                resumed.pop(name, None)


def check_resumable(checkpoint: dict[str, Any], groups: list[dict[str, Any]]) -> None:
    """Raise RefusedCheckpointError unless ``checkpoint`` has the state of such an optimizer.

    Args:
        checkpoint (dict): As a Runner saves it.
        groups (list[dict]): ``param_groups`` of the optimizer that the config makes.
    """
    needed = ('message_hub', 'meta', 'optimizer')
    lacking = [key for key in needed if key not in checkpoint]
    if lacking or not {'epoch', 'iter'} <= set(checkpoint['meta']):
        raise RefusedCheckpointError(
            f'expected the checkpoint of a training, found no {", ".join(lacking) or "epoch"} in '
            'it; to start from its weights: --cfg-options load_from=FILE, without --resume')
    saved = checkpoint['optimizer'].get('param_groups', [])
    counts = [[len(group['params']) for group in part] for part in (saved, groups)]
    names = [{key for key in part[0] if not key.startswith('initial_')} if part else set()
             for part in (saved, groups)]
    other = names[0] - names[1] and names[1] - names[0]
    if counts[0] != counts[1] or other:
        kinds = [f'{sum(count)} parameters in {len(part)} group(s) with {", ".join(sorted(name))}'
                 for part, count, name in zip((saved, groups), counts, names)]
        raise RefusedCheckpointError(f'expected the state of the config\'s optimizer, {kinds[1]}, '
                                     f'found {kinds[0]}')


def _changed_groups(saved: list[dict], groups: list[dict]) -> Iterator[tuple[str, tuple]]:
    for old, new in zip(saved, groups):
        for key in set(old) & set(new) - {'params'}:
            if f'initial_{key}' not in old and old[key] != new[key]:
                yield key.replace('initial_', ''), (old[key], new[key])


def _changed_schedule(checkpoint: dict[str, Any], schedulers: list,
                      names: set[str]) -> Iterator[tuple[str, tuple]]:
    saved = checkpoint.get('param_schedulers') or []
    if len(saved) != len(schedulers):
        yield 'schedulers', (len(saved), len(schedulers))
    for old, scheduler in zip(saved, schedulers):
        for key in sorted(names & set(old) & set(vars(scheduler))):
            if old[key] != vars(scheduler)[key]:
                yield f'{type(scheduler).__name__}.{key}', (old[key], vars(scheduler)[key])
