"""The benchmark runs and writes everything; its peers compute the same channels."""
import json
import runpy
import sys
from functools import partial
from pathlib import Path

import cv2
import measure as bench
import numpy as np
import pytest
import torch
import workers
from measure import Report, Section, Settings, Subject, jpeg_files
from peers import jpeg_peer, scipy_peer, torch_peer
from skimage import data
from tool_runs import ROOT, call_of, forked

from mmfreq.apis.measure import Entry, time_interleaved
from mmfreq.dct.channels import channel_indices
from mmfreq.dct.stats import load_stats
from mmfreq.transforms import BlockDCT, ChannelSelect, FreqNormalize, FusedBlockDCT, YCbCr

CHANNELS, STATS = channel_indices('24S'), load_stats('photos-448')
IMAGE = cv2.resize(np.ascontiguousarray(data.astronaut()[:, :, ::-1]), (448, 448),
                   interpolation=cv2.INTER_AREA)
CONFIGS = ['configs/demo/resnet18_demo.py', 'configs/resnet/resnet50-dct24s-int8_8xb32_in1k.py']


def single_transforms() -> np.ndarray:
    results = {'img': IMAGE}
    for step in (YCbCr(), BlockDCT(), ChannelSelect('24S'), FreqNormalize('photos-448')):
        results = step(results)
    return results['img']


def test_scipy_and_convolution_compute_the_same_channels() -> None:
    made = scipy_peer(CHANNELS, STATS)(IMAGE)
    np.testing.assert_allclose(made, single_transforms(), rtol=0, atol=1e-3)
    fused = FusedBlockDCT('24S', 'photos-448')({'img': IMAGE})['img'].transpose(2, 0, 1)
    made = torch_peer(CHANNELS, STATS)(IMAGE)
    np.testing.assert_allclose(made, fused, rtol=0, atol=1e-3)


def test_jpegs_hold_nearly_the_same_channels() -> None:
    """Rounded to integers; their chroma is resized and subsampled."""
    pytest.importorskip('jpegio')
    difference = (jpeg_peer(CHANNELS, STATS)(IMAGE) - single_transforms()) * STATS.std[CHANNELS]
    assert np.abs(difference[:, :, :16]).max() < 1.5
    assert np.abs(difference[:, :, :16]).mean() < 0.3
    assert np.abs(difference[:, :, 16:]).mean() < 1.5


