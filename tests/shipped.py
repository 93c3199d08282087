"""Shipped configs for tests, with overrides."""
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

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
