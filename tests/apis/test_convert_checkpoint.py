"""Converted weights give what their own network gives; what does not fit is listed, and nothing is written."""
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as functional
import torchvision
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from mmfreq.hosts.checkpoints import RefusedCheckpointError
from numpy.testing import assert_allclose
from tool_runs import Reduces

from mmfreq.apis.convert_checkpoint import convert_dctnet, dctnet_channels, read_weights
from mmfreq.dct import blocks as dct
from mmfreq.dct.stats import load_stats

StateDict = dict[str, torch.Tensor]

# The authors' 24 and 64 channels, as their code lists them for Y and for each of Cb and Cr.
SQUARES = {
    24: ([*range(4), *range(8, 12), *range(16, 20), *range(24, 28)], [0, 1, 8, 9]),
    64: ([*range(7), *range(8, 15), *range(16, 22), *range(24, 30), *range(32, 38), *range(40, 46), *range(48, 54)],
         [0, 1, 2, 8, 9, 10, 16, 17, 24, 25]),
    192: (list(range(64)), list(range(64))),
}
STAGES = ((3, 1), (4, 1), (6, 2), (3, 2))  # blocks and stride of DCTNet's stages


def randomized(state: StateDict) -> StateDict:
    """Random weights and norm statistics that keep the activations near 1."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for key, value in state.items():
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim > 1:
            made[key] = noise * (0.8 / value[0].numel())**0.5
        elif 'num_batches' in key:
            made[key] = torch.tensor(7)
        else:
            made[key] = 0.1 * noise + (not key.endswith(('mean', 'bias')))
    return made


def shapes(name: str) -> StateDict:
    """State dict of torchvision's network, without values."""
    with torch.device('meta'):
        return getattr(torchvision.models, name)().state_dict()


def dctnet(channels: int) -> StateDict:
    """Random weights of DCTNet's ResNet-50, named as its files name them."""
    state = {re.sub(r'layer(\d)', lambda match: f'model.{int(match[1]) - 1}', key): value
             for key, value in shapes('resnet50').items()}
    state = {key: value for key, value in state.items() if not key.startswith(('conv1', 'bn1'))}
    for key in ('conv1', 'downsample.0'):
        weight = state[f'model.0.0.{key}.weight']
        state[f'model.0.0.{key}.weight'] = weight.new_zeros(weight.shape[0], channels, 1, 1)
    assert len(state) == 314
    return {f'module.{key}': value for key, value in randomized(state).items()}


def dctnet_logits(state: StateDict, x: torch.Tensor) -> torch.Tensor:
    """DCTNet's ResNet-50, written out."""

    def unit(x: torch.Tensor, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
        weight = state[f'module.model.{conv}.weight']
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var, scale, shift = (state[f'module.model.{norm}.{name}'].view(-1, 1, 1)
                                   for name in ('running_mean', 'running_var', 'weight', 'bias'))
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    for stage, (blocks, stride) in enumerate(STAGES):
        for block in range(blocks):
            name, step = f'{stage}.{block}', stride if block == 0 else 1
            out = unit(x, f'{name}.conv1', f'{name}.bn1').relu()
            out = unit(out, f'{name}.conv2', f'{name}.bn2', step).relu()
            out = unit(out, f'{name}.conv3', f'{name}.bn3')
            shortcut = unit(x, f'{name}.downsample.0', f'{name}.downsample.1', step) if block == 0 else x
            x = (out + shortcut).relu()
    return x.mean(dim=(2, 3)) @ state['module.fc.weight'].T + state['module.fc.bias']


def save_dctnet(path: Path, state: StateDict, **extra: Any) -> str:
    """A file as the authors' training wrote it: the format before torch 1.6, and NumPy's numbers."""
    content = dict(epoch=90, arch='resnet50dct', state_dict=state, best_prec1=np.float64(76.79), **extra)
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return str(path)


def written_model(out: Path) -> tuple[Config, torch.nn.Module]:
    """The model of the written config with the written weights."""
    cfg = Config.fromfile(str(out.with_suffix('.py')))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor)).eval()
    load_checkpoint(model, str(out), map_location='cpu', strict=True)
    return cfg, model


