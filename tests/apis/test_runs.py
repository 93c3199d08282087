"""What the flags of train and test make of a config, and which checkpoint a path stands for."""
import argparse
import os
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
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from numpy.testing import assert_allclose, assert_array_equal
from references import noise
from shipped import CONFIGS, LOADERS, shipped

from mmfreq.apis import runs
from mmfreq.config.pipelines import drop_channels
from mmfreq.dct.channels import channel_indices
from mmfreq.errors import RefusedError

ROOT = Path(__file__).parents[2]
DEMO24 = 'demo/resnet18-dct24s_demo.py'


def arguments(tool: str, *flags: Any, config: Any = CONFIGS / DEMO24) -> argparse.Namespace:
    """Return what ``parse_args`` of a tool makes of a command line."""
    parse_args = runpy.run_path(str(ROOT / f'tools/{tool}.py'))['parse_args']
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [tool, str(config), *map(str, flags)])
        return parse_args()


def train_config(*flags: Any, **keywords: Any) -> Config:
    return runs.train_config(arguments('train', *flags, **keywords))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / 'x.pth').touch()
    return tmp_path / 'x.pth'


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A config that inherits the demo."""
    (tmp_path / 'own.py').write_text(f"_base_ = '{CONFIGS / DEMO24}'\n"
                                     "work_dir = 'from_config'\n"
                                     "train_dataloader = dict(pin_memory='as in the config')\n")
    return tmp_path / 'own.py'


def test_work_dir_is_the_flags_then_the_configs_then_the_name(own: Path) -> None:
    assert train_config().work_dir == 'work_dirs/resnet18-dct24s_demo'
    assert train_config(config='mmfreq::demo/resnet18_demo.py').work_dir == 'work_dirs/resnet18_demo'
    assert train_config(config=own).work_dir == 'from_config'
    assert train_config('--work-dir', 'of_flag', config=own).work_dir == 'of_flag'


def test_without_flags_the_recipe_stays(own: Path) -> None:
    cfg, expected = train_config(), shipped(DEMO24)
    for key in ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'val_cfg', 'auto_scale_lr', 'resume',
                'load_from', 'randomness'):
        assert cfg.get(key) == expected.get(key), key
    for name in LOADERS:
        assert cfg[name].dataset == expected[name].dataset
        assert cfg[name].pin_memory == torch.cuda.is_available()  # as in mmpretrain's tools
        assert cfg[name].collate_fn == dict(type='default_collate')
    assert train_config(config=own).train_dataloader.pin_memory == 'as in the config'
    alone = train_config('--cfg-options', 'train_dataloader.num_workers=0').train_dataloader
    assert not alone.persistent_workers  # which torch refuses without workers


def test_no_validate() -> None:
    cfg = train_config('--no-validate', '--cfg-options', 'val_dataloader.batch_size=4')
    assert (cfg.val_cfg, cfg.val_dataloader, cfg.val_evaluator) == (None, None, None)


def test_auto_scale_lr_and_amp(checkpoint: Path) -> None:
    cfg = train_config('--auto-scale-lr', '--amp')
    assert cfg.auto_scale_lr == dict(base_batch_size=32, enable=True)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.loss_scale) == ('AmpOptimWrapper', 'dynamic')
    assert runs.test_config(arguments('test', checkpoint, '--amp')).test_cfg.fp16 is True


def test_resume(checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ['--resume', '--work-dir', checkpoint.parent, '--cfg-options', 'load_from=start.pth']
    cfg = train_config(*flags)
    assert (cfg.resume, cfg.load_from) == (False, 'start.pth')  # nothing to continue: it starts as configured
    assert 'has no checkpoint to resume' in capsys.readouterr().err
    (checkpoint.parent / 'last_checkpoint').write_text(str(checkpoint))
    cfg = train_config(*flags)
    assert (cfg.resume, cfg.load_from) == (True, str(checkpoint))
    moved = Path(shutil.copytree(checkpoint.parent, checkpoint.parent / 'moved'))
    cfg = train_config('--resume', '--work-dir', moved)
    assert (cfg.resume, cfg.load_from) == (True, str(moved / checkpoint.name))  # its own file, not the original's
    (moved / 'last_checkpoint').write_text('')
    with pytest.raises(RefusedError, match='expected a file, or the work dir'):
        train_config('--resume', '--work-dir', moved)
    cfg = train_config('--resume', checkpoint)
    assert (cfg.resume, cfg.load_from) == (True, str(checkpoint))
    assert (train_config().resume, train_config().load_from) == (False, None)
    with pytest.raises(RefusedError, match='expected a file.*none.pth'):
        train_config('--resume', checkpoint.with_name('none.pth'))


def test_a_gate_without_its_hook_is_noticed(capsys: pytest.CaptureFixture) -> None:
    """It would learn, but drop no channel."""
    assert 'GateLossHook' not in capsys.readouterr().err
    train_config('--cfg-options', 'model.backbone.gate={}')
    assert 'GateLossHook' in capsys.readouterr().err


def test_a_work_dir_stands_for_its_best_checkpoint_or_its_last(tmp_path: Path,
                                                               capsys: pytest.CaptureFixture) -> None:
    for path in (tmp_path, tmp_path / 'epoch_1.pth'):
        with pytest.raises(RefusedError, match=f'checkpoint: .*{path}'):
            runs.checkpoint_file(str(path))
    for name in ('epoch_1.pth', 'epoch_2.pth', 'best_accuracy_top1_epoch_1.pth'):
        (tmp_path / name).touch()
    (tmp_path / 'last_checkpoint').write_text('elsewhere/epoch_2.pth')  # the work dir has moved since
    assert runs.checkpoint_file(str(tmp_path)) == str(tmp_path / 'best_accuracy_top1_epoch_1.pth')
    assert capsys.readouterr().err.endswith('best_accuracy_top1_epoch_1.pth (the best)\n')
    assert runs.checkpoint_file(str(tmp_path), best=False) == str(tmp_path / 'epoch_2.pth')
    newer = tmp_path / 'best_accuracy_top1_epoch_10.pth'  # of a second training
    newer.touch()
    os.utime(tmp_path / 'best_accuracy_top1_epoch_1.pth', (1, 1))
    assert runs.checkpoint_file(str(tmp_path)) == str(newer)
    assert capsys.readouterr().err.endswith('epoch_10.pth (the newest of 2 best)\n')
    newer.unlink()
    (tmp_path / 'best_accuracy_top5_epoch_2.pth').touch()
    assert runs.checkpoint_file(str(tmp_path)) == str(tmp_path / 'epoch_2.pth')
    assert capsys.readouterr().err.endswith('epoch_2.pth (the last; 2 files are best_*.pth)\n')
    (tmp_path / 'last_checkpoint').write_text('')  # the training was killed there
    with pytest.raises(RefusedError, match='expected a file, or the work dir'):
        runs.checkpoint_file(str(tmp_path))
    assert runs.checkpoint_file('https://example.org/x.pth') == 'https://example.org/x.pth'


def test_the_documented_views_are_an_image_and_its_mirror_image(own: Path, checkpoint: Path, tmp_path: Path) -> None:
    blocks = (ROOT / 'docs/training.md').read_text().split('```python\n')
    text, = (text for text in (block.split('```')[0] for block in blocks) if 'tta_model' in text)
    views = own.with_name('views.py')
    views.write_text(text.replace('./mine.py', f'./{own.name}'))
    cfg = runs.test_config(arguments('test', checkpoint, '--tta', config=views))
    with pytest.raises(RefusedError, match='--tta: expected tta_pipeline'):
        runs.test_config(arguments('test', checkpoint, '--tta', config=own))
    assert (cfg.model.type, cfg.model.module.type) == ('AverageClsScoreTTA', 'ImageClassifier')
    plain, files = shipped(DEMO24).test_pipeline, [str(tmp_path / f'{i}.png') for i in range(2)]
    image = cv2.GaussianBlur(noise(256, 320), (0, 0), 3)  # resizing keeps it, and the crop is in the middle
    for file, pixels in zip(files, (image, image[:, ::-1])):
        cv2.imwrite(file, pixels)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        views = Compose(cfg.test_dataloader.dataset.pipeline)(dict(img_path=files[0]))['inputs']
        expected = [Compose(plain)(dict(img_path=file))['inputs'] for file in files]
    for view, inputs in zip(views, expected, strict=True):
        assert_allclose(view.numpy(), inputs.numpy(), rtol=0, atol=1e-5)


def test_channels_cut_the_input(checkpoint: Path, tmp_path: Path) -> None:
    dataset = runs.test_config(arguments('test', checkpoint, '--channels', '12S')).test_dataloader.dataset
    file = str(tmp_path / 'image.png')
    cv2.imwrite(file, noise(256, 256))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        full, cut = (Compose(pipeline)(dict(img_path=file))['inputs'].numpy()
                     for pipeline in (shipped(DEMO24).test_pipeline, dataset.pipeline))
    kept = np.isin(channel_indices('24S'), channel_indices('12S'))[:, None, None]
    assert_array_equal(cut, np.where(kept, full, 0))
    for channels in ('48S', '12N', 'none'):
        with pytest.raises(RefusedError, match=f'--channels {channels}: .*{channels}'):
            runs.test_config(arguments('test', checkpoint, '--channels', channels))
    raw = [dict(type='BlockDCT'), dict(type='PackInputs')]
    for steps in (raw, raw[1:]):
        with pytest.raises(RefusedError, match='expected normalised DCT channels'):
            drop_channels(Config(dict(test_dataloader=dict(dataset=dict(pipeline=steps)))), 'test_dataloader', ['12S'])


@pytest.mark.parametrize('out', ['metrics', 'metrics.txt', 'predictions.pth'])
def test_results_are_json_or_pickles(out: str) -> None:
    with pytest.raises(RefusedError, match=rf'--out: .*\.json .* got {re.escape(out)}'):
        arguments('test', 'x.pth', '--out', out)


@pytest.mark.parametrize(('config', 'options'), [
    (CONFIGS / DEMO24, {}), ('mmpretrain::resnet/resnet18_8xb32_in1k.py', {}),
    ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', dict(score_thr=0.7))])
def test_show_dir_draws_on_the_images(config: Any, options: dict, checkpoint: Path) -> None:
    overrides = [f'default_hooks.visualization.{key}={value}' for key, value in options.items()]
    flags = ('--show-dir', 'pictures', '--interval', 3, '--wait-time', 0, '--cfg-options', 'x=1', *overrides)
    hook = runs.test_config(arguments('test', checkpoint, *flags, config=config)).default_hooks.visualization
    hook.pop('_scope_', None)
    assert hook == dict(options, type='FreqVisualizationHook', enable=True, show=False, wait_time=0, interval=3,
                        out_dir=str(Path('pictures').resolve()))
