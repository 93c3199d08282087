"""``import mmfreq`` without a config: channels, images, predictions."""
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy.fft import dctn

import mmfreq
from mmfreq.apis.predict import Predictor
from mmfreq.config.writer import plain_config

ROOT = Path(__file__).parents[2]
NAME = 'resnet18-dct24s_demo'


def picture(shape: tuple[int, int] = (60, 90), seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def test_channels_are_those_of_scipy() -> None:
    gray = picture()[:, :, 0]
    made = mmfreq.dct_channels(gray, [0, 9, 64])
    blocks = np.pad(gray, ((0, 4), (0, 6)), 'edge').astype(float).reshape(8, 8, 12, 8) - 128
    expected = dctn(blocks, axes=(1, 3), norm='ortho')
    assert (made.shape, made.dtype) == ((3, 8, 12), np.float32)
    assert_allclose(made[0], expected[:, 0, :, 0], atol=1e-3)
    assert_allclose(made[1], expected[:, 1, :, 1], atol=1e-3)
    assert_allclose(made[2], 0, atol=1e-3)  # no colour


@pytest.mark.parametrize('upscale', [1, 2])
def test_channels_are_those_of_the_transforms(upscale: int) -> None:
    image = picture()
    steps = [dict(type='YCbCr'), dict(type='BlockDCT', upscale=upscale),
             dict(type='ChannelSelect', channels='24S'), dict(type='FreqNormalize', stats='photos-448')]
    expected = Compose(steps)(dict(img=image.copy(), img_shape=image.shape[:2]))['img']
    made = mmfreq.dct_channels(image, '24S', stats='photos-448', upscale=upscale)
    assert_allclose(made, expected.transpose(2, 0, 1), atol=1e-5)


def test_an_image_is_a_file_an_array_or_of_pillow(tmp_path: Path) -> None:
    image = picture()
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    expected = mmfreq.dct_channels(image)
    rgb = image[:, :, ::-1]
    for same in (tmp_path / 'a.png', str(tmp_path / 'a.png'), Image.fromarray(rgb)):
        assert_array_equal(mmfreq.dct_channels(same), expected)
    assert_array_equal(mmfreq.dct_channels(rgb, channel_order='rgb'), expected)


@pytest.mark.parametrize('stats', [None, 'photos-448'])
def test_all_channels_rebuild_the_image(stats: str) -> None:
    image = picture((37, 50))
    for upscale in (1, 2):
        made = mmfreq.dct_channels(image, '192', stats=stats, upscale=upscale)
        back = mmfreq.rebuild(made, '192', stats=stats, upscale=upscale, image_shape=(37, 50),
                              channel_order='rgb')
        assert np.abs(back[:, :, ::-1].astype(int) - image).max() <= (2 if upscale == 1 else 12)
    assert mmfreq.rebuild(mmfreq.dct_channels(image, '6S'), '6S').shape == (40, 56, 3)


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: mmfreq.dct_channels('none.jpg'), 'none.jpg: No such file'),
    (lambda: mmfreq.dct_channels(np.zeros((4, 4, 3))), 'uint8 image'),
    (lambda: mmfreq.dct_channels(picture(), '25S'), "one of 6S.*got '25S'"),
    (lambda: mmfreq.dct_channels(picture(), channel_order='hsv'), "got 'hsv'"),
    (lambda: mmfreq.dct_channels(picture(), upscale=0), 'upscale: expected an integer >= 1, got 0'),
    (lambda: mmfreq.rebuild(np.zeros((23, 4, 4)), '24S', stats='photos-448'), 'expected coefficients'),
    (lambda: mmfreq.load_model('resnet18-dct24s', 'none.pth'), 'checkpoint: no such file: none.pth'),
    (lambda: mmfreq.load_model('resnet18-dct25s_demo', __file__), 'did you mean .*resnet18-dct24s'),
])
def test_mistakes_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
    with pytest.raises(AttributeError, match="no attribute 'dct_chanels'"):
        mmfreq.dct_chanels  # noqa: B018


def test_the_layer_goes_before_a_network_of_torchvision() -> None:
    """docs/python.md's example: a stem comes off, the layer takes uint8 images."""
    text = (ROOT / 'docs/python.md').read_text()
    code = text.split('```python\n')[4].split('```')[0]
    names: dict = {}
    exec(code, names)
    image = torch.from_numpy(picture((64, 64))).permute(2, 0, 1)[None]
    with torch.no_grad():
        assert names['network'].eval()(image).shape == (1, 1000)
        made = names['network'][0](image)
    expected = mmfreq.dct_channels(picture((64, 64)), '24S', stats='photos-448', channel_order='rgb')
    assert np.abs(made[0].numpy() - expected).mean() < 0.02  # one pass does not round colours


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work dir with untrained weights."""
    folder = tmp_path_factory.mktemp('work')
    cfg = Config.fromfile(str(ROOT / f'configs/demo/{NAME}.py'))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
    meta = dict(dataset_meta=dict(classes=[f'class {i}' for i in range(12)]))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'epoch_1.pth')
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
    return folder


def test_a_model_predicts_paths_arrays_and_lists(checkpoint: Path, tmp_path: Path) -> None:
    images = [picture((80, 120), i) for i in range(3)]
    cv2.imwrite(str(tmp_path / 'a.png'), images[0])
    model = mmfreq.load_model(NAME, checkpoint, 'cpu')
    assert model.classes[:2] == ['class 0', 'class 1']
    cfg = Config.fromfile(str(ROOT / f'configs/demo/{NAME}.py'))
    expected = [part for part, _ in Predictor(cfg, str(checkpoint / 'epoch_1.pth'), 'cpu').predict(
        images, 0.3)]
    for batch_size in (2, 8):
        made = model.predict([tmp_path / 'a.png', *images[1:]], batch_size=batch_size)
        assert len(made) == 3
        for one, other in zip(made, expected):
            assert_allclose(one['pred_scores'], other['pred_scores'], atol=1e-5)
            assert one['pred_class'] == other['pred_class'] == f'class {one["pred_label"]}'
    single = model.predict(images[2][:, :, ::-1], channel_order='rgb')
    assert_allclose(single['pred_scores'], expected[2]['pred_scores'], atol=1e-5)
    with pytest.raises(ValueError, match='expected an integer >= 1'):
        model.predict(images, batch_size=0)


def test_loading_is_silent_and_leaves_no_trace(checkpoint: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'a.png'), picture())
    code = f'''
import mmfreq
from mmengine.registry import DefaultScope
model = mmfreq.load_model({NAME!r}, {str(checkpoint)!r}, 'cpu')
model.predict('a.png')
assert DefaultScope.get_current_instance() is None
import mmpretrain.utils.progress
assert not mmpretrain.utils.progress.disable_progress_bar
'''
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=tmp_path, text=True,
                          capture_output=True, env={**os.environ, 'PYTHONPATH': str(ROOT)}, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']


def test_configs_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    file = tmp_path / 'x.py'
    file.write_text('x = [')
    for read in (plain_config, lambda config: mmfreq.load_model(config, file)):  # the first: for new and freqify
        with pytest.raises(ValueError, match=f'^config: {file} cannot be read: SyntaxError: '):
            read(file)
