"""The functions of ``import mmfreq``: channels of an image, the image back, predictions."""
import os
from pathlib import Path
from typing import Any, Optional, Sequence, Union

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from mmfreq.apis.predict import Predictor, read_image
from mmfreq.apis.runs import find_checkpoint
from mmfreq.apis.terminal import quiet
from mmfreq.config.checks import check_config
from mmfreq.config.paths import config_path, read_file
from mmfreq.dct import blocks as dct
from mmfreq.dct.channels import ChannelSpec, channel_indices
from mmfreq.transforms import BlockDCT, ChannelSelect, FreqNormalize, YCbCr

ImageLike = Union[str, Path, np.ndarray, Image.Image]


def dct_channels(image: ImageLike, channels: ChannelSpec = '24S', *,
                 stats: Union[str, dict, None] = None, block_size: int = 8, upscale: int = 1,
                 channel_order: str = 'bgr') -> np.ndarray:
    """Return the DCT channels of an image.

    Args:
        image (str | Path | np.ndarray | PIL.Image.Image): A file, or uint8 (H, W, 3) or (H, W).
        channels (str | Sequence): See :func:`mmfreq.dct.channels.channel_indices`. Defaults to
            ``'24S'``.
        stats (str | dict, optional): Statistics to normalise with, such as ``'photos-448'``.
            Defaults to None: coefficients of levels 0..255, shifted by -128.
        block_size (int): Side of a block in pixels. Defaults to 8.
        upscale (int): Factor of the image before the DCT. Defaults to 1.
        channel_order (str): ``'bgr'`` or ``'rgb'`` of an array. Defaults to ``'bgr'``.

    Returns:
        np.ndarray: float32 (C, h, w). A network on 24S gets 448x448 pixels, 24 x 56 x 56.

    Raises:
        ValueError: A file is no image, or an argument is wrong; the message names it.
    """
    steps = [YCbCr(), BlockDCT(block_size, upscale), ChannelSelect(channels, block_size)]
    if stats is not None:
        steps.append(FreqNormalize(stats, block_size))
    made = dict(img=_pixels(image, channel_order))
    for step in steps:
        made = step(made)
    return made['img'].transpose(2, 0, 1)


def rebuild(values: np.ndarray, channels: ChannelSpec = '24S', *,
            stats: Union[str, dict, None] = None, image_shape: Optional[Sequence[int]] = None,
            block_size: int = 8, upscale: int = 1, channel_order: str = 'bgr') -> np.ndarray:
    """Return the image that DCT channels stand for; those that are not selected count as zero.

    Args:
        values (np.ndarray): (C, h, w), as :func:`dct_channels` gives it.
        channels (str | Sequence): As given there. Defaults to ``'24S'``.
        stats (str | dict, optional): As given there. Defaults to None.
        image_shape (Sequence[int], optional): Pixels (H, W) to crop to. Defaults to None: all
            blocks.
        block_size (int): As given there. Defaults to 8.
        upscale (int): As given there; it is undone. Defaults to 1.
        channel_order (str): Of the result. Defaults to ``'bgr'``.

    Returns:
        np.ndarray: uint8 (H, W, 3).

    Raises:
        ValueError: Not as many channels as selected, or an ``image_shape`` beyond the blocks.
    """
    indices = channel_indices(channels, block_size)
    cube = np.asarray(values, np.float32).transpose(1, 2, 0)
    if stats is not None and cube.shape[2] == len(indices):
        cube = FreqNormalize(stats, block_size).inverse(cube, indices)
    image = dct.coefficients_to_bgr(cube, indices, image_shape, block_size, upscale)
    return np.ascontiguousarray(image if _is_bgr(channel_order) else image[:, :, ::-1])


def _is_bgr(channel_order: str) -> bool:
    if channel_order not in ('bgr', 'rgb'):
        raise ValueError(f"channel_order: expected 'bgr' or 'rgb', got {channel_order!r}")
    return channel_order == 'bgr'


def _pixels(image: ImageLike, channel_order: str = 'bgr', **decoding: str) -> np.ndarray:
    """Return uint8 BGR (H, W, 3)."""
    bgr = _is_bgr(channel_order)
    if isinstance(image, (str, Path)):
        try:
            return read_image(Path(image), **decoding)
        except OSError as error:
            raise ValueError(f'{image}: {error.strerror}') from error
    if isinstance(image, Image.Image):
        image, bgr = np.asarray(image.convert('RGB')), False
    image = np.asarray(image)
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(dct.check_image(image)[:, :, ::1 if bgr else -1])


class Model:
    """A trained classifier or detector; :func:`load_model` makes one.

    Attributes:
        cfg (Config): The config.
        module (torch.nn.Module): The network, in evaluation mode.
        classes (list[str]): The names of the classes.
    """

    def __init__(self, cfg: Config, predictor: Predictor) -> None:
        self.cfg, self._predictor = cfg, predictor
        self.module = predictor.inferencer.model
        meta = getattr(self.module, 'dataset_meta', None) or getattr(
            self.module, '_dataset_meta', {})
        self.classes = list(meta.get('classes') or ())

    def predict(self, images: Union[ImageLike, Sequence[ImageLike]], *, batch_size: int = 8,
                channel_order: str = 'bgr') -> Union[dict[str, Any], list[dict[str, Any]]]:
        """Predict for one image or for many.

        Args:
            images: Files, uint8 arrays (H, W, 3), PIL images; one or a list, of any sizes.
            batch_size (int): Images that the network takes at once. Defaults to 8.
            channel_order (str): ``'bgr'`` or ``'rgb'`` of arrays. Defaults to ``'bgr'``.

        Returns:
            dict | list[dict]: Of a classifier ``pred_label``, ``pred_class``, ``pred_score`` and
            ``pred_scores``; of a detector ``labels``, ``classes``, ``scores``, ``bboxes`` (x1, y1,
            x2, y2 in pixels) and ``masks`` (COCO's run lengths), best first. For one image a dict.

        Raises:
            ValueError: A file is no image; the message names it.
        """
        dct.check_positive_int('batch_size', batch_size)
        single = isinstance(images, (str, Path, np.ndarray, Image.Image))
        items, made = [images] if single else list(images), []
        with _scope(self.cfg), quiet():
            for start in range(0, len(items), batch_size):
                chunk = items[start:start + batch_size]
                pixels = [_pixels(item, channel_order, **self._predictor.decoding)
                          for item in chunk]
                made += self._predictor.raw(pixels)[0]
        return made[0] if single else made


def load_model(config: Union[str, Path, Config], checkpoint: Union[str, Path],
               device: Optional[str] = None) -> Model:
    """Load a trained model. Nothing is written, no state of the process changes.

    Args:
        config (str | Path | Config): A path, ``package::file``, or the name of a config that ships
            with mmfreq. The config in a work dir does too.
        checkpoint (str | Path): A file, or a work dir: its ``best_*.pth`` if it has exactly one,
            else its last checkpoint.
        device (str, optional): Such as ``'cpu'`` or ``'cuda:1'``. Defaults to a GPU, if any.

    Raises:
        ValueError: There is no such config or file, or the config is wrong.
        RefusedCheckpointError: The checkpoint is of another network or another input.
    """
    file, _ = find_checkpoint(os.fspath(checkpoint))
    with quiet():
        if not isinstance(config, Config):
            config = read_file(config_path(os.fspath(config)))
        with _scope(config):
            check_config(config)
            return Model(config, Predictor(config, file, device))


def _scope(cfg: Config) -> Any:
    """Return a context in which the hosts find their own; what they set ends with it."""
    return DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine'))
