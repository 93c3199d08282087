"""What makes the hosts run with today's torch and on machines without a GPU."""
import os
from pickle import UnpicklingError
from types import FunctionType
from typing import Any, Callable

import mmengine
import mmengine.runner.checkpoint
import numpy as np
import torch
import torch.distributed
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler import param_scheduler

from mmfreq.ops import provide_ops

# Classes of mmengine whose objects or methods a Runner's checkpoint holds: log histories, and schedulers (OneCycle
# keeps its annealing function).
_SCHEDULERS = [c for c in vars(param_scheduler).values()
               if isinstance(c, type) and issubclass(c, param_scheduler._ParamScheduler)]
_CHECKPOINT_CLASSES = (HistoryBuffer, *_SCHEDULERS)


def _checkpoint_method(owner: type, name: str) -> Callable:
    """Stands in for ``getattr`` when a checkpoint is read: gives the methods of the classes above, no more.

    What it gives is not on torch's allow-list itself, so that a checkpoint can hold such a method but not call it.
    """
    method = getattr(owner, name, None) if owner in _CHECKPOINT_CLASSES and not name.startswith('__') else None
    if not isinstance(method, FunctionType):
        raise UnpicklingError(f'the checkpoint asks for {name!r} of {owner!r}; only methods of '
                              f'{", ".join(c.__name__ for c in _CHECKPOINT_CLASSES)} are allowed')
    return method


def restrict_checkpoint_loading() -> None:
    """Makes ``torch.load`` read weights only, everywhere in this process, and allows what mmengine's checkpoints hold.

    A checkpoint of mmengine's Runner holds, beside tensors, log histories, states of schedulers, and NumPy arrays and
    scalars. These are put on torch's allow-list, with a stand-in for the ``getattr`` that pickled methods ask for.
    Loading then never executes code from a file: mmengine's own way back to unrestricted loading is closed too (torch's
    switch ``TORCH_FORCE_WEIGHTS_ONLY_LOAD``).
    """
    core = np._core if hasattr(np, '_core') else np.core
    scalars = [np.float64, np.float32, np.int64, np.int32, np.bool_, np.uint8]
    torch.serialization.add_safe_globals([
        *_CHECKPOINT_CLASSES, np.ndarray, np.dtype, core.multiarray._reconstruct, core.multiarray.scalar,
        *{type(np.dtype(scalar)) for scalar in scalars},
        (_checkpoint_method, 'builtins.getattr'),
        # the names under which NumPy 1 pickled the same functions
        (core.multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
        (core.multiarray.scalar, 'numpy.core.multiarray.scalar'),
    ])
    # mmengine 0.10.12 allows the true getattr while it loads, and takes its list off torch's afterwards.
    if hasattr(mmengine.runner.checkpoint, 'get_torch_safe_globals'):
        mmengine.runner.checkpoint.get_torch_safe_globals = list
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'


def prepare_host(cfg: Config) -> None:
    """Lets mmdet run where mmcv has no compiled ops, if ``cfg`` is a config of mmdet."""
    if cfg.get('default_scope') == 'mmdet':
        provide_ops()


def prepare_cpu_distributed(cfg: Config) -> None:
    """Lets ``--launcher pytorch`` run on a machine without a GPU.

    mmengine selects a CUDA device when it starts a distributed run, and hands DistributedDataParallel a device number.
    Without CUDA, the gloo process group is started here, before the Runner would, and the config's
    ``model_wrapper_cfg`` says ``device_ids=None`` (its other keys are kept; the defaults are mmengine's).

    Args:
        cfg (Config): Changed in place. Nothing happens unless ``cfg.launcher`` is ``'pytorch'`` and CUDA is missing.
    """
    if cfg.get('launcher', 'none') != 'pytorch' or torch.cuda.is_available():
        return
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(backend='gloo')
    defaults: dict[str, Any] = dict(
        type='MMDistributedDataParallel', broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False))
    cfg.model_wrapper_cfg = {**defaults, **(cfg.get('model_wrapper_cfg') or {}), 'device_ids': None}
