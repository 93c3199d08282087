"""The functions of ``import mmfreq``: channels of an image, the image back, predictions."""
import os
from copy import deepcopy
from functools import cached_property, partial
from typing import Any, Callable, Optional, Sequence, Union
from uuid import uuid4

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate, pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS, VISUALIZERS, DefaultScope
from PIL import Image, ImageOps

from mmfreq.apis.measure import build_model
from mmfreq.apis.runs import find_checkpoint, read_config
from mmfreq.config.checks import check_config
from mmfreq.config.pipelines import datasets_with_pipeline
from mmfreq.dct import blocks as dct
from mmfreq.dct.channels import ChannelSpec, channel_indices
from mmfreq.engine.checkpoints import load_checked
from mmfreq.engine.hooks.visualization import array_order, draw_sample
from mmfreq.errors import RefusedError
from mmfreq.hosts import setup
from mmfreq.transforms import BlockDCT, ChannelSelect, FreqNormalize, YCbCr

ImageLike = Union[str, os.PathLike, np.ndarray, torch.Tensor, Image.Image]


def dct_channels(image: ImageLike, channels: ChannelSpec = '24S', *,
                 stats: Union[str, dict, None] = None, block_size: int = 8, upscale: int = 1,
                 channel_order: str = 'bgr') -> np.ndarray:
    """Return the DCT channels of an image.

    Args:
        image (ImageLike): As for :func:`pixels`.
        channels (str | Sequence): As for :func:`~mmfreq.dct.channels.channel_indices`, here '24S'.
        stats (str | dict, optional): Statistics to normalise with, such as ``'photos-448'``.
            Defaults to None: coefficients of levels 0..255, shifted by -128.
        block_size (int): Side of a block in pixels. Defaults to 8.
        upscale (int): Factor by which the image is upscaled before the DCT. Defaults to 1.
        channel_order (str): ``'bgr'`` or ``'rgb'`` of an array. Defaults to ``'bgr'``.

    Returns:
        np.ndarray: float32 (C, h, w). 448x448 pixels become 24 x 56 x 56 for 24S.

    Raises:
        ValueError: The image has another type or shape, or an argument is wrong.
    """
    steps = [YCbCr(), BlockDCT(block_size, upscale), ChannelSelect(channels, block_size)]
    steps += [] if stats is None else [FreqNormalize(stats, block_size)]
    return Compose(steps)(dict(img=pixels(image, channel_order)))['img'].transpose(2, 0, 1)


def rebuild(values: np.ndarray, channels: ChannelSpec = '24S', *,
            stats: Union[str, dict, None] = None, image_shape: Optional[Sequence[int]] = None,
            block_size: int = 8, upscale: int = 1, channel_order: str = 'bgr') -> np.ndarray:
    """Rebuild an image from DCT channels; the channels that are not selected count as zero.

    Args:
        values (np.ndarray): (C, h, w), as :func:`dct_channels` returns it.
        channels (str | Sequence): As for :func:`dct_channels`. Defaults to ``'24S'``.
        stats (str | dict, optional): As there. Defaults to None.
        image_shape (Sequence[int], optional): Pixels (H, W) to crop to. Defaults to None: no crop.
        block_size (int): As there. Defaults to 8.
        upscale (int): As there; the upscaling is undone. Defaults to 1.
        channel_order (str): ``'bgr'`` or ``'rgb'`` of the result. Defaults to ``'bgr'``.

    Returns:
        np.ndarray: uint8 (H, W, 3).

    Raises:
        ValueError: ``values`` has another shape, or ``image_shape`` is larger than the blocks.
    """
    indices, values = channel_indices(channels, block_size), np.asarray(values, np.float32)
    if values.ndim != 3 or len(values) != len(indices):
        raise ValueError(f'values: expected the shape (C, h, w) with C = {len(indices)} channels, '
                         f'got {values.shape}')
    cube = values.transpose(1, 2, 0)
    if stats is not None:
        cube = FreqNormalize(stats, block_size).inverse(cube, indices)
    image = dct.coefficients_to_bgr(cube, indices, image_shape, block_size, upscale)
    return pixels(image, channel_order)  # reverses the colours for 'rgb'


