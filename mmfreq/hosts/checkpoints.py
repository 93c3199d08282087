"""Read checkpoints weights-only: mmengine's loader never runs code from a file."""
import codecs
import pickle
import re
from contextlib import contextmanager
from functools import partial
from pickle import UnpicklingError
from types import FunctionType, ModuleType
from typing import Any, Callable, Iterator

import mmengine.runner.checkpoint as checkpoint_module
import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler import param_scheduler
from torch import _weights_only_unpickler

_SCHEDULERS = [c for c in vars(param_scheduler).values()
               if isinstance(c, type) and issubclass(c, param_scheduler._ParamScheduler)]
_CHECKPOINT_CLASSES = (HistoryBuffer, *_SCHEDULERS)
_MMENGINE_LOAD_CHECKPOINT = checkpoint_module.CheckpointLoader.load_checkpoint
_MMENGINE_LOAD_URL = checkpoint_module.load_url
# From torch 2.6 on, its weights-only unpickler takes classes, and names for them, from a context.
_TORCH_TAKES_CLASSES = torch.__version__ >= '2.6'
_READ_ERRORS = (UnpicklingError, EOFError, RuntimeError, ValueError, LookupError, AttributeError,
                TypeError)


class RefusedCheckpointError(ValueError):
    """A checkpoint file is damaged, or holds more than weights and what mmengine records beside them."""


def _checkpoint_method(owner: type, name: str) -> Callable:
    """Stand in for the ``getattr`` of pickled methods: return those of _CHECKPOINT_CLASSES only."""
    allowed = any(owner is known for known in _CHECKPOINT_CLASSES) and not name.startswith('__')
    method = getattr(owner, name, None) if allowed else None
    if not isinstance(method, FunctionType):
        raise UnpicklingError(f'the checkpoint asks for {name!r} of {owner!r}; only methods of '
                              f'{", ".join(c.__name__ for c in _CHECKPOINT_CLASSES)} are allowed')
    return method


def _safe_globals() -> dict[str, Any]:
    """Return what a Runner's checkpoint may name beside torch's own list, by full name.

    That is log histories, schedulers (OneCycle keeps its annealing function), and NumPy arrays and
    scalars, as NumPy 1 and NumPy 2 write them.
    """
    dtypes = {type(np.dtype(code)) for code in
              '?SU' + np.typecodes['AllInteger'] + np.typecodes['AllFloat']}
    classes = (*_CHECKPOINT_CLASSES, np.ndarray, np.dtype, *dtypes, codecs.encode)
    found = {f'{item.__module__}.{item.__name__}': item for item in classes}
    found['builtins.getattr'] = _checkpoint_method
    found['mmengine.config.config.ConfigDict'] = dict  # a data set's metainfo may hold one
    for package in ('numpy._core', 'numpy.core'):
        found[f'{package}.multiarray._reconstruct'] = np.empty(0).__reduce__()[0]
        found[f'{package}.multiarray.scalar'] = np.float64().__reduce__()[0]
    return found


_SAFE = _safe_globals()


class _Unpickler(pickle._Unpickler):
    """What torch's weights-only unpickler does from 2.6 on, for older ones: known names, known calls."""
    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items()
                if code not in (pickle.INST[0], pickle.OBJ[0])}
    allowed = {**_weights_only_unpickler._get_allowed_globals(), **_SAFE}

    def find_class(self, module: str, name: str) -> Any:
        full_name = f'{module}.{name}'.replace('__builtin__.', 'builtins.')  # as protocol 2 spells it
        if full_name not in self.allowed:
            raise UnpicklingError(f'GLOBAL {full_name} is not allowed')
        return self.allowed[full_name]

    def load_reduce(self) -> None:
        self._require(self.stack[-2])
        super().load_reduce()

    def load_newobj(self) -> None:
        self._require(self.stack[-2])
        super().load_newobj()

    def load_build(self) -> None:
        self._require(type(self.stack[-2]))
        super().load_build()

    def _require(self, item: Any) -> None:
        if not any(item is known for known in self.allowed.values()):
            raise UnpicklingError(f'the checkpoint asks for a call of {item!r}')

    dispatch.update({pickle.REDUCE[0]: load_reduce, pickle.NEWOBJ[0]: load_newobj,
                     pickle.BUILD[0]: load_build})
    dispatch.pop(pickle.NEWOBJ_EX[0])


class _WeightsOnlyPickle:
    """The part of the module ``pickle`` that ``torch.load`` uses."""
    Unpickler = _Unpickler

    @staticmethod
    def load(file: Any, **kwargs: Any) -> Any:
        return _Unpickler(file, **kwargs).load()


@contextmanager
def _safe_names() -> Iterator[None]:
    if not _TORCH_TAKES_CLASSES:
        yield
        return
    with torch.serialization.safe_globals([(item, name) for name, item in _SAFE.items()]):
        yield


class _TorchOfLoader(ModuleType):
    """The module ``torch`` as mmengine's loader sees it: ``load`` reads weights-only."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def load(file: Any, map_location: Any = None, **kwargs: Any) -> Any:
        if _TORCH_TAKES_CLASSES:
            return torch.load(file, map_location=map_location, weights_only=True)
        return torch.load(file, map_location=map_location, pickle_module=_WeightsOnlyPickle)


def _load_checkpoint(cls: type, filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Read as mmengine does, weights-only; name the file in errors; drop the config text.

    A Runner that resumes would execute ``meta['config']`` of old checkpoints.
    """
    try:
        with _safe_names():
            checkpoint = _MMENGINE_LOAD_CHECKPOINT(filename, *args, **kwargs)
    except _READ_ERRORS as error:
        found = re.search(r'GLOBAL \S+|the checkpoint asks for [^;]*', str(error))
        reason = 'it is damaged, or no checkpoint that torch reads'
        if found:
            reason = (f'it holds more than weights and what mmengine records beside them ({found.group()}); '
                      'mmfreq never runs code from a checkpoint')
        elif not isinstance(error, UnpicklingError):
            reason += f' ({str(error).partition(chr(10))[0]})'
        raise RefusedCheckpointError(f'checkpoint: refused {filename}: {reason}') from error
    weights = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not weights:
        got = 'nothing' if {} in (checkpoint, weights) else type(checkpoint).__name__
        raise RefusedCheckpointError(f'checkpoint: refused {filename}: expected a state dict, or a dict '
                                     f'with one under "state_dict", got {got}')
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    return checkpoint


def restrict_checkpoint_loading() -> None:
    """Make mmengine's loader read weights-only: the Runner, the hosts' inferencers, ``load_from``.

    Only that loader changes; ``torch.load`` and torch's list of safe classes stay as they are.
    """
    checkpoint_module.torch = _TorchOfLoader('torch')
    checkpoint_module._safe_torch_load = _TorchOfLoader.load  # mmengine 0.10.12
    checkpoint_module.load_url = partial(_MMENGINE_LOAD_URL, weights_only=True)
    checkpoint_module.CheckpointLoader.load_checkpoint = classmethod(_load_checkpoint)
