"""Mean and standard deviation of all DCT channels over a config's training pipeline."""
import datetime
import random
from copy import deepcopy
from typing import Any, Optional

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mmfreq.config import datasets_with_pipeline, pipelines, transform_type
from mmfreq.stats import FreqStats, RunningStats, merged


def coefficient_pipeline(pipeline: list[dict]) -> list[dict]:
    """The pipeline up to and including BlockDCT. Raises ValueError if there is none at its top level."""
    types = [transform_type(transform) for transform in pipeline]
    if 'BlockDCT' not in types:
        raise ValueError(f'expected a training pipeline with BlockDCT, got {" -> ".join(types)}')
    return pipeline[:types.index('BlockDCT') + 1]


def coefficient_dataset(cfg: Config) -> Dataset:
    """The training set of ``cfg``, whose items hold all DCT coefficients in ``'img'``: float32 (h, w, 3*N*N)."""
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    dataset_cfg = deepcopy(cfg.train_dataloader.dataset)
    found = datasets_with_pipeline(dataset_cfg)
    if not found:
        raise ValueError('expected a train_dataloader.dataset with a pipeline')
    for node in found:
        node['pipeline'] = coefficient_pipeline(node['pipeline'])
    return DATASETS.build(dataset_cfg)


class _ImageStats(Dataset):
    """Statistics of one image each; the augmentation of image i depends on ``seed`` and i alone."""

    def __init__(self, images: Dataset, seed: int) -> None:
        self.images = images
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> RunningStats:
        seed = int(np.random.SeedSequence((self.seed, index)).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        return RunningStats.of(self.images[index]['img'])


def dataset_statistics(cfg: Config, num_workers: int = 2, max_images: Optional[int] = None,
                       seed: int = 0) -> tuple[FreqStats, list[int]]:
    """Computes mean and standard deviation of every DCT channel over the training pipeline, in one pass.

    Args:
        cfg (Config): A config whose training pipeline has BlockDCT; what follows it is not run.
        num_workers (int): Worker processes; the result does not depend on it. Defaults to 2.
        max_images (int, optional): Stop after that many images, picked at random. Defaults to None: all.
        seed (int): Seed of the augmentation and of the pick. Defaults to 0.

    Returns:
        tuple[FreqStats, list[int]]: The statistics, and the channels that never vary. Their std is set to 1, so that
        they normalise to 0.
    """
    if max_images is not None and max_images < 1:
        raise ValueError(f'max_images: expected an integer >= 1, got {max_images}')
    images = _ImageStats(coefficient_dataset(cfg), seed)
    total = len(images) if max_images is None else min(max_images, len(images))
    order = np.random.default_rng(seed).permutation(len(images))[:total] if total < len(images) else range(total)
    loader = DataLoader(images, batch_size=8, sampler=[int(i) for i in order], num_workers=num_workers,
                        collate_fn=merged)
    running = RunningStats()
    with tqdm(total=total, unit='image', desc='DCT statistics') as bar:
        for done, part in enumerate(loader):
            running.merge(part)
            bar.update(min(8, total - 8 * done))
    constant = np.flatnonzero(running.squares <= 1e-16 * running.count).tolist()
    running.squares[constant] = running.count
    return running.finish(_provenance(cfg, total, seed, constant)), constant


def _provenance(cfg: Config, images: int, seed: int, constant: list[int]) -> dict[str, Any]:
    steps = coefficient_pipeline(pipelines(cfg, 'train_dataloader')[0])
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
