"""One row of figures for each model: what it reaches, what it takes in, what it costs."""
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Optional, Sequence

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
from mmfreq.config.paths import one_line
from mmfreq.dct.blocks import check_positive_int

Work = tuple[Callable[[], Any], int]  # a piece of work and the number of its images


@dataclass
class Row:
    """Figures of one model; None where there is no figure, and ``notes`` say why."""
    name: str  # of the config
    metrics: dict[str, float] = field(default_factory=dict)  # of several seeds their mean
    spread: dict[str, float] = field(default_factory=dict)  # standard deviation (n - 1), if n > 1
    seeds: dict[Any, dict[str, float]] = field(default_factory=dict)  # metrics of each run
    tested: Optional[int] = None  # images that the accuracy is of
    found: str = ''  # where they are from: 'metrics.json', 'validation at step 6'
    paper: dict[str, float] = field(default_factory=dict)  # published, same names and units
    scope: str = ''  # 'mmpretrain' or 'mmdet'
    family: str = ''  # type of the backbone without 'Freq', after a detector's own type
    img_shape: Optional[tuple[int, int]] = None  # (H, W) in pixels, of the image behind the input
    input_shape: Optional[tuple[int, int, int]] = None  # (C, h, w), of the network's input
    input_bytes: Optional[int] = None  # per image, from the data loader to the device
    parameters: Optional[int] = None
    flops: Optional[int] = None  # multiply-adds per image, with 0.3 % of norms and pooling
    memory: Optional[int] = None  # peak bytes per image of a forward pass besides the weights
    loader_rate: Optional[float] = None  # images/s through the training pipeline, one process
    network_rate: Optional[float] = None  # images/s through the network, forward only
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, runs: Sequence[Run]) -> 'Row':
        """Summarise the results of runs of one config."""
        row = cls(runs[0].name, paper=published_metrics(runs[0]))
        row.found = ', '.join(dict.fromkeys(run.found for run in runs if run.found))
        for run in runs:
            row.notes += run.notes
            if run.metrics:
                row.seeds[run.seed] = run.metrics
        values: dict[str, list[float]] = {}
        for metrics in row.seeds.values():
            for key, value in metrics.items():
                values.setdefault(key, []).append(value)
        for key, found in values.items():
            row.metrics[key] = float(np.mean(found))
            if len(found) > 1:
                row.spread[key] = float(np.std(found, ddof=1))
        return row


def compare(runs_or_configs: Sequence[str], images: int = 64, repeats: int = 5,
            timing: bool = True) -> list[Row]:
    """Compare models: read their results, measure their cost on this machine.

    Args:
        runs_or_configs (Sequence[str]): Work dirs of training runs, or config files.
        images (int): Images to time the training pipeline with. Defaults to 64.
        repeats (int): Timed rounds; the median counts. Defaults to 5.
        timing (bool): Whether to measure speeds and memory. Defaults to True.

    Returns:
        list[Row]: One row for each model, in order. Runs of one config with different seeds are one
            row, whose cost is that of the first.

    Raises:
        ValueError: ``images`` or ``repeats`` is less than 1, or an argument names nothing.
    """
    check_positive_int('images', images)
    check_positive_int('repeats', repeats)
    groups = group_runs([read_run(item) for item in dict.fromkeys(runs_or_configs)])
    rows = {}
    works: dict[str, dict[str, Work]] = {'network': {}, 'loader': {}}
    for runs in tqdm(groups, 'models', unit='model'):
        row = Row.of(runs)
        if row.name in rows:
            row.name = f'{row.name} ({runs[0].argument})'
        rows[row.name] = row
        if runs[0].cfg is not None:
            for what, work in _describe(row, runs[0].cfg, images if timing else 0).items():
                works[what][row.name] = work
    for what, named in works.items():
        failed: dict[str, Exception] = {}
        calls = {name: work for name, (work, _) in named.items()}
        for entry in time_interleaved(calls, repeats, 1, 1., f'{what} speed', failed):
            setattr(rows[entry.name], f'{what}_rate', named[entry.name][1] / entry.median)
        for name, error in failed.items():
            rows[name].notes.append(f'no {what} speed: {one_line(error)}')
    return list(rows.values())


def _describe(row: Row, cfg: Config, images: int) -> dict[str, Work]:
    """Fill in all figures but the speeds, and return the works that give these.

    Works and memory only if ``images`` > 0. Whatever fails becomes a note.
    """
    works: dict[str, Work] = {}
    missing = 'no input'
    try:
        row.scope = cfg.get('default_scope') or ''
        init_default_scope(row.scope or 'mmengine')
        row.tested = _count_tested(row, cfg)
        types = [transform_type(cfg.model), transform_type(cfg.model.get('backbone') or {})]
        row.family = ', '.join(types[row.scope != 'mmdet':]).replace('Freq', '')
        packed = packed_sample(cfg)
        inputs = packed['inputs']
        row.img_shape = tuple(map(int, packed['data_samples'].img_shape[:2]))
        row.input_shape = tuple(inputs.shape)
        row.input_bytes = inputs.numel() * inputs.element_size()
        missing = 'the model cannot be built'
        model = build_model(cfg).eval()
        keep_all_proposals(model)
        row.parameters = sum(p.numel() for p in model.parameters())
        missing = 'the model does not take its input'
        if device_freq(cfg):  # without the padding of a detector's batch
            row.input_shape = tuple(model.data_preprocessor.to_channels(inputs[None])[0].shape)
        row.flops = count_flops(model, packed)
        if images:
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
            size = 2 if row.scope == 'mmdet' else 16
            batch = preprocessed_batch(model.to(device), packed, size)
            forward = partial(_forward, model, batch, device)
            row.memory = peak_memory(forward, device) // size
            works['network'] = forward, size
            missing = 'no loader speed'
            dataset = DATASETS.build(cfg.train_dataloader.dataset)
            size = min(images, len(dataset))
            indices = np.linspace(0, len(dataset) - 1, size).astype(int).tolist()
            works['loader'] = partial(_load, dataset, indices), size
    except Exception as error:  # a config and what it names may raise anything; other rows stay
        row.notes.append(f'{missing}: {one_line(error)}')
    return works


def _count_tested(row: Row, cfg: Config) -> Optional[int]:
    """Return the number of test images behind a single top-1; None if they are not here, or for seeds with a spread."""
    if 'accuracy/top1' not in row.metrics or 'accuracy/top1' in row.spread:
        return None
    try:
        return len(DATASETS.build(cfg.test_dataloader.dataset))
    except Exception:  # as for all that a config names
        return None


def _forward(model: torch.nn.Module, batch: dict[str, Any], device: str) -> None:
    with torch.no_grad():
        model(**batch)
    synchronize(device)


def _load(dataset: Dataset, indices: Sequence[int]) -> None:
    for index in indices:
        dataset[index]