@pytest.fixture(scope='module')
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A photo of 512 x 600 pixels: the test pipeline only crops it."""
    path = tmp_path_factory.mktemp('photo') / 'photo.png'
    noise = np.random.default_rng(0).integers(0, 256, (512, 600, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 3))
    return str(path)


@pytest.mark.parametrize('channels', [24, 64, 192])
def test_dctnet_logits(channels: int, photo: str, tmp_path: Path) -> None:
    state = dctnet(channels)
    out = tmp_path / 'made' / 'classifier.pth'
    convert_dctnet(save_dctnet(tmp_path / 'model_best.pth.tar', state), out)
    assert sorted(path.name for path in out.parent.iterdir()) == ['classifier.pth', 'classifier.py']
    cfg, model = written_model(out)

    # the input: the authors' order of the channels, and their statistics
    crop = cv2.imread(photo)[32:480, 76:524]
    coefficients = dct.block_dct(dct.to_ycbcr(crop, 'bgr'), 8)
    luma, chroma = SQUARES[channels]
    order = [*luma, *(64 + i for i in chroma), *(128 + i for i in chroma)]
    stats = load_stats('dctnet-classification')
    x = torch.tensor(((coefficients - stats.mean) / stats.std)[..., order].transpose(2, 0, 1), dtype=torch.float32)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        packed = Compose(cfg.test_dataloader.dataset.pipeline)(dict(img_path=photo, gt_label=3))
    assert_allclose(packed['inputs'].numpy(), x.numpy(), rtol=1e-5, atol=1e-4)

    x = torch.randn(2, channels, 16, 24)
    with torch.no_grad():
        logits, expected = model(x), dctnet_logits(state, x)
    assert logits.shape == (2, 1000)
    assert 0.5 < expected.std() < 20
    assert_allclose(logits.numpy(), expected.numpy(), rtol=0, atol=1e-5)
    meta = torch.load(out)['meta']
    assert meta == dict(source='model_best.pth.tar', channels=f'{channels}S' if channels < 192 else '192', epoch=90,
                        arch='resnet50dct', best_prec1=76.79)


def test_weights_that_do_not_fit_are_all_listed(tmp_path: Path) -> None:
    state = dctnet(24)
    for key in ('model.1.2.bn3.running_var', 'fc.bias'):
        del state[f'module.{key}']
    state['module.model.4.0.conv1.weight'] = torch.zeros(3)
    state['module.inp_GM.weight'] = torch.zeros(2, 2)
    state['module.model.2.0.conv2.weight'] = torch.zeros(256, 256, 1, 1)
    state['module.fc.weight'] = torch.zeros(10, 2048)
    path = save_dctnet(tmp_path / 'x.pth', state)
    with pytest.raises(ValueError, match='DCTNet ResNet-50') as error:
        convert_dctnet(path, tmp_path / 'out.pth')
    assert sorted(line.strip() for line in str(error.value).splitlines()[1:]) == [
        'misshapen: fc.weight (10, 2048), expected (1000, 2048)',
        'misshapen: model.2.0.conv2.weight (256, 256, 1, 1), expected (256, 256, 3, 3)',
        'missing: fc.bias (1000,)',
        'missing: model.1.2.bn3.running_var (512,)',
        'unknown: inp_GM.weight (2, 2)',
        'unknown: model.4.0.conv1.weight (3,)',
    ]
    assert [item.name for item in tmp_path.iterdir()] == ['x.pth']


def test_other_numbers_of_channels_must_be_named(tmp_path: Path) -> None:
    weights = {'model.0.0.conv1.weight': torch.zeros(64, 48, 1, 1)}
    path = save_dctnet(tmp_path / 'x.pth', weights)
    with pytest.raises(ValueError, match='takes 48 channels, the released classifiers 24, 64, 192'):
        convert_dctnet(path, tmp_path / 'out.pth')
    with pytest.raises(ValueError, match='takes 48 channels, but 24S has 24'):
        convert_dctnet(path, tmp_path / 'out.pth', '24S')
    assert dctnet_channels(weights, '48S') == '48S'
    assert dctnet_channels({'model.0.0.conv1.weight': torch.zeros(64, 24, 1, 1)}, '24D') == '24D'


def test_other_weights_are_no_dctnet_classifier(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'such as model\.0\.0\.conv1\.weight, got conv1\.weight, bn1'):
        convert_dctnet(str(tmp_path / 'x.pth'), tmp_path / 'out.pth')


# Files that are no weights


def test_a_file_with_anything_else_is_refused_by_name(tmp_path: Path) -> None:
    path = save_dctnet(tmp_path / 'x.pth', {}, hook=Reduces(open, str(tmp_path / 'marker'), 'w'))
    with pytest.raises(RefusedCheckpointError, match=r'x\.pth: it holds more than weights .*io\.open'):
        convert_dctnet(path, tmp_path / 'out.pth')
    assert [item.name for item in tmp_path.iterdir()] == ['x.pth']


@pytest.mark.parametrize(('content', 'message'), [
    ([torch.zeros(1)], 'got list'),
    ({}, 'got nothing'),
    (dict(state_dict={}), 'got nothing'),
    (dict(model={'conv1.weight': torch.zeros(1)}, epoch=3), 'got model, epoch, which are no named tensors'),
    (dict(state_dict={'a': torch.zeros(1), 'b': 'text', 3: torch.zeros(1)}), 'got b, 3, which are no named tensors'),
    (dict(state_dict=[torch.zeros(1)]), 'got dict'),
])
def test_a_file_without_a_state_dict(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=rf'x\.pth: expected a state dict, .*, {message}'):
        read_weights(str(tmp_path / 'x.pth'))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    torch.save(dict(a=torch.zeros(1000)), tmp_path / 'x.pth')
    whole = (tmp_path / 'x.pth').read_bytes()
    for content in (b'', whole[:len(whole) // 2], b'<html>Not Found</html>'):
        (tmp_path / 'x.pth').write_bytes(content)
        with pytest.raises((ValueError, RefusedCheckpointError), match=r'x\.pth: '):
            read_weights(str(tmp_path / 'x.pth'))


# The tool


def test_tool(tmp_path: Path, run_tool: Any, capsys: pytest.CaptureFixture) -> None:
    path = save_dctnet(tmp_path / 'best.pth.tar', dctnet(24), optimizer=dict(lr=[0.1]))
    run_tool('convert_checkpoint', path, tmp_path / 'out.pth')
    output = capsys.readouterr().out
    assert 'channels 24S; in meta: epoch, arch, best_prec1; left out: optimizer' in output
    assert f'written: {tmp_path / "out.pth"} {tmp_path / "out.py"}' in output
    assert os.stat(tmp_path / 'out.pth').st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@pytest.mark.parametrize(('arguments', 'message'), [
    (('none.pth', 'out.pth'), 'checkpoint: no such file: none.pth'),
    (('rgb.pth', 'out.pt'), 'expected a .pth file to write, got out.pt'),
    (('rgb.pth', 'out.pth'), 'rgb.pth: expected the weights of a DCTNet'),
    (('evil.pth', 'out.pth'), 'checkpoint: refused evil.pth: it holds more than weights'),
])
def test_tool_says_what_is_wrong_in_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path, run_tool: Any,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(torchvision.models.resnet18().state_dict(), 'rgb.pth')
    torch.save(dict(state_dict={}, x=Reduces(open, str(tmp_path / 'marker'), 'w')), 'evil.pth')
    with pytest.raises(SystemExit, match=re.escape(message)):
        run_tool('convert_checkpoint', *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['evil.pth', 'rgb.pth']
