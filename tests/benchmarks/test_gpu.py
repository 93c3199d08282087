"""The one script for a GPU: its programs understand it, and the one without a test of its own runs, at small size."""
import json
import runpy
from pathlib import Path

import pytest
from tool_runs import ROOT, call_of, execute, forked

SHORT = ['loaders', 'resnet', 'training-amp', 'training-compiled']


@pytest.mark.parametrize(('mode', 'names'), [
    ([], SHORT), (['all'], [*SHORT, 'training', 'networks', 'mask-rcnn', 'mask-rcnn-training']),
    (['quick'], ['loaders', 'resnet', 'training', 'networks'])])
def test_everything_for_a_gpu_is_measured(mode: list[str], names: list[str], tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\necho "$@" >> "$OUT/commands"\n')
    python.chmod(0o755)
    execute('bash', 'benchmarks/speed/gpu.sh', *mode, OUT=str(tmp_path), PYTHON=str(python))
    commands = [line.split() for line in (tmp_path / 'commands').read_text().splitlines()]
    for name, command in zip(names, commands, strict=True):
        monkeypatch.setattr('sys.argv', command)
        assert runpy.run_path(str(ROOT / command[0]))['parse_args']().out == str(tmp_path / name)
    if mode == ['quick']:  # test_loaders.py, test_benchmark.py and test_networks.py run the others
        (code, output), = forked(call_of(*commands[2]))
        assert code == 0, output
        found = json.loads((tmp_path / 'training.json').read_text())['sections']
        assert [entry['name'] for entry in found[0]['entries']] == ['resnet18_demo', 'resnet18-dct24s_demo']
        assert found[0]['title'] == 'Training, 1 workers'
        assert (tmp_path / 'training.md').is_file()


def test_what_fails_is_said(tmp_path: Path) -> None:
    output = execute('bash', 'benchmarks/speed/gpu.sh', 'quick', succeeds=False, OUT=str(tmp_path), PYTHON='false')
    assert [line.split()[0] for line in output.splitlines() if ' failed, see ' in line] == [
        'loaders', 'resnet', 'training', 'networks']
