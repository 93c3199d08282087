"""Distributed runs on machines without a GPU."""
from typing import Any

import torch
import torch.distributed
from mmengine.config import Config


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
