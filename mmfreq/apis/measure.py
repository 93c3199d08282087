"""Time, memory and counts of a model, for the comparison and the benchmarks."""
import os
import time
from copy import deepcopy
from functools import partial
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS
from tqdm import tqdm

from mmfreq.config.pipelines import iter_dicts, pipelines, transform_type


class Entry(NamedTuple):
    """Median and quartiles of one figure over several rounds."""
    name: str
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, name: str, values: Sequence[float]) -> 'Entry':
        """Summarise the values of all rounds."""
        low, median, high = map(float, np.quantile(values, (0.25, 0.5, 0.75)))
        return cls(name, median, low, high)


def time_interleaved(candidates: Mapping[str, Callable[[], Any]], repeats: int,
                     images_per_call: int = 1, unit: float = 1e-3, title: str = '',
                     clock: str = 'perf_counter') -> list[Entry]:
    """Time candidates in rounds in which each runs once, so that a busy moment hits all of them.

    One round to warm up precedes the ``repeats`` that count. Times are per image, in units of ``unit``
    seconds; ``title`` labels the progress bar and ``clock``
    is the function of :mod:`time` that measures.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in tqdm(range(repeats + 1), desc=title, unit='round', leave=False, disable=None):
        for name, candidate in candidates.items():
            start = getattr(time, clock)()
            candidate()
            seconds[name].append(getattr(time, clock)() - start)
    scale = images_per_call * unit
    return [Entry.of(name, np.divide(times[1:], scale)) for name, times in seconds.items()]


def synchronize(device: str) -> None:
    """Wait until the GPU, if ``device`` is one, has done its work."""
    if device != 'cpu':
        torch.cuda.synchronize()


def peak_memory(work: Callable[[], Any], device: str) -> int:
    """Return the peak of the bytes that ``work`` allocates on the device, 'cpu' or 'cuda'."""
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault('KINETO_LOG_LEVEL', '6')  # no lines of the profiler in the terminal
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profiler:
        work()
    events = profiler.profiler.kineto_results.events()
    start = 'start_ns' if hasattr(events[0], 'start_ns') else 'start_us'  # torch < 2.4
    events = sorted(events, key=lambda event: getattr(event, start)())
    sizes = [event.nbytes() for event in events if event.name() == '[memory]']
    return int(max(np.cumsum(sizes), default=0))


def build_model(cfg: Config) -> torch.nn.Module:
    """Build the model of ``cfg``, untrained."""
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(cfg.model)


def keep_all_proposals(model: torch.nn.Module) -> None:
    """Let a two-stage detector keep all proposals: those of untrained weights overlap at random."""
    settings = getattr(getattr(model, 'rpn_head', None), 'test_cfg', None) or {}
    if 'nms' in settings:
        settings.nms.iou_threshold, settings.min_bbox_size = 1., -1


def packed_sample(cfg: Config, dataloader: str = 'test_dataloader') -> dict[str, Any]:
    """Return ``inputs`` (C, h, w) and ``data_samples`` of a pipeline for one image of noise.

    The image has the scale of the pipeline's ``Resize`` (800x1333 in mmdet's usual configs) if that
    is fixed, else 375x500.
    """
    pipeline, *_ = pipelines(cfg, dataloader)
    loads = [step for step in pipeline if transform_type(step).startswith('Load')]
    steps = [step for step in pipeline if step not in loads]
    width, height = 500, 375
    for step in iter_dicts(steps):
        kind = step.get('resize') or transform_type(step)  # of a LazyResize, or of itself
        if kind == 'Resize' and isinstance(step.get('scale'), (tuple, list)):
            width, height = step['scale']
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    noise = noise.astype(np.float32) if any(step.get('to_float32') for step in loads) else noise
    return Compose(steps)(dict(img=noise, img_path='noise', img_id=0, img_shape=noise.shape[:2],
                               ori_shape=noise.shape[:2], gt_label=0))


def preprocessed_batch(model: torch.nn.Module, packed: dict[str, Any],
                       size: int) -> dict[str, Any]:
    """Return ``size`` copies of a packed sample, preprocessed as in a test."""
    return model.data_preprocessor(pseudo_collate([deepcopy(packed) for _ in range(size)]))


def count_flops(model: torch.nn.Module, packed: dict[str, Any]) -> int:
    """Count the multiply-adds of the network for one packed sample."""
    batch = preprocessed_batch(model, packed, 1)
    forward = model.forward
    model.forward = partial(forward, data_samples=batch['data_samples'])
    counter = FlopAnalyzer(model, (batch['inputs'], ))
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    total = int(counter.total())
    model.forward = forward
    return total
