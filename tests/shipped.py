"""Shipped configs for tests, with overrides, and untrained weights."""
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Sequence

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmfreq.apis.measure import build_model

CONFIGS = Path(__file__).parents[1] / 'configs'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


@cache
def _read(path: str) -> Config:
    return Config.fromfile(str(CONFIGS / path))


def shipped(path: str, **options: Any) -> Config:
    """Return a copy of a config; ``a__b=1`` sets ``a.b``."""
    cfg = deepcopy(_read(path))
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


def plain(node: Any) -> Any:
    """Return a part of a config without the scope marks that inheriting from a host leaves."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items() if key != '_scope_'}
    return [plain(item) for item in node] if isinstance(node, (list, tuple)) else node


def save_untrained(cfg: Config, file: Path, classes: Sequence[str]) -> nn.Module:
    """Build the network of a config, and save its random weights with the names of classes."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build_model(deepcopy(cfg)).eval()
    meta = dict(dataset_meta=dict(classes=list(classes)))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), file)
    return model
