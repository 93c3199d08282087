"""Settings of mmengine and mmcv for the tools, by the hosts' own extension points.

Importing mmfreq changes nothing in the hosts. :func:`setup` does, and every tool calls it first.
"""
import codecs
import os
import sys
from collections import Counter
from pickle import UnpicklingError
from typing import Any, Callable, Optional

import mmengine.optim.scheduler.param_scheduler as param_scheduler
import numpy as np
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.dist import barrier, is_main_process
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import get_torchvision_models

from mmfreq.config.paths import config_path
from mmfreq.errors import RefusedError
from mmfreq.models.ops import provide_ops

_stock_cfg_path = Config._get_cfg_path  # mmengine has no public way to add a package of configs


def setup() -> None:
    """Prepare the hosts in this process as the tools do. Call it before mmdet is imported.

    - Checkpoints at paths, http(s) and ``torchvision://`` addresses are read weights-only (torch 2.6
      and later), so that a file cannot run code. Older torch, and other schemes such as
      ``open-mmlab://``, read them as mmengine does.
    - ``_base_`` may name a shipped config, ``mmfreq::folder/name.py``, and one of OneDL's mmseg.
    - An mmcv without compiled ops gets nms and RoIAlign from torchvision.
    """
    if hasattr(torch.serialization, 'safe_globals'):  # torch 2.6
        CheckpointLoader.register_scheme('', load_from_local, force=True)
        CheckpointLoader.register_scheme(('http://', 'https://'), load_from_http, force=True)
        CheckpointLoader.register_scheme(('modelzoo://', 'torchvision://'), load_from_torchvision, force=True)
    MODULE2PACKAGE.update(mmfreq='mmfreq', mmseg='mmseg')  # OneDL's mmsegmentation has another name
    Config._get_cfg_path = staticmethod(_cfg_path)
    provide_ops()


def _cfg_path(cfg_path: str, filename: str) -> tuple[str, Optional[str]]:
    """Return path and scope of a base config; the configs of mmfreq have their host's scope."""
    if cfg_path.startswith('mmfreq::'):
        return str(config_path(cfg_path)), None
    return _stock_cfg_path(cfg_path, filename)


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a checkpoint from disk without running code from it.

    Raises:
        RefusedError: The file holds more than weights, numbers, log histories and schedules.
    """
    return _safely(torch.load, os.path.expanduser(filename), map_location)


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Download a checkpoint into torch's cache, unless it is there, and read it weights-only."""
    for first in (True, False):  # on other machines, each process downloads a missing file
        if is_main_process() == first:
            checkpoint = _safely(torch.hub.load_state_dict_from_url, filename, map_location=map_location,
                                 progress=sys.stderr.isatty())
        if first:
            barrier()
    return checkpoint


def _safely(load: Callable, filename: str, *args: Any, **kwargs: Any) -> Any:
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            checkpoint = load(filename, *args, weights_only=True, **kwargs)
    except UnpicklingError as error:
        reason = str(error).partition('\n\n')[0].strip().splitlines()
        raise RefusedError(f'{filename}: not a checkpoint of weights alone: {reason[-1]}') from error
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)  # a Runner that resumes would execute this text
    return checkpoint


def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    """Read the weights that torchvision publishes for ``torchvision://NAME``, as from their URL."""
    return load_from_http(get_torchvision_models()[filename.partition('://')[2]], map_location)


def _safe_globals() -> list[Any]:
    """Return the types in a Runner's checkpoint beside tensors: log histories, schedules, NumPy values.

    NumPy 1 and 2 name their functions differently, so each comes under both names.
    """
    schedulers = [item for item in vars(param_scheduler).values() if isinstance(item, type)
                  and issubclass(item, param_scheduler._ParamScheduler)]
    codes = '?SU' + np.typecodes['AllInteger'] + np.typecodes['AllFloat']
    dtypes = {type(np.dtype(code)) for code in codes}
    names: list[Any] = [HistoryBuffer, *schedulers, Counter, np.ndarray, np.dtype, *dtypes,
                        (_checkpoint_method, 'builtins.getattr'),
                        (dict, 'mmengine.config.config.ConfigDict'), codecs.encode]
    for package in ('numpy._core', 'numpy.core'):
        names.append((np.empty(0).__reduce__()[0], f'{package}.multiarray._reconstruct'))
        names.append((np.float64().__reduce__()[0], f'{package}.multiarray.scalar'))
    return names


def _checkpoint_method(owner: type, name: str) -> Any:
    """Replace ``getattr`` for pickled methods: those of log histories and schedulers only."""
    owners = (HistoryBuffer, param_scheduler._ParamScheduler)
    allowed = isinstance(owner, type) and issubclass(owner, owners) and not name.startswith('__')
    if not allowed or not callable(getattr(owner, name, None)):
        raise UnpicklingError(f'getattr of {name!r} of {owner!r}')
    return getattr(owner, name)
