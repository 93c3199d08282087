"""Predictions for photos by the hosts' inferencers, as JSON and drawn on the photos."""
import os
from copy import deepcopy
from pathlib import Path
from typing import Any, Optional, Sequence, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope

from mmfreq.config.paths import config_path
from mmfreq.config.reader import iter_dicts, pipelines, transform_type

PHOTO_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


def find_photos(paths: Sequence[str], out_dir: str) -> dict[str, Path]:
    """The photos that image files and folders stand for, by names that differ.

    Args:
        paths (Sequence[str]): Image files, and folders that are searched with all their subfolders.
        out_dir (str): Folder for results; what it holds does not count.

    Returns:
        dict[str, Path]: Path below the folder that all photos have in common, to path.

    Raises:
        ValueError: A path does not exist, or a folder holds no photos. It is named.
    """
    out, photos = Path(os.path.abspath(out_dir)), []
    for path in (Path(os.path.abspath(path)) for path in paths):
        if not path.exists():
            raise ValueError(f'{path}: no such file or folder')
        found = sorted(p for p in path.rglob('*') if p.suffix.lower() in PHOTO_SUFFIXES and out not in p.parents)
        if path.is_dir() and not found:
            raise ValueError(f'{path}: expected photos ({" ".join(PHOTO_SUFFIXES)}) in the folder, found none')
        photos += found if path.is_dir() else [path]
    common = os.path.commonpath([photo.parent for photo in photos])
    return {photo.relative_to(common).as_posix(): photo for photo in photos}


class Predictor:
    """The inferencer of a config's host.

    Args:
        cfg (Config): A config of mmpretrain (classification) or mmdet; see :func:`mmfreq.apis.runner.prepare`.
        checkpoint (str): Checkpoint file.
        device (str, optional): Such as ``'cpu'`` or ``'cuda:1'``. Defaults to None: a GPU if there is one.

    Raises:
        ValueError: Another host's config, no test pipeline, or a device that torch does not have.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: Optional[str] = None) -> None:
        cfg, device = inference_config(cfg), device or get_device()
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f'device: {device!r} cannot be used: {str(error).splitlines()[0]}') from error
        scope = cfg.get('default_scope')
        if scope not in ('mmpretrain', 'mmdet'):
            raise ValueError(f"default_scope: expected a config of 'mmpretrain' or 'mmdet', got {scope!r}")
        init_default_scope(scope)
        if scope == 'mmdet':
            from mmdet.apis import DetInferencer
            self.inferencer = DetInferencer(cfg, checkpoint, device, show_progress=False)
            self._predict = self._detect
        else:
            import mmpretrain.utils.progress
            from mmpretrain import ImageClassificationInferencer
            from mmpretrain.visualization import UniversalVisualizer
            mmpretrain.utils.progress.disable_progress_bar = True
            self.inferencer = ImageClassificationInferencer(cfg, checkpoint, device)
            self.visualizer = UniversalVisualizer()
            self._predict = self._classify

    def predict(self, photo: np.ndarray, score_thr: float = 0.3) -> tuple[dict[str, Any], np.ndarray]:
        """What the model finds in a photo.

        Args:
            photo (np.ndarray): uint8 BGR (H, W, 3).
            score_thr (float): Detections with a higher score are drawn. Defaults to 0.3.

        Returns:
            tuple[dict, np.ndarray]: The host's own prediction (``pred_label``, ``pred_score``, ``pred_scores`` and
            ``pred_class``, or ``labels``, ``scores``, ``bboxes`` and run-length encoded ``masks`` of all detections,
            and ``classes``, their names), and the photo with the prediction drawn on it, uint8 BGR.
        """
        prediction, drawn = self._predict(photo, np.ascontiguousarray(photo[:, :, ::-1]), score_thr)
        return prediction, drawn[:, :, ::-1]

    def _detect(self, photo: np.ndarray, rgb: np.ndarray, score_thr: float) -> tuple[dict[str, Any], np.ndarray]:
        samples = self.inferencer(photo, return_datasamples=True)['predictions']
        prediction, = self.inferencer.postprocess(samples)['predictions']
        names = self.inferencer.model.dataset_meta['classes']
        prediction['classes'] = [names[label] for label in prediction['labels']]
        drawn, = self.inferencer.visualize([rgb], samples, return_vis=True, pred_score_thr=score_thr)
        return prediction, drawn

    def _classify(self, photo: np.ndarray, rgb: np.ndarray, score_thr: float) -> tuple[dict[str, Any], np.ndarray]:
        samples = self.inferencer(photo, return_datasamples=True)
        prediction, = self.inferencer.postprocess(samples, None)
        return prediction, self.visualizer.visualize_cls(rgb, samples[0], classes=self.inferencer.classes)


def inference_config(config: Union[str, Path, Config]) -> Config:
    """A config as the hosts' inferencers want it: they replace the image loader, and know the stock one by name only.

    ``DetInferencer(model=inference_config('configs/...'), weights=...)``, or mmpretrain's
    ``ImageClassificationInferencer(inference_config('configs/...'), pretrained=...)``, take image files and arrays
    (BGR). For a config of mmdet, import :mod:`mmfreq.models.det` before mmdet: it stands in for mmcv's compiled ops.

    Args:
        config (str | Path | Config): A path, ``package::file`` for one that ships with a host, or a config.

    Returns:
        Config: A copy with ``LoadImageFromFile`` for ``CheckedLoadImageFromFile`` in the test pipelines.

    Raises:
        ValueError: There is no such file or package, or the config has no test pipeline.
    """
    cfg = deepcopy(config) if isinstance(config, Config) else Config.fromfile(str(config_path(str(config))))
    found = pipelines(cfg, 'test_dataloader')
    if not found:
        raise ValueError(f'expected a test_dataloader with a pipeline in the config {cfg.filename or ""}'.rstrip())
    for step in iter_dicts(found):
        if transform_type(step) == 'CheckedLoadImageFromFile':
            step['type'] = 'LoadImageFromFile'
    return cfg
