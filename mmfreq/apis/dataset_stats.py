"""Compute mean and standard deviation of all DCT channels over a config's training pipeline."""
import datetime
import json
import math
import random
from copy import deepcopy
from typing import Any, Optional, Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mmfreq.config.pipelines import (
    datasets_with_pipeline,
    dct_channels,
    network_pipeline,
    network_steps,
    pipelines,
    transform_type,
)
from mmfreq.dct.block_map import INT8_LIMIT
from mmfreq.dct.blocks import check_positive_int
from mmfreq.dct.moments import ImageBlocks
from mmfreq.dct.stats import FreqStats, RunningStats, merged
from mmfreq.files import atomic_write_text
from mmfreq.transforms import FreqTransform

INT8_SCALES = (4, 6, 8, 12, 16, 24, 32)
_SAMPLED_BLOCKS = 20_000  # of the whole set, to judge scales by
_GROUPS = 20  # of images, to estimate standard errors by
_BLOCK_KEYS = ('type', 'block_size', 'upscale', 'channel_order')  # of a FusedBlockDCT
_CONSTANT = 1e-4  # a coefficient that varies by less does so by rounding in float32


@TRANSFORMS.register_module()
class BlockStatistics(FreqTransform):
    """Put the blocks of the image in its place: :class:`mmfreq.dct.moments.ImageBlocks`."""

    def __init__(self, **kwargs: Any) -> None:
        import mmfreq.dct.moments_kernel  # noqa: F401  compiled before workers are forked
        self._kwargs = kwargs

    def transform(self, results: dict) -> dict:
        """Replace ``results['img']``."""
        results['img'] = ImageBlocks(results['img'], **self._kwargs)
        return results


def coefficient_pipeline(pipeline: list[dict]) -> list[dict]:
    """Return the steps up to the DCT, of a FusedBlockDCT what counts for all coefficients.

    Raises:
        ValueError: No BlockDCT or FusedBlockDCT.
    """
    for i, step in enumerate(pipeline):
        if transform_type(step) == 'BlockDCT':
            return list(pipeline[:i + 1])
        if transform_type(step) == 'FusedBlockDCT':
            kept = {key: step[key] for key in _BLOCK_KEYS if key in step}
            return [*pipeline[:i], kept]
    raise ValueError('expected a training pipeline with BlockDCT or FusedBlockDCT, got '
                     f'{" -> ".join(map(transform_type, pipeline))}')


