"""Predictions for image files by the hosts' own inferencers."""
import os
import sys
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope

from mmfreq.config.pipelines import datasets_with_pipeline, iter_dicts, transform_type
from mmfreq.engine.checkpoints import load_checked
from mmfreq.files import files_below

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
Prediction = tuple[dict[str, Any], np.ndarray]


def find_images(paths: Sequence[str], out_dir: str) -> dict[str, Path]:
    """Return the images that files and folders stand for, by their path below a common folder.

    Folders are searched with their subfolders, but without ``out_dir``, the folder for results.

    Raises:
        ValueError: A path does not exist, or a folder holds no images. It is named.
    """
    out, images = full_path(out_dir), []
    for path in map(full_path, paths):
        if not path.exists():
            raise ValueError(f'{path}: no such file or folder')
        found = [path] if path.is_file() else [
            file for file in files_below(path)
            if file.suffix.lower() in SUFFIXES and out not in file.parents]
        if not found:
            raise ValueError(f'{path}: expected images ({" ".join(SUFFIXES)}), found none')
        images += found
    common = os.path.commonpath([image.parent for image in images])
    return {image.relative_to(common).as_posix(): image for image in images}


def picture_paths(images: dict[str, Path], out_dir: str) -> list[Path]:
    """Return a file for the picture of each image: ``OUT_DIR/a/1.png`` for ``a/1.jpg``.

    ``a/1.jpg.png`` if that is an image to read, or the picture of another one.
    """
    taken, found = set(images.values()), []
    for name in images:
        plain = full_path(out_dir) / name
        path, longer = plain.with_suffix('.png'), f'{plain}.png'
        while path in taken:
            path, longer = Path(longer), f'{longer}.png'
        taken.add(path)
        found.append(path)
    return found


def read_image(path: Path, **decoding: str) -> np.ndarray:
    """Read an image: uint8 BGR (H, W, 3). Raise OSError or ValueError, which names the file.

    Args:
        path (Path): The file.
        **decoding: ``flag`` and ``backend`` of :func:`mmcv.imfrombytes`.
    """
    data = path.read_bytes()
    image = mmcv.imfrombytes(data, **decoding) if data else None
    if image is None:
        raise ValueError(f'{path}: {"not an image that OpenCV reads" if data else "empty file"}')
    return image


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Let mmpretrain, where it is loaded, draw no bar for each batch."""
    progress = sys.modules.get('mmpretrain.utils.progress')
    before = getattr(progress, 'disable_progress_bar', False)
    if progress:
        progress.disable_progress_bar = True
    try:
        yield
    finally:
        if progress:
            progress.disable_progress_bar = before


class Predictor:
    """Predict and draw with the inferencer of a config's host.

    Args:
        cfg (Config): Config of mmpretrain (classification) or mmdet, prepared for its run by
            :func:`mmfreq.apis.runs.prepare`.
        checkpoint (str): Checkpoint file; class names are those it holds.
        device (str, optional): Such as ``'cpu'`` or ``'cuda:1'``. Defaults to a GPU, if any.

    Raises:
        ValueError: Config of another host, no test pipeline, or a device that torch lacks.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: Optional[str] = None) -> None:
        device, self.scope = device or get_device(), cfg.get('default_scope')
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f'device: {device!r} cannot be used: {reason}') from error
        if self.scope not in ('mmpretrain', 'mmdet'):
            raise ValueError(f"default_scope: expected 'mmpretrain' or 'mmdet', got {self.scope!r}")
        found = datasets_with_pipeline((cfg.get('test_dataloader') or {}).get('dataset'))
        if not found:
            raise ValueError('expected a test_dataloader whose dataset has a pipeline')
        if found[0] is not cfg.test_dataloader.dataset:  # the inferencers know no wrappers
            cfg = deepcopy(cfg)
            cfg.test_dataloader.dataset = found[0]
        self._read_loader(found[0]['pipeline'])
        init_default_scope(self.scope)
        if self.scope == 'mmdet':
            from mmdet.apis import DetInferencer
            self.inferencer = DetInferencer(cfg, checkpoint, device, show_progress=False)
        else:
            from mmpretrain import ImageClassificationInferencer
            self.inferencer = ImageClassificationInferencer(cfg, checkpoint, device)
        load_checked(self.inferencer.model, checkpoint, cfg)

    def _read_loader(self, pipeline: list[dict]) -> None:
        """Decode as the pipeline does; a pipeline of RGB arrays, such as CIFAR's, has no loader."""
        self.decoding, self._rgb = {}, False
        loaders = [step for step in pipeline if transform_type(step) == 'LoadImageFromFile']
        for key, argument in (('color_type', 'flag'), ('imdecode_backend', 'backend')):
            if loaders and loaders[0].get(key):
                self.decoding[argument] = loaders[0][key]
        for step in iter_dicts(pipeline):
            self._rgb |= not loaders and step.get('channel_order') == 'rgb'

    def predict(self, images: list[np.ndarray], score_thr: float) -> list[Prediction]:
        """Predict for a batch of uint8 BGR images (H, W, 3), and draw.

        Returns:
            list[tuple[dict, np.ndarray]]: For each image what :meth:`raw` predicts, and the image,
            BGR, with that on it; detections are drawn if their score is higher than ``score_thr``.
        """
        predictions, samples = self.raw(images)
        rgb = [image[:, :, ::-1] for image in images]  # as the visualizers take it
        if self.scope == 'mmdet':
            drawn = self.inferencer.visualize(rgb, samples, True, pred_score_thr=score_thr)
        else:
            from mmpretrain.visualization import UniversalVisualizer
            visualizer, drawn = UniversalVisualizer(), []
            for image, sample in zip(rgb, samples):
                drawn.append(visualizer.visualize_cls(image, sample, self.inferencer.classes,
                                                      draw_gt=False))
        return [(prediction, image[:, :, ::-1]) for prediction, image in zip(predictions, drawn)]

    def raw(self, images: list[np.ndarray]) -> tuple[list[dict[str, Any]], list[Any]]:
        """Predict for a batch of uint8 BGR images (H, W, 3).

        Returns:
            tuple[list, list]: The host's predictions (those of detections with ``classes``, the
            names of ``labels``), and its data samples.
        """
        if self._rgb:
            images = [image[:, :, ::-1] for image in images]
        with _without_progress_bar():
            made = self.inferencer(images, batch_size=len(images), return_datasamples=True)
        if self.scope != 'mmdet':
            return self.inferencer.postprocess(made, None), made
        samples = made['predictions']
        predictions = self.inferencer.postprocess(samples)['predictions']
        names = self.inferencer.model.dataset_meta['classes']
        for prediction in predictions:
            prediction['classes'] = [names[label] for label in prediction['labels']]
        return predictions, samples