def pixels(image: ImageLike, channel_order: str = 'bgr',
           load: Callable[[dict], dict] = LoadImageFromFile()) -> np.ndarray:
    """Return the pixels of an image: uint8 BGR (H, W, 3).

    Args:
        image (str | Path | PIL.Image.Image | np.ndarray | torch.Tensor): A file, a Pillow image,
            or uint8 (H, W, 3) or (H, W). The first two are turned as their EXIF orientation says.
        channel_order (str): ``'bgr'`` or ``'rgb'`` of an array or tensor. Defaults to ``'bgr'``.
        load (Callable): The transform that reads files; its ``color_type`` decides on turning.

    Raises:
        ValueError: The image has another type or shape. mmcv's errors for files pass unchanged.
    """
    dct.color_matrix(channel_order)  # validates
    if isinstance(image, (str, os.PathLike)):
        image, channel_order = load(dict(img_path=str(image)))['img'], 'bgr'
        image = image.astype(np.uint8) if image.dtype == np.float32 else image  # of to_float32
    elif isinstance(image, Image.Image):
        if image.mode[0] in 'IF':  # convert() would clip the levels
            raise RefusedError(f'expected an image of 8 bits, got mode {image.mode} of Pillow')
        turns = getattr(load, 'color_type', 'color') in ('color', 'grayscale')
        image, channel_order = ImageOps.exif_transpose(image) if turns else image, 'rgb'
        image = image.convert('RGB')
    image = np.asarray(image)
    image = dct.check_image(np.dstack([image] * 3) if image.ndim == 2 else image)
    return np.ascontiguousarray(image if channel_order == 'bgr' else image[:, :, ::-1])


