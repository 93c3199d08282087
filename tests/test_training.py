"""Run the tools from end to end, each in a process of its own, on a tiny data set without a GPU."""
import json
import pickle
import re
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.distributed.run
from mmengine.config import Config
from numpy.testing import assert_allclose
from scipy.fft import dctn
from tool_runs import (
    DEMO24,
    ROOT,
    Reduces,
    call_of,
    checkpoint,
    data_options,
    execute,
    flags,
    forked,
    free_port,
    ranks,
    run_options,
    scalars,
    tool,
    write_data,
)

from mmfreq.apis.dataset_stats import dataset_statistics
from mmfreq.transforms import FreqNormalize

NAME = Path(DEMO24).stem


def assert_same_tensors(actual: dict[str, Any], expected: dict[str, Any], **tolerance: float) -> None:
    assert list(actual) == list(expected)
    for key, value in expected.items():
        assert_allclose(actual[key].numpy(), value.numpy(), err_msg=str(key), **tolerance)


def momenta(saved: dict[str, Any]) -> dict[str, torch.Tensor]:
    """SGD's momentum of every parameter."""
    return {key: state['momentum_buffer'] for key, state in saved['optimizer']['state'].items()}


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp('tiny'))


@pytest.fixture(scope='session')
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work dir of an uninterrupted training run."""
    work_dir = tmp_path_factory.mktemp('work') / 'trained'
    output = tool('train', DEMO24, '--work-dir', work_dir, *flags(run_options(data)))
    (work_dir / 'output.txt').write_text(output)
    return work_dir


@pytest.fixture(scope='session')
def metrics(trained: Path) -> dict[str, float]:
    """What ``tools/test.py`` writes about the run, given its work dir."""
    path = trained / 'metrics.json'
    config = trained / f'{NAME}.py'
    (trained / 'test_output.txt').write_text(
        tool('test', config, trained, '--work-dir', trained / 'test', '--out', path))
    return json.loads(path.read_text())


@pytest.fixture(scope='session')
def predictions(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict], Path]:
    """What ``tools/test.py`` predicts for every val image, given a checkpoint file, and a folder of pictures of it."""
    out = tmp_path_factory.mktemp('predictions')
    tool('test', trained / f'{NAME}.py', trained / 'epoch_2.pth', '--work-dir', out, '--out', out / 'x.pkl',
         '--show-dir', out / 'pictures')
    return pickle.loads((out / 'x.pkl').read_bytes()), out / 'pictures'


# Training and evaluation


def test_training_logs_losses_and_writes_checkpoints(trained: Path) -> None:
    lines = scalars(trained)
    assert [(line['epoch'], line['step']) for line in lines] == [(1 + step // 5, step) for step in range(1, 9)]
    assert np.isfinite([line['loss'] for line in lines]).all()
    assert lines[0]['loss'] != lines[-1]['loss']
    assert 'epoch 2: accuracy/top1 ' in (trained / 'output.txt').read_text()
    assert {path.name for path in trained.glob('*.pth')} == {'epoch_1.pth', 'epoch_2.pth'}
    assert (trained / 'last_checkpoint').read_text() == str(trained / 'epoch_2.pth')
    weights = checkpoint(trained / 'epoch_2.pth')['state_dict']
    assert weights['backbone.layer1.0.conv1.weight'].shape == (8, 24, 3, 3)
    assert not any(key.startswith(('backbone.conv1', 'backbone.bn1')) for key in weights)
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_tensorboard_gets_what_the_log_gets(data: Path, tmp_path: Path) -> None:
    """By the line of docs/logging.md; and pictures of predictions."""
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    line = re.search(r'^visualizer = .*', (ROOT / 'docs/logging.md').read_text(), re.MULTILINE)[0]
    (tmp_path / 'own.py').write_text(f"_base_ = '{ROOT / DEMO24}'\n{line}\n")
    options = {'default_hooks.visualization.enable': True, 'default_hooks.visualization.interval': 4}
    tool('train', tmp_path / 'own.py', '--work-dir', tmp_path / 'run', *flags(run_options(data) | options))
    file, = (tmp_path / 'run').glob('*/vis_data/events.*')
    events = accumulator.EventAccumulator(str(file)).Reload()
    assert_allclose([event.value for event in events.Scalars('loss')],
                    [line['loss'] for line in scalars(tmp_path / 'run')], rtol=1e-6)
    assert [event.step for event in events.Scalars('accuracy/top1')] == [1, 2]
    assert sorted(events.Tags()['images']) == ['0-columns-0', '4-rows-0']


def test_own_images_train_as_documented(data: Path, tmp_path: Path) -> None:
    """Follow docs/training.md, with a smaller network on smaller images for two iterations."""
    text = (ROOT / 'docs/training.md').read_text()
    recipe = re.search(r'## Own data\n\n```bash\n(.*?)```', text, re.DOTALL)
    lines = [line.partition('#')[0].split() for line in recipe[1].splitlines()]
    assert [line[:2] for line in lines] == [
        ['mmfreq', name] for name in ('new', 'browse_dataset', 'train', 'test')]
    paths = {'IMAGES': data, 'mine.py': tmp_path / 'mine.py', 'work_dirs/mine': tmp_path}
    new, _, train, test = ([paths.get(word, word) for word in line[1:]] for line in lines)
    small = {f'{key}_dataloader.{name}': value for key in ('train', 'val', 'test') for name, value in (
        ('batch_size', 8), ('num_workers', 0), ('persistent_workers', False), ('dataset.pipeline.1.scale', 64))}
    small |= {'val_dataloader.dataset.pipeline.2.crop_size': 64, 'test_dataloader.dataset.pipeline.2.crop_size': 64,
              'model.backbone.depth': 18, 'model.backbone.base_channels': 8, 'model.head.in_channels': 64,
              'train_cfg.max_epochs': 1, 'default_hooks.logger.interval': 1}
    tool(*new)
    tool(*train, '--work-dir', tmp_path, *flags(small))
    output = tool(*test, '--work-dir', tmp_path / 'test', *flags(small))
    assert 'result: accuracy/top1' in output
    assert [line['step'] for line in scalars(tmp_path)] == [1, 2]
    saved = checkpoint(tmp_path / 'epoch_1.pth')
    assert saved['meta']['dataset_meta']['classes'] == ['columns', 'rows']
    assert saved['state_dict']['head.fc.weight'].shape == (2, 64)
    assert 'accuracy/top1' in next(tmp_path.glob('*/vis_data/scalars.json')).read_text()


def test_metrics_are_those_of_the_predictions(metrics: dict[str, float], predictions: tuple[list[dict], Path],
                                              trained: Path) -> None:
    labels = [int(sample['gt_label']) for sample in predictions[0]]
    scores = np.stack([sample['pred_score'].numpy() for sample in predictions[0]])
    assert labels == [0] * 4 + [1] * 4 or labels == [1] * 4 + [0] * 4
    assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    assert metrics == {'accuracy/top1': pytest.approx(100 * np.mean(scores.argmax(axis=1) == labels))}
    output = (trained / 'test_output.txt').read_text()
    assert output.splitlines()[-1] == f'test.py: wrote {trained / "metrics.json"}'
    assert 'Falling back' not in output  # to reading more than weights


def test_show_dir_has_a_picture_of_every_image(data: Path, predictions: tuple[list[dict], Path]) -> None:
    written = sorted(predictions[1].iterdir())
    photos = sorted((data / 'val').glob('*/*.jpg'))
    assert len(written) == len(photos) == 8
    for i, (picture_file, photo) in enumerate(zip(written, photos)):
        assert picture_file.name == f'{i}-{photo.parent.name}-{photo.stem}_0.png'
        drawn = cv2.imread(str(picture_file))
        assert_allclose(drawn.shape[0] / drawn.shape[1], 1, atol=0.05)
        assert drawn.std() > 10


def test_resume_gives_the_weights_of_the_uninterrupted_run(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / 'epoch_1.pth', tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    output = tool('train', trained / f'{NAME}.py', '--work-dir', tmp_path, '--resume', '--verbose')
    assert 'Falling back' not in output
    assert 'resumed epoch: 1' in output
    assert [line['step'] for line in scalars(tmp_path)] == [5, 6, 7, 8]
    expected, resumed = checkpoint(trained / 'epoch_2.pth'), checkpoint(tmp_path / 'epoch_2.pth')
    assert_same_tensors(resumed['state_dict'], expected['state_dict'], rtol=0, atol=0)
    assert_same_tensors(momenta(resumed), momenta(expected), rtol=0, atol=0)
    assert resumed['optimizer']['param_groups'] == expected['optimizer']['param_groups']
    assert (resumed['meta']['epoch'], resumed['meta']['iter']) == (2, 8)
    first = checkpoint(trained / 'epoch_1.pth')['state_dict']['head.fc.weight']
    assert not torch.equal(first, expected['state_dict']['head.fc.weight'])


# Several processes


def comparable_options(data: Path) -> dict[str, Any]:
    """The same images in every step, however many processes share them; norms in evaluation mode."""
    options = {key: value for key, value in run_options(data).items()
               if not key.startswith(('val_', 'param_scheduler'))}
    return options | {
        'train_dataloader.sampler.shuffle': False, 'model.backbone.norm_eval': True, 'train_cfg.max_epochs': 1,
        'param_scheduler._delete_': True, 'param_scheduler.type': 'ConstantLR', 'param_scheduler.factor': 1.0,
        'optim_wrapper.optimizer.lr': 0.02, 'auto_scale_lr.base_batch_size': 8,
        'train_dataloader.batch_size': 4}


@pytest.fixture(scope='session')
def one_process(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp('work') / 'one'
    tool('train', DEMO24, '--work-dir', work_dir, '--no-validate', '--auto-scale-lr', *flags(comparable_options(data)))
    return work_dir


@pytest.fixture(scope='session')
def two_processes(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp('work') / 'two'
    options = comparable_options(data) | {'train_dataloader.batch_size': 2}
    ended = ranks('train', DEMO24, '--work-dir', work_dir, '--no-validate', '--auto-scale-lr', *flags(options))
    assert [code for code, _ in ended] == [0, 0], ended
    return work_dir


def test_auto_scale_lr_and_no_validate(one_process: Path, two_processes: Path) -> None:
    for work_dir in (one_process, two_processes):
        lines = scalars(work_dir)
        assert_allclose([line['lr'] for line in lines], [0.02 * 4 / 8] * 4, rtol=1e-9)
        file, = work_dir.glob('*/vis_data/scalars.json')
        assert 'accuracy' not in file.read_text()


def test_two_processes_train_like_one(one_process: Path, two_processes: Path) -> None:
    one, two = checkpoint(one_process / 'epoch_1.pth'), checkpoint(two_processes / 'epoch_1.pth')
    assert_same_tensors(two['state_dict'], one['state_dict'], rtol=1e-5, atol=1e-5)
    expected = momenta(one)
    for key, momentum in momenta(two).items():
        size = float(expected[key].abs().max())
        assert_allclose(momentum.numpy(), expected[key].numpy(), rtol=0, atol=1e-3 * size, err_msg=str(key))
    assert max(float(value.abs().max()) for value in expected.values()) > 0.1
    # every process logs the loss of its own half of the batch; mmengine gathers none of it in training
    assert np.isfinite([line['loss'] for line in scalars(two_processes)]).all()


def test_two_processes_predict_like_one(trained: Path, predictions: tuple[list[dict], Path], tmp_path: Path,
                                        metrics: dict[str, float]) -> None:
    ended = ranks('test', trained / f'{NAME}.py', trained, '--work-dir', tmp_path, '--out', tmp_path / 'x.pkl')
    assert [code for code, _ in ended] == [0, 0], ended
    made = pickle.loads((tmp_path / 'x.pkl').read_bytes())
    assert [Path(sample['img_path']) for sample in made] == [Path(sample['img_path']) for sample in predictions[0]]
    for sample, expected in zip(made, predictions[0]):
        assert_allclose(sample['pred_score'].numpy(), expected['pred_score'].numpy(), rtol=1e-4)
    logged = re.findall(r'result: accuracy/top1 ([\d.]+)', ended[0][1])
    assert_allclose(float(logged[-1]), metrics['accuracy/top1'], rtol=1e-3)


@pytest.mark.parametrize(('script', 'arguments'), [('train', [DEMO24]), ('test', [DEMO24, 'x.pth'])])
def test_scripts_start_every_process_of_every_machine(script: str, arguments: list[str], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'python').write_text('#!/bin/sh\necho "$RANK of $WORLD_SIZE: $*"\n')
    (tmp_path / 'python').chmod(0o755)
    monkeypatch.setenv('PYTHON_EXEC', str(tmp_path / 'python'))  # what torchrun starts
    port, calls = free_port(), []
    for rank in range(2):
        command = execute('bash', f'tools/dist_{script}.sh', *arguments, 2, '--work-dir', 'x', PYTHON='echo', PORT=port,
                          NNODES='2', NODE_RANK=str(rank)).split()
        assert command[:2] == ['-m', 'torch.distributed.run']
        calls.append(call_of(torch.distributed.run.__file__, *command[2:]))
    lines = [line for _, text in forked(*calls) for line in text.splitlines() if ' of 4: ' in line]
    expected = f'-u tools/{script}.py {" ".join(arguments)} --launcher pytorch --work-dir x'
    assert sorted(lines) == [f'{rank} of 4: {expected}' for rank in range(4)]


# Files that are not to be trusted, or broken


needs_safe_globals = pytest.mark.skipif(not hasattr(torch.serialization, 'safe_globals'),
                                        reason='torch before 2.6 reads checkpoints as mmengine does')


@needs_safe_globals
def test_a_checkpoint_with_code_is_refused(trained: Path, tmp_path: Path) -> None:
    marker = tmp_path / 'marker'
    torch.save(dict(state_dict={}, extra=Reduces(open, str(marker), 'w')), tmp_path / 'evil.pth')
    output = tool('test', trained / f'{NAME}.py', tmp_path / 'evil.pth', '--work-dir', tmp_path, succeeds=False)
    assert not marker.exists()
    assert re.match('test.py: error: .*evil.pth', output.splitlines()[-1])
    torch.load(tmp_path / 'evil.pth', weights_only=False)
    assert marker.exists()  # it would have run


@needs_safe_globals
def test_resume_runs_no_code_of_a_checkpoint(trained: Path, tmp_path: Path) -> None:
    """A Runner that resumes executes ``meta['config']`` as Python, unless it is taken out."""
    marker = tmp_path / 'marker'
    content = checkpoint(trained / 'epoch_1.pth')
    content['meta']['config'] = f'open({str(marker)!r}, "w")'
    torch.save(content, tmp_path / 'evil.pth')
    output = tool('train', trained / f'{NAME}.py', '--work-dir', tmp_path, '--no-validate', '--verbose', '--resume',
                  tmp_path / 'evil.pth', '--cfg-options', 'train_cfg.max_epochs=2')
    assert 'resumed epoch: 1' in output
    assert not marker.exists()


@pytest.mark.parametrize(('arguments', 'options', 'words'), [
    ('train configs/none.py', {}, 'config: no such file: configs/none.py'),
    ('test DEMO none.pth', {}, 'checkpoint: expected a file, .* got none.pth'),
    ('train DEMO', {'freq.0.channels': '24D'}, '--cfg-options freq.0.channels: '),
    ('test OWN TRAINED', {'test_dataloader.dataset.pipeline.3.stats': 'photos-1333x800'}, 'mean: test_dataloader'),
    ('test RGB TRAINED', 'data', 'checkpoint .*epoch_2.pth: channels: .* 24S, but the config has none'),
])
def test_refusals_are_one_line(arguments: str, options: Any, words: str, trained: Path, data: Path,
                               tmp_path: Path) -> None:
    places = dict(TRAINED=trained, OWN=trained / f'{NAME}.py', DEMO=DEMO24, RGB='configs/demo/resnet18_demo.py')
    name, *arguments = (places.get(word, word) for word in arguments.split())
    options = data_options(data) if options == 'data' else options
    output = tool(name, *arguments, '--work-dir', tmp_path, *(flags(options) if options else []), succeeds=False)
    assert re.match(f'{name}.py: error: .*{words}', output.splitlines()[-1])
    assert 'Traceback' not in output


@pytest.mark.parametrize(('options', 'words'), [
    ({'model.backbone.depths': 18}, 'unexpected keyword argument'),
    ({'model.backbone.in_channels': 23}, 'to have 23 channels, but got 24')])
def test_errors_of_the_hosts_keep_their_traceback(options: dict, words: str, data: Path, tmp_path: Path) -> None:
    output = tool('train', DEMO24, '--work-dir', tmp_path, *flags(data_options(data) | options), succeeds=False)
    assert 'Traceback' in output
    assert words in output


@pytest.mark.parametrize('arguments', [('dist_train.sh', 'none.py', 1), ('dist_test.sh', 'none.py', 'x.pth', 1)])
def test_scripts_with_a_missing_config(arguments: tuple[Any, ...]) -> None:
    output = execute('bash', f'tools/{arguments[0]}', *arguments[1:], succeeds=False)
    assert output.splitlines()[-1] == f'{arguments[0]}: error: config: no such file: none.py'


@pytest.mark.parametrize('path', sorted((ROOT / 'tools').glob('*.py')), ids=lambda path: path.name)
def test_help(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, 'argv', [path.name, '--help'])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(path), run_name='__main__')
    assert stopped.value.code == 0
    assert f'usage: {path.name}' in capsys.readouterr().out


# Statistics of a data set


def coefficients(data: Path) -> np.ndarray:
    """All DCT coefficients of the training images, (blocks, 192), float64, by scipy; colours are not rounded."""
    red_green_blue = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    found = []
    for path in sorted((data / 'train').glob('*/*.jpg')):
        colors = cv2.imread(str(path))[..., ::-1] @ np.transpose(red_green_blue) - [128, 0, 0]
        rows, columns = np.array(colors.shape[:2]) // 8
        blocks = colors.reshape(rows, 8, columns, 8, 3).transpose(0, 2, 4, 1, 3)
        found.append(dctn(blocks, axes=(-2, -1), norm='ortho').reshape(-1, 192))
    assert len(found) == 16
    return np.concatenate(found)


def test_dataset_stats_are_numpys_two_pass_result(data: Path, tmp_path: Path) -> None:
    out = tmp_path / 'stats.json'
    output = tool('dataset_stats', DEMO24, '--out', out, *flags(run_options(data)))
    values, reference = json.loads(out.read_text()), coefficients(data)
    mean, std = reference.mean(axis=0), reference.std(axis=0)
    assert_allclose(values['mean'], mean, rtol=1e-5, atol=1e-4 * std.min())
    assert_allclose(values['std'], std, rtol=1e-4)
    assert (values['count'], values['images'], values['config']) == (16 * 64, 16, f'{NAME}.py')
    assert [step['type'] for step in values['pipeline']][-1:] == ['FusedBlockDCT']
    assert re.fullmatch(r'\d{4}-\d\d-\d\d', values['date'])
    assert 'constant_channels' not in values
    assert f'16 images, 1024 blocks -> {out}' in output
    made = FreqNormalize(stats=str(out)).transform(dict(img=reference[None].astype(np.float32)))['img']
    assert_allclose(made[0].mean(axis=0), np.zeros(192), atol=1e-4)
    assert_allclose(made[0].std(axis=0), np.ones(192), rtol=1e-4)


def test_rounding_noise_does_not_count_as_variation(tmp_path: Path) -> None:
    """Images of one flat colour each: their AC coefficients are 0 but for some 1e-14 of rounding."""
    (tmp_path / 'train' / 'flat').mkdir(parents=True)
    for index, color in enumerate([(60, 80, 100), (70, 60, 65), (90, 70, 60)]):
        image = np.full((64, 64, 3), color, dtype=np.uint8)
        cv2.imwrite(str(tmp_path / 'train' / 'flat' / f'{index}.png'), image)
    cfg = Config.fromfile(ROOT / DEMO24)
    cfg.merge_from_dict(run_options(tmp_path))
    stats, constant = dataset_statistics(cfg, num_workers=0)
    assert constant == [channel for channel in range(192) if channel % 64]
    assert_allclose(stats.std[constant], np.ones(189), rtol=0)
    assert stats.meta['constant_channels'] == constant


# The comparison


@pytest.fixture(scope='module')
def comparison(data: Path, trained: Path, metrics: dict[str, float], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of the files that compare an RGB config with the trained run."""
    folder = tmp_path_factory.mktemp('comparison')
    (folder / 'rgb.py').write_text(f"""_base_ = '{ROOT}/configs/demo/resnet18_demo.py'
model = dict(head=dict(num_classes=2))
train_dataloader = dict(dataset=dict(data_root='{data}'))
""")
    output = tool('compare', folder / 'rgb.py', trained, '--out', folder / 'comparison', '--images', 4)
    assert (folder / 'comparison.md').read_text() in output
    return folder / 'comparison'


