"""What makes the hosts run with today's torch and on machines without a GPU."""
import logging
import os
import re
from pickle import UnpicklingError
from types import FunctionType
from typing import Any, Callable

import mmengine.infer.infer as infer_module
import mmengine.runner.checkpoint as checkpoint_module
import mmengine.runner.runner as runner_module
import numpy as np
import torch
import torch.distributed
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim.scheduler import param_scheduler

from mmfreq.hosts.ops import provide_ops

# Classes of mmengine whose objects or methods a Runner's checkpoint holds: log histories, and schedulers (OneCycle
# keeps its annealing function).
_SCHEDULERS = [c for c in vars(param_scheduler).values()
               if isinstance(c, type) and issubclass(c, param_scheduler._ParamScheduler)]
_CHECKPOINT_CLASSES = (HistoryBuffer, *_SCHEDULERS)
_MMENGINE_LOAD_CHECKPOINT = checkpoint_module._load_checkpoint


class RefusedCheckpointError(UnpicklingError):
    """A checkpoint file holds something else than weights and what mmengine records beside them."""


def _checkpoint_method(owner: type, name: str) -> Callable:
    """Stands in for ``getattr`` when a checkpoint is read: gives the methods of the classes above, no more."""
    allowed = any(owner is known for known in _CHECKPOINT_CLASSES) and not name.startswith('__')
    method = getattr(owner, name, None) if allowed else None
    if not isinstance(method, FunctionType):
        raise UnpicklingError(f'the checkpoint asks for {name!r} of {owner!r}; only methods of '
                              f'{", ".join(c.__name__ for c in _CHECKPOINT_CLASSES)} are allowed')
    return method


def restrict_checkpoint_loading() -> None:
    """Makes reading a checkpoint safe, everywhere in this process: no code from a file is run.

    A checkpoint of mmengine's Runner holds, beside tensors, log histories, states of schedulers, and NumPy arrays and
    scalars. These are put on torch's allow-list, with a stand-in for the ``getattr`` that pickled methods ask for. All
    other reading is weights-only: mmengine's own way back to unrestricted loading is closed (torch's switch
    ``TORCH_FORCE_WEIGHTS_ONLY_LOAD``). The config text ``meta['config']`` of old checkpoints, which a resumed Runner
    would execute, is dropped. Errors become :class:`RefusedCheckpointError` and name the file.
    """
    core = np._core if hasattr(np, '_core') else np.core
    scalars = [np.float64, np.float32, np.int64, np.int32, np.bool_, np.uint8]
    numpy_names = [f'{package}.multiarray' for package in ('numpy._core', 'numpy.core')]  # NumPy 2 and 1
    torch.serialization.add_safe_globals([
        *_CHECKPOINT_CLASSES, np.ndarray, np.dtype, *{type(np.dtype(scalar)) for scalar in scalars},
        (_checkpoint_method, 'builtins.getattr'),
        (dict, 'mmengine.config.config.ConfigDict'),  # a data set's metainfo may hold one
        *((core.multiarray._reconstruct, f'{name}._reconstruct') for name in numpy_names),
        *((core.multiarray.scalar, f'{name}.scalar') for name in numpy_names),
    ])
    # mmengine 0.10.12 allows the true getattr while it loads, and takes its list off torch's afterwards.
    if hasattr(checkpoint_module, 'get_torch_safe_globals'):
        checkpoint_module.get_torch_safe_globals = list
    if os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None):
        print_log('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is ignored: checkpoints are read weights-only', logger='current',
                  level=logging.WARNING)
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    for module in (checkpoint_module, runner_module, infer_module):
        module._load_checkpoint = _load_checkpoint


def _load_checkpoint(filename: str, *args: Any, **kwargs: Any) -> Any:
    """Mmengine's function, with errors that name the file, and without the config text that a Runner would execute."""
    try:
        checkpoint = _MMENGINE_LOAD_CHECKPOINT(filename, *args, **kwargs)
    except UnpicklingError as error:
        found = re.search(r'GLOBAL \S+|the checkpoint asks for [^;]*', str(error))
        reason = (f'it holds more than weights and what mmengine records beside them ({found.group()}); mmfreq never '
                  'runs code from a checkpoint' if found else 'it is not a checkpoint that torch reads')
        raise RefusedCheckpointError(f'checkpoint: refused {filename}: {reason}') from error
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    return checkpoint


def prepare_host(cfg: Config) -> None:
    """Lets mmdet run where mmcv has no compiled ops, if ``cfg`` is a config of mmdet."""
    if cfg.get('default_scope') == 'mmdet':
        provide_ops()


