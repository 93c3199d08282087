"""Mean and standard deviation of all DCT channels over a config's training pipeline."""
import datetime
import json
import random
from copy import deepcopy
from typing import Any, Optional, Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mmfreq.config.reader import (
    datasets_with_pipeline,
    dct_channels,
    network_pipeline,
    pipelines,
    transform_type,
    unfused,
)
from mmfreq.dct.block_map import INT8_LIMIT
from mmfreq.dct.stats import FreqStats, RunningStats, merged
from mmfreq.files import atomic_write_text

INT8_SCALES = (4, 6, 8, 12, 16, 24, 32)
_SAMPLED_BLOCKS = 20_000  # of the whole set, to judge scales by


def coefficient_pipeline(pipeline: list[dict]) -> list[dict]:
    """The pipeline up to and including BlockDCT, fused or not. Raises ValueError if there is none at its top level."""
    pipeline = unfused(pipeline)
    types = [transform_type(transform) for transform in pipeline]
    if 'BlockDCT' not in types:
        raise ValueError(f'expected a training pipeline with BlockDCT or FusedBlockDCT, got {" -> ".join(types)}')
    return pipeline[:types.index('BlockDCT') + 1]


def coefficient_dataset(cfg: Config) -> Dataset:
    """The training set of ``cfg``, whose items hold all DCT coefficients in ``'img'``: float32 (h, w, 3*N*N)."""
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    dataset_cfg = deepcopy(cfg.train_dataloader.dataset)
    found = datasets_with_pipeline(dataset_cfg)
    if not found:
        raise ValueError('expected a train_dataloader.dataset with a pipeline')
    for node in found:
        node['pipeline'] = coefficient_pipeline(network_pipeline(cfg, node['pipeline']))
    return DATASETS.build(dataset_cfg)


class _ImageStats(Dataset):
    """Statistics and some blocks of one image each; what image i gives depends on ``seed`` and i alone."""

    def __init__(self, images: Dataset, seed: int, blocks: float) -> None:
        self.images = images
        self.seed = seed
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[RunningStats, np.ndarray]:
        seed = int(np.random.SeedSequence((self.seed, index)).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        cube = self.images[index]['img']
        flat = cube.reshape(-1, cube.shape[-1])
        rng = np.random.default_rng((self.seed, index))
        count = int(self.blocks + rng.random())  # on average self.blocks, which may be less than 1
        return RunningStats.of(cube), flat[rng.integers(len(flat), size=count)]


def _collate(items: Sequence[tuple[RunningStats, np.ndarray]]) -> tuple[RunningStats, np.ndarray]:
    return merged([stats for stats, _ in items]), np.concatenate([blocks for _, blocks in items])


def int8_scales(normalised: np.ndarray, scales: Sequence[float] = INT8_SCALES) -> list[dict[str, float]]:
    """What int8 does to normalised coefficients at each scale of ``FreqNormalize(..., dtype='int8', scale=...)``.

    Args:
        normalised (np.ndarray): Zero mean and unit deviation by channel, of any shape.
        scales (Sequence[float]): Steps for one standard deviation, each > 0.

    Returns:
        list[dict]: For each of them ``scale``, ``clipped`` (part of the values that saturate) and ``rms_error`` (in
        standard deviations, of rounding and saturation together).
    """
    if not scales or min(scales) <= 0:
        raise ValueError(f'scales: expected numbers > 0, got {list(scales)}')
    rows = []
    for scale in scales:
        steps = np.rint(normalised.astype(np.float64) * scale)
        kept = np.clip(steps, -INT8_LIMIT, INT8_LIMIT)
        rows.append(dict(scale=scale, clipped=float(np.mean(kept != steps)),
                         rms_error=float(np.sqrt(np.mean((kept / scale - normalised)**2)))))
    return rows


def dataset_statistics(cfg: Config, num_workers: int = 2, max_images: Optional[int] = None, seed: int = 0,
                       scales: Sequence[float] = INT8_SCALES) -> tuple[FreqStats, list[int]]:
    """Computes mean and standard deviation of every DCT channel over the training pipeline, in one pass.

    Args:
        cfg (Config): A config whose training pipeline has BlockDCT; what follows it is not run.
        num_workers (int): Worker processes; the result does not depend on it. Defaults to 2.
        max_images (int, optional): Stop after that many images, picked at random. Defaults to None: all.
        seed (int): Seed of the augmentation and of the pick. Defaults to 0.
        scales (Sequence[float]): Scales of int8 to judge, on some 20,000 blocks at random. Defaults to ``INT8_SCALES``.

    Returns:
        tuple[FreqStats, list[int]]: The statistics, and the channels that never vary. Their std is set to 1, so that
        they normalise to 0. ``meta['int8']`` has the rows of :func:`int8_scales` for the channels that the config
        selects, and ``meta['int8_scale']`` the scale of the least error.
    """
    if max_images is not None and max_images < 1:
        raise ValueError(f'max_images: expected an integer >= 1, got {max_images}')
    dataset = coefficient_dataset(cfg)
    total = len(dataset) if max_images is None else min(max_images, len(dataset))
    images = _ImageStats(dataset, seed, _SAMPLED_BLOCKS / max(1, total))
    order = np.random.default_rng(seed).permutation(len(images))[:total] if total < len(images) else range(total)
    loader = DataLoader(images, batch_size=8, sampler=[int(i) for i in order], num_workers=num_workers,
                        collate_fn=_collate)
    running, samples = RunningStats(), []
    with tqdm(total=total, unit='image', desc='DCT statistics') as bar:
        for done, (part, blocks) in enumerate(loader):
            running.merge(part)
            samples.append(blocks)
            bar.update(min(8, total - 8 * done))
    constant = np.flatnonzero(running.squares <= 1e-16 * running.count).tolist()
    running.squares[constant] = running.count
    stats = running.finish(_provenance(cfg, total, seed, constant))
    pipeline = network_pipeline(cfg, pipelines(cfg, 'train_dataloader')[0])
    channels = dct_channels(pipeline)[0]
    normalised = (np.concatenate(samples) - stats.mean)[:, channels] / stats.std[channels]
    rows = int8_scales(normalised, scales)
    stats.meta.update(int8=rows, int8_scale=min(rows, key=lambda row: row['rms_error'])['scale'])
    return stats, constant


def _provenance(cfg: Config, images: int, seed: int, constant: list[int]) -> dict[str, Any]:
    steps = coefficient_pipeline(network_pipeline(cfg, pipelines(cfg, 'train_dataloader')[0]))
    meta: dict[str, Any] = dict(
        source='tools/dataset_stats.py',
        config=str(cfg.filename).rpartition('/')[2],
        pipeline=[{**step, 'type': transform_type(step)} for step in steps],
        images=images,
        seed=seed,
        date=datetime.date.today().isoformat())
    if constant:
        meta['constant_channels'] = constant
    return meta


def save_stats(stats: FreqStats, path: str) -> None:
    """Writes statistics as JSON: ``meta``, then ``mean`` and ``std`` in full precision. Replaces ``path`` whole."""
    values = {**stats.meta, 'mean': stats.mean.tolist(), 'std': stats.std.tolist()}
    atomic_write_text(path, json.dumps(values, indent=1) + '\n')
