"""Training a gate: its loss, its schedules, and how often it keeps each channel (Xu et al. 2020, Eq. 2 and Fig. 5)."""
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence, Union

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from mmfreq.selection.gate import ChannelGate, find_gate
from mmfreq.selection.rates import GateCounter, gate_channels, save_on_rates

_SCHEDULED = ('loss_weight', 'temperature')
_CURVES = {
    'linear': lambda start, end, part: start + (end - start) * part,
    'cosine': lambda start, end, part: end + (start - end) * (1 + math.cos(math.pi * part)) / 2,
    'exponential': lambda start, end, part: start * (end / start)**part,
}


@dataclass(frozen=True)
class GateSchedule:
    """One phase in which a value moves from ``start_value`` to ``end_value``.

    Args:
        key (str): ``'loss_weight'`` or ``'temperature'``.
        start_value (float): Value until ``begin``.
        end_value (float): Value from ``end`` on.
        begin (float): Start of the phase, in epochs or iterations. Defaults to 0.
        end (float): End of the phase.
        by_epoch (bool): Whether ``begin`` and ``end`` count epochs; the value moves at every iteration all the same.
            Defaults to True.
        curve (str): ``'linear'``, ``'cosine'`` or ``'exponential'``. Defaults to ``'linear'``.

    Raises:
        ValueError: An argument is unknown or out of range.
    """
    key: str
    start_value: float
    end_value: float
    end: float
    begin: float = 0
    by_epoch: bool = True
    curve: str = 'linear'

    def __post_init__(self) -> None:
        if self.key not in _SCHEDULED:
            raise ValueError(f'schedule: expected key to be one of {", ".join(_SCHEDULED)}, got {self.key!r}')
        if self.curve not in _CURVES:
            raise ValueError(f'schedule: expected curve to be one of {", ".join(_CURVES)}, got {self.curve!r}')
        if not 0 <= self.begin < self.end:
            raise ValueError(f'schedule: expected 0 <= begin < end, got begin={self.begin}, end={self.end}')
        for value in (self.start_value, self.end_value):
            _check_value(self.key, value)
            if self.curve == 'exponential' and not value > 0:
                raise ValueError(f'schedule: expected values > 0 for curve="exponential", got {value}')

    def value(self, now: float) -> float:
        """The value at ``now``, in the schedule's own unit of time."""
        part = min(max((now - self.begin) / (self.end - self.begin), 0.), 1.)
        return _CURVES[self.curve](self.start_value, self.end_value, part)


