"""A place that cannot be written is said before long work, whose result would be lost."""
from pathlib import Path
from typing import Any

import pytest

CONFIG = 'resnet18-dct24s_demo'


@pytest.fixture
def call(run_tool: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a tool, whose work must not begin."""
    for work in ('dataset_stats.dataset_statistics', 'compare.rows.compare', 'export.exporter',
                 'show_dct.plot_channels', 'runner.build_runner'):
        monkeypatch.setattr(f'mmfreq.apis.{work}', lambda *_, **__: pytest.fail('too late'))
    return run_tool


@pytest.mark.parametrize('arguments', [
    ('dataset_stats', CONFIG, '-o', 'file/x.json'), ('compare', CONFIG, '-o', 'file/x'),
    ('gate_heatmap', 'x.json', '-o', 'file/x'),
    ('export', CONFIG, 'x.pth', 'file/x.onnx'), ('show_dct', 'x.pth', '-o', 'file/x.png'),
    ('test', CONFIG, 'x.pth', '-o', 'file/x.json'), ('test', CONFIG, 'x.pth', '--show-dir', 'file')])
def test_a_place_that_cannot_be_written(arguments: tuple, call: Any, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ('file', 'x.pth'):
        Path(name).touch()
    (tmp_path / 'data/demo/train').mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"file/x\S*: cannot be written: |--show-dir: .*'file'") as refused:
        call(*arguments)
    assert '\n' not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['data', 'file', 'x.pth']


@pytest.mark.parametrize(('tool', 'arguments'), [
    ('show_dct', ('x.png', '-o', './x.png')), ('new', ('x.py', 'x', '-o', 'x.py', '--force')),
    ('freqify', ('x.py', '--channels', '24S', '-o', 'x.py', '--force')),
    ('convert_checkpoint', ('x.pth', '../here/x.pth'))])
def test_the_file_that_is_read_is_not_written(tool: str, arguments: tuple, tmp_path: Path, run_tool: Any,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'here'
    folder.mkdir()
    monkeypatch.chdir(folder)
    for ending in ('png', 'py', 'pth'):
        (folder / f'x.{ending}').write_text('x = 1')
    with pytest.raises(SystemExit, match='expected another file to write than the one that is read$'):
        run_tool(tool, *arguments)
    assert all(path.read_text() == 'x = 1' for path in folder.iterdir())


@pytest.mark.parametrize(('work', 'tool', 'arguments'), [
    ('dataset_stats.dataset_statistics', 'dataset_stats', (CONFIG, )), ('compare.rows.compare', 'compare', (CONFIG, )),
    ('freqify.convert.write_freqified', 'freqify', (CONFIG, '--channels', '24S', '-o', 'x.py')),
    ('browse.Browser', 'browse_dataset', (CONFIG, )), ('predict.Predictor', 'predict', (CONFIG, 'x.pth', 'x.png')),
    ('new_config.write.write_config', 'new', (CONFIG, '.', '-o', 'x.py')), ('export.exporter', 'export', (
        CONFIG, 'x.pth', 'x.onnx'))])
def test_what_the_hosts_print_is_kept_out(work: str, tool: str, arguments: tuple, tmp_path: Path, run_tool: Any,
                                          monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def noisy(*_: Any, **__: Any) -> None:
        print('Could not import OneDL')
        raise ValueError('the end')

    monkeypatch.setattr(f'mmfreq.apis.{work}', noisy)
    monkeypatch.chdir(tmp_path)
    for name in ('x.pth', 'x.png'):
        Path(name).touch()
    with pytest.raises((SystemExit, ValueError), match='the end'):
        run_tool(tool, *arguments)
    assert 'OneDL' not in capsys.readouterr().out
