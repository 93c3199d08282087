"""The measurement of quantised files runs; its figures are not judged."""
from pathlib import Path

import cv2
import pytest
from references import FACE
from shipped import save_untrained, shipped
from tool_runs import call_of, forked

pytest.importorskip('onnxruntime')


def test_float_and_int8_are_compared(tmp_path: Path) -> None:
    cfg = shipped('demo/resnet18-dct24s_demo.py', model__backbone__base_channels=16, model__head__in_channels=128)
    for part in ('train', 'val', 'test'):
        dataset = cfg[f'{part}_dataloader'].dataset
        dataset.data_root = str(tmp_path)
        for i in range(2):
            folder = tmp_path / dataset.data_prefix / 'ab'[i]
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f'{i}.png'), FACE)
    cfg.dump(tmp_path / 'tiny.py')
    save_untrained(cfg, tmp_path / 'tiny.pth', 'ab')
    options = f'{tmp_path}/tiny.py --images 2 --calibrate 2 --repeats 1 --keep-first'
    (code, output), = forked(call_of('benchmarks/accuracy/quantized.py', *options.split()))
    assert code == 0, output
    rows = [line.split('|') for line in output.splitlines() if line.startswith('| tiny')]
    assert [row[1].strip() for row in rows] == ['tiny, float32', 'tiny, int8']
    assert rows[0][4].strip() == '1.00'
