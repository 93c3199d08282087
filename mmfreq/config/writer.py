"""Writing configs: what a config changes of the one that it inherits, as text in OpenMMLab's style."""
import os
from pathlib import Path
from typing import Any, Mapping

from mmengine.config import Config

from mmfreq.config.paths import config_path

_WIDTH = 119
_FIRST = ('custom_imports', 'model', 'data_preprocessor')


def stock_base(config: Path) -> str:
    """The config that a text-style config comes from: the end of the chain of its ``_base_`` files.

    Args:
        config (Path): The config file.

    Returns:
        str: ``package::name`` where the chain ends in another package; else the path of the last file, one that has no
        ``_base_``, or several.
    """
    while True:
        bases = Config._get_base_files(str(config))
        if len(bases) != 1:
            return str(config)
        if '::' in bases[0]:
            return bases[0]
        config = config.parent / bases[0]


def plain_config(path: Path) -> dict[str, Any]:
    """A config file and what it inherits, as plain dicts, without the scopes that mmengine notes in them."""
    return _without_scopes(Config.fromfile(str(path))._cfg_dict.to_dict())


def _without_scopes(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_scopes(item) for key, item in value.items() if key != '_scope_'}
    return type(value)(map(_without_scopes, value)) if isinstance(value, (list, tuple)) else value


def difference(base: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
    """What a child of ``base`` must say to become ``target``, by the rules of mmengine's inheritance.

    Args:
        base (Mapping): The inherited config.
        target (Mapping): The config that the child shall be.

    Returns:
        dict: The keys that differ. Dicts hold their differing keys only, or ``_delete_=True`` and all of them where
        keys of ``base`` must go; lists are whole.
    """
    changes: dict[str, Any] = {}
    for key, value in target.items():
        old = base.get(key)
        if key in base and value == old and type(value) is type(old):
            continue
        if not isinstance(value, dict) or key not in base:
            changes[key] = value
        elif isinstance(old, dict) and set(old) <= set(value):
            changes[key] = difference(old, value)
        else:
            changes[key] = dict(_delete_=True, **value)
    return changes


def child_text(base: str, target: Mapping[str, Any], comment: str, folder: Path) -> str:
    """Text of a config that inherits ``base`` and amounts to ``target``.

    Args:
        base (str): ``package::name``, or the path of a file.
        target (Mapping): The config that the child shall be. Its top-level lists, and dicts that are new, are named
            where they occur again.
        comment (str): What the first lines say.
        folder (Path): Where the text will stand: a path of ``base`` is written relative to it.

    Returns:
        str: The text.

    Raises:
        ValueError: ``target`` lacks a top-level key of ``base``, which inheritance cannot take away.
    """
    inherited = plain_config(config_path(base))
    missing = sorted(set(inherited) - set(target))
    if missing:
        raise ValueError(f'expected the keys {missing}, which a config that inherits {base} cannot drop')
    changes = difference(inherited, target)
    lists = sorted((key for key, value in changes.items() if isinstance(value, list) and (
        len(value) > 1 or value and isinstance(value[0], dict) and key not in inherited)),
                   key=lambda key: len(changes[key]))
    single = [key for key, value in changes.items()
              if isinstance(value, dict) and value and key not in (*inherited, *_FIRST)]
    reference = base if '::' in base else Path(os.path.relpath(base, folder)).as_posix()
    lines = [*(f'# {line}' for line in comment.splitlines()), f'_base_ = {reference!r}', '']
    named: dict[str, Any] = {}
    first = [key for key in _FIRST if key in changes]
    for key in dict.fromkeys((*first, *single, *lists, *changes)):
        lines.append(f'{key} = {render(_with_names(changes[key], named), len(key) + 3)}')
        if key in (*single, *lists):
            named = {key: changes[key], **named}  # longer ones first
    return '\n'.join(lines) + '\n'


class _Name(str):
    """A variable in the text."""


def _with_names(value: Any, named: Mapping[str, Any]) -> Any:
    """``value`` with the names of known lists and dicts in place of what equals them, lists also inside longer ones."""
    whole = next((_Name(name) for name, known in named.items() if value == known), None)
    if whole is not None:
        return whole
    if isinstance(value, dict):
        return {key: _with_names(item, named) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    items: list[Any] = []
    start = 0
    while start < len(value):
        name = next((name for name, known in named.items()
                     if isinstance(known, list) and value[start:start + len(known)] == known), None)
        items.append(_Name(f'*{name}') if name else _with_names(value[start], named))
        start += len(named[name]) if name else 1
    return items


def render(value: Any, column: int = 0, indent: int = 0) -> str:
    """Python text of plain values, dicts as ``dict(...)``, on one line if it fits and else one item a line.

    Args:
        value (Any): Numbers, strings, None, and dicts, lists and tuples of them.
        column (int): Where the text begins on its line. Defaults to 0.
        indent (int): Indentation of that line. Defaults to 0.

    Returns:
        str: The text; lines after the first are indented.
    """
    if not isinstance(value, (dict, list, tuple)) or not value:
        return 'dict()' if value == {} else str(value) if isinstance(value, _Name) else repr(value)
    keywords = isinstance(value, dict) and all(str(key).isidentifier() for key in value)
    if isinstance(value, dict):
        heads = [f'{key}=' if keywords else f'{key!r}: ' for key in value]
        items, (left, right) = list(value.values()), ('dict(', ')') if keywords else '{}'
    else:
        heads = [''] * len(value)
        items, (left, right) = list(value), '[]' if isinstance(value, list) else '()'
    single = ',' if isinstance(value, tuple) and len(value) == 1 else ''
    flat = left + ', '.join(head + render(item, -10**6) for head, item in zip(heads, items)) + single + right
    if column + len(flat) <= _WIDTH:
        return flat
    inner = ' ' * (indent + 4)
    lines = [inner + head + render(item, indent + 4 + len(head), indent + 4) for head, item in zip(heads, items)]
    end = f',\n{" " * indent}' if isinstance(value, list) else single
    return left + '\n' + ',\n'.join(lines) + end + right
