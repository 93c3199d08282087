"""One row of figures for each model: its results, its input, its cost."""
import math
import traceback
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Iterable, Optional, Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch.utils.data import Dataset
from tqdm import tqdm

from mmfreq.apis.compare.runs import Run, group_runs, published_metrics, read_run
from mmfreq.apis.measure import (
    build_model,
    count_flops,
    keep_all_proposals,
    packed_sample,
    peak_memory,
    preprocessed_batch,
    synchronize,
    time_interleaved,
)
from mmfreq.config.pipelines import device_freq, transform_type
from mmfreq.errors import RefusedError

Work = tuple[Callable[[], Any], int]  # a function to time, and the number of its images


@dataclass
class Row:
    """Figures of one model, None where there is none. Metrics have mmengine's names and units."""
    name: str  # of the config
    metrics: dict[str, float] = field(default_factory=dict)  # mean over the seeds
    spread: dict[str, float] = field(default_factory=dict)  # standard deviation (n - 1), if n > 1
    seeds: dict[Any, dict[str, float]] = field(default_factory=dict)  # metrics of each run
    source: str = ''  # of the metrics: 'metrics.json', 'validation of epoch 6'
    paper: dict[str, float] = field(default_factory=dict)  # published metrics
    difference: dict[str, dict] = field(default_factory=dict)  # mean, error, seeds: see relate
    scope: str = ''  # 'mmpretrain' or 'mmdet'
    family: str = ''  # type of the backbone without 'Freq', after a detector's own type
    input_shape: Optional[tuple[int, int, int]] = None  # (C, h, w), of the network's input
    normalised_size: Optional[float] = None  # values of the input, RGB = 1
    input_bytes: Optional[int] = None  # per image, from the data loader to the device
    parameters: Optional[int] = None
    flops: Optional[int] = None  # multiply-adds per image, with 0.3 % of norms and pooling
    memory: Optional[int] = None  # peak bytes per image of a forward pass besides the weights
    loader_rate: Optional[float] = None  # images/s through the training pipeline, one process
    network_rate: Optional[float] = None  # images/s through the network, forward only
    notes: list[str] = field(default_factory=list)  # why figures are missing

    @classmethod
    def of(cls, runs: Sequence[Run]) -> 'Row':
        """Summarise the results of runs of one config."""
        row = cls(runs[0].name, paper=published_metrics(runs[0]))
        row.source = ', '.join(dict.fromkeys(run.source for run in runs if run.source))
        row.seeds = {run.seed: run.metrics for run in runs if run.metrics}
        for key in dict.fromkeys(key for metrics in row.seeds.values() for key in metrics):
            values = [metrics[key] for metrics in row.seeds.values() if key in metrics]
            row.metrics[key] = float(np.mean(values))
            if len(values) > 1:
                row.spread[key] = float(np.std(values, ddof=1))
        return row


def compare(runs_or_configs: Iterable[str], images: int = 64, repeats: int = 5,
            timing: bool = True) -> list[Row]:
    """Read the results of models, and measure their costs on this machine.

    Args:
        runs_or_configs (Iterable[str]): Work dirs of training runs, or config files. Runs of one
            config with different seeds make one row.
        images (int): Images to time the training pipeline with. Defaults to 64.
        repeats (int): Timed rounds; the median counts. Defaults to 5.
        timing (bool): Whether to measure speeds and memory. Defaults to True.

    Raises:
        RefusedError: ``images`` or ``repeats`` is less than 1, or an argument is no run or config.
    """
    if min(images, repeats) < 1:
        raise RefusedError(f'images, repeats: expected 1 or more, got {images}, {repeats}')
    groups = group_runs([read_run(item) for item in dict.fromkeys(runs_or_configs)])
    rows: dict[str, Row] = {}
    works: dict[str, dict[str, Work]] = {'network': {}, 'loader': {}}
    for runs in tqdm(groups, 'models', unit='model', disable=None):
        row = Row.of(runs)
        if row.name in rows:
            row.name = f'{row.name} ({runs[0].argument})'
        rows[row.name] = row
        try:
            _describe(row, runs[0].cfg, works, images if timing else 0)
        except Exception as error:  # one model's config must not end the comparison
            traceback.print_exc()
            row.notes.append(' '.join(f'not measured: {type(error).__name__}: {error}'.split()))
    for kind, named in works.items():
        calls = {name: work for name, (work, _) in named.items()}
        for entry in time_interleaved(calls, repeats, unit=1, title=f'{kind} speed'):
            setattr(rows[entry.name], f'{kind}_rate', named[entry.name][1] / entry.median)
    relate(list(rows.values()))
    return list(rows.values())


