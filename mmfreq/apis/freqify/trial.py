"""Try a config: its pipelines on an image of noise, its backbone on their results."""
import random
from copy import deepcopy
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import nn

from mmfreq.apis.measure import build_model
from mmfreq.config.pipelines import DATALOADERS
from mmfreq.errors import RefusedError

_CELLS = 64  # side of the corner of a detector's input that its backbone gets


class NoiseImages(BaseDataset):
    """An image of noise, four times, with invented ground truth for either host."""
    METAINFO = dict(classes=('noise', ))

    def load_data_list(self) -> list[dict]:
        """Write the files to ``data_root``; return samples with a label, two boxes and masks."""
        noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        image, segments = f'{self.data_root}/image.png', f'{self.data_root}/segments.png'
        cv2.imwrite(image, cv2.GaussianBlur(noise, (0, 0), 2))
        cv2.imwrite(segments, np.zeros_like(noise[..., 0]))
        boxes = [[40., 60., 384., 336.], [192., 20., 610., 450.]]
        instances = [dict(bbox=[x0, y0, x1, y1], mask=[[x0, y0, x1, y0, x1, y1, x0, y1]],
                          bbox_label=0, ignore_flag=0) for x0, y0, x1, y1 in boxes]
        sample: dict[str, Any] = dict(img_path=image, seg_map_path=segments, height=480, width=640,
                                      gt_label=0, instances=instances)
        if any(type(step).__name__ == 'LoadProposals' for step in self.pipeline.transforms):
            sample['proposals'] = dict(bboxes=np.float32(boxes), scores=np.ones(2, np.float32))
        return [dict(sample, img_id=i) for i in range(4)]

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the one category."""
        return [0]


def on_noise(node: Any, folder: str) -> Any:
    """Replace the data of a data set's config by noise; wrappers and pipelines stay."""
    if isinstance(node, (list, tuple)):
        return [on_noise(child, folder) for child in node]
    wrapped = {key: on_noise(node[key], folder) for key in ('dataset', 'datasets') if key in node}
    if not wrapped:
        return dict(type=NoiseImages, data_root=folder, pipeline=node.get('pipeline') or [])
    return {**node, **wrapped}


def try_config(cfg: Config, stock: Config) -> None:
    """Run every pipeline of a config on noise, and its backbone on the result.

    Errors of transforms and models pass unchanged.
    """
    with DefaultScope.overwrite_default_scope(cfg.default_scope), TemporaryDirectory() as folder:
        model = build_model(deepcopy(cfg)).eval()
        for name in filter(cfg.get, DATALOADERS):
            sample = _sample(cfg, name, folder)
            if cfg.default_scope == 'mmpretrain':
                _check_grid(sample, _sample(stock, name, folder), model.backbone.input_stride, name)
        inputs = model.data_preprocessor(pseudo_collate([sample]))['inputs']
        if cfg.default_scope == 'mmdet':
            inputs = inputs[..., :_CELLS, :_CELLS]
        _check_features(model.backbone, MODELS.build(deepcopy(stock.model.backbone)), inputs)


def _sample(cfg: Config, dataloader: str, folder: str) -> dict:
    random.seed(0)
    np.random.seed(0)
    return DATASETS.build(on_noise(cfg[dataloader].dataset.to_dict(), folder))[0]


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
    """Return the shapes of features, nested as these are: Conformer has two in a stage."""
    if isinstance(features, torch.Tensor):
        return tuple(features.shape)
    return [_shapes(level) for level in features]
