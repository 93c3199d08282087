"""Converted classifiers have the logits of the authors' network. What does not fit is refused, nothing written."""
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from numpy.testing import assert_allclose
from tool_runs import Reduces
from torch import nn

from mmfreq import InputSpec
from mmfreq.apis.convert_checkpoint import convert_dctnet
from mmfreq.dct import blocks
from mmfreq.dct.stats import load_stats

# The authors' 24 and 64 channels, as their code lists them for Y and for each of Cb and Cr.
SQUARES = {
    24: ([*range(4), *range(8, 12), *range(16, 20), *range(24, 28)], [0, 1, 8, 9]),
    64: ([*range(7), *range(8, 15), *range(16, 22), *range(24, 30), *range(32, 38), *range(40, 46), *range(48, 54)],
         [0, 1, 2, 8, 9, 10, 16, 17, 24, 25]),
    192: (list(range(64)), list(range(64))),
}


def dctnet(channels: int) -> nn.Module:
    """Return DCTNet's ResNet-50 with random weights: torchvision's without stem, the second stage keeps the grid."""
    torch.manual_seed(0)
    network = torchvision.models.resnet50().eval()
    network.conv1 = network.bn1 = network.relu = network.maxpool = nn.Identity()
    block = network.layer1[0]
    block.conv1, block.downsample[0] = (nn.Conv2d(channels, width, 1, bias=False) for width in (64, 256))
    network.layer2[0].conv2.stride = network.layer2[0].downsample[0].stride = (1, 1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name, mean in dict(weight=0.9, bias=0, running_mean=0, running_var=1).items():
                nn.init.normal_(getattr(module, name), mean, 0.1)
    return network


def named(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights with the names of the authors' files."""
    state = {re.sub(r'layer(\d)', lambda match: f'model.{int(match[1]) - 1}', key): value
             for key, value in network.state_dict().items()}
    assert len(state) == 314
    return {f'module.{key}': value for key, value in state.items()}


def save_dctnet(path: Path, state: dict[str, torch.Tensor], **extra: Any) -> str:
    """Write a file as the authors' training did: the format before torch 1.6, numbers of NumPy."""
    content = dict(epoch=90, arch='resnet50dct', state_dict=state, best_prec1=np.float64(76.79), **extra)
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return str(path)


@pytest.fixture(scope='module')
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of 512 x 600 pixels: the test pipeline only crops it."""
    path = tmp_path_factory.mktemp('image') / 'image.png'
    noise = np.random.default_rng(0).integers(0, 256, (512, 600, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 3))
    return str(path)


@pytest.mark.parametrize('channels', [24, 64, 192])
def test_input_and_logits(channels: int, image: str, tmp_path: Path) -> None:
    reference = dctnet(channels)
    out = tmp_path / 'folder' / 'classifier.pth'
    name = convert_dctnet(save_dctnet(tmp_path / 'model_best.pth.tar', named(reference)), out)
    assert name == (f'{channels}S' if channels < 192 else '192')
    assert sorted(path.name for path in out.parent.iterdir()) == ['classifier.pth', 'classifier.py']
    cfg = Config.fromfile(str(out.with_suffix('.py')))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor)).eval()
        packed = Compose(cfg.test_dataloader.dataset.pipeline)(dict(img_path=image, gt_label=3))
    load_checkpoint(model, str(out), map_location='cpu', strict=True)

    # the authors' order of the channels, and their statistics
    coefficients = blocks.block_dct(blocks.to_ycbcr(cv2.imread(image)[32:480, 76:524], 'bgr'), 8)
    luma, chroma = SQUARES[channels]
    order = [*luma, *(64 + i for i in chroma), *(128 + i for i in chroma)]
    stats = load_stats('dctnet-classification')
    x = ((coefficients - stats.mean) / stats.std)[..., order].transpose(2, 0, 1)
    assert_allclose(packed['inputs'].numpy(), x, rtol=1e-5, atol=1e-4)

    x = torch.randn(2, channels, 16, 24)
    with torch.no_grad():
        logits, expected = model(x), reference(x)
    assert logits.shape == (2, 1000)
    assert 0.1 < (expected[0] - expected[1]).std() < 1
    assert_allclose(logits.numpy(), expected.numpy(), rtol=0, atol=1e-5)
    checkpoint = torch.load(out)
    spec = InputSpec.from_checkpoint(checkpoint)
    assert spec.channels == tuple(order)
    assert_allclose(spec.std, stats.std[order])
    del checkpoint['meta']['input_spec']
    assert checkpoint['meta'] == dict(source='model_best.pth.tar', epoch=90, arch='resnet50dct', best_prec1=76.79)


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    """A gate, too, which the stock network would leave out."""
    state = named(dctnet(24))
    del state['module.model.1.2.bn3.running_var']
    state['module.inp_GM.weight'] = torch.zeros(2, 2)
    state['module.fc.weight'] = torch.zeros(10, 2048)
    path = save_dctnet(tmp_path / 'x.pth', state)
    with pytest.raises(RuntimeError, match='(?s)layer2.2.bn3.running_var.*inp_GM.weight.*fc.weight'):
        convert_dctnet(path, tmp_path / 'out.pth')
    assert [item.name for item in tmp_path.iterdir()] == ['x.pth']


@pytest.mark.parametrize('content', [
    dict(model={'conv1.weight': torch.zeros(1)}, epoch=3), {'conv1.weight': torch.zeros(1)},
    dict(state_dict={'conv1.weight': torch.zeros(1)}),
    dict(state_dict={'module.model.0.0.conv1.weight': torch.zeros(64, 48, 1, 1)})])
def test_other_files_are_refused(content: dict, tmp_path: Path) -> None:
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(KeyError):
        convert_dctnet(str(tmp_path / 'x.pth'), tmp_path / 'out.pth')
    assert [item.name for item in tmp_path.iterdir()] == ['x.pth']


def test_tool(tmp_path: Path, run_tool: Any, capsys: pytest.CaptureFixture) -> None:
    path = save_dctnet(tmp_path / 'best.pth.tar', named(dctnet(24)), optimizer=dict(lr=[0.1]))
    evil = save_dctnet(tmp_path / 'evil.pth', {}, hook=Reduces(open, str(tmp_path / 'marker'), 'w'))
    run_tool('convert_checkpoint', path, tmp_path / 'out.pth')
    assert 'out.py, channels 24S' in capsys.readouterr().out
    for source, out, words in ((path, 'out.pt', 'expected a .pth file to write'), (evil, 'x.pth', 'evil.pth: not a')):
        with pytest.raises(SystemExit):
            run_tool('convert_checkpoint', source, tmp_path / out)
        assert words in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ['best.pth.tar', 'evil.pth', 'out.pth', 'out.py']
