"""mmfreq: learning in the frequency domain for mmpretrain and mmdet.

Importing the package registers what both hosts share (transforms and hooks, in mmengine's root registries), lets a
config inherit ``mmfreq::...``, and imports neither host. The modified backbones live in :mod:`mmfreq.models.cls`
(mmpretrain) and :mod:`mmfreq.models.det` (mmdet), which a config names under ``custom_imports``.
"""
from mmfreq.version import __version__, check_versions

check_versions()

from mmfreq import transforms  # noqa: E402
from mmfreq.config.paths import provide_configs  # noqa: E402
from mmfreq.selection import hook as hooks  # noqa: E402

provide_configs()

__all__ = ['__version__', 'hooks', 'transforms']
