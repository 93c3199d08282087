"""Write the changes of a config to the one that it inherits, in OpenMMLab's text style."""
import os
import re
import textwrap
from keyword import iskeyword
from pathlib import Path
from typing import Any, Iterable, Mapping, Optional

from mmengine.config import Config

from mmfreq.config.paths import config_path
from mmfreq.errors import RefusedError

_WIDTH = 100
_HOSTS = {'mmpretrain', 'mmdet'}
_FIRST = ('data_root', 'classes', 'custom_imports', 'freq', 'model', 'data_preprocessor')
_REPEATED = ('freq', 'data_root', 'classes', 'val_dataloader', 'val_evaluator')


def stock_base(config: Path) -> str:
    """Return the end of a config's chain of ``_base_`` files: ``package::name`` or a path."""
    bases = Config._get_base_files(str(config))
    if len(bases) != 1:
        return str(config)
    return bases[0] if '::' in bases[0] else stock_base(config.parent / bases[0])


def plain_config(path: Path) -> dict[str, Any]:
    """Read a config file and the files that it inherits as plain dicts, without mmengine's scope marks."""
    return _without_scopes(Config.fromfile(str(path))._cfg_dict.to_dict())


def _without_scopes(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_scopes(item) for key, item in value.items() if key != '_scope_'}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_without_scopes, value))
    return value


def difference(base: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
    """Return the minimal overrides that turn ``base`` into ``target`` by mmengine's inheritance.

    Dicts hold only the keys that differ, or ``_delete_=True`` and all keys of ``target`` where keys
    of ``base`` must go. Lists are whole. Types count: 1 is not 1.0, a list is not a tuple.
    """
    changes: dict[str, Any] = {}
    for key, value in target.items():
        old = base.get(key)
        if not isinstance(value, dict) or key not in base:
            if key not in base or repr(value) != repr(old):
                changes[key] = value
        elif not isinstance(old, dict) or set(old) - set(value):
            changes[key] = dict(_delete_=True, **value)
        elif inner := difference(old, value):
            changes[key] = inner
    return changes


def child_text(base: str, target: Mapping[str, Any], comment: str, folder: Path,
               names: Optional[Mapping[str, Any]] = None) -> str:
    """Return the text of a config in ``folder`` that inherits ``base`` and amounts to ``target``.

    The base is ``package::name`` or a path, and the comment comes first. The text names top-level values
    such as ``freq`` and ``*_pipeline`` where they occur again, and those in ``names``, which are by
    Python text: ``_base_.train_pipeline``.
    """
    inherited = plain_config(config_path(base))
    if missing := sorted(set(inherited) - set(target)):
        raise RefusedError(f'a config that inherits {base} cannot drop its keys {missing}')
    changes = difference(inherited, target)
    # mmengine knows no names such as mmdet::gn+ws/..., and would look for mmpretrain's models in mmdet
    named = re.match(r'\w*::\w*/\w*', base) and {base.partition('::')[0], target.get('default_scope')} != _HOSTS
    reference = base if named else Path(os.path.relpath(config_path(base), folder)).as_posix()
    lines = [*(f'# {line}' for line in comment.splitlines()), f'_base_ = {reference!r}', '']
    pipelines = [key for key in changes if key.endswith('_pipeline')]
    texts = {name: repr(value) for name, value in (names or {}).items()}
    for key in dict.fromkeys((*filter(changes.__contains__, _FIRST), *pipelines, *changes)):
        value = changes[key]
        lines.append(f'{key} = {render(value, len(key) + 3, names=texts)}')
        if key == 'freq' and isinstance(value, list):
            texts.update((f'freq[{i}]', repr(step)) for i, step in enumerate(value))
        elif key in (*pipelines, *_REPEATED) and value:
            texts[key] = repr(value)
    return '\n'.join(lines) + '\n'


def render(value: Any, column: int = 0, indent: int = 0,
           names: Optional[Mapping[str, str]] = None) -> str:
    """Return Python text of plain values, on one line if it fits and else one item a line.

    It begins at ``column`` of a line with ``indent`` spaces. ``names`` holds ``repr`` by name.
    """
    name = next((name for name, text in (names or {}).items() if text == repr(value)), None)
    if name or not isinstance(value, (dict, list, tuple)) or not value:
        return name or ('dict()' if value == {} else repr(value))
    left, right = '[]' if isinstance(value, list) else '()'
    pairs = [('', item) for item in value]
    if isinstance(value, dict):
        keywords = all(str(key).isidentifier() and not iskeyword(str(key)) for key in value)
        left, right = ('dict(', ')') if keywords else '{}'
        pairs = [(f'{key}=' if keywords else f'{key!r}: ', item) for key, item in value.items()]
    end = ',' if isinstance(value, tuple) and len(value) == 1 else ''
    inline = ', '.join(head + render(item, -10**6, names=names) for head, item in pairs)
    if column + len(left + inline + end + right) <= _WIDTH:
        return left + inline + end + right
    start = ' ' * (indent + 4)
    lines = [start + head + render(item, len(start + head), indent + 4, names)
             for head, item in pairs]
    end = f',\n{" " * indent}' if isinstance(value, list) else end
    return '\n'.join((left, ',\n'.join(lines))) + end + right


def beside(config: Path) -> dict[str, str]:
    """Return the path of the checkpoint beside a config, by the Python text that names it there."""
    return {f"'{{{{ fileDirname }}}}/{config.stem}.pth'": str(config.with_suffix('.pth'))}


def wrapped(texts: Iterable[str]) -> str:
    """Return texts as the lines of a config's comment; addresses stay whole."""
    wrap = textwrap.TextWrapper(_WIDTH - 2, break_on_hyphens=False, break_long_words=False).wrap
    return '\n'.join(line for text in texts for line in wrap(text))
