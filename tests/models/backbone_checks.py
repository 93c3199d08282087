"""Set-ups and references that the tests of the backbones share."""
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Union

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint
from numpy.testing import assert_array_equal
from torch import nn

StateDict = dict[str, torch.Tensor]


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Messages that mmengine's current logger gets."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def said(log: list[str]) -> list[str]:
    """Return what the backbones themselves logged."""
    return [line for line in log if line.startswith('Freq')]


def randomized(model: nn.Module) -> nn.Module:
    """Make every weight and buffer random, norms and position embeddings too; variances positive."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape) * (0.1 if value.ndim < 2 else value[0].numel()**-0.5)
            value.copy_(noise + (value.ndim == 1 and not name.endswith('mean')))
            value.copy_(value.abs() if 'running_var' in name else value)
    return model


def clone(source: Union[nn.Module, StateDict]) -> StateDict:
    """Return a copy of the weights."""
    state = source.state_dict() if isinstance(source, nn.Module) else source
    return {key: value.clone() for key, value in state.items()}


def outputs(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Evaluate a backbone."""
    model.eval()
    with torch.no_grad():
        return list(model(x))


def assert_same(actual: StateDict, expected: StateDict) -> None:
    """Compare weights exactly, their order too."""
    assert list(actual) == list(expected)
    for key, value in expected.items():
        assert_array_equal(actual[key].numpy(), value.numpy(), err_msg=key)


def load(how: str, model: nn.Module, state: StateDict, folder: Path) -> tuple[StateDict, StateDict]:
    """Load backbone weights as ``load_from``, ``init_cfg`` or torch does; return before and after."""
    file = str(folder / 'weights.pth')
    torch.save(dict(state_dict={f'backbone.{key}': value for key, value in state.items()}), file)
    fresh = clone(model)
    if how == 'init_cfg':
        model.init_cfg = ConfigDict(
            type='Pretrained', checkpoint=file, prefix='backbone.')
        model.init_weights()
    elif how == 'load_from':
        whole = nn.Module()
        whole.backbone = model
        load_checkpoint(whole, file, map_location='cpu', logger=MMLogger.get_current_instance())
    else:
        model.load_state_dict(state, strict=True)
    return fresh, clone(model)


over_ways = pytest.mark.parametrize('how', ['load_from', 'init_cfg', 'load_state_dict'])
