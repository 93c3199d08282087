"""An exported file computes what the test pipeline and the model do, and runs without torch."""
import json
import os
import re
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

import mmfreq
from mmfreq.apis import export, export_file
from mmfreq.apis.export_graph import center_crop, read_pipeline, resize_edge
from mmfreq.dct.channels import channel_indices
from mmfreq.dct.stats import block_stats

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

ROOT = Path(__file__).parents[2]
DEMO = ROOT / 'configs/demo'
CLASSES = [f'class {i}' for i in range(12)]
ONE_STAGE = '''
_base_ = '{base}'
model = dict(backbone=dict(num_stages=1, strides=(1, ), dilations=(1, ), out_indices=(0, )), head=dict(in_channels=64))
'''
INT8 = '''
data_preprocessor = dict(mean=[0], std=[6])
freq = [dict(_base_.freq[0], dtype='int8', scale=6)]
train_pipeline = [*_base_.train_pipeline[:3], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:3], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
'''


@pytest.fixture(scope='module', autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write configs NAME.py of networks with one stage, and their untrained weights NAME.pth; some in cut.pth."""
    made = tmp_path_factory.mktemp('export')
    for name, base, more in (('dct', 'resnet18-dct24s_demo', ''), ('int8', 'resnet18-dct24s_demo', INT8),
                             ('gate', 'resnet18-dct192-gate_demo', ''), ('rgb', 'resnet18_demo', '')):
        (made / f'{name}.py').write_text(ONE_STAGE.format(base=DEMO / f'{base}.py') + more)
        save_untrained(made / f'{name}.py')
    cut = torch.load(made / 'dct.pth', weights_only=True)
    cut['state_dict'] = {key: value for key, value in cut['state_dict'].items() if 'layer1.1' not in key}
    torch.save(cut, made / 'cut.pth')
    return made


def save_untrained(config: Path) -> None:
    """Save an untrained model whose norms have statistics beside its config."""
    cfg = Config.fromfile(str(config))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        torch.manual_seed(0)
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.get('data_preprocessor')))
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), config.with_suffix('.pth'))


def differences(text: str) -> list[float]:
    return [float(number) for number in re.findall(r'scores (\d\.\de[-+]\d+)', text)]


def metadata(file: Path) -> dict[str, Any]:
    if file.suffix == '.pt2':
        extra = {'mmfreq.json': ''}
        torch.export.load(file, extra_files=extra)
        return json.loads(extra['mmfreq.json'])
    about = onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map
    return {key: json.loads(value) for key, value in about.items()}


def test_only_what_waits_is_not_rounded() -> None:
    """LazyResize resizes at once, to whole levels, unless it is bilinear."""
    step = dict(type='LazyResize', resize='ResizeEdge', scale=32)
    for more, waits in ((dict(), True), (dict(backend='pillow'), True), (dict(interpolation='bicubic'), False)):
        pipeline = [dict(type='LoadImageFromFile'), dict(step, **more), dict(type='PackInputs')]
        cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
        assert [found.get('lazy', False) for found in read_pipeline(cfg)[0]] == [waits]


@pytest.mark.parametrize(('options', 'suffix'), [(['--fp16'], 'onnx'), ([], 'pt2')])
def test_tool_writes_a_checked_file(options: list[str], suffix: str, folder: Path, tmp_path: Path,
                                    run_tool: Any, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / f'model.{suffix}'
    run_tool('export', folder / 'int8.py', folder / 'int8.pth', out, '--input', 'channels', *options)
    exact, whole = differences(capsys.readouterr().out)
    assert max(exact, whole) < (1e-2 if options else 1e-4)
    about = metadata(out)
    assert about['channels'] == channel_indices('24S')
    assert about['mean'] == block_stats('photos-448').mean[about['channels']].tolist()
    assert (about['dtype'], about['scale'], about['network_input']) == ('int8', 6, [24, 28, 28])
    assert about['steps'][-1]['crop_size'] == 224


def test_a_graph_of_bgr_pixels_gives_the_scores_of_a_stock_model(folder: Path) -> None:
    cfg = Config.fromfile(str(folder / 'rgb.py'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        made = export.exporter(cfg, str(folder / 'rgb.pth'), 'image', 'bgr')
        found = made.check(lambda pixels: [made.network(pixels).numpy()])
    assert found['test pipeline and model']['scores'] < 1e-2
    assert (made.metadata()['colors'], made.metadata()['network_input']) == ('bgr', [3, 112, 112])


def test_a_script_runs_the_file_without_torch(folder: Path, tmp_path: Path, run_tool: Any,
                                              capsys: pytest.CaptureFixture) -> None:
    config, file = folder / 'gate.py', folder / 'gate.pth'
    run_tool('export', config, file, tmp_path / 'model.onnx')
    exact, whole = differences(capsys.readouterr().out)
    assert exact < 1e-4
    assert whole < 1e-2
    about = metadata(tmp_path / 'model.onnx')
    assert (about['classes'], about['mmfreq'], about['input']) == (CLASSES, mmfreq.__version__, 'image')
    assert len(about['channels']) == len(about['mean']) == len(about['std']) == 192
    photo = tmp_path / 'photo.png'
    with get_sample_data('grace_hopper.jpg') as source:
        Image.open(source).convert('RGB').crop((0, 40, 400, 340)).save(photo)
    expected = mmfreq.load_model(config, file, 'cpu').predict(photo)
    for name in ('torch', 'mmfreq', 'mmengine', 'mmpretrain', 'cv2'):  # importing them fails
        (tmp_path / 'blocked').mkdir(exist_ok=True)
        (tmp_path / f'blocked/{name}.py').write_text('raise ImportError("blocked")')
    made = subprocess.run([sys.executable, ROOT / 'docs/run_onnx.py', tmp_path / 'model.onnx', photo],
                          env={**os.environ, 'PYTHONPATH': str(tmp_path / 'blocked')},
                          capture_output=True, text=True, check=True).stdout.strip()
    assert made == f'{photo} {expected["pred_class"]} {expected["pred_score"]:.3f}'


@pytest.mark.parametrize(('options', 'message'), [
    (('gate.py', 'dct.pth', 'a.onnx'), 'does not fit|expected a checkpoint'),
    (('dct.py', 'cut.pth', 'a.onnx'), 'layer1.1'),
    (('dct.py', 'dct.pth', 'a.tflite'), 'expected a file name with .onnx or .pt2'),
    (('dct.py', 'dct.pth', 'a.onnx', '--cfg-options',
      'test_dataloader.dataset.pipeline.1.interpolation=area'), 'ResizeEdge of the short edge'),
    (('dct.py', 'dct.pth', 'a.onnx', '--cfg-options',
      'test_dataloader.dataset.pipeline.2.type=RandomCrop'), 'RandomCrop needs pixels, but LazyResize'),
    (('rgb.py', 'rgb.pth', 'a.onnx', '--input', 'channels'), 'a test pipeline that computes DCT'),
])
def test_tool_refuses_in_one_line(options: tuple, message: str, folder: Path, run_tool: Any,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(folder.iterdir())
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit, match=message) as refused:
        run_tool('export', *options)
    assert '\n' not in str(refused.value)
    assert sorted(folder.iterdir()) == before


def test_a_mismatch_writes_nothing(folder: Path, tmp_path: Path, run_tool: Any,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.ClassifierExporter, 'program', lambda self: self.network)
    monkeypatch.setattr(export_file, '_write_pt2', lambda network, *_: lambda x: [network(x).numpy() * 1.01])
    with pytest.raises(SystemExit, match='within 0.0001, the exported file is .* off; nothing'):
        run_tool('export', folder / 'dct.py', folder / 'dct.pth', tmp_path / 'a.pt2')
    assert not (tmp_path / 'a.pt2').exists()


def test_missing_packages_are_named(folder: Path, tmp_path: Path, run_tool: Any,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    find = export_file.importlib.util.find_spec
    monkeypatch.setattr(export_file.importlib.util, 'find_spec',
                        lambda name, *rest: None if 'onnx' in name else find(name, *rest))
    with pytest.raises(SystemExit, match=r'onnx, onnxscript, onnxruntime .*pip install "mmfreq\[export\]"'):
        run_tool('export', folder / 'dct.py', folder / 'dct.pth', tmp_path / 'a.onnx')


@pytest.mark.parametrize(('backend', 'mode', 'others'), [
    ('cv2', 'bilinear', 0.2), ('pillow', 'bilinear', 0.01), ('pillow', 'bicubic', 0.001)])
@pytest.mark.parametrize('shape', [(301, 255), (211, 400), (100, 90)])
def test_resize_and_crop_are_those_of_the_host(backend: str, mode: str, others: float, shape: tuple) -> None:
    from mmpretrain.datasets.transforms import CenterCrop, ResizeEdge
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 1)
    steps = dict(scale=133, backend=backend, interpolation=mode), dict(crop_size=(101, 128))
    expected = CenterCrop(**steps[1])(ResizeEdge(**steps[0])(dict(img=image)))['img']
    pixels = torch.tensor(image).permute(2, 0, 1)[None].float()
    made = center_crop(steps[1])(resize_edge(steps[0])(pixels))[0].permute(1, 2, 0).numpy()
    assert made.shape == expected.shape
    assert np.abs(made - expected).max() <= 2  # a level more or less in the rows, another in the columns
    assert (made != expected).mean() < others  # OpenCV computes with coarse integers
