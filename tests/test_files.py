"""Tests of mmfreq.files."""
import os
import sys
from pathlib import Path

import pytest

from mmfreq import files
from mmfreq.files import atomic_write_bytes, atomic_write_text, locked


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
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / 'file.txt').stat().st_mode & 0o777 == expected


def test_a_write_never_changes_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads of the process would write files that anybody may change."""
    monkeypatch.delattr(os, 'umask')
    atomic_write_text(tmp_path / 'file.txt', 'text')


def test_without_locks_a_folder_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has none, and opens no folders."""
    monkeypatch.setattr(files, 'fcntl', None)
    monkeypatch.delattr(os, 'open')
    with locked(tmp_path / 'new'):
        assert (tmp_path / 'new').is_dir()


def test_a_fork_may_leave_the_block_that_holds_the_lock(tmp_path: Path) -> None:
    child = None
    with locked(tmp_path):
        try:
            with locked(tmp_path / 'other'):
                child = os.fork()
        finally:
            if child == 0:
                os._exit(sys.exc_info()[0] is not None)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(BlockingIOError):
            locked(tmp_path).__enter__()
