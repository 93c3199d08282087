"""Tests of mmfreq.files."""
import os
from pathlib import Path

import pytest

from mmfreq.files import atomic_write_bytes, atomic_write_text


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
