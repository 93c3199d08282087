"""The notebook runs from top to bottom, with less data."""
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHORTER = {'--train 30 --val 10': '--train 4 --val 2', '--epochs 4 --batch-size 32': '--epochs 1 --batch-size 16'}


def test_the_tutorial_runs(tmp_path: Path) -> None:
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    script = ['import sys', 'from mmfreq.__main__ import main']
    for cell in json.loads((ROOT / 'docs/tutorial.ipynb').read_text())['cells']:
        assert not cell.get('outputs')
        for line in ''.join(cell['source']).splitlines() if cell['cell_type'] == 'code' else ():
            for long, short in SHORTER.items():
                line = line.replace(long, short)
            if line.startswith('!'):  # what a notebook gives to the shell
                command = shlex.split(line[1:])
                line = f'sys.argv = {command!r}; main()' if command[0] == 'mmfreq' else 'pass'
            script.append(line)
    assert sum('mmfreq' in line for line in script) > 6
    (tmp_path / 'tutorial_cells.py').write_text('\n'.join(script))
    environment = {**os.environ, 'MPLBACKEND': 'agg', 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, 'tutorial_cells.py'], cwd=tmp_path, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert 'best: top-1 accuracy' in done.stdout
    assert (tmp_path / 'tutorial.onnx').is_file()
