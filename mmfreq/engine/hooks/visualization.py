"""Draw predictions on the images that a data set loads, whatever it loads them from."""
import logging
from itertools import islice
from pathlib import Path
from typing import Any, Optional, Sequence

import mmengine.fileio as fileio
import numpy as np
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader


def loaded_image(dataset: Any, index: int, path: Optional[str] = None) -> np.ndarray:
    """Return an image as its data set loads it, before any augmentation.

    Args:
        dataset (Dataset): A data set of either host, or a wrapper of some.
        index (int): Number of the sample.
        path (str, optional): ``img_path`` of the sample. Defaults to None: its image is no file.

    Returns:
        np.ndarray: uint8 RGB (H, W, 3). An array that is not loaded has the order of colours that
        the DCT of the pipeline expects, RGB without one.
    """
    dataset, index = _leaf(dataset, index)
    steps = dataset.pipeline.transforms
    loaders = [step for step in steps if type(step).__name__.startswith('LoadImage')]
    if path and loaders:
        image, order = loaders[0](dict(img_path=path))['img'], 'bgr'
    else:
        image = np.asarray(dataset.get_data_info(index)['img'])
        order = [step.channel_order for step in steps if hasattr(step, 'channel_order')] or ['rgb']
        order = order[0]
    image = np.clip(np.atleast_3d(image), 0, 255).astype(np.uint8)
    if image.shape[2] < 3:
        image = np.repeat(image[:, :, :1], 3, axis=2)
    return image[:, :, :3] if order == 'rgb' else image[:, :, 2::-1]


def _leaf(dataset: Any, index: int) -> tuple[Any, int]:
    """Return the innermost data set that holds a sample, and the sample's number there."""
    if hasattr(dataset, '_get_ori_dataset_idx'):
        index = dataset._get_ori_dataset_idx(index)
    if isinstance(index, tuple):  # of ConcatDataset
        return _leaf(dataset.datasets[index[0]], index[1])
    return _leaf(dataset.dataset, index) if hasattr(dataset, 'dataset') else (dataset, index)


@HOOKS.register_module()
class FreqVisualizationHook(Hook):
    """Draw the predictions of either host on the images as the data set loads them.

    A picture is named after the sample's number, the folder and the file, so that none overwrites
    another. One that cannot be drawn is a warning.

    Args:
        enable (bool): Whether to draw. Defaults to False.
        interval (int): Draw every so manieth sample. Defaults to 5000.
        out_dir (str, optional): Folder for the pictures. Defaults to None: the visualizer's.
        show (bool): Whether to show them in a window. Defaults to False.
        wait_time (float): Seconds that a window stays. Defaults to 0.
        score_thr (float): Detections with a higher score are drawn. Defaults to 0.3.
        **kwargs: Arguments of :meth:`mmpretrain.visualization.UniversalVisualizer.visualize_cls`.
    """

    def __init__(self, enable: bool = False, interval: int = 5000, out_dir: Optional[str] = None,
                 show: bool = False, wait_time: float = 0, score_thr: float = 0.3,
                 **kwargs: Any) -> None:
        self.enable, self.interval, self.out_dir = enable, interval, out_dir
        self.score_thr, self.draw_args = score_thr, {**kwargs, 'show': show, 'wait_time': wait_time}
        self._numbers: list[int] = []  # of the samples to come

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                       outputs: Optional[Sequence] = None) -> None:
        """Draw a batch of a validation."""
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        self._draw(runner, runner.val_dataloader, batch_idx, outputs or (),
                   runner.epoch if by_epoch else runner.iter)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                        outputs: Optional[Sequence] = None) -> None:
        """Draw a batch of a test."""
        self._draw(runner, runner.test_dataloader, batch_idx, outputs or (), 0)

    def _draw(self, runner: Runner, loader: DataLoader, batch_idx: int, samples: Sequence,
              step: int) -> None:
        if not self.enable:
            return
        if not batch_idx:
            self._numbers = list(islice(loader.sampler, len(loader.dataset)))
        for sample in samples:
            number, path = self._numbers.pop(0), sample.get('img_path')
            if number % self.interval:
                continue
            try:
                folder, stem = Path(path or '').parent.name, Path(path or '').stem
                name = '-'.join(filter(None, (str(number), folder, stem)))
                image = loaded_image(loader.dataset, number, path)
                self._draw_sample(runner.visualizer, image, sample, name, step)
            except Exception as error:  # of decoders, file backends and matplotlib
                print_log(f'{path or f"sample {number}"}: cannot draw: {error}', 'current',
                          logging.WARNING)

    def _draw_sample(self, visualizer: Any, image: np.ndarray, sample: Any, name: str,
                     step: int) -> None:
        out_file = self.out_dir and fileio.join_path(self.out_dir, f'{name}_{step}.png')
        if hasattr(visualizer, 'visualize_cls'):
            visualizer.visualize_cls(image, sample, step=step, name=name, out_file=out_file,
                                     **self.draw_args)
        else:
            visualizer.add_datasample(name, image, data_sample=sample, step=step,
                                      pred_score_thr=self.score_thr, out_file=out_file,
                                      **self.draw_args)
