"""Where configs are: paths, and the names package::file of those that ship with a package."""
import importlib.util
from pathlib import Path
from typing import Optional

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

_MMENGINE_GET_CFG_PATH = Config._get_cfg_path


def provide_configs() -> None:
    """Lets a config inherit ``mmfreq::file`` as it inherits ``mmpretrain::file``, in this process.

    mmengine knows the packages of OpenMMLab alone, and takes a package's name for the scope in which to look up what
    its configs name. The configs of mmfreq have no scope of their own: they belong to their host's.
    """
    MODULE2PACKAGE['mmfreq'] = 'mmfreq'
    Config._get_cfg_path = staticmethod(_get_cfg_path)


def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, Optional[str]]:
    """Path and scope of what ``_base_`` names."""
    if cfg_path.startswith('mmfreq::'):
        return str(config_path(cfg_path)), None
    return _MMENGINE_GET_CFG_PATH(cfg_path, filename)


def config_path(config: str) -> Path:
    """The file of a config: a path, or ``package::file`` for one that ships with a host, as in ``_base_``.

    Raises:
        ValueError: There is no such file or package; the message names it.
    """
    package, _, name = config.rpartition('::')
    path = Path(name)
    if package:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f'config: no package {package!r} for {config}')
        path = Path(spec.submodule_search_locations[0], '.mim', 'configs', name)
    if not path.is_file():
        raise ValueError(f'config: no such file: {config}')
    return path
