"""mmfreq: learning in the frequency domain for mmpretrain and mmdet.

Importing the package imports neither host. It registers what both hosts share, transforms and hooks, in
mmengine's root registries, lets a config inherit ``mmfreq::...``, and mends four things in the hosts'
foundations: mmengine reads checkpoints weights-only and writes them whole or not at all, errors of the stock
image loader name the file, and where mmcv has no compiled ops, a later ``import mmcv.ops`` finds torchvision's.
A config names the backbones under ``custom_imports``: :mod:`mmfreq.models.cls` for mmpretrain,
:mod:`mmfreq.models.det` for mmdet.

The functions for use without a config, ``dct_channels``, ``rebuild``, ``load_model`` and the module
``BlockDCTLayer``, are imported at their first use.
"""
from importlib import import_module
from typing import Any

from mmfreq.version import __version__, check_versions

check_versions()

from mmfreq import transforms  # noqa: E402
from mmfreq.config.paths import provide_configs  # noqa: E402
from mmfreq.hosts.checkpoints import restrict_checkpoint_loading, write_whole_files  # noqa: E402
from mmfreq.hosts.finder import provide_ops  # noqa: E402
from mmfreq.hosts.loading import name_unreadable_images  # noqa: E402
from mmfreq.selection import hook as hooks  # noqa: E402

provide_configs()
provide_ops()
name_unreadable_images()
restrict_checkpoint_loading()
write_whole_files()

_LAZY = {
    'BlockDCTLayer': 'mmfreq.models.dct_layer',
    'dct_channels': 'mmfreq.apis.python',
    'load_model': 'mmfreq.apis.python',
    'rebuild': 'mmfreq.apis.python',
}
__all__ = ['__version__', 'hooks', 'transforms', *_LAZY]


def __getattr__(name: str) -> Any:
    """Import what is used without a config."""
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_LAZY]
