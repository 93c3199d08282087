"""Files appear whole or not at all."""
import os
import stat
import threading
from pathlib import Path

import pytest

from mmfreq.errors import RefusedError
from mmfreq.files import atomic_write_bytes, atomic_write_text, check_not_input, check_writable


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / 'folder' / 'file.txt'
    atomic_write_text(path, 'old')
    with pytest.raises(TypeError):
        atomic_write_bytes(path, 'text instead of bytes')
    assert path.read_text() == 'old'
    assert [child.name for child in path.parent.iterdir()] == ['file.txt']


@pytest.mark.parametrize(('umask', 'expected'), [(0o022, 0o644), (0o077, 0o600)])
def test_permissions_follow_the_umask(umask: int, expected: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        atomic_write_text(tmp_path / 'file.txt', 'text')
    finally:
        os.umask(before)
    assert (tmp_path / 'file.txt').stat().st_mode & 0o777 == expected


def test_links_and_pipes_stay(tmp_path: Path) -> None:
    (tmp_path / 'target.txt').write_text('old')
    (tmp_path / 'link.txt').symlink_to('target.txt')
    atomic_write_text(tmp_path / 'link.txt', 'new')
    assert (tmp_path / 'link.txt').is_symlink()
    assert (tmp_path / 'target.txt').read_text() == 'new'
    os.mkfifo(tmp_path / 'pipe')
    reader = threading.Thread(target=lambda: received.append((tmp_path / 'pipe').read_bytes()))
    received: list[bytes] = []
    reader.start()
    atomic_write_bytes(tmp_path / 'pipe', b'data')
    reader.join()
    assert received == [b'data']
    assert stat.S_ISFIFO((tmp_path / 'pipe').stat().st_mode)
    atomic_write_bytes(os.devnull, b'data')
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_outputs_are_checked_before_long_work(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    check_writable(tmp_path / 'new/x.json')
    for path in (tmp_path, tmp_path / 'file/x.json'):
        with pytest.raises(OSError, match=str(tmp_path)):
            check_writable(path)
    (tmp_path / 'link').symlink_to('file')
    check_not_input(tmp_path / 'x', tmp_path / 'file')
    with pytest.raises(RefusedError, match='overwrite the input'):
        check_not_input(tmp_path / 'link', tmp_path / 'file')
