"""Predictions for image files by the hosts' own inferencers."""
import os
from copy import deepcopy
from pathlib import Path
from typing import Any, Optional, Sequence

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope

from mmfreq.apis.checks import check_checkpoint
from mmfreq.config.reader import datasets_with_pipeline

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
Prediction = tuple[dict[str, Any], np.ndarray]


def find_images(paths: Sequence[str], out_dir: str) -> dict[str, Path]:
    """Return the images that files and folders (with subfolders) stand for, by names that differ.

    Args:
        paths (Sequence[str]): Image files and folders.
        out_dir (str): Folder for results, which is not searched.

    Returns:
        dict[str, Path]: Path below the folder that all images have in common, to path.

    Raises:
        ValueError: A path does not exist, or a folder holds no images. It is named.
    """
    out, images = Path(os.path.abspath(out_dir)), []
    for path in map(Path, map(os.path.abspath, paths)):
        if not path.exists():
            raise ValueError(f'{path}: no such file or folder')
        found = [path]
        if path.is_dir():
            found = sorted(p for p in path.rglob('*')
                           if p.suffix.lower() in SUFFIXES and out not in p.parents)
        if not found:
            raise ValueError(f'{path}: expected images ({" ".join(SUFFIXES)}), found none')
        images += found
    common = os.path.commonpath([image.parent for image in images])
    return {image.relative_to(common).as_posix(): image for image in images}


def read_image(path: Path) -> np.ndarray:
    """Read an image: uint8 BGR (H, W, 3). Raise OSError or ValueError, which names the file."""
    data = path.read_bytes()
    image = mmcv.imfrombytes(data) if data else None
    if image is None:
        raise ValueError(f'{path}: {"not an image that OpenCV reads" if data else "empty file"}')
    return image


class Predictor:
    """Predict and draw with the inferencer of a config's host.

    ``predict(images, score_thr)`` takes a list of uint8 BGR images (H, W, 3). It returns for each
    the host's prediction, a dict (with ``classes``, the names of its ``labels``, for detections),
    and the image with what was predicted; detections are drawn if their score is higher.

    Args:
        cfg (Config): Config of mmpretrain (classification) or mmdet, prepared for its run by
            :func:`mmfreq.apis.runner.prepare`.
        checkpoint (str): Checkpoint file; class names are those it holds.
        device (str, optional): Such as ``'cpu'`` or ``'cuda:1'``. Defaults to a GPU, if any.

    Raises:
        ValueError: Config of another host, no test pipeline, or a device that torch lacks.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: Optional[str] = None) -> None:
        device, scope = device or get_device(), cfg.get('default_scope')
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f'device: {device!r} cannot be used: {reason}') from error
        if scope not in ('mmpretrain', 'mmdet'):
            raise ValueError(f"default_scope: expected 'mmpretrain' or 'mmdet', got {scope!r}")
        cfg, loader = deepcopy(cfg), cfg.get('test_dataloader') or {}
        datasets = datasets_with_pipeline(loader.get('dataset'))
        if not datasets:
            raise ValueError('expected a test_dataloader with a pipeline in the config')
        cfg.test_dataloader.dataset = datasets[0]  # the inferencers know no ConcatDataset
        init_default_scope(scope)
        if scope == 'mmdet':
            from mmdet.apis import DetInferencer
            self.inferencer = DetInferencer(cfg, checkpoint, device, show_progress=False)
            self.predict = self._detect
        else:
            import mmpretrain.utils.progress
            from mmpretrain import ImageClassificationInferencer
            mmpretrain.utils.progress.disable_progress_bar = True
            self.inferencer = ImageClassificationInferencer(cfg, checkpoint, device)
            self.predict = self._classify
        check_checkpoint(checkpoint, cfg, self.inferencer.model)

    def _detect(self, images: list[np.ndarray], score_thr: float) -> list[Prediction]:
        """Predict for a batch of uint8 BGR images; draw detections with a higher score."""
        made = self.inferencer(images, len(images), return_vis=True, pred_score_thr=score_thr)
        names = self.inferencer.model.dataset_meta['classes']
        for prediction in made['predictions']:
            prediction['classes'] = [names[label] for label in prediction['labels']]
        return list(zip(made['predictions'], made['visualization']))

    def _classify(self, images: list[np.ndarray], score_thr: float) -> list[Prediction]:
        from mmpretrain.visualization import UniversalVisualizer
        classes, visualizer, drawn = self.inferencer.classes, UniversalVisualizer(), []
        samples = self.inferencer(images, return_datasamples=True, batch_size=len(images))
        for image, sample in zip(images, samples):
            drawn.append(visualizer.visualize_cls(image, sample, classes=classes, draw_gt=False))
        return list(zip(self.inferencer.postprocess(samples, None), drawn))
