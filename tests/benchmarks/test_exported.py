"""The measurement of exported files runs and writes; its times are not judged."""
import json
from pathlib import Path

import pytest

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
exported = pytest.importorskip('exported')


def test_files_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = onnx.helper.make_tensor_value_info('input', onnx.TensorProto.UINT8, [1, 'height', 'width', 3])
    scores = onnx.helper.make_tensor_value_info('scores', onnx.TensorProto.FLOAT, None)
    cast = onnx.helper.make_node('Cast', ['input'], ['scores'], to=onnx.TensorProto.FLOAT)
    graph = onnx.helper.make_graph([cast], 'graph', [pixels], [scores])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 18)], ir_version=10)
    for name in 'ab':
        onnx.save(model, tmp_path / f'{name}.onnx')
    options = f'{tmp_path}/a.onnx {tmp_path}/b.onnx --repeats 1 --image-count 1 --out {tmp_path}/out'
    monkeypatch.setattr('sys.argv', ['exported.py', *options.split()])
    exported.main()
    (section, ) = json.loads((tmp_path / 'out.json').read_text())['sections']
    assert [entry['name'] for entry in section['entries']] == ['a', 'b']
    assert section['entries'][0]['ratio'] == 1
    assert '| a | ' in (tmp_path / 'out.md').read_text()
