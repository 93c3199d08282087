"""Read checkpoints weights-only: mmengine's loader never runs code from a file."""
import codecs
import pickle
import re
from collections import Counter
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, Callable, Union

import mmengine.runner.checkpoint as checkpoint_module
import numpy as np
import torch
from mmengine.fileio import LocalBackend
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim.scheduler import param_scheduler
from torch import _weights_only_unpickler, nn

from mmfreq.files import atomic_write_bytes

_SCHEDULERS = [c for c in vars(param_scheduler).values()
               if isinstance(c, type) and issubclass(c, param_scheduler._ParamScheduler)]
_CHECKPOINT_CLASSES = (HistoryBuffer, *_SCHEDULERS)
_MMENGINE_LOAD_CHECKPOINT = checkpoint_module.CheckpointLoader.load_checkpoint
_MMENGINE_LOAD_URL = checkpoint_module.load_url
_MMENGINE_LOAD_STATE_DICT = checkpoint_module.load_state_dict
# From torch 2.6 on, its weights-only unpickler takes classes, and names for them, from a context.
_TORCH_TAKES_CLASSES = torch.__version__ >= '2.6'
_READ_ERRORS = (UnpicklingError, EOFError, RuntimeError, ValueError, LookupError, AttributeError,
                TypeError)

_last_read = ''  # name of the file read last, for messages


def others_in(folder: Union[str, Path], but: str = '') -> str:
    """Return an ending for a message: checkpoints of a folder, newest first; '' if there are none."""
    files = [file for file in Path(folder).glob('*.pth') if file.name != but]
    files.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    return f'; others there: {", ".join(file.name for file in files[:4])}' if files else ''


def best_in(folder: Union[str, Path]) -> list[Path]:
    """Return the best checkpoints of a work dir: one for each metric that CheckpointHook keeps."""
    return sorted(Path(folder).glob('best_*.pth'))


class RefusedCheckpointError(ValueError):
    """A checkpoint is damaged, fits no weight of the model, or could run code."""


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

    That is log histories, schedulers (OneCycle keeps its annealing function, MultiStep counts its
    milestones), and NumPy arrays and scalars, as NumPy 1 and NumPy 2 write them.
    """
    dtypes = {type(np.dtype(code)) for code in
              '?SU' + np.typecodes['AllInteger'] + np.typecodes['AllFloat']}
    classes = (*_CHECKPOINT_CLASSES, Counter, np.ndarray, np.dtype, *dtypes, codecs.encode)
    found = {f'{item.__module__}.{item.__name__}': item for item in classes}
    found['builtins.getattr'] = _checkpoint_method
    found['mmengine.config.config.ConfigDict'] = dict  # a data set's metainfo may hold one
    for package in ('numpy._core', 'numpy.core'):
        found[f'{package}.multiarray._reconstruct'] = np.empty(0).__reduce__()[0]
        found[f'{package}.multiarray.scalar'] = np.float64().__reduce__()[0]
    return found


_SAFE = _safe_globals()


def _guarded(code: bytes) -> Callable:
    """Return pickle's function for an opcode that calls or fills an object, for known ones only."""
    def load(unpickler: '_Unpickler') -> None:
        item = unpickler.stack[-2]
        item = type(item) if code == pickle.BUILD else item
        if not any(item is known for known in unpickler.allowed.values()):
            raise UnpicklingError(f'the checkpoint asks for a call of {item!r}')
        pickle._Unpickler.dispatch[code[0]](unpickler)

    return load


class _Unpickler(pickle._Unpickler):
    """Stand in for torch's weights-only unpickler before 2.6: known names and calls only."""
    allowed = {**_weights_only_unpickler._get_allowed_globals(), **_SAFE}
    dispatch = pickle._Unpickler.dispatch.copy()
    for _code in (pickle.REDUCE, pickle.NEWOBJ, pickle.BUILD):
        dispatch[_code[0]] = _guarded(_code)
    for _code in (pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX):
        del dispatch[_code[0]]

    def find_class(self, module: str, name: str) -> Any:
        full_name = f'{module}.{name}'.replace('__builtin__.', 'builtins.')  # of protocol 2
        if full_name not in self.allowed:
            raise UnpicklingError(f'GLOBAL {full_name} is not allowed')
        return self.allowed[full_name]


