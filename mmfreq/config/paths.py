"""Where configs are: paths, and the names package::file of those that ship with a package."""
import importlib.util
from difflib import get_close_matches
from pathlib import Path
from typing import Optional

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

_MMENGINE_GET_CFG_PATH = getattr(Config, '_get_cfg_path', None)  # private


def provide_configs() -> None:
    """Let a config inherit ``mmfreq::file`` as it inherits ``mmpretrain::file``, in this process.

    mmengine knows only the packages of OpenMMLab, and takes a package's name for the scope in which
    to look up what its configs name. The configs of mmfreq belong to their host's scope. Where
    mmengine has no ``Config._get_cfg_path``, it refuses ``mmfreq::`` as a package it does not know.
    """
    if _MMENGINE_GET_CFG_PATH is not None:
        MODULE2PACKAGE['mmfreq'] = 'mmfreq'
        Config._get_cfg_path = staticmethod(_get_cfg_path)


def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, Optional[str]]:
    """Return the path and the scope of what ``_base_`` names."""
    if cfg_path.startswith('mmfreq::'):
        return str(config_path(cfg_path)), None
    return _MMENGINE_GET_CFG_PATH(cfg_path, filename)


def config_path(config: str) -> Path:
    """Return the file of a config: a path, ``package::file`` as in ``_base_``, or a shipped name.

    Args:
        config (str): A path; ``package::folder/name.py``; ``package::name``; or the ``name`` of a
            config that ships with mmfreq.

    Raises:
        ValueError: There is no such file or package; the message has the nearest names.
    """
    package, _, name = config.rpartition('::')
    if not package and Path(name).is_file():
        return Path(name)
    folder = package_configs(package or 'mmfreq')
    if folder is None:
        raise ValueError(f'config: no package {package!r} for {config}')
    if package and (folder / name).is_file():
        return folder / name
    known = {path.stem: path for path in sorted(folder.glob('*/*.py'))}
    if name in known:
        return known[name]
    near = [f'{package or "mmfreq"}::{known[stem].relative_to(folder).as_posix()}'
            for stem in get_close_matches(Path(name).stem, known, 3, 0.6)]
    raise ValueError(f'config: no such file: {config}'
                     + (f'; did you mean {" or ".join(near)}?' if near else ''))


def read_file(file: Path) -> Config:
    """Read a config file; raise ValueError in one line, which names it, if that cannot be done."""
    try:
        return Config.fromfile(str(file))
    except Exception as error:  # a config is a program: it may raise anything
        raise ValueError(f'config: {file} cannot be read: {one_line(error)}') from error


def one_line(error: Exception) -> str:
    """Return type and message of an error in one line of at most some 200 characters."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text[:200]}{"..." if len(text) > 200 else ""}'


def package_configs(package: str) -> Optional[Path]:
    """Return the folder of the configs that ship with a package; None if there is none."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # of a parent that is no package
        spec = None
    places = spec.submodule_search_locations if spec else None
    return Path(places[0], '.mim', 'configs') if places else None


def packaged_name(path: Path) -> str:
    """Return ``package::folder/name.py`` of a config that ships with a package, else its path."""
    for package in ('mmfreq', 'mmpretrain', 'mmdet'):
        folder = package_configs(package)
        if folder and folder.resolve() in path.resolve().parents:
            return f'{package}::{path.resolve().relative_to(folder.resolve()).as_posix()}'
    return str(path)
