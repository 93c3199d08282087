"""Draw predictions on the images that a data set loads, from files or arrays."""
from itertools import islice
from pathlib import Path
from typing import Any, Iterable, Optional, Sequence

import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner


def array_order(steps: Iterable[Any]) -> str:
    """Return the colour order of images that a pipeline takes as arrays: its DCT's, else RGB."""
    return next((step.channel_order for step in steps if hasattr(step, 'channel_order')), 'rgb')


def loaded_image(dataset: Any, index: int, path: Optional[str] = None) -> np.ndarray:
    """Return sample ``index``, with ``img_path`` if any, as it is loaded: uint8 RGB (H, W, 3)."""
    if hasattr(dataset, '_get_ori_dataset_idx'):  # RepeatDataset, ConcatDataset and others
        index = dataset._get_ori_dataset_idx(index)
        if isinstance(index, tuple):
            return loaded_image(dataset.datasets[index[0]], index[1], path)
    if hasattr(dataset, 'dataset'):
        return loaded_image(dataset.dataset, index, path)
    steps, order = dataset.pipeline.transforms, 'bgr'
    loaders = [step for step in steps if isinstance(step, LoadImageFromFile)]
    if path and loaders:
        image = loaders[0](dict(img_path=path))['img']
    else:
        image, order = dataset.get_data_info(index)['img'], array_order(steps)
    image = np.clip(np.atleast_3d(image), 0, 255).astype(np.uint8)
    image = image[:, :, :3] if image.shape[2] > 2 else np.repeat(image[:, :, :1], 3, axis=2)
    return image if order == 'rgb' else image[:, :, ::-1]


def draw_sample(visualizer: Any, image: np.ndarray, sample: Any, score_thr: float,
                **kwargs: Any) -> np.ndarray:
    """Draw a data sample on uint8 RGB (H, W, 3) by its host's visualizer, and return the picture.

    Detections are drawn if their score is above ``score_thr``. ``kwargs`` are arguments of
    ``visualize_cls`` or ``add_datasample``, such as ``name`` and ``draw_gt``.
    """
    image = np.ascontiguousarray(image)
    if hasattr(visualizer, 'visualize_cls'):
        return visualizer.visualize_cls(image, sample, **{'text_cfg': dict(wrap=True), **kwargs})
    visualizer.add_datasample(image=image, data_sample=sample, pred_score_thr=score_thr, **kwargs)
    return visualizer.get_image()


@HOOKS.register_module()
class FreqVisualizationHook(Hook):
    """Draw the predictions of either host on the images as the data set loads them.

    Args:
        enable (bool): Whether to draw. Defaults to False.
        interval (int): Draw every ``interval``-th sample. Defaults to 5000.
        out_dir (str, optional): Folder for the pictures. Defaults to None: the visualizer's.
        score_thr (float): Detections with a higher score are drawn. Defaults to 0.3.
        **kwargs: As for :func:`draw_sample`, such as ``show`` and ``wait_time`` (seconds).
    """

    def __init__(self, enable: bool = False, interval: int = 5000, out_dir: Optional[str] = None,
                 score_thr: float = 0.3, **kwargs: Any) -> None:
        self.enable, self.interval, self.out_dir = enable, interval, out_dir
        self.draw_args = dict(kwargs, score_thr=score_thr)

    def _after_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                    outputs: Optional[Sequence] = None, mode: str = 'train') -> None:
        if not self.enable or mode == 'train':
            return
        loader, step = getattr(runner, f'{mode}_dataloader'), 0
        if mode == 'val':
            by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
            step = runner.epoch if by_epoch else runner.iter
        if not batch_idx:
            self._numbers = iter(list(islice(loader.sampler, len(loader.dataset))))
        for sample, number in zip(outputs or (), self._numbers):
            if number % self.interval == 0:
                path = sample.get('img_path') or ''
                file = Path(path)
                name = '-'.join(filter(None, (str(number), file.parent.name, file.stem)))
                out_file = self.out_dir and fileio.join_path(self.out_dir, f'{name}_{step}.png')
                draw_sample(runner.visualizer, loaded_image(loader.dataset, number, path), sample,
                            name=name, step=step, out_file=out_file, **self.draw_args)
