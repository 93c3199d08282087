"""Try a config before it is used: its pipelines on noise images, its backbone on what they give."""
import random
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Iterator

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import nn

from mmfreq.apis.measure import build_model
from mmfreq.config.pipelines import DATALOADERS, PIXELS_TO_CHANNELS

_SHAPE = (480, 640)  # pixels of the noise image
_CELLS = 64  # side of the corner of its input that a detector's backbone is tried on


class NoiseImages(BaseDataset):
    """A few noise images with made-up ground truth for either host.

    Args:
        folder (str): Where the files of :func:`write_noise` are.
        pipeline (list[dict]): Transforms.
    """
    METAINFO = dict(classes=('noise', ))

    def __init__(self, folder: str, pipeline: list[dict]) -> None:
        self.folder = Path(folder)
        super().__init__(pipeline=pipeline, serialize_data=False)

    def load_data_list(self) -> list[dict]:
        """Return an image four times, with a label, two boxes with masks, and proposals if loaded."""
        height, width = _SHAPE
        boxes = [[40., 60., 384., 336.], [192., 20., 610., 450.]]  # within _SHAPE
        instances = []
        for x0, y0, x1, y1 in boxes:
            instances.append(dict(bbox=[x0, y0, x1, y1], bbox_label=0, ignore_flag=0,
                                  mask=[[x0, y0, x1, y0, x1, y1, x0, y1]]))
        sample: dict[str, Any] = dict(
            img_path=str(self.folder / 'image.png'), height=height, width=width, gt_label=0,
            instances=instances, seg_map_path=str(self.folder / 'segments.png'))
        if any(type(step).__name__ == 'LoadProposals' for step in self.pipeline.transforms):
            sample['proposals'] = dict(bboxes=np.array(boxes, np.float32),
                                       scores=np.ones(2, np.float32))
        return [dict(deepcopy(sample), img_id=i) for i in range(4)]

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the one category."""
        return [0]

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline; errors name the transform, and for the DCT the source of its pixels."""
        results, kind, origin = self.get_data_info(idx), None, ''
        for step in self.pipeline.transforms:
            name = type(step).__name__
            try:
                results = step(results)
            except Exception as error:
                reason = str(error).removeprefix(f'{name}: ')
                if name in PIXELS_TO_CHANNELS and kind != np.uint8:
                    reason += f'; the {kind} pixels come from {origin}'
                raise ValueError(f'{name}: {reason}') from error
            image = results.get('img') if isinstance(results, dict) else None
            if isinstance(image, np.ndarray) and image.dtype != kind:
                kind, origin = image.dtype, name
            if results is None:
                break
        return results


def write_noise(folder: Path) -> None:
    """Write ``image.png``, soft coloured noise, and ``segments.png``, all of class 0."""
    noise = np.random.default_rng(0).integers(0, 256, (*_SHAPE, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / 'image.png'), cv2.GaussianBlur(noise, (0, 0), 2))
    cv2.imwrite(str(folder / 'segments.png'), np.zeros(_SHAPE, dtype=np.uint8))


def on_noise(node: Any, folder: str) -> Any:
    """Give a data set's config noise images for its data; wrappers and pipelines stay."""
    if isinstance(node, (list, tuple)):
        return [on_noise(child, folder) for child in node]
    if not isinstance(node, dict):
        return node
    wrapped = {key: on_noise(node[key], folder) for key in ('dataset', 'datasets') if key in node}
    if not wrapped:
        return dict(type=NoiseImages, folder=folder, pipeline=node.get('pipeline') or [])
    return {**node, **wrapped}


def try_config(cfg: Config, stock: Config) -> None:
    """Run every pipeline of a config on a noise image, and its backbone on what they made.

    A cell must cover as many pixels of the stock config's input as the backbone says
    (``input_stride``), and the backbone must make features of the stock sizes. Not all of the stock
    backbone may be frozen.

    Raises:
        ValueError: Something failed, or does not fit; the message says where.
    """
    with DefaultScope.overwrite_default_scope(cfg.default_scope), TemporaryDirectory() as folder:
        write_noise(Path(folder))
        samples = {name: _sample(cfg, name, folder) for name in DATALOADERS if cfg.get(name)}
        with _explained('the model cannot be built'):
            model = build_model(deepcopy(cfg)).eval()
        if cfg.default_scope == 'mmpretrain':
            for name, sample in samples.items():
                _check_grid(sample, _sample(stock, name, folder), model.backbone.input_stride, name)
        if cfg.get('tta_pipeline'):
            samples['tta_pipeline'] = _first_view(cfg, folder)
        _try_model(model, stock, samples)


def _sample(cfg: Config, dataloader: str, folder: str) -> dict:
    random.seed(0)
    np.random.seed(0)
    with _explained(f'the pipeline of {dataloader} fails on a noise image'):
        return DATASETS.build(on_noise(deepcopy(cfg[dataloader].dataset.to_dict()), folder))[0]


def _first_view(cfg: Config, folder: str) -> dict:
    with _explained('the tta_pipeline fails on a noise image'):
        views = Compose(deepcopy(cfg.tta_pipeline))(NoiseImages(folder, []).get_data_info(0))
    return {key: views[key][0] for key in ('inputs', 'data_samples')}


def _check_grid(sample: dict, stock: dict, stride: int, dataloader: str) -> None:
    """Raise ValueError unless the grid covers the stock input, give or take one cell."""
    cells, pixels = sample['inputs'].shape[-2:], stock['inputs'].shape[-2:]
    if any(abs(stride * a - b) > stride for a, b in zip(cells, pixels)):
        raise ValueError(f'{dataloader}: expected a cell for each {stride}x{stride} pixels of the '
                         f'stock input {tuple(pixels)}, got {tuple(cells)} cells: a transform sets '
                         'sizes in an unknown way')


def _try_model(model: nn.Module, stock: Config, samples: dict[str, dict]) -> None:
    for name, sample in samples.items():
        with _explained(f'the model does not take what {name} gives'), torch.no_grad():
            inputs = model.data_preprocessor(pseudo_collate([sample]))['inputs']
            if stock.default_scope == 'mmdet':
                inputs = inputs[..., :_CELLS, :_CELLS]
            features = model.backbone(inputs)
    with _explained('the stock backbone fails'), torch.no_grad():
        backbone = MODELS.build(deepcopy(stock.model.backbone))
        backbone.train()  # some freeze their stages here
        trained = any(weight.requires_grad for weight in backbone.parameters())
        backbone.eval()  # returns None for some
        stride = model.backbone.input_stride
        expected = backbone(torch.zeros(1, 3, *(stride * side for side in inputs.shape[-2:])))
    if not trained:
        raise ValueError('the stock config freezes its whole backbone, which is for features of RGB '
                         'pixels; those of DCT channels must be trained')
    made, wanted = _shapes(features), _shapes(expected)
    if made != wanted:
        raise ValueError(f'the backbone makes features of shape {made}, the stock one {wanted}: the '
                         'rest of the model expects these')


def _shapes(features: Any) -> Any:
    """Return the shapes of features, nested as these are: Conformer has two in a stage."""
    if isinstance(features, torch.Tensor):
        return tuple(features.shape)
    return [_shapes(level) for level in features]


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ValueError(f'{what}: {type(error).__name__}: {error}') from error
