"""Train a gate: its budget or its loss, and how often it keeps each channel."""
import math
import zlib
from pathlib import Path
from typing import Any, Optional, Sequence, Union

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from mmfreq.dct.blocks import check_positive_int
from mmfreq.dct.channels import COMPONENTS
from mmfreq.selection.gate import ChannelGate, find_gate
from mmfreq.selection.rates import GateCounter, OnRates, gate_input, save_on_rates


@HOOKS.register_module()
class GateLossHook(Hook):
    """Train the gate of a backbone to keep few channels, and say whether it has decided which.

    With ``target``, the gate keeps as many channels as a budget says, in each iteration and in
    evaluation. Until ``phases[0]`` of the training, the budget is all channels. It falls
    geometrically until ``phases[1]``, while the noise of the draws falls linearly from 1 to 0. From
    then on, the budget is ``target``, the gate's decision stands, and the network adapts to it.

    With ``loss_weight``, the paper's lambda, ``loss_gate`` = lambda * (channels kept, mean over the
    batch) is added to the losses of any mmpretrain or mmdet model (Xu et al. 2020, Eq. 2). A loss
    that is called ``loss``, as mmpretrain's is, is then logged as ``loss_task``.

    Also logged in training: ``gate_kept`` and ``gate_kept_Y``, ``_Cb``, ``_Cr`` (channels kept,
    mean over the batch), and ``gate_budget`` with a target.

    In validation and test, count over all images and processes how often each channel is kept. The
    sums go into the metrics as ``gate/kept`` etc., the rates of all channels and the verdict of
    :meth:`~mmfreq.selection.rates.OnRates.verdict` into ``gate_rates_epoch_N.json`` beside the
    checkpoints (``gate_rates_iter_N.json``, ``gate_rates_test.json``) for
    ``tools/gate_heatmap.py`` and ``tools/select_channels.py``. The last verdict is logged at the
    end of the training, as a warning if the gate is undecided.

    Args:
        target (int, optional): Channels to keep at the end of the training, in 1..C-1.
        loss_weight (float, optional): Fixed lambda >= 0, instead of a ``target``.
        phases (Sequence[float]): With ``target``: parts of the training, ascending in 0..1, after
            which the budget begins to fall and after which it is the target. Defaults to
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
                 phases: Sequence[float] = (0.15, 0.6)) -> None:
        if (target is None) == (loss_weight is None):
            raise ValueError('GateLossHook: expected either target (channels to keep) or '
                             f'loss_weight (lambda), got target={target!r}, '
                             f'loss_weight={loss_weight!r}')
        if target is not None:
            check_positive_int('target', target)
        elif not 0 <= loss_weight < math.inf:
            raise ValueError(f'loss_weight: expected a number >= 0, got {loss_weight!r}')
        start, end = phases
        if not 0 <= start < end <= 1:
            raise ValueError(f'phases: expected two ascending numbers in 0..1, got {phases!r}')
        self.target = target
        self.loss_weight = loss_weight
        self.phases = phases
        self.gate: Optional[ChannelGate] = None
        self.rates: Optional[OnRates] = None  # of the last validation
        self._parts: dict[str, Union[slice, list[int]]] = {}
        self._handle: Optional[torch.utils.hooks.RemovableHandle] = None
        self._counter: Optional[GateCounter] = None

    def schedule(self, progress: float, channels: int) -> tuple[int, float]:
        """Return budget and noise of a gate at ``progress`` (0..1) of the training."""
        start, end = self.phases
        squeezed = min(max((progress - start) / (end - start), 0.), 1.)
        return round(channels * (self.target / channels)**squeezed), 1 - squeezed

    def before_train(self, runner: Runner) -> None:
        """Look for the gate, and extend the losses of the model."""
        self._find(runner, 'train_dataloader')
        if self.gate is None:
            raise ValueError('GateLossHook: expected a model with a gate, found none; give the '
                             'backbone gate=dict(...)')
        if self.target is not None and self.target >= self.gate.channels:
            raise ValueError(f'target: expected fewer than the {self.gate.channels} channels of '
                             f'the gate, got {self.target}')
        self.gate.set_budget(self.target or 0)  # raises if always_on holds more
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._handle = model.register_forward_hook(self._add_losses, with_kwargs=True)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set budget and noise of this iteration, and to which half its images belong."""
        halves = halves_of(data_batch)
        self.gate.second = halves and torch.tensor(halves, device=self.gate.noise.device)
        if self.target is not None:
            progress = runner.iter / runner.max_iters
            self.gate.set_budget(*self.schedule(progress, self.gate.channels))

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it was, and log whether the gate has decided."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = self.gate.second = None
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
        trained = self.gate.logit_bias.requires_grad and torch.is_grad_enabled()
        if trained and not mask.requires_grad:
            raise RuntimeError('GateLossHook: the mask has no gradient. Reentrant activation '
                               'checkpointing around the backbone does that; checkpoint with '
                               'use_reentrant=False, or inside the backbone (with_cp=True)')
        named = {'loss_task' if key == 'loss' else key: value for key, value in losses.items()}
        return {**named, 'loss_gate': self.loss_weight * mask.sum(dim=1).mean(), **counts}

    def _find(self, runner: Runner, dataloader: str) -> None:
        """Find the gate, and the positions of all channels and of each component's."""
        self.gate = find_gate(runner.model)
        if self.gate is not None:
            self._input = gate_input(runner.cfg, self.gate, dataloader)
            components = np.array(self._input.channels) // self._input.block_size**2
            self._parts = dict(kept=slice(None))
            for component, name in enumerate(COMPONENTS):
                self._parts[f'kept_{name}'] = np.flatnonzero(components == component).tolist()

    def before_val_epoch(self, runner: Runner) -> None:
        """Start to count."""
        self._start_counting(runner, 'val_dataloader')

    def before_test_epoch(self, runner: Runner) -> None:
        """Start to count."""
        self._start_counting(runner, 'test_dataloader')

    def _start_counting(self, runner: Runner, name: str) -> None:
        self._find(runner, name)
        images = len(getattr(runner, name).dataset)
        self._counter = self.gate and GateCounter(images, self._input)

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Count one batch."""
        if self._counter is not None:
            self._counter.add(self.gate)

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict[str, float]] = None) -> None:
        """Add the sums to the metrics; save the rates beside the checkpoints."""
        by_epoch = isinstance(runner._train_loop, EpochBasedTrainLoop)
        step = f'epoch_{runner.epoch}' if by_epoch else f'iter_{runner.iter}'
        self._finish(runner, metrics, step)

    def after_test_epoch(self, runner: Runner, metrics: Optional[dict[str, float]] = None) -> None:
        """Add the sums to the metrics; save the rates in the work dir."""
        self._finish(runner, metrics, 'test')

    def _finish(self, runner: Runner, metrics: Optional[dict[str, float]], name: str) -> None:
        if self._counter is None:
            return
        self.rates = self._counter.finish(dict(
            config=runner.cfg.filename, epoch=runner.epoch, iter=runner.iter,
            budget=int(self.gate.budget)))
        self._counter = None
        if metrics is not None:
            metrics.update({f'gate/{key}': float(self.rates.on_rate[part].sum())
                            for key, part in self._parts.items()})
        if is_main_process():
            save_on_rates(self.rates, str(Path(runner.work_dir, f'gate_rates_{name}.json')))


def halves_of(data_batch: Any) -> Optional[list[bool]]:
    """Return which images of a batch belong to the second half of the data; None if unknown.

    Half of the paths do, by their checksum, so that an image stays in its half.
    """
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    paths = [getattr(sample, 'img_path', None) for sample in samples or ()]
    if not paths or None in paths:
        return None
    return [zlib.crc32(str(path).encode()) % 2 > 0 for path in paths]
