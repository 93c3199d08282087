"""The one script for a GPU runs here too, at small size; its times are not judged."""
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_everything_for_a_gpu_runs(tmp_path: Path) -> None:
    env = dict(os.environ, OUT=str(tmp_path), PYTHON=sys.executable)
    done = subprocess.run(['bash', 'benchmarks/speed/gpu.sh', 'quick'], cwd=ROOT, env=env, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / 'training.json').read_text())['sections']
    assert [entry['name'] for entry in found[0]['entries']] == ['resnet18_demo', 'resnet18-dct24s_demo']
    assert found[0]['title'] == 'Training, 1 workers'
    assert {path.stem for path in tmp_path.glob('*.md')} == {'networks', 'resnet', 'training'}
