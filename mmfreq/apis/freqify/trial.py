"""Try a config: its pipelines on an image of noise, its backbone on the result."""
import random
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmfreq.apis.measure import build_model, packed_sample, preprocessed_batch
from mmfreq.config.pipelines import DATALOADERS
from mmfreq.errors import RefusedError

_CELLS = 64  # side of the corner of a detector's input that its backbone gets


def try_config(cfg: Config, stock: Config) -> None:
    """Run a classifier's pipelines, or a detector's test pipeline, on noise, and the backbone on the result.

    Errors of transforms and models pass unchanged.
    """
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build_model(deepcopy(cfg)).eval()
        classifies = cfg.default_scope == 'mmpretrain'
        names = list(filter(cfg.get, DATALOADERS))
        for name in names if classifies else names[-1:]:
            sample = _sample(cfg, name)
            if classifies:  # a detector's preprocessor compares the grid with the image
                _check_grid(sample, _sample(stock, name), model.backbone.input_stride, name)
        inputs = preprocessed_batch(model, sample, 1)['inputs']
        if not classifies:
            inputs = inputs[..., :_CELLS, :_CELLS]
        _check_features(model.backbone, MODELS.build(deepcopy(stock.model.backbone)), inputs)


def _sample(cfg: Config, dataloader: str) -> dict:
    random.seed(0)
    np.random.seed(0)
    return packed_sample(cfg, dataloader)


def _check_grid(sample: dict, stock: dict, stride: int, dataloader: str) -> None:
    """Refuse a grid that does not cover the stock input, up to one cell."""
    cells, pixels = sample['inputs'].shape[-2:], stock['inputs'].shape[-2:]
    if any(abs(stride * a - b) > stride for a, b in zip(cells, pixels)):
        raise RefusedError(f'{dataloader}: expected a cell for {stride}x{stride} pixels of the '
                           f'stock input {tuple(pixels)}, got {tuple(cells)} cells')


@torch.no_grad()
def _check_features(backbone: nn.Module, stock: nn.Module, inputs: torch.Tensor) -> None:
    """Refuse features of other sizes than those of the stock backbone, and a frozen one."""
    stock.train()  # some freeze their stages here
    trained = any(weight.requires_grad for weight in stock.parameters())
    if not trained and not backbone.keeps_stock_weights:
        raise RefusedError('the stock config freezes its whole backbone, but it must be trained')
    stock.eval()  # some return None for it
    sides = [backbone.input_stride * side for side in inputs.shape[-2:]]
    expected, shapes = _shapes(stock(torch.zeros(1, 3, *sides))), _shapes(backbone(inputs))
    if shapes != expected:
        raise RefusedError(f'the backbone returns features of shape {shapes}, but the stock one of '
                           f'{expected}')


def _shapes(features: Any) -> Any:
    """Return the shapes of features, nested as these are: Conformer has two in a stage, InceptionV3 a None."""
    if isinstance(features, (list, tuple)):
        return [_shapes(level) for level in features]
    return features if features is None else tuple(features.shape)
