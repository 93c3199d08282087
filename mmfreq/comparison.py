"""One row of figures for each model: what it reaches, what it takes in, what it costs."""
import csv
import io
import json
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import numpy as np
import torch
import yaml
from mmcv.transforms import Compose
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope

from mmfreq.compat import prepare_host
from mmfreq.config import config_path, device_freq, pipelines, transform_type
from mmfreq.files import atomic_write_text

# What a table shows of a run's metrics; a run that has none of these shows all it has. The first one is the headline.
_HEADLINES = ('accuracy/top1', 'accuracy/top5', 'coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/segm_mAP',
              'coco/segm_mAP_50', 'gate/kept')


# How metafiles name metrics, and the unit of mmengine's in theirs.
_METAFILE_NAMES = {'accuracy/top1': ('Top 1 Accuracy', 1), 'accuracy/top5': ('Top 5 Accuracy', 1),
                   'coco/bbox_mAP': ('box AP', 0.01), 'coco/bbox_mAP_50': ('box AP50', 0.01),
                   'coco/segm_mAP': ('mask AP', 0.01), 'coco/segm_mAP_50': ('mask AP50', 0.01)}


_CSV_FIELDS = ('channels', 'size_per_channel', 'normalised_size', 'input_bytes', 'parameters', 'flops', 'memory',
               'loader_rate', 'network_rate')


@dataclass
class Row:
    """Figures of one model.

    Attributes:
        name (str): Name of the config.
        metrics (dict[str, float]): The best results found, of ``metrics.json`` (``tools/test.py --out``) and of the
            validations in the logs; best by the first of the headline metrics. Empty if there are none.
        found (str): Where they were found, as ``metrics.json`` or ``validation at step 6``.
        paper (dict[str, float]): Published results of the config, by its metafile, under the same names and units.
        input_shape (tuple[int, int, int]): Channels, height, width of what the network receives for one image.
        input_bytes (int): Bytes of it as the data loader hands them over.
        parameters (int): Number of values that training changes, frozen ones included.
        flops (int): Multiply-adds of one forward pass for one image (normalisation and pooling count too, some 0.3 %).
        memory (int): Peak bytes that one forward pass needs besides the weights, per image.
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
    memory: int
    found: str = ''
    paper: dict[str, float] = field(default_factory=dict)
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
    metrics, found = best_metrics(work_dir, notes)
    row = Row(
        name=config.stem,
        metrics=metrics,
        found=found,
        paper=published_metrics(config.stem),
        input_shape=tuple(seen.shape),
        input_bytes=sample.numel() * sample.element_size(),
        parameters=sum(p.numel() for p in model.parameters()),
        flops=count_flops(model, packed),
        memory=peak_memory(model, packed),
        notes=notes)
    return _Subject(row, _forward_work(model, packed), _loading_work(cfg, images, notes))


def best_metrics(work_dir: Optional[Path], notes: list[str]) -> tuple[dict[str, float], str]:
    """The best results in a work dir, and where they were found; says in ``notes`` what is missing or damaged."""
    if work_dir is None:
        return {}, ''
    results = {'metrics.json': _read_json(work_dir / 'metrics.json', notes)}
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    for log in logs:
        lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
        values = [value for value in map(_parsed, lines) if value]
        if len(values) < len(lines):
            notes.append(f'{log}: {len(lines) - len(values)} of {len(lines)} lines are damaged')
        for value in values:
            found = {key: number for key, number in value.items() if '/' in key and isinstance(number, (int, float))}
            if found:
                results[f'validation at step {value.get("step")}'] = found
    results = {where: found for where, found in results.items() if found}
    if not results:
        notes.append(f'no results in {work_dir}: ' + ('no validation in its logs yet' if logs else 'no logs') +
                     f', no metrics.json (tools/test.py CONFIG {work_dir} --out {work_dir / "metrics.json"})')
        return {}, ''
    headline = next((key for key in _HEADLINES if any(key in found for found in results.values())), None)
    best = max(results, key=lambda where: results[where].get(headline, -np.inf))
    return results[best], best


def _read_json(path: Path, notes: list[str]) -> dict[str, float]:
    if not path.is_file():
        return {}
    values = _parsed(path.read_text(encoding='utf-8', errors='replace'))
    if values is None:
        notes.append(f'{path} is damaged')
    return values or {}


def _parsed(text: str) -> Optional[dict[str, Any]]:
    """A JSON object, or None."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def published_metrics(name: str) -> dict[str, float]:
    """Results that the metafiles state for the config ``name``, in mmengine's names and units; empty if there are none.

    All of them are the authors': see each entry's ``Source``.
    """
    root = Path(__file__).parent / '.mim'
    for metafile in sorted(root.glob('configs/*/metafile.yml')):
        for model in yaml.safe_load(metafile.read_text(encoding='utf-8')).get('Models', []):
            if model['Name'] == name:
                stated = {key: value for result in model.get('Results', []) for key, value in result['Metrics'].items()}
                return {key: stated[title] * unit for key, (title, unit) in _METAFILE_NAMES.items() if title in stated}
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


