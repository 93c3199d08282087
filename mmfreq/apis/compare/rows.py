"""One row of figures for each model: what it reaches, what it takes in, what it costs."""
from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from tqdm import tqdm

from mmfreq.apis.compare.runs import Run, group_runs, one_line, published_metrics, read_run
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
from mmfreq.config.reader import device_freq, transform_type

Work = tuple[Callable[[], Any], int]  # a piece of work and the number of its images


@dataclass
class Row:
    """Figures of one model; None where there is no figure, and ``notes`` say why.

    Attributes:
        name (str): Name of the config.
        metrics (dict[str, float]): Results; of several seeds their mean.
        spread (dict[str, float]): Standard deviation (n - 1) over the seeds, if two or more.
        seeds (dict[int | str, dict[str, float]]): Results of each run, by :attr:`Run.seed`.
        found (str): Where they are from: ``metrics.json``, ``validation at step 6``.
        paper (dict[str, float]): Published results, under the same names and units.
        scope (str): Package that the config belongs to, mmpretrain or mmdet; empty if unknown.
        family (str): Type of the backbone without ``Freq``, after a detector's own type.
        img_shape (tuple[int, int] | None): Height, width in pixels of the image behind the input.
        input_shape (tuple[int, int, int] | None): Channels, height, width of the network's input.
        input_bytes (int | None): Bytes per image from the data loader to the device.
        parameters (int | None): Number of parameters, frozen ones included.
        flops (int | None): Multiply-adds of a forward pass for one image, some 0.3 % for
            normalisation and pooling included; a two-stage detector keeps all its proposals.
        memory (int | None): Peak bytes per image of a forward pass besides the weights.
        loader_rate (float | None): Images per second through the training pipeline, one process.
        network_rate (float | None): Images per second through the network, forward only.
        notes (list[str]): What is missing, and why.
    """
    name: str
    metrics: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    seeds: dict[Any, dict[str, float]] = field(default_factory=dict)
    found: str = ''
    paper: dict[str, float] = field(default_factory=dict)
    scope: str = ''
    family: str = ''
    img_shape: Optional[tuple[int, int]] = None
    input_shape: Optional[tuple[int, int, int]] = None
    input_bytes: Optional[int] = None
    parameters: Optional[int] = None
    flops: Optional[int] = None
    memory: Optional[int] = None
    loader_rate: Optional[float] = None
    network_rate: Optional[float] = None
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
        for key in dict.fromkeys(key for metrics in row.seeds.values() for key in metrics):
            values = [metrics[key] for metrics in row.seeds.values() if key in metrics]
            row.metrics[key] = values[0]
            if len(values) > 1:
                row.metrics[key] = float(np.mean(values))
                row.spread[key] = float(np.std(values, ddof=1))
        return row

    @property
    def input_values(self) -> Optional[int]:
        """Number of values of one input."""
        return int(np.prod(self.input_shape)) if self.input_shape else None


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
    if min(images, repeats) < 1:
        raise ValueError(f'expected images and repeats >= 1, got {images} and {repeats}')
    groups = group_runs([read_run(item) for item in dict.fromkeys(runs_or_configs)])
    rows = [Row.of(runs) for runs in groups]
    names = [row.name for row in rows]
    for row, runs in zip(rows, groups):
        if names.count(row.name) > 1:
            row.name = f'{row.name} ({runs[0].work_dir or runs[0].config})'
    by_name = {row.name: row for row in rows}
    works: dict[str, dict[str, Work]] = {'network': {}, 'loader': {}}
    for row, runs in zip(tqdm(rows, 'models', unit='model'), groups):
        if runs[0].cfg is not None:
            for what, work in _describe(row, runs[0].cfg, images if timing else 0).items():
                works[what][row.name] = work
    for what, named in works.items():
        failed: dict[str, Exception] = {}
        calls = {name: work for name, (work, _) in named.items()}
        for entry in time_interleaved(calls, repeats, 1, 1., f'{what} speed', failed):
            setattr(by_name[entry.name], f'{what}_rate', named[entry.name][1] / entry.median)
        for name, error in failed.items():
            by_name[name].notes.append(f'no {what} speed: {one_line(error)}')
    return rows


def _describe(row: Row, cfg: Config, images: int) -> dict[str, Work]:
    """Fill in all figures but the speeds, and return the works that give these.

    Works and memory only if ``images`` > 0. Whatever fails becomes a note.
    """
    works: dict[str, Work] = {}
    missing = 'no input'
    try:
        row.scope = cfg.get('default_scope') or ''
        init_default_scope(row.scope or 'mmengine')
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
            model = model.to(device)
            row.memory = peak_memory(_forward(model, packed, 2, device)[0], device) // 2
            size = 2 if row.scope == 'mmdet' else 16
            works['network'] = _forward(model, packed, size, device)
            missing = 'no loader speed'
            works['loader'] = _loading(cfg, images)
    except Exception as error:  # a config and what it names may raise anything; other rows stay
        row.notes.append(f'{missing}: {one_line(error)}')
    return works


def _forward(model: torch.nn.Module, packed: dict[str, Any], size: int, device: str) -> Work:
    """Return a forward pass of the network over ``size`` images."""
    batch = preprocessed_batch(model, packed, size)

    def work() -> None:
        with torch.no_grad():
            model(**batch)
        synchronize(device)

    return work, size


def _loading(cfg: Config, images: int) -> Work:
    """Return a pass of the training pipeline over some images, evenly spread over the set."""
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    if not len(dataset):
        raise ValueError('the data set is empty')
    picked = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int)

    def work() -> None:
        for index in picked:
            dataset[int(index)]

    return work, len(picked)