class Model:
    """A trained classifier or detector, which :func:`load_model` returns.

    Attributes:
        cfg (Config): The config.
        module (torch.nn.Module): The network, in evaluation mode.
        classes (list[str]): Names of the classes, of the checkpoint or else of the test data set.
        load (Callable): The transform of the test pipeline that reads a file.
        scope (Callable): Returns a context in which the hosts find the classes that the config names.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str) -> None:
        inner, *_ = datasets_with_pipeline(cfg.test_dataloader.dataset)  # without wrappers
        self.cfg = cfg
        self.scope = partial(DefaultScope.overwrite_default_scope, cfg.default_scope)
        with self.scope():
            dataset = DATASETS.build({**deepcopy(inner), 'lazy_init': True})
            self.module = build_model(deepcopy(cfg))
        meta = load_checked(self.module, checkpoint, cfg).get('meta') or {}
        self.module.to(device).eval()
        self._meta = {**dataset.metainfo, **(meta.get('dataset_meta') or {})}
        self.classes = list(self._meta.get('classes') or ())
        steps = dataset.pipeline.transforms
        loaders = [step for step in steps if isinstance(step, LoadImageFromFile)]
        self.load = loaders[0] if loaders else LoadImageFromFile()
        self._pipeline = Compose([step for step in steps if step is not self.load])
        self._to_order = slice(None, None, 1 if loaders or array_order(steps) == 'bgr' else -1)

    def predict(self, images: Union[ImageLike, Sequence[ImageLike]], *, batch_size: int = 8,
                channel_order: str = 'bgr',
                score_thr: Optional[float] = None) -> Union[dict[str, Any], list[dict[str, Any]]]:
        """Predict for one image, or for a list or tuple of images.

        Args:
            images: As for :func:`pixels`, which raises the errors. Sizes may differ.
            batch_size (int): Images that the network takes at once. Defaults to 8.
            channel_order (str): ``'bgr'`` or ``'rgb'`` of arrays, tensors. Defaults to ``'bgr'``.
            score_thr (float, optional): Add ``picture``, uint8 BGR (H, W, 3): the image with the
                prediction. Detections are drawn if their score is higher. Defaults to None.

        Returns:
            dict | list[dict]: For one image a dict: of a classifier ``pred_label``, ``pred_class``,
            ``pred_score`` and ``pred_scores``; of a multi-label one ``pred_labels`` and
            ``pred_classes`` (all above the head's threshold) and ``pred_scores``; of a detector
            ``labels``, ``classes``, ``scores``, ``bboxes`` (x1, y1, x2, y2 in pixels) and ``masks``
            (COCO's run lengths), best first.
        """
        items, predictions = images if isinstance(images, (list, tuple)) else [images], []
        for start in range(0, len(items), batch_size):
            batch = items[start:start + batch_size]
            batch = [pixels(item, channel_order, self.load) for item in batch]
            with self.scope():
                for image, sample in zip(batch, self.samples(batch)):
                    predictions.append(self._prediction(sample))
                    if score_thr is not None:
                        rgb = draw_sample(self._visualizer, image[:, :, ::-1], sample, score_thr,
                                          name='', draw_gt=False)
                        predictions[-1]['picture'] = np.ascontiguousarray(rgb[:, :, ::-1])
        return predictions if items is images else predictions[0]

    def packed(self, image: np.ndarray) -> dict[str, Any]:
        """Return the result of the test pipeline for a uint8 BGR image (H, W, 3)."""
        shape = image.shape[:2]
        return self._pipeline(dict(img=image[:, :, self._to_order], img_path=None, img_id=0,
                                   img_shape=shape, ori_shape=shape))

    @torch.no_grad()
    def samples(self, images: Sequence[np.ndarray]) -> list[Any]:
        """Return the host's data samples for uint8 BGR images (H, W, 3), the network's batch."""
        collate = default_collate if self.cfg.default_scope == 'mmpretrain' else pseudo_collate
        return self.module.test_step(collate(list(map(self.packed, images))))

    def _prediction(self, sample: Any) -> dict[str, Any]:
        if 'pred_instances' in sample:
            from mmdet.apis import DetInferencer
            prediction = DetInferencer.pred2dict(self, sample)  # a method that needs no inferencer
            return dict(prediction, classes=self._names(prediction['labels']))
        from mmpretrain.models import MultiLabelClsHead
        labels, scores = sample.pred_label.tolist(), sample.pred_score.cpu().numpy()
        names = self._names(labels)
        if isinstance(self.module.head, MultiLabelClsHead):
            return dict(pred_labels=labels, pred_classes=names, pred_scores=scores)
        return dict(pred_label=labels[0], pred_class=names[0], pred_scores=scores,
                    pred_score=float(scores[labels[0]]))

    def _names(self, labels: Sequence[int]) -> list[str]:
        return [self.classes[label] if self.classes else str(label) for label in labels]

    @cached_property
    def _visualizer(self) -> Any:
        name = uuid4().hex  # visualizers of one name are one object
        visualizer = VISUALIZERS.build(dict(self.cfg.visualizer, vis_backends=None, name=name))
        visualizer.dataset_meta = self._meta
        return visualizer


def load_model(config: Union[str, os.PathLike, Config], checkpoint: Union[str, os.PathLike],
               device: Optional[str] = None) -> Model:
    """Load a trained model.

    It calls :func:`mmfreq.setup`, so that the checkpoint is read weights-only. If mmcv has no
    compiled ops, call :func:`mmfreq.setup` yourself before anything that imports mmdet.

    Args:
        config (str | Path | Config): As for :func:`mmfreq.config.paths.config_path`, or a Config.
        checkpoint (str | Path): As for :func:`mmfreq.apis.runs.find_checkpoint`.
        device (str, optional): Such as ``'cpu'`` or ``'cuda:1'``. Defaults to a GPU, if any.

    Raises:
        RefusedError: There is no such config or checkpoint, or it is of another network or input.
    """
    setup()
    cfg = config if isinstance(config, Config) else read_config(os.fspath(config))
    check_config(cfg)
    return Model(cfg, find_checkpoint(os.fspath(checkpoint))[0], device or get_device())