def _describe(row: Row, cfg: Config, works: dict[str, dict[str, Work]], images: int) -> None:
    """Measure a model but for its speeds; add its functions to time, which have run once."""
    row.scope = cfg.get('default_scope') or ''
    init_default_scope(row.scope or 'mmengine')
    types = [transform_type(cfg.model), transform_type(cfg.model.get('backbone') or {})]
    row.family = ', '.join(types[row.scope != 'mmdet':]).replace('Freq', '')
    packed = packed_sample(cfg)
    inputs = packed['inputs']
    row.input_shape = tuple(inputs.shape)
    row.input_bytes = inputs.numel() * inputs.element_size()
    model = build_model(cfg).eval()
    keep_all_proposals(model)
    row.parameters = sum(p.numel() for p in model.parameters())
    if device_freq(cfg):  # without the padding of a detector's batch
        row.input_shape = tuple(model.data_preprocessor.to_channels(inputs[None])[0].shape)
    row.flops = count_flops(model, packed)
    if images:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        size = 2 if row.scope == 'mmdet' else 16
        batch = preprocessed_batch(model.to(device), packed, size)
        forward = partial(_forward, model, batch, device)
        row.memory = peak_memory(forward, device) // size
        works['network'][row.name] = forward, size
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        indices = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int).tolist()
        _load(dataset, indices)
        works['loader'][row.name] = partial(_load, dataset, indices), len(indices)


def _forward(model: torch.nn.Module, batch: dict[str, Any], device: str) -> None:
    with torch.no_grad():
        model(**batch)
    synchronize(device)


def _load(dataset: Dataset, indices: Sequence[int]) -> None:
    for index in indices:
        dataset[index]


def relate(rows: Sequence[Row]) -> None:
    """Compute the sizes relative to RGB, and the differences to the first row of each family.

    The size is relative to the first RGB input of the family. Differences are those of runs; of
    published results for metrics that no run has. They are the mean over the common seeds, with its
    standard error; without common seeds, the difference of the means.
    """
    measured = {key for row in rows for key in row.metrics}
    rgb: dict[str, Row] = {}
    baselines: dict[str, Row] = {}
    for row in rows:
        base = baselines.setdefault(row.family, row)
        if row.input_shape and row.input_shape[0] == 3:
            rgb.setdefault(row.family, row)
        for key in {**row.metrics, **row.paper} if row is not base else ():
            value, reference = ((one.metrics if key in measured else one.paper).get(key)
                                for one in (row, base))
            if value is not None and reference is not None:
                pairs = [metrics[key] - base.seeds[seed][key] for seed, metrics in row.seeds.items()
                         if key in metrics and key in base.seeds.get(seed, {})]
                error = np.std(pairs, ddof=1) / len(pairs)**0.5 if len(pairs) > 1 else None
                row.difference[key] = dict(mean=float(np.mean(pairs or value - reference)),
                                           error=error, seeds=len(pairs))
    for row in rows:
        if row.input_shape and row.family in rgb:
            row.normalised_size = math.prod(row.input_shape) / math.prod(rgb[row.family].input_shape)
