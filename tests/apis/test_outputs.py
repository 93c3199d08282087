"""The tools refuse a place that cannot be written before long work, and never overwrite their input."""
from pathlib import Path
from typing import Any

import pytest

CONFIG = 'resnet18-dct24s_demo'


@pytest.mark.parametrize(('work', 'tool', 'arguments'), [
    ('dataset_stats.dataset_statistics', 'dataset_stats', (CONFIG, '-o', 'file/x.json')),
    ('compare.rows.compare', 'compare', (CONFIG, '-o', 'file/x')),
    ('export.exporter', 'export', (CONFIG, 'x.pth', 'file/x.onnx')),
    ('runs.build_runner', 'test', (CONFIG, 'x.pth', '-o', 'file/x.json')),
])
def test_a_place_that_cannot_be_written(work: str, tool: str, arguments: tuple, tmp_path: Path, run_tool: Any,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f'mmfreq.apis.{work}', lambda *_, **__: pytest.fail('too late'))
    for name in ('file', 'x.pth'):
        Path(name).touch()
    with pytest.raises(OSError, match='file'):
        run_tool(tool, *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'x.pth']


@pytest.mark.parametrize(('tool', 'arguments'), [
    ('show_dct', ('x.png', '-o', './x.png')), ('new', ('x.py', 'x', '-o', 'x.py', '--force')),
    ('freqify', ('x.py', '--channels', '24S', '-o', 'x.py', '--force')),
    ('convert_checkpoint', ('x.pth', '../here/x.pth'))])
def test_the_input_is_not_overwritten(tool: str, arguments: tuple, tmp_path: Path, run_tool: Any,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'here'
    folder.mkdir()
    monkeypatch.chdir(folder)
    for ending in ('png', 'py', 'pth'):
        (folder / f'x.{ending}').write_text('x = 1')
    with pytest.raises(SystemExit) as refused:
        run_tool(tool, *arguments)
    assert refused.value.code == 2
    assert all(path.read_text() == 'x = 1' for path in folder.iterdir())
