"""mmfreq: learning in the frequency domain for mmpretrain and mmdet.

Importing the package registers its transforms and hooks in mmengine's root registries and changes
nothing else. A config names the backbones under ``custom_imports``: :mod:`mmfreq.models.cls` for
mmpretrain, :mod:`mmfreq.models.det` for mmdet. :func:`mmfreq.setup` prepares the hosts as the tools
do. ``dct_channels``, ``rebuild``, ``load_model``, ``BlockDCTLayer`` and ``setup`` are imported when
they are first used.
"""
from importlib import import_module
from typing import Any

from mmfreq import transforms
from mmfreq.engine import hooks
from mmfreq.input_spec import InputSpec
from mmfreq.version import __version__

_LAZY = {
    'BlockDCTLayer': 'mmfreq.models.dct_layer',
    'dct_channels': 'mmfreq.apis.inference',
    'load_model': 'mmfreq.apis.inference',
    'rebuild': 'mmfreq.apis.inference',
    'setup': 'mmfreq.hosts',
}
__all__ = ['InputSpec', '__version__', 'hooks', 'transforms', *_LAZY]


def __getattr__(name: str) -> Any:
    """Import a function or class at its first use."""
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_LAZY]
