"""The measurements of loaders run and write; their figures are not judged."""
import json
from pathlib import Path

import cv2
import pytest
from references import FACE
from shipped import save_untrained, shipped
from tool_runs import ROOT, call_of, forked

from mmfreq.dct.planes import decoder

pytestmark = pytest.mark.skipif(decoder() is None, reason='PyTurboJPEG or libturbojpeg is missing')


def test_loaders_take_turns(tmp_path: Path) -> None:
    configs = [str(ROOT / f'configs/demo/resnet18{name}_demo.py') for name in ('', '-dct24s')]
    options = f'--reduce --image-count 2 --repeats 1 --workers 0 1 --batches 1 --out {tmp_path}/out'
    (code, output), = forked(call_of('benchmarks/speed/loaders.py', *configs, *options.split()))
    assert code == 0, output
    sections = json.loads((tmp_path / 'out.json').read_text())['sections']
    names = ['RGB, OpenCV', 'RGB, turbojpeg', '24S, OpenCV', '24S, planes', '24S, reduced planes']
    for section in (sections[0], *sections[-2:]):
        assert [entry['name'] for entry in section['entries']] == names
    assert [sections[i]['entries'][0]['name'] for i in (2, 4)] == ['1. LoadImageFromFile', '1. LoadYCbCrFromFile']


def test_channels_and_classes_are_compared(tmp_path: Path) -> None:
    cfg = shipped('demo/resnet18-dct24s_demo.py', test_dataloader__dataset__data_root=str(tmp_path))
    for i, name in enumerate('aab'):
        folder = tmp_path / cfg.test_dataloader.dataset.data_prefix / name
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f'{i}.jpg'), cv2.resize(FACE, (1200 + i, 900)))
    cfg.dump(tmp_path / 'config.py')
    save_untrained(cfg, tmp_path / 'weights.pth', 'ab')
    arguments = tmp_path / 'config.py', tmp_path / 'weights.pth', '--labels', '0', '1'
    (code, output), = forked(call_of('benchmarks/accuracy/loaders.py', *arguments))
    assert code == 0, output
    lines = [line.split('|') for line in output.splitlines() if line.startswith('| ')][2:]
    rows = {cells[1].strip(): [float(cell) for cell in cells[2:-1]] for cells in lines}
    assert list(rows) == ['stock', 'planes', 'reduced planes']
    assert rows['stock'][1] == 0
    assert rows['stock'][2] > 100  # decibels of no difference
    assert 40 < rows['planes'][2] < 100
    assert 20 < rows['reduced planes'][2] < rows['planes'][2]
