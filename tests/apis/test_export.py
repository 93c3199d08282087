"""An exported classifier computes what the test pipeline and the model do, and runs without torch."""
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
from PIL import Image
from shipped import save_untrained, shipped

import mmfreq
from mmfreq.apis.export import exporter, file
from mmfreq.apis.export.resize import center_crop, geometry, resize
from mmfreq.config.pipelines import input_spec, pipelines, stock_resize
from mmfreq.errors import RefusedError
from mmfreq.input_spec import InputSpec
from mmfreq.selection.gate import ChannelGate

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

ROOT = Path(__file__).parents[2]
CLASSES = [f'class {i}' for i in range(12)]
BACKBONE = dict(num_stages=1, strides=(1, ), dilations=(1, ), out_indices=(0, ))
INT8 = dict(data_preprocessor=dict(mean=[0], std=[6]))


def small(name: str) -> Config:
    """Return the config of a network with one stage."""
    base = dict(rgb='resnet18_demo', gate='resnet18-dct192-gate_demo').get(name, 'resnet18-dct24s_demo')
    cfg = shipped(f'demo/{base}.py', train_dataloader=None, val_dataloader=None)
    cfg.merge_from_dict(dict(model=dict(backbone=BACKBONE, head=dict(in_channels=64))))
    freq, = [step for step in pipelines(cfg, 'test_dataloader')[0] if 'channels' in step] or [{}]
    if name == 'int8':
        cfg.merge_from_dict(INT8)
        freq.update(dtype='int8', scale=6)
    if name == 'device':
        cfg.data_preprocessor = dict(type='FreqDataPreprocessor', placement='device', freq=dict(freq))
        steps = pipelines(cfg, 'test_dataloader')[0]
        steps[:] = [stock_resize(step) for step in steps if step is not freq]
    if name == 'multi':
        cfg.model.head = dict(type='MultiLabelLinearClsHead', num_classes=12, in_channels=64)
    return cfg


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write configs NAME.py, and their untrained weights NAME.pth, in which norms have statistics."""
    made = tmp_path_factory.mktemp('export')
    for name in ('int8', 'gate', 'rgb', 'multi', 'device'):
        cfg = small(name)
        cfg.dump(made / f'{name}.py')
        model = save_untrained(cfg, made / f'{name}.pth', CLASSES)
        for module in model.modules():
            if isinstance(module, ChannelGate):
                module.set_budget(6)
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        meta = dict(dataset_meta=dict(classes=CLASSES))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), made / f'{name}.pth')
    return made


def loaded(folder: Path, name: str) -> Any:
    return mmfreq.load_model(small(name), folder / f'{name}.pth', 'cpu')


def metadata(path: Path) -> dict[str, Any]:
    if path.suffix == '.pt2':
        extra = {'mmfreq.json': ''}
        torch.export.load(path, extra_files=extra)
        return json.loads(extra['mmfreq.json'])
    about = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    return {key: json.loads(value) for key, value in about.items()}


@pytest.mark.parametrize('loader', ['LoadImageFromFile', 'LoadYCbCrFromFile'])
@pytest.mark.parametrize(('dct', 'more', 'is_lazy'), [
    ('FusedBlockDCT', {}, True), ('FusedBlockDCT', dict(backend='pillow'), True),
    ('FusedBlockDCT', dict(interpolation='bicubic'), False), ('YCbCr', {}, False)])
def test_only_a_fused_bilinear_resize_is_not_rounded(dct: str, more: dict, is_lazy: bool, loader: str) -> None:
    step = dict(type='LazyResize', resize='ResizeEdge', scale=32, **more)
    steps = geometry([dict(type=loader), step, dict(type=dct), dict(type='PackInputs')])
    lazy = dict(lazy=True) if is_lazy else {}
    assert steps == [dict(type='ResizeEdge', scale=32, **more, **lazy)]


@pytest.mark.parametrize(('name', 'kind', 'order', 'most'), [
    ('rgb', 'image', 'bgr', 1e-2), ('gate', 'image', 'rgb', 1e-5), ('device', 'image', 'rgb', 1e-3),
    ('int8', 'image', 'rgb', 1e-3), ('int8', 'channels', 'rgb', 1e-6)])
def test_the_graph_gives_the_scores_of_pipeline_and_model(name: str, kind: str, order: str,
                                                          most: float, folder: Path) -> None:
    made = exporter(loaded(folder, name), kind, order)
    differences = made.check(lambda inputs: [made.network(inputs).numpy()])
    assert differences['test pipeline and model']['scores'] < most
    assert made.metadata()['colors'] == (order if kind == 'image' else None)


@pytest.mark.parametrize('suffix', ['onnx', 'pt2'])
def test_tool_writes_a_checked_file(suffix: str, folder: Path, tmp_path: Path, run_tool: Any,
                                    capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / f'model.{suffix}'
    run_tool('export', folder / 'int8.py', folder / 'int8.pth', out, '--input', 'channels')
    lines = [line for line in capsys.readouterr().out.splitlines() if 'largest differences' in line]
    assert [float(line.split('scores ')[1]) < 1e-4 for line in lines] == [True] * 2
    about, cfg = metadata(out), small('int8')
    spec = InputSpec.from_dict(about['input_spec'])
    assert spec == input_spec(cfg, pipelines(cfg, 'test_dataloader')[0])
    assert (spec.dtype, spec.scale, about['topk']) == ('int8', 6, 1)
    assert about['steps'][-1] == dict(type='CenterCrop', crop_size=224)


@pytest.mark.parametrize('name', ['gate', 'multi'])
def test_a_script_runs_the_file_without_torch(name: str, folder: Path, tmp_path: Path) -> None:
    """A phone's image is turned as its EXIF orientation says; a multi-label head names several classes.

    An image of 16 bits is left out, since Pillow would clip its levels.
    """
    model, photo, exif = loaded(folder, name), tmp_path / 'photo.png', Image.Exif()
    exif[0x0112] = 6
    with get_sample_data('grace_hopper.jpg') as source:
        Image.open(source).convert('RGB').crop((0, 40, 400, 340)).save(photo, exif=exif)
    exporter(model).write(tmp_path / 'model.onnx')
    about = metadata(tmp_path / 'model.onnx')
    assert (about['classes'], about['mmfreq'], about['input']) == (CLASSES, mmfreq.__version__, 'image')
    for module in ('torch', 'mmfreq', 'mmengine', 'mmpretrain', 'cv2'):  # importing them fails
        (tmp_path / f'blocked/{module}.py').parent.mkdir(exist_ok=True)
        (tmp_path / f'blocked/{module}.py').write_text('raise ImportError("blocked")')
    Image.fromarray(np.full((40, 30), 999, np.uint16)).save(tmp_path / 'deep.png')
    run = subprocess.run(
        [sys.executable, ROOT / 'docs/run_onnx.py', tmp_path / 'model.onnx', tmp_path / 'deep.png', photo],
        env={**os.environ, 'PYTHONPATH': str(tmp_path / 'blocked')}, capture_output=True, text=True, check=True)
    assert 'deep.png: expected an image of 8 bits' in run.stderr
    printed = run.stdout.splitlines()
    expected = mmfreq.load_model(model.cfg, folder / f'{name}.pth', 'cpu').predict(photo)
    labels = expected.get('pred_labels', [expected.get('pred_label')])
    assert name == 'gate' or 2 < len(labels) < 12
    assert sorted(printed) == sorted(
        f'{photo} {CLASSES[label]} {expected["pred_scores"][label]:.3f}' for label in labels)


def test_openvino_runs_the_file_as_documented(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('openvino')
    model = loaded(folder, 'gate')
    monkeypatch.chdir(tmp_path)
    exporter(model).write(Path('model.onnx'))
    with get_sample_data('grace_hopper.jpg') as source:
        Path('photo.jpg').write_bytes(source.read())
    program = re.search(r'```python\n(import numpy.*?)```', (ROOT / 'docs/deployment.md').read_text(), re.DOTALL)[1]
    exec(program, variables := {})
    session = onnxruntime.InferenceSession('model.onnx', providers=['CPUExecutionProvider'])
    expected, = session.run(None, {'input': variables['pixels'][None]})
    np.testing.assert_allclose(variables['scores'], expected[0], atol=1e-4)
    assert variables['scores'].argmax() == model.predict('photo.jpg')['pred_label']


@pytest.mark.parametrize(('options', 'message'), [
    (('rgb.py', 'rgb.pth', 'a.tflite'), '.onnx or .pt2'),
    (('rgb.py', 'rgb.pth', 'a.onnx', '--cfg-options',
      'test_dataloader.dataset.pipeline.1.interpolation=area'), 'ResizeEdge of the short edge'),
    (('rgb.py', 'rgb.pth', 'a.onnx', '--cfg-options',
      'test_dataloader.dataset.pipeline.2.type=RandomCrop'), 'RandomCrop cannot be exported'),
    (('rgb.py', 'rgb.pth', 'a.onnx', '--input', 'channels'), 'a test pipeline that computes DCT'),
])
def test_tool_refuses_before_it_writes(options: tuple, message: str, folder: Path, run_tool: Any,
                                       monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture) -> None:
    before = sorted(folder.iterdir())
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit):
        run_tool('export', *options)
    printed = capsys.readouterr()
    assert message in printed.err.splitlines()[-1]
    assert 'writing' not in printed.out
    assert sorted(folder.iterdir()) == before


def test_missing_packages_are_named_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(RefusedError, match=r'pip install "mmfreq\[export\]"'):
        file.check_out(Path('model.onnx'))
    file.check_out(Path('model.pt2'))


def test_a_mismatch_writes_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = exporter(loaded(folder, 'gate'))
    monkeypatch.setitem(file._WRITERS, '.pt2', lambda *_: lambda x: [made.network(x).numpy() * 1.01])
    with pytest.raises(ValueError, match='nothing is written.*the same graph in PyTorch'):
        made.write(tmp_path / 'a.pt2')
    assert not (tmp_path / 'a.pt2').exists()


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
    made = center_crop(steps[1])(resize(dict(steps[0], type='ResizeEdge'))(pixels))[0].permute(1, 2, 0).numpy()
    assert made.shape == expected.shape
    assert np.abs(made - expected).max() <= 2  # a level more or less in the rows, another in the columns
    assert (made != expected).mean() < others  # OpenCV computes with coarse integers
