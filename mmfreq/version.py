"""The package's version, and the versions of the hosts that it works with."""
from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

__version__ = '0.1.0'

# (distributions that provide it, first version that works, first version not tried)
_SUPPORTED = {
    'mmengine': (('onedl-mmengine', 'mmengine', 'mmengine-lite'), '0.10.7', '1.0.0'),
    'mmcv': (('onedl-mmcv', 'mmcv', 'mmcv-lite'), '2.1.0', '3.0.0'),
    'mmpretrain': (('onedl-mmpretrain', 'mmpretrain'), '1.2.0', '2.0.0'),
    'mmdet': (('onedl-mmdetection', 'mmdet'), '3.3.0', '4.0.0'),
}
_REQUIRED = ('mmengine', 'mmcv')


def _installed_version(distributions: tuple[str, ...]) -> str:
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ''


def check_versions() -> None:
    """Raises ImportError if a host is missing that mmfreq needs, or one is there in a version that does not work.

    Looks at the metadata of the installed distributions; imports nothing.
    """
    for host, (distributions, lowest, beyond) in _SUPPORTED.items():
        found = _installed_version(distributions)
        if not found and host in _REQUIRED:
            raise ImportError(f'mmfreq needs {host}: pip install {distributions[0]}')
        if found and not Version(lowest) <= Version(found) < Version(beyond):
            raise ImportError(f'mmfreq needs {host} >= {lowest}, < {beyond}, found {found}: '
                              f'pip install "{distributions[0]}>={lowest}"')