def _check_value(key: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (key == 'temperature' and value == 0):
        raise ValueError(f'{key}: expected a number {">" if key == "temperature" else ">="} 0, got {value!r}')


@HOOKS.register_module()
class GateLossHook(Hook):
    """Trains the gate of a backbone: few channels, as long as the task allows it.

    Adds ``loss_gate`` = ``loss_weight`` * (channels kept, mean over the batch) to the losses of any mmpretrain or mmdet
    model, so that it is in the total and in all logs (Eq. 2; ``loss_weight`` is the paper's lambda); a loss that is
    called ``loss``, as mmpretrain's is, is logged as ``loss_task``, since ``loss`` is the total. Also logged in
    training: ``gate_kept`` and ``gate_kept_Y``, ``_Cb``, ``_Cr`` (channels kept, mean over the batch), ``gate_lambda``
    and ``gate_temperature``.

    In validation and test, counts over the whole set, over all processes, how often each channel is kept. The means go
    into the metrics as ``gate/kept`` etc., the rates of all channels into ``gate_rates_epoch_N.json`` beside the
    checkpoints (``gate_rates_iter_N.json``, ``gate_rates_test.json``) for ``tools/gate_heatmap.py`` and
    ``tools/select_channels.py``.

    Args:
        loss_weight (float): Factor >= 0 of one kept channel in the loss.
        temperature (float | None): Temperature > 0 of the gate; None leaves the gate's own. Defaults to None.
        schedule (Sequence[dict]): Phases of changing ``loss_weight`` or ``temperature``, each a dict of arguments of
            :class:`GateSchedule`. Of one key, the phase that began last counts; before the first one, its
            ``start_value``. ``end_value`` defaults to the hook's own. Defaults to no phases.

    Raises:
        ValueError: An argument is unknown or out of range; in ``before_train``: the model has no gate, or more than
            one.

    Example:
        >>> custom_hooks = [dict(type='GateLossHook', loss_weight=0.01, schedule=[
        ...     dict(key='loss_weight', start_value=0., end=5),
        ...     dict(key='temperature', start_value=5., end_value=0.5, end=90, curve='exponential')])]
    """
    # Before the hooks that log, so that metrics can be added.
    priority = 'HIGHEST'

    def __init__(self, loss_weight: float, temperature: Optional[float] = None,
                 schedule: Sequence[dict[str, Any]] = ()) -> None:
        _check_value('loss_weight', loss_weight)
        if temperature is not None:
            _check_value('temperature', temperature)
        self.loss_weight = loss_weight
        self.temperature = temperature
        own = dict(loss_weight=loss_weight, temperature=temperature)
        self.schedule = [_phase(phase, own) for phase in schedule]
        self.gate: Optional[ChannelGate] = None
        self._weight = torch.zeros(())  # a tensor, so that a compiled model need not be compiled anew
        self._channels: list[int] = []
        self._block_size = 8
        self._handle: Optional[torch.utils.hooks.RemovableHandle] = None
        self._counter: Optional[GateCounter] = None

    def before_train(self, runner: Runner) -> None:
        """Looks for the gate and adds the loss to the model's."""
        self._find(runner, 'train_dataloader')
        if self.gate is None:
            raise ValueError('GateLossHook: expected a model with a gate, found none; give the backbone gate=dict(...)')
        if self.temperature is None:
            self.temperature = float(self.gate.temperature)
        runner.logger.info(f'GateLossHook: lambda (loss_weight) {self.loss_weight}, temperature {self.temperature}, '
                           f'schedule {self.schedule or "none"}, {self.gate.channels} channels')
        self._handle = _unwrapped(runner.model).register_forward_hook(self._add_loss, with_kwargs=True)

    def after_train(self, runner: Runner) -> None:
        """Leaves the model as it was."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Sets the weight and the temperature of this iteration."""
        epoch = runner.iter / max(len(runner.train_dataloader), 1)
        self._weight.fill_(self.value('loss_weight', runner.iter, epoch))
        self.gate.set_temperature(self.value('temperature', runner.iter, epoch))

    def value(self, key: str, iteration: int, epoch: float) -> float:
        """``loss_weight`` or ``temperature`` at an iteration, after ``epoch`` epochs, whole or not."""
        phases = [(phase, epoch if phase.by_epoch else iteration) for phase in self.schedule if phase.key == key]
        if not phases:
            return getattr(self, key)
        begun = [item for item in phases if item[0].begin <= item[1]]
        phase, now = begun[-1] if begun else phases[0]
        return phase.value(now)

    def _add_loss(self, model: nn.Module, args: tuple, kwargs: dict[str, Any],
                  losses: Any) -> Optional[dict[str, Any]]:
        if kwargs.get('mode', args[2] if len(args) > 2 else 'tensor') != 'loss':
            return None
        mask = self.gate.mask
        if not mask.requires_grad and self.gate.logit_bias.requires_grad and torch.is_grad_enabled():
            raise RuntimeError('GateLossHook: the mask has no gradient. Reentrant activation checkpointing around the '
                               'backbone does that; checkpoint with use_reentrant=False, or inside the backbone '
                               '(with_cp=True)')
        added = dict(loss_gate=self._weight.to(mask) * mask.sum(dim=1).mean())
        for name, picked in self._components().items():
            added[f'gate_{name}'] = mask.detach()[:, picked].sum(dim=1).mean()
        added.update(gate_lambda=self._weight.to(mask), gate_temperature=self.gate.temperature.to(mask))
        # mmpretrain calls its task's loss just "loss", which is the name of the total in the logs
        return {**{'loss_task' if key == 'loss' else key: value for key, value in losses.items()}, **added}

    def _components(self) -> dict[str, Union[slice, list[int]]]:
        """Positions of all channels, and of each component's, by the name of their count."""
        size = self._block_size**2
        parts = {f'kept_{name}': [i for i, channel in enumerate(self._channels) if channel // size == component]
                 for component, name in enumerate(('Y', 'Cb', 'Cr'))}
        return dict(kept=slice(None), **parts)

    def _find(self, runner: Runner, dataloader: str) -> None:
        """Finds the gate, and which channels its positions are."""
        self.gate = find_gate(_unwrapped(runner.model))
        if self.gate is not None:
            self._channels, self._block_size = gate_channels(runner.cfg, self.gate, dataloader)

    def before_val_epoch(self, runner: Runner) -> None:
        """Starts to count."""
        self._start_counting(runner, 'val_dataloader', runner.val_dataloader)

    def before_test_epoch(self, runner: Runner) -> None:
        """Starts to count."""
        self._start_counting(runner, 'test_dataloader', runner.test_dataloader)

    def _start_counting(self, runner: Runner, name: str, dataloader: torch.utils.data.DataLoader) -> None:
        self._find(runner, name)
        self._counter = self.gate and GateCounter(len(dataloader.dataset), self._channels, self._block_size)

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Counts one batch."""
        if self._counter is not None:
            self._counter.add(self.gate)

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict[str, float]] = None) -> None:
        """Adds the means to the metrics, saves the rates beside the checkpoints."""
        by_epoch = isinstance(runner._train_loop, EpochBasedTrainLoop)
        self._finish(runner, metrics, f'epoch_{runner.epoch}' if by_epoch else f'iter_{runner.iter}')

    def after_test_epoch(self, runner: Runner, metrics: Optional[dict[str, float]] = None) -> None:
        """Adds the means to the metrics, saves the rates in the work dir."""
        self._finish(runner, metrics, 'test')

    def _finish(self, runner: Runner, metrics: Optional[dict[str, float]], name: str) -> None:
        if self._counter is None:
            return
        rates = self._counter.finish(dict(config=runner.cfg.filename, epoch=runner.epoch, iter=runner.iter,
                                          loss_weight=self.loss_weight))
        self._counter = None
        if metrics is not None:
            metrics.update({f'gate/{key}': float(rates.on_rate[picked].sum())
                            for key, picked in self._components().items()})
        if is_main_process():
            save_on_rates(rates, str(Path(runner.work_dir, f'gate_rates_{name}.json')))


def _phase(phase: dict[str, Any], own: dict[str, Optional[float]]) -> GateSchedule:
    try:
        if 'end_value' not in phase and own.get(phase.get('key')) is not None:
            phase = dict(phase, end_value=own[phase['key']])
        return GateSchedule(**phase)
    except TypeError as error:
        raise ValueError(f'GateLossHook: schedule={phase!r}: {error}') from error


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