def coefficient_dataset(cfg: Config) -> Dataset:
    """Build the training set, with all DCT coefficients or what computes their statistics.

    ``'img'`` is float32 (h, w, 3*N*N) behind a BlockDCT, ``ImageBlocks`` for a FusedBlockDCT.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    dataset_cfg = deepcopy(cfg.train_dataloader.dataset)
    found = datasets_with_pipeline(dataset_cfg)
    if not found:
        raise ValueError('expected a train_dataloader.dataset with a pipeline')
    for node in found:
        steps = coefficient_pipeline(network_steps(cfg, node['pipeline']))
        if transform_type(steps[-1]) == 'FusedBlockDCT':
            steps[-1] = dict(steps[-1], type='BlockStatistics')
        node['pipeline'] = steps
    return DATASETS.build(dataset_cfg)


class _ImageStats(Dataset):
    """Statistics and sampled blocks of each image, which depend on its index and ``seed`` alone."""

    def __init__(self, images: Dataset, seed: int, blocks: float) -> None:
        self.images, self.seed, self.blocks = images, seed, blocks

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[RunningStats, np.ndarray]:
        sequence = np.random.SeedSequence((self.seed, index))
        seed = int(sequence.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes longer than an image
        image = self.images[index]['img']
        rng = np.random.default_rng(sequence)
        count = int(self.blocks + rng.random())  # self.blocks on average, maybe less than 1
        picked = rng.integers(image.shape[0] * image.shape[1], size=count)
        if isinstance(image, ImageBlocks):
            return image.statistics(picked)
        return RunningStats.of(image), image.reshape(-1, image.shape[-1])[picked]


def _collate(items: Sequence[tuple]) -> tuple[RunningStats, np.ndarray, int]:
    stats, blocks = zip(*items)
    return merged(stats), np.concatenate(blocks), len(items)


def _check_scales(scales: Sequence[float]) -> None:
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f'scales: expected numbers > 0, got {list(scales)}')


def int8_scales(normalised: np.ndarray,
                scales: Sequence[float] = INT8_SCALES) -> list[dict[str, float]]:
    """Measure the error of ``FreqNormalize(..., dtype='int8', scale=...)`` at each scale.

    Args:
        normalised (np.ndarray): Coefficients with zero mean and unit deviation, of any shape.
        scales (Sequence[float]): Steps for one standard deviation, each > 0.

    Returns:
        list[dict]: ``scale``, ``clipped`` (fraction of saturated values) and ``rms_error`` (in
        standard deviations).
    """
    _check_scales(scales)
    rows = []
    for scale in scales:
        steps = np.rint(normalised.astype(np.float64) * scale)
        kept = np.clip(steps, -INT8_LIMIT, INT8_LIMIT)
        rows.append(dict(scale=scale, clipped=float(np.mean(kept != steps)),
                         rms_error=float(np.sqrt(np.mean((kept / scale - normalised)**2)))))
    return rows


def standard_error(groups: Sequence[RunningStats], std: np.ndarray) -> dict[str, float]:
    """Return the largest standard errors of mean and std over the channels, in units of ``std``.

    They are those of the mean of random groups of images, from the spread of the groups, so that
    neighbouring blocks of an image do not count as independent. NaN for a single group.
    """
    found = {}
    for name, values in (('mean', [group.mean for group in groups]),
                         ('std', [np.sqrt(group.squares / group.count) for group in groups])):
        spread = np.std(values, axis=0, ddof=1) if len(groups) > 1 else np.full(len(std), np.nan)
        found[name] = float((spread / np.sqrt(len(groups)) / std).max())
    return found


def dataset_statistics(cfg: Config, num_workers: int = 2, images: Optional[int] = None,
                       seed: int = 0, scales: Sequence[float] = INT8_SCALES
                       ) -> tuple[FreqStats, list[int]]:
    """Compute mean and standard deviation of every DCT channel over the training pipeline.

    Args:
        cfg (Config): A config whose training pipeline has BlockDCT; later steps are not run.
        num_workers (int): Worker processes; the result does not depend on it. Defaults to 2.
        images (int, optional): Number of images, sampled at random. Defaults to None: all.
        seed (int): Seed of augmentation and sampling. Defaults to 0.
        scales (Sequence[float]): int8 scales to compare, on some 20,000 blocks sampled at random.
            Defaults to ``INT8_SCALES``.

    Returns:
        tuple[FreqStats, list[int]]: The statistics, and the channels that never vary; their std is
        set to 1, so that they normalise to 0. ``meta['standard_error']`` has the result of
        :func:`standard_error`, ``meta['int8']`` the rows of :func:`int8_scales` for the selected
        channels, and ``meta['int8_scale']`` the scale of least error.
    """
    if images is not None:
        check_positive_int('images', images)
    if seed < 0:
        raise ValueError(f'seed: expected an integer >= 0, got {seed}')
    _check_scales(scales)
    dataset = coefficient_dataset(cfg)
    total = min(images or len(dataset), len(dataset))
    order = np.random.default_rng(seed).permutation(len(dataset))[:total].tolist()
    loader = DataLoader(_ImageStats(dataset, seed, _SAMPLED_BLOCKS / max(1, total)),
                        batch_size=max(1, min(8, total // _GROUPS)), sampler=order,
                        num_workers=num_workers, collate_fn=_collate)
    groups, samples = [RunningStats() for _ in range(min(_GROUPS, len(loader)))], []
    with tqdm(desc='DCT statistics', total=total, unit='image') as progress:
        for i, (part, blocks, count) in enumerate(loader):
            groups[i % _GROUPS].merge(part)
            samples.append(blocks)
            progress.update(count)
    running = merged(groups)
    constant = np.flatnonzero(running.squares <= _CONSTANT**2 * running.count).tolist()
    running.squares[constant] = running.count
    pipeline = pipelines(cfg, 'train_dataloader')[0]
    steps = [dict(step, type=transform_type(step))  # names for types
             for step in coefficient_pipeline(network_steps(cfg, pipeline))]
    stats = running.finish(dict(
        source='tools/dataset_stats.py', config=str(cfg.filename).rpartition('/')[2],
        pipeline=steps, images=total,
        seed=seed, date=datetime.date.today().isoformat()))
    stats.meta['standard_error'] = standard_error(groups, stats.std)
    if constant:
        stats.meta['constant_channels'] = constant
    channels = dct_channels(network_pipeline(cfg, pipeline))[0]
    normalised = (np.concatenate(samples) - stats.mean)[:, channels] / stats.std[channels]
    rows = int8_scales(normalised, scales)
    best = min(rows, key=lambda row: row['rms_error'])
    stats.meta.update(int8=rows, int8_scale=best['scale'])
    return stats, constant


def save_stats(stats: FreqStats, path: str) -> None:
    """Write statistics as JSON: ``meta``, then ``mean`` and ``std`` in full precision."""
    values = {**stats.meta, 'mean': stats.mean.tolist(), 'std': stats.std.tolist()}
    atomic_write_text(path, json.dumps(values, indent=1) + '\n')
