"""One row of figures for each model: its results, its input, its costs."""
import math
import os
from dataclasses import dataclass, field
from typing import Any, Iterable, Optional, Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from tqdm import tqdm

from mmfreq.apis import measure
from mmfreq.apis.compare.runs import Run, group_runs, published_metrics, read_run
from mmfreq.config.pipelines import device_freq, iter_dicts, transform_type


@dataclass
class Estimate:
    """A mean over runs; a single or a published result has no error."""
    mean: float
    error: Optional[float] = None  # standard deviation of results; standard error of differences
    runs: int = 1  # or pairs of runs with one seed; 0 for a difference of means

    @classmethod
    def of(cls, values: Sequence[float], divisor: float = 1) -> 'Estimate':
        """Return the mean of one value for each run, with its deviation over ``divisor``."""
        error = float(np.std(values, ddof=1) / divisor) if len(values) > 1 else None
        return cls(float(np.mean(values)), error, len(values))


@dataclass
class Row:
    """Figures of one model, None where there is none. Metrics have mmengine's names and units."""
    name: str  # of the config
    source: str  # of the metrics: 'test of epoch_6.pth', 'validation 6'
    seeds: dict[Any, dict[str, float]]  # metrics of each run
    paper: dict[str, Estimate]  # published metrics
    metrics: dict[str, Estimate] = field(default_factory=dict)  # over the seeds
    difference: dict[str, Estimate] = field(default_factory=dict)  # to the family's first row on these data
    family: str = ''  # a detector's type, and the stock type of the backbone
    data: list[str] = field(default_factory=list)  # folders of the test data
    input_shape: Optional[tuple[int, int, int]] = None  # (C, h, w), of the network's input
    normalised_size: Optional[float] = None  # values of the input, RGB = 1
    input_bytes: Optional[int] = None  # per image, from the data loader to the device
    parameters: Optional[int] = None
    flops: Optional[int] = None  # multiply-adds per image, with 0.3 % of norms and pooling
    memory: Optional[int] = None  # peak bytes per image of a forward pass besides the weights
    loader_rate: Optional[float] = None  # images/s through the training pipeline, one process
    network_rate: Optional[float] = None  # images/s through the network, forward only

    @classmethod
    def of(cls, runs: Sequence[Run]) -> 'Row':
        """Summarise the results of runs of one config."""
        source = ', '.join(dict.fromkeys(run.source for run in runs if run.source))
        seeds = {run.seed: run.metrics for run in runs if run.metrics}
        paper = {key: Estimate(value) for key, value in published_metrics(runs[0]).items()}
        row = cls(runs[0].name, source, seeds, paper)
        for key in {key: None for metrics in seeds.values() for key in metrics}:
            row.metrics[key] = Estimate.of([run[key] for run in seeds.values() if key in run])
        return row


def compare(runs_or_configs: Iterable[str], images: int = 64, repeats: int = 5) -> list[Row]:
    """Read the results of models, and measure their costs on this machine.

    Args:
        runs_or_configs (Iterable[str]): Work dirs of training runs, or config files. Runs of one
            config with different seeds make one row.
        images (int): Images to time the training pipeline with; 0: no speeds and memory. Defaults
            to 64.
        repeats (int): Timed rounds; the median counts. Defaults to 5.
    """
    groups = group_runs([read_run(item) for item in dict.fromkeys(runs_or_configs)])
    rows: dict[str, Row] = {}
    works: dict[str, dict[str, Any]] = {'network_rate': {}, 'loader_rate': {}}
    for runs in tqdm(groups, 'models', unit='model', disable=None):
        row = Row.of(runs)
        if row.name in rows:
            row.name = f'{row.name} ({runs[0].argument})'
        rows[row.name] = row
        _describe(row, runs[0].cfg, works, images)
    for figure, named in works.items():
        calls = {name: call for name, (call, _) in named.items()}
        for entry in measure.time_interleaved(calls, repeats, unit=1, title=figure):
            setattr(rows[entry.name], figure, named[entry.name][1] / entry.median)
    relate(list(rows.values()))
    return list(rows.values())


def _describe(row: Row, cfg: Config, works: dict[str, dict[str, Any]], images: int) -> None:
    """Measure all but the speeds. Add functions to time, each with its images, to ``works``."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    detects = cfg.get('default_scope') == 'mmdet'
    types = [transform_type(cfg.model), transform_type(cfg.model.get('backbone') or {})]
    row.family = ', '.join(types[not detects:]).replace('Freq', '').replace('Unpacked', '')
    roots = {node['data_root'] for node in iter_dicts(cfg.get('test_dataloader')) if node.get('data_root')}
    row.data = sorted(map(os.path.abspath, roots))
    packed = measure.packed_sample(cfg)
    inputs = packed['inputs']
    row.input_shape = tuple(inputs.shape)
    row.input_bytes = inputs.numel() * inputs.element_size()
    model = measure.build_model(cfg).eval()
    measure.keep_all_proposals(model)
    row.parameters = sum(p.numel() for p in model.parameters())
    if device_freq(cfg):  # without the padding of a detector's batch
        row.input_shape = tuple(model.data_preprocessor.to_channels(inputs[None])[0].shape)
    row.flops = measure.count_flops(model, packed)
    if not images:
        return
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    size = 2 if detects else 16
    batch = measure.preprocessed_batch(model.to(device), packed, size)

    @torch.no_grad()
    def forward() -> None:
        model(**batch)
        measure.synchronize(device)

    row.memory = measure.peak_memory(forward, device) // size
    works['network_rate'][row.name] = forward, size
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    indices = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int).tolist()

    def load() -> None:
        for index in indices:
            dataset[index]

    works['loader_rate'][row.name] = load, len(indices)


def relate(rows: Sequence[Row]) -> None:
    """Compare all rows with the others of their family.

    Sizes are relative to the first RGB input, differences to the first row on the same data: means
    over the common seeds, else differences of means; of published results for metrics that no run has.
    """
    measured = {key for row in rows for key in row.metrics}
    for row in rows:
        family = [other for other in rows if other.family == row.family]
        rgb = [other.input_shape for other in family if (other.input_shape or [0])[0] == 3]
        if row.input_shape and rgb:
            row.normalised_size = math.prod(row.input_shape) / math.prod(rgb[0])
        first = next(other for other in family if other.data == row.data)
        for key in {**row.metrics, **row.paper} if row is not first else ():
            value, reference = ((one.metrics if key in measured else one.paper).get(key)
                                for one in (row, first))
            pairs = [run[key] - first.seeds[seed][key] for seed, run in row.seeds.items()
                     if key in run and key in first.seeds.get(seed, {})]
            if pairs:
                row.difference[key] = Estimate.of(pairs, len(pairs)**0.5)
            elif value and reference:
                row.difference[key] = Estimate(value.mean - reference.mean, runs=0)
