"""The measurement of networks alone runs and counts; its times are not judged."""
import json
from pathlib import Path

import networks
import pytest


def test_networks_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = '--networks ResNet-18 --size 64 --batch 2 --repeats 1 --device cpu --channels-last --out'
    monkeypatch.setattr('sys.argv', ['networks.py', *options.split(), str(tmp_path / 'out')])
    networks.main()
    found = {section['title']: {entry['name']: entry['median'] for entry in section['entries']}
             for section in json.loads((tmp_path / 'out.json').read_text())['sections']}
    macs = found['ResNet-18: multiply-adds']
    assert macs['RGB'] == pytest.approx(1.814 * (64 / 224)**2, rel=0.01)  # 1.814 G at 224 pixels without the classifier
    cells = 16 * 16  # of stage 1; the stem and the first convolution against those of 24 channels
    stage1 = (3 * 64 * 49 * 4 + 64 * 64 * 9 - 24 * 64 * 10) * cells / 1e9
    assert macs['RGB'] - macs['24S'] == pytest.approx(stage1, rel=0.03)  # the rest is batch norm
    entry = (24 * 64 * 10 + 3 * 64 * 64 * 9 + (64 - 96) * 128 * 10 / 4) * cells / 1e9
    assert macs['24S'] - macs['24S, stage 2'] == pytest.approx(entry, rel=0.03)
    assert set(found['ResNet-18: forward and backward']) == {*macs, 'RGB, channels_last', '24S, channels_last'}
    assert min(found['ResNet-18: peak memory of forward and backward'].values()) > 1
