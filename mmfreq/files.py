"""Write files so that an interruption never leaves half of one."""
import os
import tempfile
import uuid
from io import BytesIO
from pathlib import Path
from typing import Any, Union

import torch

from mmfreq.errors import RefusedError


def atomic_write_bytes(path: Union[str, Path], data: bytes) -> None:
    """Write ``data`` to a temporary file, then rename it; make missing folders.

    A link keeps pointing to its file, which is replaced. A device or a pipe is written to.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    temporary = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}')
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write_text(path: Union[str, Path], text: str) -> None:
    """Write UTF-8 text as :func:`atomic_write_bytes` writes bytes."""
    atomic_write_bytes(path, text.encode('utf-8'))


def atomic_save(path: Union[str, Path], value: Any) -> None:
    """Write a checkpoint as :func:`atomic_write_bytes` writes bytes."""
    data = BytesIO()
    torch.save(value, data)
    atomic_write_bytes(path, data.getvalue())


def check_writable(path: Union[str, Path]) -> None:
    """Raise OSError, before long work, unless its result can be written; make missing folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=path.parent).close()
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder; expected a file to write')


def check_not_input(out: Union[str, Path], source: Union[str, Path]) -> None:
    """Raise RefusedError if the output would overwrite the input."""
    if os.path.realpath(out) == os.path.realpath(source):
        raise RefusedError(f'{out}: output would overwrite the input')
