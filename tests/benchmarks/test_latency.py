"""The measurement from file to scores runs and writes; its times are not judged."""
import json
from pathlib import Path

import pytest
from tool_runs import ROOT, call_of, forked

pytest.importorskip('onnxruntime')


def test_inputs_and_runtimes_take_turns(tmp_path: Path) -> None:
    config = tmp_path / 'tiny.py'
    config.write_text(f"_base_ = '{ROOT}/configs/demo/resnet18_demo.py'\n"
                      'model = dict(backbone=dict(stem_channels=8, base_channels=8), head=dict(in_channels=64))\n')
    options = f'{config} --channels RGB 24N --runtimes PyTorch onnxruntime --batch 2 --repeats 1 --out {tmp_path}/out'
    (code, output), = forked(call_of('benchmarks/speed/latency.py', *options.split()))
    assert code == 0, output
    found = json.loads((tmp_path / 'out.json').read_text())
    assert found['notes'] == []
    rows = {(row['input'], row['runtime']): row for row in found['rows']}
    assert list(rows) == [(name, runtime) for name in ('RGB', '24N') for runtime in ('PyTorch', 'onnxruntime')]
    for row in rows.values():
        assert row['sum'] == pytest.approx(row['decoding'] + row['pre-processing'] + row['network'])
        assert min(row['decoding'], row['pre-processing'], row['network']) > 0
    size = rows['RGB', 'PyTorch']['bytes']
    assert size % 3 == 0
    assert rows['24N', 'PyTorch']['bytes'] == size * 2  # float32, half as many values
    assert '| 24N | onnxruntime | 2 | 1 |' in (tmp_path / 'out.md').read_text()
