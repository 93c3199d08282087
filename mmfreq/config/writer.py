"""Write configs: what a config changes of the one that it inherits, in OpenMMLab's text style."""
import os
import textwrap
from keyword import iskeyword
from pathlib import Path
from typing import Any, Iterable, Mapping, Optional

from mmengine.config import Config

from mmfreq.config.paths import config_path

_WIDTH = 100
_FIRST = ('data_root', 'classes', 'custom_imports', 'freq', 'model', 'data_preprocessor')
_REPEATED = ('data_root', 'classes', 'val_dataloader', 'val_evaluator')  # named where they occur again


def stock_base(config: Path) -> str:
    """Return the config at the end of the chain of ``_base_`` files that starts at ``config``.

    Args:
        config (Path): A text-style config file.

    Returns:
        str: ``package::name`` where the chain ends in another package; else the path of the last
            file, which has no ``_base_`` or several.
    """
    while True:
        bases = Config._get_base_files(str(config))
        if len(bases) != 1:
            return str(config)
        if '::' in bases[0]:
            return bases[0]
        config = config.parent / bases[0]


def plain_config(path: Path) -> dict[str, Any]:
    """Read a config file with what it inherits as plain dicts, without mmengine's scope marks."""
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
    of ``base`` must go. Lists are whole.
    """
    changes: dict[str, Any] = {}
    for key, value in target.items():
        old = base.get(key)
        if key in base and same(value, old):
            continue
        if not isinstance(value, dict) or key not in base:
            changes[key] = value
        elif isinstance(old, dict) and set(old) <= set(value):
            changes[key] = difference(old, value)
        else:
            changes[key] = dict(_delete_=True, **value)
    return changes


def same(a: Any, b: Any) -> bool:
    """Compare plain values with their types: 1 is not 1.0, a list is not a tuple, at any depth."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def child_text(base: str, target: Mapping[str, Any], comment: str, folder: Path,
               names: Optional[Mapping[str, Any]] = None) -> str:
    """Return the text of a config that inherits ``base`` and amounts to ``target``.

    Args:
        base (str): ``package::name``, or the path of a file.
        target (Mapping): The config that the child becomes. Where its top-level ``freq`` or a
            ``*_pipeline`` occurs again, the text names it; so it does with ``data_root``,
            ``classes`` and what is the same for validation and test.
        comment (str): Text of the first lines.
        folder (Path): Where the text will stand: a path of ``base`` is written relative to it.
        names (Mapping, optional): More values to name, by Python text: ``_base_.train_pipeline``.

    Raises:
        ValueError: ``target`` lacks a top-level key of ``base``, which inheritance cannot remove.
    """
    inherited = plain_config(config_path(base))
    missing = sorted(set(inherited) - set(target))
    if missing:
        raise ValueError(f'expected the keys {missing}: a config that inherits {base} cannot drop '
                         'them')
    changes = difference(inherited, target)
    reference = base if '::' in base else Path(os.path.relpath(base, folder)).as_posix()
    lines = [*(f'# {line}' for line in comment.splitlines()), f'_base_ = {reference!r}', '']
    first = [key for key in _FIRST if key in changes]
    named = [key for key in changes if key.endswith('_pipeline')]
    texts = {name: repr(value) for name, value in (names or {}).items()}  # what lines can name
    for key in dict.fromkeys((*first, *named, *changes)):
        lines.append(f'{key} = {render(changes[key], len(key) + 3, names=texts)}')
        if key == 'freq' and isinstance(changes[key], list):
            texts.update((f'freq[{i}]', repr(step)) for i, step in enumerate(changes[key]))
        elif key in ('freq', *named, *_REPEATED) and changes[key]:
            texts[key] = repr(changes[key])
    return '\n'.join(lines) + '\n'


def render(value: Any, column: int = 0, indent: int = 0,
           names: Optional[Mapping[str, str]] = None) -> str:
    """Return Python text of plain values, on one line if it fits and else one item a line.

    Args:
        value (Any): Numbers, strings, None, and dicts, lists and tuples of them.
        column (int): Where the text begins on its line. Defaults to 0.
        indent (int): Indentation of that line. Defaults to 0.
        names (Mapping, optional): ``repr`` of values that have a name, by name. Defaults to None.
    """
    text = repr(value)
    for name, known in (names or {}).items():
        if text == known:
            return name
    if not isinstance(value, (dict, list, tuple)) or not value:
        return 'dict()' if value == {} else text
    items, heads = list(value), [''] * len(value)
    left, right = '[]' if isinstance(value, list) else '()'
    if isinstance(value, dict):
        keywords = all(str(key).isidentifier() and not iskeyword(str(key)) for key in value)
        heads = [f'{key}=' if keywords else f'{key!r}: ' for key in value]
        items, (left, right) = list(value.values()), ('dict(', ')') if keywords else '{}'
    single = ',' if isinstance(value, tuple) and len(value) == 1 else ''
    inline, lines = [], []
    for head, item in zip(heads, items):
        inline.append(head + render(item, -10**6, names=names))
    flat = left + ', '.join(inline) + single + right
    if column + len(flat) <= _WIDTH:
        return flat
    for head, item in zip(heads, items):
        start = indent + 4 + len(head)
        lines.append(' ' * (indent + 4) + head + render(item, start, indent + 4, names))
    end = f',\n{" " * indent}' if isinstance(value, list) else single
    return left + '\n' + ',\n'.join(lines) + end + right


def wrapped(texts: Iterable[str]) -> str:
    """Return texts as the lines of a config's comment; addresses stay whole."""
    lines = []
    for text in texts:
        lines += textwrap.wrap(text, 117, break_on_hyphens=False, break_long_words=False)
    return '\n'.join(lines)
