"""The package's version, and the versions of the hosts that it works with."""
from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

__version__ = '0.1.0'

# Distributions that provide the host, first version that works, first version that was not tried.
_SUPPORTED = {
    'mmengine': (('onedl-mmengine', 'mmengine', 'mmengine-lite'), '0.10.7', '1.0.0'),
    'mmcv': (('onedl-mmcv', 'mmcv', 'mmcv-lite'), '2.1.0', '3.0.0'),
    'mmpretrain': (('onedl-mmpretrain', 'mmpretrain'), '1.2.0', '2.0.0'),
    'mmdet': (('onedl-mmdetection', 'mmdet'), '3.3.0', '4.0.0'),
}


def _installed(distributions: tuple[str, ...]) -> tuple[str, str]:
    """Return name and version of the first installed distribution, or two empty strings."""
    for name in distributions:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return '', ''


def check_versions() -> None:
    """Raise ImportError if mmengine or mmcv is missing, or a host has a version that does not work.

    Read the metadata of the installed distributions; import nothing.
    """
    for host, (distributions, lowest, beyond) in _SUPPORTED.items():
        name, number = _installed(distributions)
        if not number and host in ('mmengine', 'mmcv'):
            raise ImportError(f"mmfreq needs {host}: pip install 'mmfreq[hosts]' installs OneDL's "
                              'builds of the hosts. The originals work, too: pip install mmengine '
                              'mmcv-lite mmpretrain mmdet. Never install both')
        if number and not Version(lowest) <= Version(number) < Version(beyond):
            raise ImportError(f'mmfreq needs {host} >= {lowest}, < {beyond}, but {name} {number} is '
                              f'installed: pip install "{name}>={lowest},<{beyond}"')
