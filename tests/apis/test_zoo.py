"""The list of the shipped configs has their figures; mmpretrain finds them by name."""
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain import get_model, list_models

from mmfreq.apis.measure import build_model, count_flops, packed_sample
from mmfreq.apis.zoo import shipped_table, stock_weights
from mmfreq.models.cls import FreqResNet

ROOT = Path(__file__).parents[2]


def test_the_table_has_every_config() -> None:
    rows = {name: figures for name, *figures in shipped_table()}
    files = [path.relative_to(ROOT / 'configs') for path in (ROOT / 'configs').glob('*/*.py')]
    assert set(rows) == {f'mmfreq::{path.as_posix()}' for path in files}
    assert rows['mmfreq::resnet/resnet50-dct24s_8xb32_in1k.py'] == ['24', '56x56', '3.95 G', 'top-1 77.2']
    assert rows['mmfreq::mask_rcnn/mask-rcnn_r50-dct48s_fpn_1x_coco.py'][3] == 'box AP 38.1, mask AP 35.0'
    assert len(shipped_table('resnet50*48*in1k')) == 3
    assert not [name for name, figures in rows.items() if not all(figures[:3])]


@pytest.mark.parametrize('name', ['resnet18', 'resnet18-dct24s', 'resnet18-dct192-gate'])
def test_figures_of_the_demos(name: str) -> None:
    cfg = Config.fromfile(str(ROOT / f'configs/demo/{name}_demo.py'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        packed = packed_sample(cfg)
        flops = count_flops(build_model(cfg).eval(), packed)
    channels, *sides = packed['inputs'].shape
    (_, *figures), = shipped_table(f'/{name}_demo')
    assert figures == [str(channels), 'x'.join(map(str, sides)), f'{flops / 1e9:.2f} G', '']


def test_the_tool(run_tool: Any, capsys: pytest.CaptureFixture) -> None:
    run_tool('list', 'mobilenet')
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ['config', 'channels', 'size', 'multiply-adds', 'published']
    assert len(lines) == 5
    with pytest.raises(SystemExit):
        run_tool('list', 'alexnet')
    assert "no shipped config has 'alexnet' in its name" in capsys.readouterr().err


def test_output_into_a_closed_pipe_ends_quietly(run_tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in "mmfreq list | head -1", whether the text is written at once or when the process ends."""
    for buffering in (1, -1):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, 'w', buffering) as closed:
            monkeypatch.setattr(sys, 'stdout', closed)
            run_tool('list', 'mobilenet')


def test_mmpretrain_finds_the_shipped_classifiers() -> None:
    """The example of docs/python.md; the names of the index are none of mmpretrain's own."""
    text = (ROOT / 'docs/python.md').read_text()
    example, = (block for block in text.split('```python\n') if 'register_model_index' in block)
    names: dict[str, Any] = {}
    exec(example.split('```')[0], names)
    assert isinstance(names['model'].backbone, FreqResNet)
    assert {path.stem for path in (ROOT / 'configs').glob('*/*dct*_in1k.py')} <= set(list_models('*dct*'))
    assert type(get_model('resnet50_8xb32_in1k').backbone).__name__ == 'ResNet'  # the stock one stays


def test_weights_of_stock_configs() -> None:
    for name, part in (('mmpretrain::resnet/resnet50_8xb32_in1k.py', '/resnet50_8xb32_in1k_'),
                       ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '/mask_rcnn_r50_fpn_1x_coco_2')):
        assert part in stock_weights(name)
    assert stock_weights('mmfreq::resnet/resnet50-dct24s_8xb32_in1k.py') == ''
    assert stock_weights('own.py') == ''
