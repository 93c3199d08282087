"""Compute mean and standard deviation of all DCT channels over a config's training pipeline."""
import datetime
import json
import random
from copy import deepcopy
from typing import Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mmfreq.config import pipelines
from mmfreq.config.pipelines import transform_type
from mmfreq.dct.stats import FreqStats, RunningStats
from mmfreq.errors import RefusedError
from mmfreq.files import atomic_write_text

_GROUPS = 20  # of images, to estimate standard errors from
_BLOCK_KEYS = ('type', 'block_size', 'upscale', 'channel_order')
_CONSTANT = 1e-4  # smaller deviations of a coefficient are rounding errors of float32


def coefficient_pipeline(cfg: Config, pipeline: list[dict]) -> list[dict]:
    """Return the steps up to the DCT, in the pipeline or in a preprocessor, without a selection."""
    freq = pipelines.device_freq(cfg)
    steps = [*pipeline[:-1], dict(freq, type='FusedBlockDCT')] if freq else pipeline
    for i, step in enumerate(steps):
        if transform_type(step) in ('BlockDCT', 'FusedBlockDCT'):
            return [*steps[:i], {key: step[key] for key in _BLOCK_KEYS if key in step}]
    raise RefusedError('expected a training pipeline with BlockDCT or FusedBlockDCT, got '
                       f'{" -> ".join(map(transform_type, pipeline))}')


def coefficient_dataset(cfg: Config) -> Dataset:
    """Build the training set; its ``'img'`` has all coefficients, float32 (h, w, 3*N*N)."""
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    dataset = deepcopy(cfg.train_dataloader.dataset)
    for node in pipelines.datasets_with_pipeline(dataset):
        node['pipeline'] = coefficient_pipeline(cfg, node['pipeline'])
        step = node['pipeline'][-1]
        if transform_type(step) == 'FusedBlockDCT':
            count = 3 * step.get('block_size', 8)**2
            step.update(channels=range(count), stats=dict(mean=[0] * count, std=[1] * count))
    return DATASETS.build(dataset)


class _ImageStats(Dataset):
    """Statistics of each image, which depend on its index and ``seed`` alone."""

    def __init__(self, images: Dataset, seed: int) -> None:
        self.images, self.seed = images, seed

    def __getitem__(self, index: int) -> RunningStats:
        seed = int(np.random.SeedSequence((self.seed, index)).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes longer than an image
        return RunningStats.of(self.images[index]['img'])


def standard_error(groups: Sequence[RunningStats], std: np.ndarray) -> dict[str, float]:
    """Return the largest standard errors of mean and std over the channels, in units of ``std``.

    They follow from the spread of random groups of images, since neighbouring blocks of an image
    are not independent. NaN for a single group.
    """
    values = dict(mean=[group.mean for group in groups],
                  std=[np.sqrt(group.squares / group.count) for group in groups])
    scale = std * np.sqrt(len(groups) - 1)
    with np.errstate(invalid='ignore'):
        return {name: float((np.std(rows, axis=0) / scale).max()) for name, rows in values.items()}


def dataset_statistics(cfg: Config, num_workers: int = 2, images: int = 5_000,
                       seed: int = 0, use_range: bool = False) -> tuple[FreqStats, list[int]]:
    """Compute mean and standard deviation of every DCT channel over the training pipeline.

    Args:
        cfg (Config): A config whose training pipeline has a DCT. Later steps do not run.
        num_workers (int): Worker processes; the result does not depend on it. Defaults to 2.
        images (int): Number of images, sampled at random; 0 for all. Defaults to 5,000.
        seed (int): Seed of augmentation and sampling. Defaults to 0.
        use_range (bool): Whether the largest deviation takes the place of the standard deviation.
            Defaults to False.

    Returns:
        tuple[FreqStats, list[int]]: The statistics, and the channels that never vary, whose std is
        set to 1. ``meta`` has the :func:`standard_error`.
    """
    pipeline, dataset = pipelines.pipelines(cfg, 'train_dataloader')[0], coefficient_dataset(cfg)
    total = min(images or len(dataset), len(dataset))
    order = np.random.default_rng(seed).permutation(len(dataset))[:total].tolist()
    loader = DataLoader(_ImageStats(dataset, seed), sampler=order, batch_size=None, num_workers=num_workers)
    groups = [RunningStats() for _ in range(min(_GROUPS, total))]
    for i, part in enumerate(tqdm(loader, 'DCT statistics', total, unit='image', disable=None)):
        groups[i % _GROUPS].merge(part)
    running = RunningStats.merged(groups)
    constant = np.flatnonzero(running.squares <= _CONSTANT**2 * running.count).tolist()
    running.squares[constant] = running.count
    running.highest[constant] = running.mean[constant] + 1
    steps = [dict(step, type=transform_type(step)) for step in coefficient_pipeline(cfg, pipeline)]
    stats = running.finish(dict(
        source='tools/dataset_stats.py', config=str(cfg.filename).rpartition('/')[2],
        pipeline=steps, images=total, seed=seed, date=datetime.date.today().isoformat(),
        **(dict(use_range=True) if use_range else {}),
        **(dict(constant_channels=constant) if constant else {})), use_range)
    stats.meta.update(standard_error=standard_error(groups, running.finish({}).std))
    return stats, constant


def save_stats(stats: FreqStats, path: str) -> None:
    """Write statistics as JSON: ``meta``, then ``mean`` and ``std`` in full precision."""
    values = {**stats.meta, 'mean': stats.mean.tolist(), 'std': stats.std.tolist()}
    atomic_write_text(path, json.dumps(values, indent=1) + '\n')
