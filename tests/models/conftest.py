"""Fixtures of the tests of models."""
import logging
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Messages that mmengine's current logger gets from backbones."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock networks of fixed depth and width, made small."""
    from mmdet.models.backbones import Darknet
    from mmpretrain.models.backbones import CSPDarkNet, CSPResNet, CSPResNeXt, EfficientNetV2, PyramidVig, Vig

    for network, depth in ((CSPDarkNet, 53), (CSPResNet, 50), (CSPResNeXt, 50)):
        settings = network.arch_settings[depth]
        count = len(settings['num_blocks'])
        widths = dict(num_blocks=(1, ) * count, out_channels=(128, ) * count,
                      in_channels=(settings['in_channels'][0], ) + (128, ) * (count - 1))
        monkeypatch.setitem(network.arch_settings, depth, dict(settings, **widths))
    monkeypatch.setitem(Darknet.arch_settings, 53, ((1, ) * 5, ((32, 64), *((64, 64), ) * 4)))
    monkeypatch.setitem(EfficientNetV2.arch_settings, 'b0', [
        [1, 3, 1, 1, 32, 16, 0.0, -1], [1, 3, 2, 4, 16, 32, 0.0, 0], [1, 3, 2, 4, 32, 48, 0.25, 1],
        [1, 1, 1, 1, 48, 64, 0.0, -2]])
    monkeypatch.setitem(Vig.arch_settings, 'tiny', dict(num_blocks=1, channels=32))
    monkeypatch.setitem(PyramidVig.arch_settings, 'tiny', dict(blocks=[1] * 4, channels=[16] * 4))
