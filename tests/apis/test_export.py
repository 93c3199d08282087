"""An exported file computes what the test pipeline and the model do, and runs without torch."""
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

import mmfreq.apis.export as export
from mmfreq.apis.export_graph import center_crop, resize_edge

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/demo/resnet18-dct24s_demo.py'
GATED = ROOT / 'configs/demo/resnet18-dct192-gate_demo.py'
STOCK = ROOT / 'configs/demo/resnet18_demo.py'
CLASSES = [f'class {i}' for i in range(12)]


def checkpoint(config: Path, folder: Path) -> Path:
    """Save an untrained model whose norms have statistics; return the file."""
    cfg = Config.fromfile(str(config))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        torch.manual_seed(0)
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.get('data_preprocessor')))
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    file = folder / 'model.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=CLASSES))), file)
    return file


def run_tool(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, 'argv', ['export.py', *map(str, arguments)])
    with DefaultScope.overwrite_default_scope('mmengine'):
        runpy.run_path(str(ROOT / 'tools/export.py'), run_name='__main__')


def differences(text: str) -> list[float]:
    return [float(number) for number in re.findall(r'(\d\.\de[-+]\d+) from', text)]


@pytest.mark.parametrize(('config', 'options', 'suffix'), [
    (CONFIG, ('--input', 'channels'), 'onnx'), (CONFIG, ('--fp16', ), 'onnx'), (CONFIG, (), 'pt2'),
    (GATED, (), 'onnx'), (STOCK, ('--order', 'bgr'), 'onnx')])
def test_tool_writes_a_checked_file(config: Path, options: tuple, suffix: str, tmp_path: Path,
                                    monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / f'model.{suffix}'
    run_tool(monkeypatch, config, checkpoint(config, tmp_path), out, *options)
    exact, whole = differences(capsys.readouterr().out)
    assert exact < (2e-2 if '--fp16' in options else 1e-4)
    assert whole < 1e-2
    if suffix == 'onnx':
        about = onnxruntime.InferenceSession(str(out)).get_modelmeta().custom_metadata_map
        assert json.loads(about['classes']) == CLASSES
        if '--input' not in options and config != STOCK:
            assert len(json.loads(about['mean'])) == len(json.loads(about['channels']))


def test_a_script_runs_the_file_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = checkpoint(CONFIG, tmp_path)
    run_tool(monkeypatch, CONFIG, file, tmp_path / 'model.onnx')
    photo = tmp_path / 'photo.png'
    with get_sample_data('grace_hopper.jpg') as source:
        Image.open(source).convert('RGB').crop((0, 40, 400, 340)).save(photo)
    with DefaultScope.overwrite_default_scope('mmengine'):
        from mmfreq.apis.predict import Predictor
        predictor = Predictor(Config.fromfile(str(CONFIG)), str(file), 'cpu')
        expected = predictor.predict([cv2.imread(str(photo))], 0)[0][0]
    for name in ('torch', 'mmfreq', 'mmengine', 'mmpretrain', 'cv2'):  # importing them fails
        (tmp_path / 'blocked').mkdir(exist_ok=True)
        (tmp_path / f'blocked/{name}.py').write_text('raise ImportError("blocked")')
    made = subprocess.run([sys.executable, ROOT / 'docs/run_onnx.py', tmp_path / 'model.onnx', photo],
                          env={**os.environ, 'PYTHONPATH': str(tmp_path / 'blocked')},
                          capture_output=True, text=True, check=True).stdout.strip()
    assert made == f'{photo} {expected["pred_class"]} {expected["pred_score"]:.3f}'


@pytest.mark.parametrize(('options', 'message'), [
    ((GATED, 'model.pth', 'a.onnx'), 'does not fit|expected a checkpoint'),
    ((CONFIG, 'model.pth', 'a.tflite'), 'expected a file name with .onnx or .pt2'),
    ((CONFIG, 'model.pth', 'a.onnx', '--cfg-options',
      'test_dataloader.dataset.pipeline.1.interpolation=area'), 'ResizeEdge of the short edge'),
    ((CONFIG, 'model.pth', 'a.onnx', '--cfg-options',
      'test_dataloader.dataset.pipeline.2.type=RandomCrop'), 'RandomCrop cannot be exported'),
    ((ROOT / 'configs/demo/mask-rcnn_r18-dct24s_demo.py', 'model.pth', 'a.onnx'), 'detectors'),
])
def test_tool_refuses_in_one_line(options: tuple, message: str, tmp_path: Path,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint(CONFIG, tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message) as refused:
        run_tool(monkeypatch, *options)
    assert '\n' not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ['model.pth']


def test_weights_of_another_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = checkpoint(CONFIG, tmp_path)
    content = torch.load(file, weights_only=True)
    content['state_dict'] = {key: value for key, value in content['state_dict'].items() if 'layer4' not in key}
    torch.save(content, file)
    with pytest.raises(SystemExit, match='layer4'):
        run_tool(monkeypatch, CONFIG, file, tmp_path / 'a.onnx')
    assert not (tmp_path / 'a.onnx').exists()


def test_a_mismatch_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = export._write_pt2
    monkeypatch.setattr(export, '_write_pt2', lambda *args: lambda x: write(*args)(x) * 1.01)
    with pytest.raises(SystemExit, match='within 0.0001, the exported file is .* off; nothing'):
        run_tool(monkeypatch, CONFIG, checkpoint(CONFIG, tmp_path), tmp_path / 'a.pt2')
    assert not (tmp_path / 'a.pt2').exists()


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, find = checkpoint(CONFIG, tmp_path), export.importlib.util.find_spec
    monkeypatch.setattr(export.importlib.util, 'find_spec',
                        lambda name, *rest: None if 'onnx' in name else find(name, *rest))
    with pytest.raises(SystemExit, match=r'onnx, onnxscript, onnxruntime .*pip install "mmfreq\[export\]"'):
        run_tool(monkeypatch, CONFIG, file, tmp_path / 'a.onnx')


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('shape', [(301, 255), (211, 400), (100, 90)])
def test_resize_and_crop_are_those_of_the_host(backend: str, shape: tuple) -> None:
    from mmpretrain.datasets.transforms import CenterCrop, ResizeEdge
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 1)
    steps = dict(scale=133, backend=backend), dict(crop_size=(101, 128))
    expected = CenterCrop(**steps[1])(ResizeEdge(**steps[0])(dict(img=image)))['img']
    pixels = torch.tensor(image).permute(2, 0, 1)[None].float()
    made = center_crop(steps[1])(resize_edge(steps[0])(pixels))[0].permute(1, 2, 0).numpy()
    assert made.shape == expected.shape
    assert np.abs(made - expected).max() <= 1
    assert (made != expected).mean() < 0.2  # both backends compute with integers
