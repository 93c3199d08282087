"""One row of figures for each model: what it reaches, what it takes in, what it costs."""
import json
import time
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope

from mmfreq.compat import prepare_host
from mmfreq.config import config_path, device_freq, pipelines, transform_type
from mmfreq.files import atomic_write_text

# What a table shows of a run's metrics; a run that has none of these shows all it has.
_HEADLINES = ('accuracy/top1', 'accuracy/top5', 'coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/segm_mAP',
              'coco/segm_mAP_50')


@dataclass
class Row:
    """Figures of one model.

    Attributes:
        name (str): Name of the config.
        metrics (dict[str, float]): Results of ``tools/test.py --out metrics.json``; empty if there are none.
        input_shape (tuple[int, int, int]): Channels, height, width of what the network receives for one image.
        input_bytes (int): Bytes of it as the data loader hands them over.
        parameters (int): Number of values that training changes, frozen ones included.
        flops (int): Multiply-adds of one forward pass for one image (normalisation and pooling count too, some 0.3 %).
        loader_rate (float | None): Images per second through the training pipeline, one process; None without data.
        network_rate (float | None): Images per second through the network, forward only.
        notes (list[str]): What is missing, and why.
    """
    name: str
    metrics: dict[str, float]
    input_shape: tuple[int, int, int]
    input_bytes: int
    parameters: int
    flops: int
    loader_rate: Optional[float] = None
    network_rate: Optional[float] = None
    notes: list[str] = field(default_factory=list)

    @property
    def input_values(self) -> int:
        """Values of one input."""
        return int(np.prod(self.input_shape))


def find_config(run_or_config: str) -> tuple[Path, Optional[Path]]:
    """The config file and, if there is one, the work dir that an argument stands for.

    Raises:
        ValueError: Neither a config file nor a folder with the one config that its training run left.
    """
    path = Path(run_or_config)
    if not path.is_dir():
        return config_path(run_or_config), None
    configs = sorted(path.glob('*.py'))
    if len(configs) != 1:
        raise ValueError(f'{run_or_config}: expected a config file or a work dir with one config in it, found '
                         f'{len(configs)}')
    return configs[0], path


def compare(runs_or_configs: Sequence[str], images: int = 64, repeats: int = 5) -> list[Row]:
    """Measures every model on this machine; timed rounds take turns between the models.

    Args:
        runs_or_configs (Sequence[str]): Work dirs of training runs, or config files.
        images (int): Images to time the training pipeline with. Defaults to 64.
        repeats (int): Timed rounds; the median counts. Defaults to 5.

    Returns:
        list[Row]: One row each, in order.
    """
    subjects = [_prepare(*find_config(item), images) for item in runs_or_configs]
    network = _rates([subject.forward for subject in subjects], repeats)
    loader = _rates([subject.load for subject in subjects], repeats)
    for subject, network_rate, loader_rate in zip(subjects, network, loader):
        subject.row.network_rate, subject.row.loader_rate = network_rate, loader_rate
    return [subject.row for subject in subjects]


@dataclass
class _Subject:
    """A row without its speeds, and the two pieces of work that give them: each returns the images it dealt with."""
    row: Row
    forward: Callable[[], int]
    load: Callable[[], int]


def _prepare(config: Path, work_dir: Optional[Path], images: int) -> _Subject:
    cfg = Config.fromfile(str(config))
    prepare_host(cfg)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    notes: list[str] = []
    packed = packed_sample(cfg)
    sample = packed['inputs']
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model).eval()
    seen = _batch(model, packed, 1)['inputs'][0] if device_freq(cfg) else sample
    row = Row(
        name=config.stem,
        metrics=_read_metrics(work_dir, notes),
        input_shape=tuple(seen.shape),
        input_bytes=sample.numel() * sample.element_size(),
        parameters=sum(p.numel() for p in model.parameters()),
        flops=count_flops(model, packed),
        notes=notes)
    return _Subject(row, _forward_work(model, packed), _loading_work(cfg, images, notes))


def _read_metrics(work_dir: Optional[Path], notes: list[str]) -> dict[str, float]:
    if work_dir is None:
        return {}
    path = work_dir / 'metrics.json'
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        notes.append(f'no {path.name}: run tools/test.py CONFIG {work_dir} --out {path}')
    except ValueError as error:
        notes.append(f'{path} is damaged: {error}')
    return {}


def packed_sample(cfg: Config) -> dict[str, Any]:
    """What the test pipeline of ``cfg`` packs for one image: ``inputs`` (C, h, w) and ``data_samples``.

    The image is noise of 500 x 375 pixels, so that no data set is needed.
    """
    found = pipelines(cfg, 'test_dataloader') or pipelines(cfg, 'val_dataloader')
    if not found:
        raise ValueError('expected a test_dataloader or val_dataloader with a pipeline')
    steps = [step for step in found[0] if not transform_type(step).startswith(('Load', 'CheckedLoad'))]
    noise = np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    return Compose(steps)(dict(img=noise, img_path='noise', img_id=0, img_shape=noise.shape[:2],
                               ori_shape=noise.shape[:2], gt_label=0))


