"""Train a gate, and record how often it keeps each channel."""
import math
import os
from hashlib import blake2b
from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from mmfreq.config.pipelines import input_specs
from mmfreq.dct.blocks import check_positive_int
from mmfreq.dct.channels import COMPONENTS
from mmfreq.selection.gate import find_gate
from mmfreq.selection.rates import GateCounter, OnRates, save_on_rates


@HOOKS.register_module()
class GateLossHook(Hook):
    """Train the gate of a backbone to keep few channels, and say whether it has decided which.

    With ``target``, a budget says how many channels the gate keeps, in each iteration and in
    evaluation. Until ``phases[0]`` of the training, it is all channels. It falls geometrically until
    ``phases[1]``, while the noise of the draws falls linearly from 1 to 0. From then on, the budget
    is ``target``, the gate stays as it is, and the network adapts to it. Only these checkpoints
    count for ``save_best``.

    With ``loss_weight``, the paper's lambda, ``loss_gate`` = lambda * (channels kept, mean over the
    batch) is added to the losses of any mmpretrain or mmdet model (Xu et al. 2020, Eq. 2). A loss
    that is called ``loss``, as mmpretrain's is, is then logged as ``loss_task``.

    The log of the training also has ``gate_kept``, ``gate_kept_Y``, ``_Cb`` and ``_Cr`` (channels
    kept, mean over the batch), and ``gate_budget`` with a target. A validation or test adds the same
    means over all its images to the metrics, as ``gate/kept`` etc. It writes the rates of all
    channels and :meth:`~mmfreq.selection.rates.OnRates.verdict` into ``gate_rates_epoch_N.json``
    (``gate_rates_iter_N.json``, ``gate_rates_test.json``) in the work dir. The last verdict is
    logged at the end of the training, as a warning if the gate is undecided.

    Args:
        target (int, optional): Channels to keep at the end of the training.
        loss_weight (float, optional): Fixed lambda >= 0, instead of a ``target``.
        phases (Sequence[float]): With ``target``: parts of the training, ascending in 0..1, after
            which the budget begins to fall and after which it is the target. Defaults to
            (0.15, 0.6).

    Raises:
        ValueError: An argument is out of range. In ``before_train``: the model has no gate or
            several, or a gate that cannot keep ``target`` channels.

    Example:
        >>> custom_hooks = [dict(type='GateLossHook', target=24)]
    """
    # Before the hooks that log, so that metrics can be added.
    priority = 'HIGHEST'

    def __init__(self, target: Optional[int] = None, loss_weight: Optional[float] = None,
                 phases: Sequence[float] = (0.15, 0.6)) -> None:
        if (target is None) == (loss_weight is None) or not 0 <= (loss_weight or 0) < math.inf:
            raise ValueError('GateLossHook: expected either target (channels to keep) or loss_weight '
                             f'(lambda) >= 0, got target={target!r}, loss_weight={loss_weight!r}')
        if target is not None:
            check_positive_int('target', target)
        start, end = phases
        if not 0 <= start < end <= 1:
            raise ValueError(f'phases: expected two ascending numbers in 0..1, got {phases!r}')
        self.target, self.loss_weight, self.phases = target, loss_weight, phases
        self.rates: Optional[OnRates] = None  # of the last validation
        self._handle: Optional[torch.utils.hooks.RemovableHandle] = None
        self._final: Optional[dict[str, torch.Tensor]] = None  # the gate since the budget is the target

    def before_train(self, runner: Runner) -> None:
        """Look for the gate, and extend the losses of the model."""
        self._find(runner, 'train_dataloader')
        self.gate.set_budget(self.target or 0)  # raises if the target does not fit
        self._averages = [find_gate(hook.ema_model) for hook in runner.hooks if isinstance(hook, EMAHook)]
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._handle = model.register_forward_hook(self._add_losses, with_kwargs=True)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the budget, the noise and the halves of this batch."""
        halves = halves_of(data_batch)
        self.gate.second = halves and torch.tensor(halves, device=self.gate.noise.device)
        if self.target is not None:
            start, end = self.phases
            before, progress = (min(max((done / runner.max_iters - start) / (end - start), 0.), 1.)
                                for done in (runner.iter, runner.iter + 1))
            for gate in (self.gate, *self._averages):  # an average keeps the first integer
                gate.lower_budget(self.target, progress, noise=1 - progress)
            if progress == 1 and self._final is None:
                self._final = {name: value.clone() for name, value in self.gate.state_dict().items()}
            if before < 1 == progress:  # what was best until now has another budget
                for key in [key for key in runner.message_hub.runtime_info if key.startswith('best_score')]:
                    runner.message_hub.pop_info(key)

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it was, and log whether the gate has decided."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = self.gate.second = self._final = None
        if self.rates is not None:
            log = runner.logger.info if self.rates.verdict()['decided'] else runner.logger.warning
            log(f'GateLossHook: {self.rates.describe()}')

    def _add_losses(self, model: nn.Module, args: tuple, kwargs: dict[str, Any],
                    losses: Any) -> Optional[dict[str, Any]]:
        if kwargs.get('mode', args[2] if len(args) > 2 else 'tensor') != 'loss':
            return None
        mask = self.gate.mask
        counts = {f'gate_{name}': mask.detach()[:, part].sum(dim=1).mean()
                  for name, part in self._parts.items()}
        if self.target is not None:
            return {**losses, **counts, 'gate_budget': self.gate.budget.to(mask)}
        if torch.is_grad_enabled() and not mask.requires_grad:
            raise RuntimeError('GateLossHook: the mask has no gradient. Expected activation '
                               'checkpointing with use_reentrant=False, or inside the backbone')
        named = {'loss_task' if key == 'loss' else key: value for key, value in losses.items()}
        return {**named, 'loss_gate': self.loss_weight * mask.sum(dim=1).mean(), **counts}

    def _find(self, runner: Runner, dataloader: str) -> None:
        """Find the gate, its input, and the positions of all channels and of each component."""
        self.gate, self._input = find_gate(runner.model), input_specs(runner.cfg)[dataloader]
        components = np.array(self._input.channels) // self._input.block_size**2
        self._parts = dict(kept=slice(None)) | {
            f'kept_{name}': np.flatnonzero(components == component).tolist()
            for component, name in enumerate(COMPONENTS)}

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Start to count, in a validation or test."""
        if mode != 'train':
            self._find(runner, f'{mode}_dataloader')
            images = len(getattr(runner, f'{mode}_dataloader').dataset)
            self._counter = GateCounter(images, self._input)

    def _after_iter(self, runner: Runner, *args: Any, mode: str = 'train', **kwargs: Any) -> None:
        """Count one batch of a validation or test. Undo what weight decay does to a gate that rests."""
        if mode != 'train':
            self._counter.add(self.gate)
        elif self._final is not None:
            self.gate.load_state_dict(self._final)

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict[str, float]] = None) -> None:
        """Add the means to the metrics; save the rates beside the checkpoints."""
        by_epoch = isinstance(runner._train_loop, EpochBasedTrainLoop)
        self._finish(runner, metrics, f'epoch_{runner.epoch}' if by_epoch else f'iter_{runner.iter}')

    def after_test_epoch(self, runner: Runner, metrics: Optional[dict[str, float]] = None) -> None:
        """Add the means to the metrics; save the rates in the work dir."""
        self._finish(runner, metrics, 'test')

    def _finish(self, runner: Runner, metrics: Optional[dict[str, float]], name: str) -> None:
        self.rates = self._counter.finish(dict(
            config=runner.cfg.filename, epoch=runner.epoch, iter=runner.iter,
            budget=int(self.gate.budget)))
        if metrics is not None:
            metrics.update({f'gate/{key}': float(self.rates.on_rate[part].sum())
                            for key, part in self._parts.items()})
        if is_main_process():
            save_on_rates(self.rates, str(Path(runner.work_dir, f'gate_rates_{name}.json')))


def halves_of(data_batch: Any) -> Optional[list[bool]]:
    """Return which images of a batch belong to the second half, by name of file and folder; None without.

    The place of the data does not matter, so that one seed gives the same gate elsewhere.
    """
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    paths = [getattr(sample, 'img_path', None) for sample in samples or ()]
    if not paths or None in paths:
        return None
    # a cryptographic hash: the last bit of CRC-32 can be the same for all files of a folder
    names = ['/'.join(Path(os.path.abspath(path)).parts[-2:]) for path in paths]
    return [blake2b(name.encode(), digest_size=1).digest()[0] % 2 > 0 for name in names]
