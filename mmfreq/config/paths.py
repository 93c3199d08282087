"""Find config files: paths, and the names package::file of configs that ship with a package."""
import importlib.util
from pathlib import Path
from typing import Optional

from mmfreq.errors import RefusedError


def config_path(config: str) -> Path:
    """Return the file of a config: a path, ``package::file`` as in ``_base_``, or a shipped name.

    The shipped name is ``package::name``, or the ``name`` alone of a config that ships with mmfreq.
    """
    package, _, name = config.rpartition('::')
    if not package and Path(name).is_file():
        return Path(name)
    folder = package_configs(package or 'mmfreq')
    if folder is None:
        raise RefusedError(f'config: no package {package!r} for {config}')
    if package and (folder / name).is_file():
        return folder / name
    configs = {path.stem: path for path in sorted(folder.glob('*/*.py'))}
    if name in configs:
        return configs[name]
    raise RefusedError(f'config: no such file: {config}')


def package_configs(package: str) -> Optional[Path]:
    """Return the folder of the configs that ship with a package; None if there is none."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # its parent is not a package
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
