"""What the frequency input costs against RGB pixels, on this machine: pipeline, transfer, network, training step.

Times are taken in rounds in which all candidates take turns, after one round to warm up.
"""
import datetime
import importlib.metadata
import os
import platform
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Optional, Sequence

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import FUNCTIONS, MODELS, TRANSFORMS, init_default_scope
from peers import available_peers
from torch.utils.data import DataLoader
from tqdm import tqdm

from mmfreq.config.paths import config_path
from mmfreq.config.reader import check_channels, device_freq, pipelines, transform_type
from mmfreq.dct.channels import channel_indices
from mmfreq.dct.stats import load_stats
from mmfreq.demo_data.photos import PHOTOS, load_photo
from mmfreq.hosts.checkpoints import prepare_host
from mmfreq.models.preprocessor import BlockDCTLayer
from mmfreq.transforms import BlockDCT, ChannelSelect, FreqNormalize, FusedBlockDCT, YCbCr

PHOTO_SIZE = (500, 375)
PHOTO_QUALITY = 95
_PACKAGES = ('torch', 'numpy', 'numba', 'opencv-python-headless', 'onedl-mmcv', 'onedl-mmengine', 'onedl-mmpretrain',
             'onedl-mmdetection', 'scipy', 'pyjpegio')


@dataclass
class Entry:
    """One figure: the median of several rounds, and its quartiles (equal to it for what is counted, not timed)."""
    name: str
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, name: str, values: Sequence[float]) -> 'Entry':
        """From the values of all rounds."""
        low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
        return cls(name, float(median), float(low), float(high))


@dataclass
class Section:
    """A table of figures of one unit; the first entry is the baseline of the ratios."""
    title: str
    unit: str
    entries: list[Entry]
    notes: list[str] = field(default_factory=list)

    def ratio(self, entry: Entry) -> float:
        """How many times the baseline's figure."""
        return entry.median / self.entries[0].median if self.entries[0].median else float('nan')


@dataclass
class Settings:
    """How much to measure.

    Attributes:
        repeats (int): Rounds.
        batch (int): Images of a batch.
        photos (list[str]): JPEG files.
        device (str): Where the networks run, ``'cpu'`` or ``'cuda'``.
        seed (int): Of the augmentation; the same for all configs.
    """
    repeats: int
    batch: int
    photos: list[str]
    device: str = 'cpu'
    seed: int = 0


def time_interleaved(works: dict[str, Callable[[], Any]], repeats: int, per: int = 1, unit: float = 1e-3,
               title: str = '') -> list[Entry]:
    """Times pieces of work in rounds, with a progress bar on a terminal.

    Args:
        works (dict): What to run, by name.
        repeats (int): Rounds that count, after one that does not.
        per (int): Images that each piece of work deals with; times are divided by it. Defaults to 1.
        unit (float): Seconds of a unit of the result. Defaults to 1e-3.
        title (str): What the progress bar says.
    """
    seconds = np.zeros((repeats + 1, len(works)))
    for turn in tqdm(range(repeats + 1), desc=title, unit='round', leave=False, disable=None):
        for i, work in enumerate(works.values()):
            start = time.perf_counter()
            work()
            seconds[turn, i] = time.perf_counter() - start
    return [Entry.of(name, column / per / unit) for name, column in zip(works, seconds[1:].T)]


def machine() -> dict[str, Any]:
    """What the figures hold for: processor, GPU, versions, date, and how busy the machine was at the start."""
    lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines() if os.path.exists('/proc/cpuinfo') else []
    cpu = next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), platform.machine())
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = 'not installed'
    return dict(
        date=datetime.date.today().isoformat(),
        cpu=f'{cpu}, {os.cpu_count()} cores',
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else 'none',
        threads=torch.get_num_threads(),
        load_average=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        versions=versions)


