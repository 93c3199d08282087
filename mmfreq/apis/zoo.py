"""What the metafiles of a package say about its configs."""
from pathlib import Path
from typing import Any, Iterator

import yaml

from mmfreq.config.paths import package_configs


def metafile_models(package: str, family: str = '*') -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``folder/name.py`` and the entry of the configs that a package's metafiles describe.

    Args:
        package (str): ``'mmfreq'``, ``'mmpretrain'`` or ``'mmdet'``.
        family (str): Folder of the configs. Defaults to all.
    """
    for metafile in sorted((package_configs(package) or Path()).glob(f'{family}/metafile.yml')):
        for model in yaml.safe_load(metafile.read_text(encoding='utf-8')).get('Models') or []:
            yield str(model.get('Config')).removeprefix('configs/'), model


def stock_weights(config: str) -> str:
    """Return the address of the weights that were published for ``package::file``, or ''."""
    package, _, name = config.partition('::')
    for file, model in metafile_models(package, name.partition('/')[0]) if name else ():
        if file == name and model.get('Weights'):
            return model['Weights']
    return ''
