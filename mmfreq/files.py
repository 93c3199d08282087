"""Read JSON with errors of one line; write files so that an interruption never leaves half of one."""
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Union


def atomic_write_bytes(path: Union[str, Path], data: bytes) -> None:
    """Write ``data`` to a temporary file beside ``path``, then rename it; make missing folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def atomic_write_text(path: Union[str, Path], text: str) -> None:
    """Write UTF-8 text as :func:`atomic_write_bytes` writes bytes."""
    atomic_write_bytes(path, text.encode('utf-8'))


def read_json(path: Union[str, Path], what: str) -> dict[str, Any]:
    """Read a JSON object from a file.

    Args:
        path (str | Path): The file.
        what (str): What the file is, for the error: ``'on-rates'``.

    Raises:
        ValueError: There is no such file, or it holds something else. The message names the file.
    """
    try:
        values = json.loads(Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        raise ValueError(f'{what}: cannot read {path}: {error.strerror or error}') from None
    except ValueError as error:
        raise ValueError(f'{path}: not a JSON file ({error})') from error
    if not isinstance(values, dict):
        raise ValueError(f'{path}: expected a JSON object, got a {type(values).__name__}')
    return values