def _batch(model: torch.nn.Module, packed: dict[str, Any], size: int) -> dict[str, Any]:
    """``size`` copies of a packed sample, preprocessed as for a test."""
    return model.data_preprocessor(pseudo_collate([deepcopy(packed) for _ in range(size)]))


def count_flops(model: torch.nn.Module, packed: dict[str, Any]) -> int:
    """Multiply-adds of the network for one packed sample, whatever its number of channels."""
    batch = _batch(model, packed, 1)
    forward = model.forward
    model.forward = partial(forward, data_samples=batch['data_samples'])
    counter = FlopAnalyzer(model, (batch['inputs'], ))
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    total = int(counter.total())
    model.forward = forward
    return total


def _loading_work(cfg: Config, images: int, notes: list[str]) -> Callable[[], int]:
    """Runs the training pipeline over ``images`` images, evenly spread over the set, in this process."""
    try:
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    except (OSError, AssertionError, RuntimeError) as error:
        notes.append(f'no loading speed: {error}')
        return lambda: 0
    picked = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int)

    def work() -> int:
        for index in picked:
            dataset[int(index)]
        return len(picked)

    return work


def _forward_work(model: torch.nn.Module, packed: dict[str, Any]) -> Callable[[], int]:
    """One forward pass of the network, on the GPU if there is one: 16 images, or 2 of more than 256 x 256 pixels."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = model.to(device)
    shape = packed['data_samples'].img_shape
    batch = _batch(model, packed, 16 if max(shape) <= 256 else 2)

    def work() -> int:
        with torch.no_grad():
            model(**batch)
        if device == 'cuda':
            torch.cuda.synchronize()
        return len(batch['inputs'])

    return work


def _rates(works: Sequence[Callable[[], int]], repeats: int) -> list[Optional[float]]:
    """Images per second of each piece of work: median of ``repeats`` rounds that take turns, after one to warm up."""
    seconds = np.zeros((repeats + 1, len(works)))
    counts = [0] * len(works)
    for turn in range(repeats + 1):
        for i, work in enumerate(works):
            start = time.perf_counter()
            counts[i] = work()
            seconds[turn, i] = time.perf_counter() - start
    medians = np.median(seconds[1:], axis=0)
    return [count / float(median) if count else None for count, median in zip(counts, medians)]


def shown_metrics(rows: Sequence[Row]) -> list[str]:
    """Names of the metrics to show of all rows, in order of appearance."""
    found = list(dict.fromkeys(key for row in rows for key in row.metrics))
    return [key for key in found if key in _HEADLINES] or found


def table_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the comparison table; sizes are normalised by the first row's."""
    metrics = shown_metrics(rows)
    header = ['model', *metrics, 'input', 'values', 'bytes', 'normalised size', 'parameters', 'FLOPs (multiply-adds)',
              'loading images/s', 'network images/s']
    cells = [[
        row.name,
        *(_number(row.metrics.get(key), '.4g') for key in metrics),
        ' x '.join(map(str, row.input_shape)),
        f'{row.input_values:,}',
        f'{row.input_bytes:,}',
        f'{row.input_values / rows[0].input_values:.3g}',
        f'{row.parameters / 1e6:.2f} M',
        f'{row.flops / 1e9:.3f} G',
        _number(row.loader_rate, '.0f'),
        _number(row.network_rate, '.1f'),
    ] for row in rows]
    return header, cells


def _number(value: Any, pattern: str) -> str:
    return format(value, pattern) if isinstance(value, (int, float)) else '-'


def markdown_table(rows: Sequence[Row]) -> str:
    """The comparison as a Markdown table, columns aligned for reading in a terminal, notes below it."""
    header, cells = table_cells(rows)
    widths = [max(len(line[i]) for line in (header, *cells)) for i in range(len(header))]

    def line(values: Sequence[str]) -> str:
        aligned = [v.ljust(w) if i == 0 else v.rjust(w) for i, (v, w) in enumerate(zip(values, widths))]
        return f'| {" | ".join(aligned)} |'

    rule = [':' + '-' * (widths[0] - 1), *('-' * (w - 1) + ':' for w in widths[1:])]
    notes = [f'{row.name}: {note}' for row in rows for note in row.notes]
    return '\n'.join([line(header), line(rule), *map(line, cells), *([''] if notes else []), *notes]) + '\n'


def save_comparison(rows: Sequence[Row], prefix: str) -> list[str]:
    """Writes ``PREFIX.md`` and ``PREFIX.png``; returns their names."""
    from mmfreq.visualization import plot_comparison
    atomic_write_text(f'{prefix}.md', markdown_table(rows))
    plot_comparison(rows, f'{prefix}.png')
    return [f'{prefix}.md', f'{prefix}.png']
