"""Write files so that an interruption never leaves half of one."""
import os
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional, Union

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

_locks: list[int] = []  # handles of folders, which no process that this one starts may keep


def atomic_write_bytes(path: Union[str, Path], data: bytes) -> None:
    """Write ``data`` to a temporary file beside ``path``, then rename it; make missing folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}')
    try:
        with open(temporary, 'xb') as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def full_path(path: Union[str, Path]) -> Path:
    """Return an absolute path, without ``..`` and ``~``; links stay, but for one before ``..``."""
    given = os.path.join(os.getcwd(), os.path.expanduser(path))
    plain = os.path.normpath(given)
    same = os.path.realpath(plain) == os.path.realpath(given)
    return Path(plain if same else os.path.realpath(given))


@contextmanager
def locked(folder: Union[str, Path]) -> Iterator[None]:
    """Lock a folder, which is made if it is missing; the lock ends with the process, however it ends.

    Where a file system has no locks, nothing is locked.

    Raises:
        BlockingIOError: Another process has locked it.
    """
    os.makedirs(folder, exist_ok=True)
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:
        pass
    _locks.append(handle)
    try:
        yield
    finally:
        if handle in _locks:  # not in a fork, which has closed its own
            _locks.remove(handle)
            os.close(handle)


def _forget_locks() -> None:
    while _locks:
        os.close(_locks.pop())


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


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_forget_locks)