def parameters_of_resnet18(channels: int, classes: int, base: int) -> int:
    """Counted by hand: two 3x3 convolutions per block, a shortcut where the width changes, norms, classifier."""
    total, before = 0, channels
    for width in (base, 2 * base, 4 * base, 8 * base):
        total += 9 * before * width + 3 * 9 * width * width + 4 * 2 * width
        total += before * width + 2 * width if before != width else 0
        before = width
    return total + 8 * base * classes + classes


def test_comparison_as_numbers(comparison: Path, metrics: dict[str, float]) -> None:
    rgb, freq = json.loads(comparison.with_suffix('.json').read_text())
    assert (freq['input_shape'], freq['normalised_size']) == ([24, 8, 8], 1536 / 37632)
    assert (rgb['input_bytes'], freq['input_bytes']) == (37_632, 6_144)
    assert freq['parameters'] == parameters_of_resnet18(24, 2, 8)
    assert rgb['parameters'] == parameters_of_resnet18(64, 2, 64) + 7 * 7 * 3 * 64 + 2 * 64  # the stem
    assert freq['metrics']['accuracy/top1']['mean'] == metrics['accuracy/top1']
    assert (rgb['metrics'], freq['source']) == ({}, 'test of epoch_2.pth')
    # the first block holds its input and two results of 8 x 8 x 8; oneDNN may copy the largest weights
    assert 4 * (24 + 2 * 8) * 8 * 8 < freq['memory'] < 4 * (10 * 24 * 8 * 8 + 9 * 64 * 64)
    assert rgb['memory'] > freq['memory']
    for figure in ('loader_rate', 'network_rate', 'flops'):
        assert min(rgb[figure], freq[figure]) > 0