# The part of the module pickle that torch.load uses.
_PICKLE = SimpleNamespace(__name__='pickle', Unpickler=_Unpickler,
                          load=lambda file, **kwargs: _Unpickler(file, **kwargs).load())


def _torch_load(file: Any, map_location: Any = None, **kwargs: Any) -> Any:
    """Stand in for ``torch.load`` in mmengine's loader."""
    if not _TORCH_TAKES_CLASSES:
        return torch.load(file, map_location=map_location, pickle_module=_PICKLE)
    names = [(item, name) for name, item in _SAFE.items()]
    with torch.serialization.safe_globals(names):
        return torch.load(file, map_location=map_location, weights_only=True)


def _load_url(*args: Any, **kwargs: Any) -> Any:
    """Stand in for ``load_url`` in mmengine's loader: torch's, which reads what it has fetched."""
    torch.hub.torch = checkpoint_module.torch
    try:
        return _MMENGINE_LOAD_URL(*args, **kwargs)
    finally:
        torch.hub.torch = torch


def _load_checkpoint(cls: type, filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Read as mmengine does, weights-only; name the file in errors; drop the config text.

    A Runner that resumes would execute ``meta['config']`` of old checkpoints.
    """
    global _last_read
    _last_read, refused = filename, f'checkpoint: refused {filename}: '
    try:
        checkpoint = _MMENGINE_LOAD_CHECKPOINT(filename, *args, **kwargs)
    except _READ_ERRORS as error:
        found = re.search(r'GLOBAL \S+|the checkpoint asks for [^;]*', str(error))
        reason = 'it is damaged, or no checkpoint that torch reads'
        if Path(filename).is_file() and not Path(filename).stat().st_size:
            reason = 'the file is empty'
        elif found:
            reason = ('it holds more than weights and what mmengine records beside them '
                      f'({found.group()}); mmfreq never runs code from a checkpoint')
        elif not isinstance(error, UnpicklingError):
            reason += f' ({re.split(chr(10) + "|[.] ", str(error))[0]})'
        place = Path(filename)
        raise RefusedCheckpointError(refused + reason + others_in(place.parent, place.name)) from error
    weights = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not weights:
        got = 'nothing' if {} in (checkpoint, weights) else type(checkpoint).__name__
        raise RefusedCheckpointError(
            f'{refused}expected a state dict, or a dict with one under "state_dict", got {got}')
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    return checkpoint


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside wrappers for distributed runs and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _tail(name: str) -> str:
    """Return the end of a weight's name: models put prefixes before it, or take them off."""
    return '.'.join(name.split('.')[-3:])


def _load_state_dict(module: nn.Module, state_dict: dict, *args: Any, **kwargs: Any) -> None:
    """Load as mmengine does, but refuse weights none of which fits; mmengine only warns."""
    model = unwrapped(module)
    weights = {name: weight for name, weight in model.named_parameters() if weight.ndim}
    own = {(_tail(name), weight.shape) for name, weight in weights.items()}
    given = {(_tail(key), getattr(value, 'shape', None)) for key, value in state_dict.items()}
    if own and not own & given:
        raise RefusedCheckpointError(
            f'checkpoint: refused {_last_read}: none of its weights ({", ".join([*state_dict][:3])}'
            f', ...) fits {type(model).__name__} ({", ".join([*weights][:3])}, ...)')
    _MMENGINE_LOAD_STATE_DICT(module, state_dict, *args, **kwargs)


def _put(self: LocalBackend, data: bytes, file: Union[str, Path]) -> None:
    """Stand in for LocalBackend.put, which leaves half a file if it is interrupted."""
    atomic_write_bytes(file, data)


def write_whole_files() -> None:
    """Make mmengine write checkpoints, on this machine's disks, whole or not at all."""
    LocalBackend.put = _put


def restrict_checkpoint_loading() -> None:
    """Make mmengine's loader read weights-only: the Runner, the hosts' inferencers, ``load_from``.

    Only that loader changes; ``torch.load`` and torch's list of safe classes stay as they are.
    """
    stand_in = ModuleType('torch')
    stand_in.load, stand_in.__getattr__ = _torch_load, partial(getattr, torch)
    checkpoint_module.torch = stand_in
    checkpoint_module._safe_torch_load = _torch_load  # mmengine 0.10.12
    checkpoint_module.load_url = _load_url
    checkpoint_module.load_state_dict = _load_state_dict
    checkpoint_module.CheckpointLoader.load_checkpoint = classmethod(_load_checkpoint)