def peak_memory(model: torch.nn.Module, packed: dict[str, Any]) -> int:
    """Peak bytes per image of one forward pass besides the weights, on the GPU if there is one.

    On the CPU, allocations and releases are added up as torch's profiler reports them.
    """
    batch = _batch(model, packed, 2)
    with torch.no_grad():
        if torch.cuda.is_available():
            model, batch = model.cuda(), _batch(model.cuda(), packed, 2)
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            model(**batch)
            return (torch.cuda.max_memory_allocated() - before) // 2
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            model(**batch)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]']
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return int(max(np.cumsum(sizes), default=0)) // 2


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
    """Names of the metrics to show of all rows, the headline first."""
    found = dict.fromkeys(key for row in rows for key in (*row.metrics, *row.paper))
    return [key for key in _HEADLINES if key in found and any(key in row.metrics for row in rows)] or [
        key for key in _HEADLINES if key in found] or list(found)


def table_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the comparison table; sizes are normalised by the first row's, differences are to it."""
    metrics = shown_metrics(rows)
    headline = metrics[0] if metrics else None
    first = rows[0].metrics.get(headline)
    columns: dict[str, list[str]] = {'model': [row.name for row in rows]}
    for key in metrics:
        columns[key] = [_number(row.metrics.get(key), '.4g') for row in rows]
        if key == headline and first is not None and len(rows) > 1:
            differences = [row.metrics[key] - first if key in row.metrics else None for row in rows]
            columns['difference'] = [_number(value, '+.3g') for value in differences]
        if key == headline and any(key in row.paper for row in rows):
            columns['paper'] = [_number(row.paper.get(key), '.5g') for row in rows]
    columns |= {
        'input': [' x '.join(map(str, row.input_shape)) for row in rows],
        'normalised size': [f'{row.input_values / rows[0].input_values:.3g}' for row in rows],
        'bytes': [f'{row.input_bytes:,}' for row in rows],
        'parameters': [f'{row.parameters / 1e6:.2f} M' for row in rows],
        'FLOPs (multiply-adds)': [f'{row.flops / 1e9:.3f} G' for row in rows],
        'memory': [f'{row.memory / 1e6:.1f} MB' for row in rows],
        'loading images/s': [_number(row.loader_rate, '.0f') for row in rows],
        'network images/s': [_number(row.network_rate, '.1f') for row in rows],
    }
    return list(columns), [list(cells) for cells in zip(*columns.values())]


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
    notes = [f'{row.name}: {note}' for row in rows for note in (*row.notes, *([f'best result: {row.found}']
                                                                             if row.found else []))]
    return '\n'.join([line(header), line(rule), *map(line, cells), *([''] if notes else []), *notes]) + '\n'


def plain_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """All figures as plain values: fields of :class:`Row`, and the sizes that follow from them."""
    first = rows[0].input_values
    return [dict(asdict(row), channels=row.input_shape[0], size_per_channel=list(row.input_shape[1:]),
                 input_values=row.input_values, normalised_size=row.input_values / first) for row in rows]


def save_comparison(rows: Sequence[Row], prefix: str) -> list[str]:
    """Writes ``PREFIX.md``, ``.csv`` (plain numbers), ``.json`` (all figures) and ``.png``; returns their names."""
    from mmfreq.visualization import plot_comparison
    plain = plain_rows(rows)
    metrics = shown_metrics(rows)
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(['model', *metrics, *(f'{key} (paper)' for key in metrics), *_CSV_FIELDS, 'found'])
    for row in plain:
        writer.writerow([row['name'], *(row['metrics'].get(key) for key in metrics),
                         *(row['paper'].get(key) for key in metrics), *(row[key] for key in _CSV_FIELDS), row['found']])
    atomic_write_text(f'{prefix}.md', markdown_table(rows))
    atomic_write_text(f'{prefix}.csv', buffer.getvalue())
    atomic_write_text(f'{prefix}.json', json.dumps(plain, indent=1) + '\n')
    plot_comparison(rows, f'{prefix}.png')
    return [f'{prefix}.{suffix}' for suffix in ('md', 'csv', 'json', 'png')]
