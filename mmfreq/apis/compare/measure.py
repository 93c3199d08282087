"""One row of figures for each model: what it reaches, what it takes in, what it costs."""
import time
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Optional, Sequence

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from tqdm import tqdm

from mmfreq.apis.compare.runs import Run, best_metrics, find_run, last_step, published_metrics
from mmfreq.config.reader import device_freq, iter_dicts, pipelines, transform_type
from mmfreq.hosts.ops import provide_ops


@dataclass
class Row:
    """Figures of one model; None where there is no figure, and ``notes`` say why.

    Attributes:
        name (str): Name of the config.
        metrics (dict[str, float]): The best results found, of ``metrics.json`` (``tools/test.py --out``) and of the
            validations in the logs; best by the first of the headline metrics. Empty if there are none.
        found (str): Where they were found, as ``metrics.json`` or ``validation at step 6``.
        paper (dict[str, float]): Published results of the config, by its metafile, under the same names and units.
        scope (str): Package that the config belongs to, mmpretrain or mmdet; empty if unknown.
        family (str): Type of the backbone, the same for a stock one and its frequency-domain version; of a detector its
            type before that, as ``MaskRCNN, ResNet``.
        img_shape (tuple[int, int] | None): Height and width in pixels of the image behind the input.
        input_shape (tuple[int, int, int] | None): Channels, height, width of what the network receives for one image.
        input_bytes (int | None): Bytes per image as the data loader hands them over, to be sent to the device.
        parameters (int | None): Number of values that training changes, frozen ones included.
        flops (int | None): Multiply-adds of one forward pass for one image (normalisation and pooling count too, some
            0.3 %); of a two-stage detector with as many proposals as its test settings keep at most.
        memory (int | None): Peak bytes that one forward pass needs besides the weights, per image.
        loader_rate (float | None): Images per second through the training pipeline, one process; None without data.
        network_rate (float | None): Images per second through the network, forward only.
        notes (list[str]): What is missing, and why.
    """
    name: str
    metrics: dict[str, float] = field(default_factory=dict)
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

    @property
    def input_values(self) -> Optional[int]:
        """Values of one input."""
        return int(np.prod(self.input_shape)) if self.input_shape else None


def compare(runs_or_configs: Sequence[str], images: int = 64, repeats: int = 5, timing: bool = True) -> list[Row]:
    """Measures every model on this machine; timed rounds take turns between the models. Shows progress bars.

    Args:
        runs_or_configs (Sequence[str]): Work dirs of training runs, or config files.
        images (int): Images to time the training pipeline with. Defaults to 64.
        repeats (int): Timed rounds; the median counts. Defaults to 5.
        timing (bool): Whether to measure speeds and memory. Defaults to True.

    Returns:
        list[Row]: One row each, in order.

    Raises:
        ValueError: ``images`` or ``repeats`` is less than 1, or an argument names nothing that there is.
    """
    if min(images, repeats) < 1:
        raise ValueError(f'expected images and repeats >= 1, got {images} and {repeats}')
    provide_ops()  # before any host is imported: mmpretrain takes parts of mmdet with it
    runs = [find_run(item) for item in runs_or_configs]
    names = [run.name for run in runs]
    subjects = [_prepare(run, images if timing else 0) for run in tqdm(runs, 'models', unit='model')]
    if timing:
        _time([subject for subject in subjects if subject.forward], 'forward', 'network_rate', repeats)
        _time([subject for subject in subjects if subject.load], 'load', 'loader_rate', repeats)
    for subject, item in zip(subjects, runs_or_configs):
        if names.count(subject.row.name) > 1 and subject.row.name != item:
            subject.row.name = f'{subject.row.name} ({item})'
    return [subject.row for subject in subjects]


@dataclass
class _Subject:
    """A row without its speeds, and the two pieces of work that give them: each returns the images it dealt with."""
    row: Row
    forward: Optional[Callable[[], int]] = None
    load: Optional[Callable[[], int]] = None


def _prepare(run: Run, images: int) -> _Subject:
    """All figures but the speeds; work to time and memory only if ``images`` > 0. Whatever fails becomes a note."""
    row = Row(run.name, notes=run.notes, paper=published_metrics(run.config.stem if run.config else run.name))
    subject = _Subject(row)
    row.metrics, row.found = best_metrics(run.work_dir, run.notes)
    if run.config is None:
        return subject
    missing = 'the config cannot be read'
    try:
        cfg = _read_config(run, row)
        missing = 'no input'
        packed = packed_sample(cfg)
        _describe_input(row, packed)
        missing = 'the model cannot be built'
        model = build_model(cfg)
        row.parameters = sum(p.numel() for p in model.parameters())
        missing = 'the model does not take its input'
        if device_freq(cfg):
            to_channels = model.data_preprocessor.to_channels  # by itself: batches of detectors are padded
            row.input_shape = tuple(to_channels(packed['inputs'][None])[0].shape)
        row.flops = count_flops(model, packed)
        if images:
            row.memory = peak_memory(model, packed)
            subject.forward = _forward_work(model, packed, 2 if row.scope == 'mmdet' else 16)
            missing = 'no loading speed'
            subject.load = _loading_work(cfg, images)
    except Exception as error:  # a config and what it names may raise anything; the other rows are none the worse
        row.notes.append(f'{missing}: {_one_line(error)}')
    return subject


