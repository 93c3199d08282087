"""Figures and weights of configs, from the metafiles of their packages."""
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Iterator

import yaml

from mmfreq.config.paths import package_configs


def metafile_models(package: str, family: str = '*') -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``folder/name.py`` and metafile entry of each config in the metafiles of a package's family."""
    for metafile in sorted((package_configs(package) or Path()).glob(f'{family}/metafile.yml')):
        for model in yaml.safe_load(metafile.read_text(encoding='utf-8')).get('Models') or []:
            yield str(model.get('Config')).removeprefix('configs/'), model


def stock_weights(config: str) -> str:
    """Return the URL of the weights published for ``package::file``, or ''."""
    package, _, name = config.partition('::')
    for file, model in metafile_models(package, name.partition('/')[0]) if name else ():
        if file == name and model.get('Weights'):
            return model['Weights']
    return ''


def shipped_table(pattern: str = '') -> list[tuple[str, ...]]:
    """Return a row for each shipped config: name, channels, input size, multiply-adds, metrics.

    ``pattern`` is a part of the name, with ``*`` and ``?`` as in a shell.
    """
    models = {file: model for file, model in metafile_models('mmfreq') if '::' not in file}
    folder, rows = package_configs('mmfreq'), []
    for path in sorted(folder.glob('*/*.py')):
        file = path.relative_to(folder).as_posix()
        if fnmatch(file, f'*{pattern}*'):
            rows.append((f'mmfreq::{file}', *_figures(models.get(file, {}))))
    return rows


def _figures(model: dict[str, Any]) -> tuple[str, ...]:
    """Return channels, input size, multiply-adds and published metrics as text."""
    metadata, metrics = model.get('Metadata') or {}, []
    flops = metadata.get('FLOPs')
    for result in model.get('Results') or ():
        name, value = next(iter(result['Metrics'].items()))
        metrics.append(f'{name.replace("Top 1 Accuracy", "top-1")} {value:.1f}')
    return (str(metadata.get('Channels', '')), metadata.get('Size Per Channel', ''),
            f'{flops / 1e9:.2f} G' if flops else '', ', '.join(metrics))
