"""The folder of a demo set: it appears complete or not at all, is reused, and never replaces another's."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GENERATOR = 'mmfreq.demo_data'

_STALE_SECONDS = 3600.0


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder that this generator made; empty for anything else."""
    try:
        manifest = json.loads((Path(folder) / 'manifest.json').read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    is_ours = isinstance(manifest, dict) and manifest.get('generator') == GENERATOR
    return manifest if is_ours else {}


def written_paths(manifest: dict[str, Any]) -> list[str]:
    """What the manifest lists: pictures, then annotation files (POSIX, relative to its folder)."""
    return [entry['path'] for entry in manifest['files']] + manifest.get('annotations', [])


def is_reusable(out: Path, version: int, arguments: dict[str, Any], force: bool) -> bool:
    """True: ``out`` is what this version makes of these arguments. False: it is to be written.

    Raises:
        FileExistsError: ``out`` is in the way and must not be replaced.
    """
    if not out.exists():
        return False
    manifest = read_manifest(out)
    if not manifest:
        raise FileExistsError(
            f'{out} exists and was not made by this tool (no manifest.json of {GENERATOR}); '
            'it is never replaced: choose another folder or move it away'
        )
    if force:
        return False
    made_with = {'version': manifest.get('version'), **manifest.get('arguments', {})}
    if made_with != {'version': version, **arguments}:
        raise FileExistsError(
            f'{out} was made with {made_with}, asked for {arguments} of version {version}; '
            'choose another folder, or replace it with --force'
        )
    missing = [path for path in written_paths(manifest) if not (out / path).is_file()]
    if missing:
        raise FileExistsError(
            f'{out} lacks {len(missing)} of its files, such as {missing[0]}; '
            'make it anew with --force'
        )
    return True


def _temporary_prefix(out: Path) -> str:
    return f'.{out.name}.tmp-'


@contextmanager
def temporary_folder(out: Path) -> Iterator[Path]:
    """A new empty folder beside ``out``, gone afterwards unless it was renamed."""
    folder = out.with_name(f'{_temporary_prefix(out)}{os.getpid()}')
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(folder: Path, out: Path) -> None:
    """Rename ``folder`` to ``out``, replacing an older ``out`` of this generator."""
    if not read_manifest(out):
        folder.rename(out)  # fails if something came in the way meanwhile
        return
    old = folder.with_name(f'{folder.name}-old')
    out.rename(old)
    folder.rename(out)
    shutil.rmtree(old)


def remove_stale(out: Path) -> None:
    """Remove temporary folders that killed runs for the same ``out`` left beside it."""
    if not out.parent.is_dir():
        return
    pattern = re.compile(re.escape(_temporary_prefix(out)) + r'(\d+)(-old)?')
    for path in out.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match and _is_stale(path, int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_stale(path: Path, pid: int) -> bool:
    """Whether the run ``pid`` that made ``path`` ended: no such process, or made long ago."""
    is_old = time.time() - path.stat().st_mtime > _STALE_SECONDS
    return is_old or pid == os.getpid() or not _is_running(pid)


def _is_running(pid: int) -> bool:
    if os.name == 'nt':
        return True  # signal 0 is not harmless there: leave it to the folder's age
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
