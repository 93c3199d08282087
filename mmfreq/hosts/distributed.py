"""Distributed runs on machines without a GPU."""
from typing import Any

import torch
import torch.distributed
from mmengine.config import Config


def prepare_cpu_distributed(cfg: Config) -> None:
    """Make ``--launcher pytorch`` work without a GPU, by a change of ``cfg`` in place.

    mmengine selects a CUDA device when it starts a distributed run, and gives it to
    DistributedDataParallel. Without CUDA, start the gloo process group before the Runner does, and
    set ``device_ids=None`` in ``model_wrapper_cfg``; its other keys keep their values or defaults.
    """
    if cfg.get('launcher', 'none') != 'pytorch' or torch.cuda.is_available():
        return
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(backend='gloo')
    defaults: dict[str, Any] = dict(
        type='MMDistributedDataParallel', broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False))
    cfg.model_wrapper_cfg = {**defaults, **(cfg.get('model_wrapper_cfg') or {}), 'device_ids': None}