def make_photos(folder: str, count: int) -> list[str]:
    """Writes ``count`` different JPEG files of 500x375 pixels, quality 95, cut from the photographs of scikit-image."""
    width, height = PHOTO_SIZE
    paths, sources = [], [load_photo(name) for name in PHOTOS]
    for i in range(count):
        photo = sources[i % len(sources)]
        scale = max(width / photo.shape[1], height / photo.shape[0]) * (1 + 0.07 * (i // len(sources)))
        size = max(width, round(photo.shape[1] * scale)), max(height, round(photo.shape[0] * scale))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        photo = cv2.resize(photo, size, interpolation=interpolation)[:height, :width]
        paths.append(os.path.join(folder, f'{i:03}.jpg'))
        cv2.imwrite(paths[-1], photo, [cv2.IMWRITE_JPEG_QUALITY, PHOTO_QUALITY])
    return paths


class Subject:
    """A config, and what of it is measured: its training pipeline, its collation, its network.

    Args:
        config (str): A path, or ``package::file``.
        device (str): Where the network runs.
    """

    def __init__(self, config: str, device: str = 'cpu') -> None:
        self.path = config_path(config)
        self.cfg = Config.fromfile(str(self.path))
        self.name = self.path.stem
        self.device = device
        prepare_host(self.cfg)
        check_channels(self.cfg)
        found = pipelines(self.cfg, 'train_dataloader')
        if not found:
            raise ValueError(f'{config}: expected a train_dataloader with a pipeline')
        self.pipeline: list[dict] = found[0]

    @cached_property
    def steps(self) -> list[Callable[[dict], dict]]:
        """The transforms of the training pipeline."""
        self._enter()
        return [TRANSFORMS.build(step) for step in self.pipeline]

    @cached_property
    def collate(self) -> Callable[[list], dict]:
        """The collation that ``tools/train.py`` gives the loader."""
        stated = self.cfg.train_dataloader.get('collate_fn')
        if stated is not None:
            arguments = {key: value for key, value in stated.items() if key != 'type'}
            return partial(FUNCTIONS.get(stated['type']), **arguments)
        return default_collate if self.cfg.get('default_scope') == 'mmpretrain' else pseudo_collate

    @cached_property
    def model(self) -> torch.nn.Module:
        """The network with random weights, on its device."""
        self._enter()
        if self.cfg.get('data_preprocessor') is not None:
            self.cfg.model.setdefault('data_preprocessor', self.cfg.data_preprocessor)
        return MODELS.build(self.cfg.model).to(self.device).train()

    @cached_property
    def optim_wrapper(self) -> Any:
        """The config's optimizer."""
        self._enter()
        return build_optim_wrapper(self.model, self.cfg.optim_wrapper)

    def _enter(self) -> None:
        init_default_scope(self.cfg.get('default_scope', 'mmengine'))

    def load(self, photo: str) -> dict:
        """One photo through the training pipeline."""
        results = self.start(photo)
        for step in self.steps:
            results = step(results)
        return results

    def load_batch(self, settings: Settings) -> dict:
        """A collated batch of photos, the same crops for every config."""
        np.random.seed(settings.seed)
        picked = [settings.photos[i % len(settings.photos)] for i in range(settings.batch)]
        return self.collate([self.load(photo) for photo in picked])

    @staticmethod
    def start(photo: str) -> dict:
        """What a data set hands to the pipeline: a label, and two objects with boxes and masks."""
        width, height = PHOTO_SIZE
        boxes = [(0.1, 0.2, 0.6, 0.9), (0.5, 0.1, 0.9, 0.5)]
        scaled = [(x0 * width, y0 * height, x1 * width, y1 * height) for x0, y0, x1, y1 in boxes]
        instances = [dict(bbox=list(box), bbox_label=0, ignore_flag=0,
                          mask=[[box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3]]]) for box in scaled]
        return dict(img_path=photo, img_id=0, sample_idx=0, gt_label=0, height=height, width=width,
                    instances=instances)


def measure_preprocessing(settings: Settings, channels: str = '24S', stats: str = 'photos-448') -> Section:
    """One photo of 448x448 to normalised channels: the fused transform, the single ones, and peers."""
    image = cv2.resize(cv2.imread(settings.photos[0]), (448, 448), interpolation=cv2.INTER_AREA)
    indices, loaded = channel_indices(channels), load_stats(stats)
    fused = FusedBlockDCT(channels, stats)
    fused_int8 = FusedBlockDCT(channels, stats, dtype='int8', scale=6)
    single = [YCbCr(), BlockDCT(), ChannelSelect(channels), FreqNormalize(stats)]
    module, photos = BlockDCTLayer(channels, stats), torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
    peers, notes = available_peers(indices, loaded)

    def chain() -> None:
        results = dict(img=image)
        for step in single:
            results = step(results)

    works = {
        'FusedBlockDCT': lambda: fused(dict(img=image)),
        'FusedBlockDCT, int8': lambda: fused_int8(dict(img=image)),
        'the four single transforms': chain,
        'BlockDCTLayer on the CPU': lambda: module(photos),
        **{name: partial(peer, image) for name, peer in peers.items()},
    }
    title = f'Pre-processing: one 448x448 photo to {channels}'
    return Section(title, 'ms', time_interleaved(works, 10 * settings.repeats, title=title), notes)


def measure_pipelines(subjects: Sequence[Subject], settings: Settings) -> list[Section]:
    """The training pipelines, photo by photo in turns: the whole of each, and its steps."""
    seconds = [np.zeros((settings.repeats + 1, len(settings.photos), len(s.steps))) for s in subjects]
    for turn in tqdm(range(settings.repeats + 1), desc='Training pipeline', unit='round', leave=False, disable=None):
        for number, photo in enumerate(settings.photos):
            for subject, table in zip(subjects, seconds):
                np.random.seed(settings.seed + 1000 * turn + number)
                results = subject.start(photo)
                for i, step in enumerate(subject.steps):
                    start = time.perf_counter()
                    results = step(results)
                    table[turn, number, i] = time.perf_counter() - start
    # the median over the photos of a round; slow outliers are other processes
    per_round = [1e3 * np.median(table[1:], axis=1) for table in seconds]
    whole = [1e3 * np.median(table[1:].sum(axis=2), axis=1) for table in seconds]
    size = np.mean([os.path.getsize(photo) for photo in settings.photos])
    note = f'{len(settings.photos)} JPEG files, {size / 1000:.0f} kB each on average'
    sections = [Section('Training pipeline', 'ms/image',
                        [Entry.of(s.name, w) for s, w in zip(subjects, whole)], [note])]
    for subject, table in zip(subjects, per_round):
        names = [f'{i + 1}. {transform_type(step)}' for i, step in enumerate(subject.pipeline)]
        sections.append(Section(f'Steps of {subject.name}', 'ms/image',
                                [Entry.of(name, column) for name, column in zip(names, table.T)]))
    return sections


def tensor_bytes(inputs: Any) -> int:
    """Bytes of a tensor, or of all tensors in a list."""
    return sum(t.numel() * t.element_size() for t in ([inputs] if torch.is_tensor(inputs) else inputs))


def _received(subject: Subject, samples: list[dict], batch: int, batches: int) -> float:
    """Seconds per image from one worker to the main process, collation there included, start-up not."""
    loader = DataLoader(samples * batches, batch_size=batch, num_workers=1, collate_fn=subject.collate)
    received = iter(loader)
    next(received)
    start = time.perf_counter()
    count = sum(1 for _ in received)
    return (time.perf_counter() - start) / (batch * count)


def measure_transfer(subjects: Sequence[Subject], settings: Settings, batches: int = 8) -> list[Section]:
    """Bytes of an image, time to collate it, to hand it from a worker to the main process, and to the device."""
    packed = []
    for subject in subjects:
        np.random.seed(settings.seed)
        picked = [settings.photos[i % len(settings.photos)] for i in range(settings.batch)]
        packed.append([subject.load(photo) for photo in picked])
    works = {s.name: partial(s.collate, samples) for s, samples in zip(subjects, packed)}
    worker = np.array([[_received(s, samples, settings.batch, batches) for s, samples in zip(subjects, packed)]
                       for _ in range(settings.repeats)])
    sizes = [tensor_bytes([sample['inputs'] for sample in samples]) / len(samples) for samples in packed]
    sections = [
        Section('Bytes from the loader to the device', 'bytes/image',
                [Entry(s.name, size, size, size) for s, size in zip(subjects, sizes)]),
        Section('Collation', 'ms/image', time_interleaved(works, settings.repeats, settings.batch)),
        Section('Worker to main process', 'ms/image',
                [Entry.of(s.name, 1e3 * column) for s, column in zip(subjects, worker.T)]),
    ]
    if settings.device != 'cpu':
        inputs = [s.collate(samples)['inputs'] for s, samples in zip(subjects, packed)]
        copies = {s.name: partial(_to_device, tensors, settings.device) for s, tensors in zip(subjects, inputs)}
        sections.append(Section(f'Copy to {settings.device}', 'ms/image',
                                time_interleaved(copies, settings.repeats, settings.batch)))
    return sections


def _to_device(inputs: Any, device: str) -> None:
    moved = [t.to(device) for t in ([inputs] if torch.is_tensor(inputs) else inputs)]
    _synchronize(device)
    del moved


def _synchronize(device: str) -> None:
    if device != 'cpu':
        torch.cuda.synchronize()


def measure_preprocessors(subjects: Sequence[Subject], settings: Settings) -> list[Section]:
    """The data preprocessors on batches that lie on the device, and what memory bandwidth they reach there."""
    works, notes = {}, []
    bandwidth = copy_bandwidth(settings)
    for subject in subjects:
        batch = subject.load_batch(settings)
        batch['inputs'] = subject.model.data_preprocessor.cast_data(batch['inputs'])
        works[subject.name] = partial(_preprocess, subject, batch, settings.device)
    section = Section('Data preprocessor on the device', 'ms/image',
                      time_interleaved(works, settings.repeats, settings.batch), notes)
    for subject, entry in zip(subjects, section.entries):
        if device_freq(subject.cfg):
            batch = subject.load_batch(settings)
            out = subject.model.data_preprocessor(batch)['inputs']
            moved = (tensor_bytes(batch['inputs']) + tensor_bytes(out)) / settings.batch
            reached = moved / entry.median / 1e6
            notes.append(f'{subject.name}: {moved:,.0f} bytes read and written per image, {reached:.2f} GB/s, '
                         f'{reached / bandwidth:.0%} of the copy bandwidth of {settings.device}, {bandwidth:.1f} GB/s')
    return [section]


def _preprocess(subject: Subject, batch: dict, device: str) -> None:
    subject.model.data_preprocessor(dict(batch))
    _synchronize(device)


def copy_bandwidth(settings: Settings, megabytes: int = 256) -> float:
    """GB/s that the device reads and writes while it copies memory."""
    source = torch.zeros(megabytes << 20, dtype=torch.uint8, device=settings.device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        _synchronize(settings.device)

    entry = time_interleaved({'copy': copy}, settings.repeats, unit=1)[0]
    return 2 * source.numel() / entry.median / 1e9


def measure_networks(subjects: Sequence[Subject], settings: Settings, amp: bool = False) -> Iterator[Section]:
    """Forward, and forward and backward, in float32 or under AMP; the memory that training needs."""
    batches = [s.model.data_preprocessor(s.load_batch(settings), True) for s in subjects]
    precision = 'AMP' if amp else 'float32'
    for title, run in ((f'Network forward, {precision}', _forward),
                       (f'Network forward and backward, {precision}', _backward)):
        works = {s.name: partial(run, s, batch, amp) for s, batch in zip(subjects, batches)}
        yield Section(title, 'ms/image', time_interleaved(works, settings.repeats, settings.batch, title=title))
    memory = [_training_memory(s, batch, amp) / settings.batch / 1e6 for s, batch in zip(subjects, batches)]
    what = 'Peak memory of the GPU' if settings.device != 'cpu' else 'Kept for the backward pass'
    yield Section(f'{what}, {precision}', 'MB/image',
                  [Entry(s.name, value, value, value) for s, value in zip(subjects, memory)])


def _autocast(device: str, amp: bool) -> Any:
    dtype = torch.bfloat16 if device == 'cpu' else torch.float16
    return torch.autocast(device, dtype=dtype) if amp else nullcontext()


def _forward(subject: Subject, batch: dict, amp: bool) -> None:
    subject.model.eval()
    with torch.no_grad(), _autocast(subject.device, amp):
        subject.model(**batch, mode='predict')
    _synchronize(subject.device)


def _loss(subject: Subject, batch: dict, amp: bool) -> torch.Tensor:
    subject.model.train()
    with _autocast(subject.device, amp):
        return subject.model.parse_losses(subject.model(**batch, mode='loss'))[0]


def _backward(subject: Subject, batch: dict, amp: bool) -> None:
    subject.model.zero_grad(set_to_none=True)
    _loss(subject, batch, amp).backward()
    _synchronize(subject.device)


def _training_memory(subject: Subject, batch: dict, amp: bool) -> int:
    """Bytes: on a GPU the peak while training, on the CPU what the forward pass keeps for the backward pass."""
    if subject.device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _backward(subject, batch, amp)
        return torch.cuda.max_memory_allocated() - before
    parameters = {p.untyped_storage().data_ptr() for p in subject.model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in parameters:
            kept[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _loss(subject, batch, amp)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def measure_steps(subjects: Sequence[Subject], settings: Settings) -> list[Section]:
    """Whole training steps in one process: pipeline, collation, preprocessor, forward, backward, optimizer."""

    def work(subject: Subject) -> None:
        subject.model.train()
        subject.model.train_step(subject.load_batch(settings), subject.optim_wrapper)
        _synchronize(subject.device)

    works = {s.name: partial(work, s) for s in subjects}
    title = 'Training step, end to end'
    return [Section(title, 'ms/image', time_interleaved(works, settings.repeats, settings.batch, title=title))]


def resident_memory() -> float:
    """Memory of this process in MB (Linux)."""
    pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def measure_memory(subjects: Sequence[Subject], settings: Settings, images: int) -> list[Section]:
    """Memory of the process while ``images`` photos go through each training pipeline, as in a data loader's worker."""
    sections = []
    for subject in subjects:
        marks = sorted({1, max(1, images // 10), images // 2, images} - {0})
        entries = []
        with tqdm(total=images, unit='image', desc=subject.name, disable=None) as bar:
            for number in range(1, images + 1):
                subject.load(settings.photos[number % len(settings.photos)])
                bar.update()
                if number in marks:
                    value = resident_memory()
                    entries.append(Entry(f'after {number} images', value, value, value))
        growth = entries[-1].median - entries[min(1, len(entries) - 1)].median
        sections.append(Section(f'Memory of a worker: {subject.name}', 'MB', entries,
                                [f'growth after the first tenth: {growth:.1f} MB']))
    return sections


SECTIONS: dict[str, Callable[[Sequence[Subject], Settings], Iterable[Section]]] = {
    'preprocess': lambda subjects, settings: [measure_preprocessing(settings)],
    'pipeline': measure_pipelines,
    'transfer': measure_transfer,
    'preprocessor': measure_preprocessors,
    'network': measure_networks,
    'amp': partial(measure_networks, amp=True),
    'step': measure_steps,
}


def photo_files(folder: Optional[str], count: int, scratch: str) -> list[str]:
    """``count`` JPEG files: the first of ``folder``, or made of scikit-image's photographs in ``scratch``."""
    if folder is None:
        return make_photos(scratch, count)
    found = sorted(str(path) for path in Path(folder).rglob('*') if path.suffix.lower() in ('.jpg', '.jpeg'))
    if not found:
        raise ValueError(f'{folder}: expected JPEG files, found none')
    return found[:count]


def benchmark(configs: Sequence[str], sections: Sequence[str], settings: Settings,
              memory: int = 0) -> Iterator[Section]:
    """Measures configs against the first of them, section by section.

    Args:
        configs (Sequence[str]): Paths or ``package::file``; the first is the baseline.
        sections (Sequence[str]): Some of ``SECTIONS``.
        settings (Settings): How much to measure.
        memory (int): Photos to watch a worker's memory over. Defaults to 0: not measured.
    """
    subjects = [Subject(config, settings.device) for config in configs]
    for name in sections:
        yield from SECTIONS[name](subjects, settings)
    if memory:
        yield from measure_memory(subjects, settings, memory)


@dataclass
class Report:
    """All figures of a run, and what they hold for."""
    machine: dict[str, Any]
    command: str
    sections: list[Section]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(machine=self.machine, command=self.command, sections=[
            dict(title=s.title, unit=s.unit, notes=s.notes,
                 entries=[dict(name=e.name, median=e.median, low=e.low, high=e.high, ratio=s.ratio(e))
                          for e in s.entries]) for s in self.sections])

    def markdown(self) -> str:
        """Tables of medians, quartiles and ratios."""
        versions = ', '.join(f'{name} {version}' for name, version in self.machine['versions'].items())
        lines = [f'{self.machine["date"]}, {self.machine["cpu"]}, GPU: {self.machine["gpu"]}, '
                 f'{self.machine["threads"]} thread(s), load average {self.machine["load_average"]} at the start; '
                 f'Python {self.machine["python"]}, {versions}', '', f'`{self.command}`']
        for section in self.sections:
            lines += ['', f'### {section.title}', '', f'| | {section.unit} | quartiles | ratio |',
                      '| :-- | --: | --: | --: |']
            lines += [f'| {e.name} | {number(e.median)} | {number(e.low)} to {number(e.high)} | '
                      f'{section.ratio(e):.2f} |' for e in section.entries]
            lines += ['', *section.notes] if section.notes else []
        return '\n'.join(lines) + '\n'


def number(value: float) -> str:
    """A figure with three digits or more, grouped."""
    return f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'


def scratch_folder() -> tempfile.TemporaryDirectory:
    """A folder for photos that goes when the run ends."""
    return tempfile.TemporaryDirectory(prefix='mmfreq_benchmark_')
