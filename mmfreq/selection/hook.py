"""Train a gate: its loss, its price, how often it keeps each channel (Xu et al. 2020, Eq. 2)."""
import math
from pathlib import Path
from typing import Any, Optional, Sequence, Union

import numpy as np
import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from mmfreq.dct.blocks import check_positive_int
from mmfreq.dct.channels import COMPONENTS
from mmfreq.selection.budget import PHASES, ChannelBudget, check_phases
from mmfreq.selection.gate import ChannelGate, find_gate
from mmfreq.selection.rates import GateCounter, gate_channels, save_on_rates

_STATE = 'gate_loss_hook'  # key of what a resumed training needs, in mmengine's message hub


@HOOKS.register_module()
class GateLossHook(Hook):
    """Train the gate of a backbone: few channels, as long as the task allows it.

    Say how many channels to keep (``target``), and the hook finds the price of one, by the law of
    :class:`~mmfreq.selection.budget.ChannelBudget`; or say the price (``loss_weight``), the paper's
    lambda, and see how many are kept.

    Add ``loss_gate`` = lambda * (channels kept, mean over the batch) to the losses of any
    mmpretrain or mmdet model (Eq. 2), so that it is in the total and in all logs; a loss that is
    called ``loss``, as mmpretrain's is, is logged as ``loss_task``, since ``loss`` is the total.
    Also logged in training: ``gate_kept`` and ``gate_kept_Y``, ``_Cb``, ``_Cr`` (channels kept,
    mean over the batch), ``gate_lambda``, and with a target ``gate_budget``.

    In validation and test, count over the whole set, over all processes, how often each channel is
    kept. The means go into the metrics as ``gate/kept`` etc., the rates of all channels into
    ``gate_rates_epoch_N.json`` beside the checkpoints (``gate_rates_iter_N.json``,
    ``gate_rates_test.json``) for ``tools/gate_heatmap.py`` and ``tools/select_channels.py``.

    Args:
        target (int, optional): Channels to keep at the end of the training. All processes of a
            distributed training use one lambda, and a resumed training goes on with it.
        loss_weight (float, optional): Fixed lambda >= 0, instead of a ``target``.
        phases (Sequence[float]): With ``target``: parts of the training after which channels begin
            to cost something, and after which the budget has fallen to the target. Defaults to
            (0.15, 0.6).

    Raises:
        ValueError: An argument is out of range; in ``before_train``: the model has no gate, or more
            than one, or ``target`` is not smaller than its number of channels.

    Example:
        >>> custom_hooks = [dict(type='GateLossHook', target=24)]
    """
    # Before the hooks that log, so that metrics can be added.
    priority = 'HIGHEST'

    def __init__(self, target: Optional[int] = None, loss_weight: Optional[float] = None,
                 phases: Sequence[float] = PHASES) -> None:
        if (target is None) == (loss_weight is None):
            raise ValueError('GateLossHook: expected either target (channels to keep) or '
                             f'loss_weight (lambda), got target={target!r}, '
                             f'loss_weight={loss_weight!r}')
        if target is not None:
            check_positive_int('target', target)
        elif type(loss_weight) not in (int, float) or not 0 <= loss_weight < math.inf:
            raise ValueError(f'loss_weight: expected a number >= 0, got {loss_weight!r}')
        self.target = target
        self.loss_weight = loss_weight
        self.phases = check_phases(phases)
        self.gate: Optional[ChannelGate] = None
        self.budget: Optional[ChannelBudget] = None
        self._weight = torch.zeros(())  # a tensor: a compiled model need not be compiled anew
        self._allowed = torch.zeros(())
        self._seen: Optional[torch.Tensor] = None  # channels kept and loss of the last iteration
        self._channels: list[int] = []
        self._block_size = 8
        self._handle: Optional[torch.utils.hooks.RemovableHandle] = None
        self._counter: Optional[GateCounter] = None

    def before_train(self, runner: Runner) -> None:
        """Look for the gate and add the loss to the model's."""
        self._find(runner, 'train_dataloader')
        if self.gate is None:
            raise ValueError('GateLossHook: expected a model with a gate, found none; give the '
                             'backbone gate=dict(...)')
        if self.target is None:
            self._weight.fill_(self.loss_weight)
            self.gate.set_noise(1.)
            aim = f'lambda (loss_weight) {self.loss_weight}'
        else:
            self.budget = ChannelBudget(self.gate.channels, self.target, self.phases)
            self.budget.progress = runner.iter / runner.max_iters
            self._restore(runner)
            aim = f'target {self.target}, phases {self.phases}'
        runner.logger.info(f'GateLossHook: {aim}, {self.gate.channels} channels')
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._handle = model.register_forward_hook(self._add_loss, with_kwargs=True)

    def _restore(self, runner: Runner) -> None:
        """Take up what a resumed training knew; mmengine keeps it with the checkpoint."""
        state = runner.message_hub.runtime_info.get(_STATE)
        if runner.iter > 0 and state is not None:
            self.budget.integral, self.budget.progress = state['integral'], state['progress']
            self._seen = torch.tensor(state['seen'], dtype=torch.float64)

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it was."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set lambda and the noise of this iteration, from what the last one kept."""
        if self.budget is None:
            return
        progress = runner.iter / runner.max_iters
        self.gate.set_noise(self.budget.noise(progress))
        self._allowed.fill_(self.budget.budget(progress))
        if self._seen is not None:
            self._weight.fill_(self.budget.price(progress, *self._seen.tolist()))

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Average what this iteration kept over the processes; leave it to the checkpoints."""
        if self.budget is not None:
            all_reduce(self._seen, 'mean')
            runner.message_hub.update_info(_STATE, dict(
                integral=self.budget.integral, progress=self.budget.progress,
                seen=self._seen.tolist()))

    def _add_loss(self, model: nn.Module, args: tuple, kwargs: dict[str, Any],
                  losses: Any) -> Optional[dict[str, Any]]:
        if kwargs.get('mode', args[2] if len(args) > 2 else 'tensor') != 'loss':
            return None
        mask = self.gate.mask
        trained = self.gate.logit_bias.requires_grad and torch.is_grad_enabled()
        if trained and not mask.requires_grad:
            raise RuntimeError('GateLossHook: the mask has no gradient. Reentrant activation '
                               'checkpointing around the backbone does that; checkpoint with '
                               'use_reentrant=False, or inside the backbone (with_cp=True)')
        added = dict(loss_gate=self._weight.to(mask) * mask.sum(dim=1).mean())
        for name, picked in self._components().items():
            added[f'gate_{name}'] = mask.detach()[:, picked].sum(dim=1).mean()
        added.update(gate_lambda=self._weight.to(mask))
        if self.budget is not None:
            kept = self.gate.probability.sum(dim=1).mean()
            total = total_loss(losses).to(kept)
            self._seen = torch.stack([kept, total]).float()  # no float64 on MPS
            added.update(gate_budget=self._allowed.to(mask))
        # mmpretrain calls its task's loss just "loss", which is the name of the total in the logs
        named = {'loss_task' if key == 'loss' else key: value for key, value in losses.items()}
        return {**named, **added}

    def _components(self) -> dict[str, Union[slice, list[int]]]:
        """Return the positions of all channels and of each component's, by their count's name."""
        found: dict[str, Union[slice, list[int]]] = dict(kept=slice(None))
        of_channels = np.array(self._channels) // self._block_size**2
        for component, name in enumerate(COMPONENTS):
            found[f'kept_{name}'] = np.flatnonzero(of_channels == component).tolist()
        return found

    def _find(self, runner: Runner, dataloader: str) -> None:
        """Find the gate, and which channels its positions are."""
        self.gate = find_gate(runner.model)
        if self.gate is not None:
            self._channels, self._block_size = gate_channels(runner.cfg, self.gate, dataloader)

    def before_val_epoch(self, runner: Runner) -> None:
        """Start to count."""
        self._start_counting(runner, 'val_dataloader')

    def before_test_epoch(self, runner: Runner) -> None:
        """Start to count."""
        self._start_counting(runner, 'test_dataloader')

    def _start_counting(self, runner: Runner, name: str) -> None:
        self._find(runner, name)
        images = len(getattr(runner, name).dataset)
        self._counter = self.gate and GateCounter(images, self._channels, self._block_size)

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Count one batch."""
        if self._counter is not None:
            self._counter.add(self.gate)

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict[str, float]] = None) -> None:
        """Add the means to the metrics; save the rates beside the checkpoints."""
        by_epoch = isinstance(runner._train_loop, EpochBasedTrainLoop)
        step = f'epoch_{runner.epoch}' if by_epoch else f'iter_{runner.iter}'
        self._finish(runner, metrics, step)

    def after_test_epoch(self, runner: Runner, metrics: Optional[dict[str, float]] = None) -> None:
        """Add the means to the metrics; save the rates in the work dir."""
        self._finish(runner, metrics, 'test')

    def _finish(self, runner: Runner, metrics: Optional[dict[str, float]], name: str) -> None:
        if self._counter is None:
            return
        rates = self._counter.finish(dict(
            config=runner.cfg.filename, epoch=runner.epoch, iter=runner.iter,
            loss_weight=self.loss_weight, target=self.target))
        self._counter = None
        if metrics is not None:
            metrics.update({f'gate/{key}': float(rates.on_rate[picked].sum())
                            for key, picked in self._components().items()})
        if is_main_process():
            save_on_rates(rates, str(Path(runner.work_dir, f'gate_rates_{name}.json')))


def total_loss(losses: dict[str, Any]) -> torch.Tensor:
    """Return the sum of all whose name holds "loss", as mmengine takes it, without graph."""
    total = 0.
    for key, value in losses.items():
        if 'loss' in key:
            parts = value if isinstance(value, (list, tuple)) else [value]
            total = total + sum(part.detach().float().mean() for part in parts)
    return total