def _one_line(error: Exception) -> str:
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text[:200]}{"..." if len(text) > 200 else ""}'


def _read_config(run: Run, row: Row) -> Config:
    """The config of a run; what it says of itself goes into ``row``."""
    cfg = Config.fromfile(str(run.config))
    row.scope = cfg.get('default_scope') or ''
    init_default_scope(row.scope or 'mmengine')
    model = cfg.get('model') or {}
    backbone = transform_type(model.get('backbone') or {}).removeprefix('Freq')
    row.family = f'{transform_type(model)}, {backbone}' if row.scope == 'mmdet' else backbone
    schedule = cfg.get('train_cfg') or {}
    planned = schedule.get('max_epochs') or schedule.get('max_iters')
    reached = last_step(run.work_dir) if run.work_dir else None
    if planned and reached and reached < planned:
        row.notes.append(f'the last validation in the logs is at step {reached} of {planned}')
    return cfg


def _describe_input(row: Row, packed: dict[str, Any]) -> None:
    inputs = packed['inputs']
    row.img_shape = tuple(map(int, packed['data_samples'].img_shape[:2]))
    row.input_shape = tuple(inputs.shape)
    row.input_bytes = inputs.numel() * inputs.element_size()


def build_model(cfg: Config) -> torch.nn.Module:
    """The model of ``cfg`` in evaluation mode, untrained.

    A two-stage detector's heads get as many proposals as its test settings keep at most: the boxes of an untrained
    first stage are not weeded out, which would leave a random number.
    """
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model).eval()
    settings = getattr(getattr(model, 'rpn_head', None), 'test_cfg', None) or {}
    if 'nms' in settings:
        settings.nms.iou_threshold, settings.min_bbox_size = 1., -1
    return model


def packed_sample(cfg: Config) -> dict[str, Any]:
    """What the test pipeline of ``cfg`` packs for one image: ``inputs`` (C, h, w) and ``data_samples``.

    The image is noise, so that no data set is needed: as large as the pipeline's ``Resize`` allows (800x1333 in mmdet's
    usual configs), else 375x500.
    """
    found = pipelines(cfg, 'test_dataloader') or pipelines(cfg, 'val_dataloader')
    if not found:
        raise ValueError('expected a test_dataloader or val_dataloader with a pipeline')
    steps = [step for step in found[0] if not transform_type(step).startswith(('Load', 'CheckedLoad'))]
    scales = [step['scale'] for step in iter_dicts(steps)
              if transform_type(step) == 'Resize' and isinstance(step.get('scale'), (tuple, list))]
    width, height = scales[0] if scales else (500, 375)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
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


def _loading_work(cfg: Config, images: int) -> Callable[[], int]:
    """Runs the training pipeline over ``images`` images, evenly spread over the set, in this process."""
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    if not len(dataset):
        raise ValueError('the data set is empty')
    picked = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int)

    def work() -> int:
        for index in picked:
            dataset[int(index)]
        return len(picked)

    return work


def _forward_work(model: torch.nn.Module, packed: dict[str, Any], size: int) -> Callable[[], int]:
    """One forward pass of the network over ``size`` images, on the GPU if there is one."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = model.to(device)
    batch = _batch(model, packed, size)

    def work() -> int:
        with torch.no_grad():
            model(**batch)
        if device == 'cuda':
            torch.cuda.synchronize()
        return len(batch['inputs'])

    return work


def _time(subjects: Sequence[_Subject], work: str, rate: str, repeats: int) -> None:
    """Fills in the field ``rate``: images per second of the piece of ``work`` of every subject.

    Median of ``repeats`` rounds that take turns, after one to warm up. Work that fails gets a note and no more turns.
    """
    seconds: dict[int, list[float]] = {i: [] for i in range(len(subjects))}
    counts: dict[int, int] = {}
    turns = [i for _ in range(repeats + 1) for i in seconds]
    for i in tqdm(turns, rate.replace('_rate', ' speed'), unit='turn'):
        if i not in seconds:
            continue
        start = time.perf_counter()
        try:
            counts[i] = getattr(subjects[i], work)()
            seconds[i].append(time.perf_counter() - start)
        except Exception as error:  # as in _prepare
            subjects[i].row.notes.append(f'no {rate.replace("_rate", " speed")}: {_one_line(error)}')
            del seconds[i]
    for i, times in seconds.items():
        setattr(subjects[i].row, rate, counts[i] / float(np.median(times[1:])))
