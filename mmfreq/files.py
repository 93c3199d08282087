"""Write files so that an interruption never leaves half of one."""
import os
import tempfile
from pathlib import Path
from typing import Optional, Union


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


def check_writable(path: Union[str, Path]) -> None:
    """Raise ValueError, before long work, unless its result can be written; make missing folders."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ValueError(f'{path}: cannot be written: {error.strerror}') from error
    if path.is_dir():
        raise ValueError(f'{path}: cannot be written: it is a folder')


def check_not_input(out: Union[str, Path], given: Union[str, Path]) -> None:
    """Raise ValueError if ``out``, which is to be written, is the file that the work reads."""
    if os.path.realpath(out) == os.path.realpath(given):
        raise ValueError(f'{out}: expected another file to write than the one that is read')


def read_lines(path: Path, encoding: str = 'utf-8') -> list[str]:
    """Return the lines of a text in UTF-8; raise ValueError, which names the file, for another."""
    try:
        return path.read_text(encoding=encoding).splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f'{path}: expected text in UTF-8: {error}') from error


def files_below(folder: Path, inside: Optional[set[str]] = None) -> list[Path]:
    """Return the files in a folder and its subfolders, sorted; follow links, but not in circles."""
    inside = inside or set()  # what the folder lies in
    found, real = [], os.path.realpath(folder)
    for path in sorted(folder.iterdir()) if real not in inside else ():
        found += files_below(path, {*inside, real}) if path.is_dir() else [path]
    return found


def atomic_write_text(path: Union[str, Path], text: str) -> None:
    """Write UTF-8 text as :func:`atomic_write_bytes` writes bytes."""
    atomic_write_bytes(path, text.encode('utf-8'))