def test_turns_and_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only work moves: the first round does not count, the order alternates."""
    clock, done = [0.], []
    seconds = dict(slow=[90., 8., 2., 4., 6.], fast=[50., 1., 1., 1., 1.])

    def work(name: str) -> None:
        done.append(name)
        clock[0] += seconds[name].pop(0)

    monkeypatch.setattr('time.perf_counter', lambda: clock[0])
    works = {name: partial(work, name) for name in seconds}
    entries = time_interleaved(works, 4, images_per_call=2, unit=1)
    assert done == ['slow', 'fast'] * 5
    assert entries == [Entry('slow', 2.5, 1.75, 3.25), Entry('fast', 0.5, 0.5, 0.5)]
    assert [Section('x', 's', entries).ratio(entry) for entry in entries] == [1, 0.2]


def test_images(tmp_path: Path) -> None:
    paths = jpeg_files(None, 14, str(tmp_path))
    contents = {Path(path).read_bytes() for path in paths}
    assert len(contents) == 14
    assert all(cv2.imread(path).shape == (375, 500, 3) for path in paths)
    assert jpeg_files(str(tmp_path), 3, '') == paths[:3]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(1, 2, jpeg_files(None, 2, str(tmp_path)))


def test_bytes_to_the_device(settings: Settings) -> None:
    names = ['24s-int8', '48s-int8', '24s-device']
    subjects = [Subject('mmpretrain::resnet/resnet50_8xb32_in1k.py'),
                *(Subject(f'configs/resnet/resnet50-dct{name}_8xb32_in1k.py') for name in names)]
    found = {section.title: section.entries
             for section in bench.measure_transfer(subjects, settings, batches=2)}
    sizes = [entry.median for entry in found['Bytes from the loader to the device']]
    assert sizes == [150_528, 75_264, 150_528, 602_112]
    assert all(entry.median > 0 for entry in found['Worker to main process'])


def test_pipelines_see_the_same_crops(settings: Settings) -> None:
    subjects = [Subject(config) for config in CONFIGS]
    sections = bench.measure_pipelines(subjects, settings)
    assert [len(section.entries) for section in sections] == [2, 4, 5]
    assert sections[2].entries[3].name == '4. FusedBlockDCT'
    first, second = (subject.load_batch(settings) for subject in subjects)
    assert bench.tensor_bytes(first['inputs']) == 2 * 3 * 112 * 112
    for a, b in zip(first['data_samples'], second['data_samples'], strict=True):
        assert (a.img_path, a.flip) == (b.img_path, b.flip)


def test_memory_kept_for_the_backward_pass(settings: Settings) -> None:
    """A linear classifier on pixels keeps its input, and what its loss needs."""
    subject = Subject(CONFIGS[0])
    subject.cfg.model = dict(type='ImageClassifier', backbone=dict(type='Reshape'), head=dict(
        type='LinearClsHead', num_classes=12, in_channels=3 * 112 * 112))
    from mmpretrain.registry import MODELS

    class Reshape(torch.nn.Module):

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (x.flatten(1), )

    MODELS.register_module(module=Reshape, force=True)
    try:
        sections = {s.title: s for s in bench.measure_networks([subject], settings)}
    finally:
        MODELS.module_dict.pop('Reshape')
    kept = sections['Kept for the backward pass, float32'].entries[0].median * 1e6
    assert 4 * 3 * 112 * 112 <= kept < 4 * 3 * 112 * 112 + 2000


def test_report() -> None:
    machine = dict(date='', cpu='', gpu='', threads=1, load_average=0.5, python='', versions={})
    entries = [Entry('rgb', 2, 1.9, 2.2), Entry('dct', 3, 2.9, 12345.6)]
    report = Report(machine, 'run.py', [Section('Pipeline', 'ms', entries, ['a note'])])
    assert '| dct | 3 | 2.9 to 12,346 | 1.50 |' in report.markdown()
    assert 'a note' in report.markdown()
    assert report.as_dict()['sections'][0]['entries'][1]['ratio'] == 1.5


def test_tool_runs_quickly_and_writes_everything(tmp_path: Path) -> None:
    prefix = tmp_path / 'out' / 'quick'
    configs = [tmp_path / 'resnet18_demo.py', tmp_path / 'resnet18-dct24s_demo.py']
    for config in configs:
        config.write_text(f"_base_ = '{ROOT}/configs/demo/{config.name}'\n"
                          'model = dict(backbone=dict(base_channels=8), head=dict(in_channels=64))\n')
    (code, output), = forked(call_of(
        'benchmarks/speed/run.py', *configs, '--quick', '--memory', 4, '--device', 'cpu', '--out', prefix))
    assert code == 0, output
    written = json.loads(prefix.with_suffix('.json').read_text())
    text = prefix.with_suffix('.md').read_text()
    titles = set()
    for section in written['sections']:
        titles.add(section['title'])
        assert f'### {section["title"]}\n' in text
        assert all(np.isfinite(entry['median']) for entry in section['entries'])
    assert {'Pre-processing: one 448x448 image to 24S', 'Training pipeline',
            'Worker to main process', 'Data preprocessor on the device',
            'Network forward and backward, AMP', 'Training step, end to end',
            'Memory of a worker: resnet18-dct24s_demo'} <= titles
    assert cv2.imread(str(prefix.with_suffix('.png'))).shape[0] > 500


@pytest.mark.parametrize(('arguments', 'message'), [
    (['nowhere.py'], 'config: no such file: nowhere.py'),
    (['--repeats', '0'], '--repeats'),
    (['--sections', 'none', '--images', 'tests'], 'expected JPEG files'),
])
def test_tool_refuses(arguments: list[str], message: str, tmp_path: Path,
                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'argv', ['run.py', *arguments, '--out', str(tmp_path / 'x')])
    monkeypatch.setattr(torch, 'set_num_threads', lambda count: None)
    with pytest.raises(SystemExit, match=message):
        runpy.run_path('benchmarks/speed/run.py', run_name='__main__')
    assert not list(tmp_path.iterdir())


def test_memory_of_a_worker_is_the_kernels(tmp_path: Path) -> None:
    """What is its own is no more than its part of what it shares, which is no more than all that it sees."""
    image = bench.make_images(str(tmp_path), 1)[0]
    resident, part, own = workers.measure('mmfreq::demo/resnet18-dct24s_demo.py', image, 2, 'fork')
    assert 1 < own < part < resident
