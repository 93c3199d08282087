"""Measure DCT channels against RGB pixels: pipeline, transfer, network, training step.

The candidates take turns: each runs once per round, after one round to warm up.
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
from mmengine.registry import FUNCTIONS, TRANSFORMS, init_default_scope
from peers import available_peers
from torch.utils.data import DataLoader
from tqdm import tqdm

from demo.images import IMAGES, load_image
from mmfreq.apis.measure import Entry, build_model, peak_memory, synchronize, time_interleaved
from mmfreq.config.checks import check_channels
from mmfreq.config.paths import config_path
from mmfreq.config.pipelines import device_freq, pipelines, transform_type
from mmfreq.dct.channels import channel_indices
from mmfreq.dct.stats import load_stats
from mmfreq.models.dct_layer import BlockDCTLayer
from mmfreq.models.unpack import UnpackMixin
from mmfreq.transforms import BlockDCT, ChannelSelect, FreqNormalize, FusedBlockDCT, YCbCr

IMAGE_SIZE = (500, 375)
JPEG_QUALITY = 95
_PACKAGES = ('torch', 'numpy', 'numba', 'opencv-python-headless', 'onedl-mmcv', 'onedl-mmengine',
             'onedl-mmpretrain', 'onedl-mmdetection', 'scipy', 'pyjpegio', 'PyTurboJPEG', 'onnxruntime', 'openvino')


@dataclass
class Section:
    """A table of results in one unit. The first entry is the baseline of the ratios."""
    title: str
    unit: str
    entries: list[Entry]
    notes: list[str] = field(default_factory=list)

    def ratio(self, entry: Entry) -> float:
        """Return an entry relative to the baseline."""
        return entry.median / self.entries[0].median if self.entries[0].median else float('nan')


@dataclass
class Settings:
    """The settings of a run.

    Attributes:
        repeats (int): Number of rounds.
        batch (int): Images per batch.
        images (list[str]): Paths of JPEG files.
        device (str): Device of the networks, ``'cpu'`` or ``'cuda'``.
        seed (int): Seed of the augmentation, the same for all configs.
        dataloader (str): Loader whose pipelines are measured.
    """
    repeats: int
    batch: int
    images: list[str]
    device: str = 'cpu'
    seed: int = 0
    dataloader: str = 'train_dataloader'


def machine() -> dict[str, Any]:
    """Return the processor, GPU, versions, date and current load average."""
    cpu, info = platform.machine(), Path('/proc/cpuinfo')
    for line in info.read_text(encoding='utf-8').splitlines() if info.exists() else ():
        if line.startswith('model name'):
            cpu = line.partition(':')[2].strip()
            break
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


def make_images(folder: str, count: int, size: Sequence[int] = IMAGE_SIZE) -> list[str]:
    """Write ``count`` different JPEG files of quality 95, from scikit-image's images."""
    width, height = size
    paths, sources = [], [load_image(name) for name in IMAGES]
    for i in range(count):
        image = sources[i % len(sources)]
        h, w = image.shape[:2]
        scale = max(width / w, height / h) * (1 + 0.07 * (i // len(sources)))
        size = max(width, round(w * scale)), max(height, round(h * scale))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = cv2.resize(image, size, interpolation=interpolation)[:height, :width]
        paths.append(os.path.join(folder, f'{i:03}.jpg'))
        cv2.imwrite(paths[-1], image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return paths


class Subject:
    """The measured parts of a config: a pipeline, its collation, its network.

    Args:
        config (str): A path, or ``package::file``.
        device (str): Device of the network.
        dataloader (str): Loader whose pipeline is measured.
    """

    def __init__(self, config: str, device: str = 'cpu', dataloader: str = 'train_dataloader'
                 ) -> None:
        self.path = config_path(config)
        self.cfg = Config.fromfile(str(self.path))
        self.name = self.path.stem
        self.device = device
        check_channels(self.cfg)
        candidates = pipelines(self.cfg, dataloader)
        if not candidates:
            raise ValueError(f'{config}: expected a {dataloader} with a pipeline')
        self.pipeline: list[dict] = candidates[0]

    @cached_property
    def steps(self) -> list[Callable[[dict], dict]]:
        """Build the transforms of the pipeline."""
        self._enter()
        return [TRANSFORMS.build(step) for step in self.pipeline]

    @cached_property
    def collate(self) -> Callable[[list], dict]:
        """Return the collate function that ``tools/train.py`` uses."""
        stated = self.cfg.train_dataloader.get('collate_fn')
        if stated is not None:
            arguments = {key: value for key, value in stated.items() if key != 'type'}
            return partial(FUNCTIONS.get(stated['type']), **arguments)
        return default_collate if self.cfg.get('default_scope') == 'mmpretrain' else pseudo_collate

    @cached_property
    def model(self) -> torch.nn.Module:
        """Build the network with random weights, on its device."""
        self._enter()
        return build_model(self.cfg).to(self.device).train()

    @cached_property
    def optim_wrapper(self) -> Any:
        """Build the config's optimizer."""
        self._enter()
        return build_optim_wrapper(self.model, self.cfg.optim_wrapper)

    def _enter(self) -> None:
        init_default_scope(self.cfg.get('default_scope', 'mmengine'))

    def load(self, image: str) -> dict:
        """Run one image through the pipeline."""
        results = self.start(image)
        for step in self.steps:
            results = step(results)
        return results

    def load_batch(self, settings: Settings) -> dict:
        """Return a collated batch of images, with the same crops for every config."""
        np.random.seed(settings.seed)
        picked = [settings.images[i % len(settings.images)] for i in range(settings.batch)]
        return self.collate([self.load(image) for image in picked])

    @staticmethod
    def start(image: str) -> dict:
        """Return a sample as from a data set: an image path, a label, two boxes and two masks."""
        width, height = IMAGE_SIZE
        boxes = [(0.1, 0.2, 0.6, 0.9), (0.5, 0.1, 0.9, 0.5)]
        instances = []
        for box in boxes:
            x0, y0, x1, y1 = np.multiply(box, (width, height, width, height)).tolist()
            instances.append(dict(bbox=[x0, y0, x1, y1], bbox_label=0, ignore_flag=0,
                                  mask=[[x0, y0, x1, y0, x1, y1, x0, y1]]))
        return dict(img_path=image, img_id=0, sample_idx=0, gt_label=0, height=height, width=width,
                    instances=instances)


def measure_preprocessing(settings: Settings, channels: str = '24S',
                          stats: str = 'photos-448') -> Section:
    """Measure the way from one 448x448 image to normalised channels: our transforms and peers."""
    image = cv2.resize(cv2.imread(settings.images[0]), (448, 448), interpolation=cv2.INTER_AREA)
    indices, loaded = channel_indices(channels), load_stats(stats)
    fused = FusedBlockDCT(channels, stats)
    fused_int8 = FusedBlockDCT(channels, stats, dtype='int8', scale=6)
    single = [YCbCr(), BlockDCT(), ChannelSelect(channels), FreqNormalize(stats)]
    module = BlockDCTLayer(channels, stats)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
    peers, notes = available_peers(indices, loaded)

    def chain() -> None:
        results = dict(img=image)
        for step in single:
            results = step(results)

    works = {
        'FusedBlockDCT': lambda: fused(dict(img=image)),
        'FusedBlockDCT, int8': lambda: fused_int8(dict(img=image)),
        'the four single transforms': chain,
        'BlockDCTLayer on the CPU': lambda: module(tensor),
        **{name: partial(peer, image) for name, peer in peers.items()},
    }
    title = f'Pre-processing: one 448x448 image to {channels}'
    return Section(title, 'ms', time_interleaved(works, 10 * settings.repeats, title=title), notes)


def measure_pipelines(subjects: Sequence[Subject], settings: Settings) -> list[Section]:
    """Measure the whole pipelines and their steps, in time of the thread. The configs take turns in each round."""
    rounds = settings.repeats + 1
    seconds = [np.zeros((rounds, len(settings.images), len(s.steps))) for s in subjects]
    for turn in tqdm(range(rounds), 'Pipeline', unit='round', leave=False, disable=None):
        for subject, table in zip(subjects, seconds):  # one after the other, with its code in the cache as in a worker
            for number, image in enumerate(settings.images):
                np.random.seed(settings.seed + 1000 * turn + number)
                results = subject.start(image)
                for i, step in enumerate(subject.steps):
                    start = time.thread_time()
                    results = step(results)
                    table[turn, number, i] = time.thread_time() - start
    # The median over the images of a round ignores slow outliers, which other processes cause
    per_round = [1e3 * np.median(table[1:], axis=1) for table in seconds]
    whole = [1e3 * np.median(table[1:].sum(axis=2), axis=1) for table in seconds]
    size = np.mean([os.path.getsize(image) for image in settings.images])
    note = f'{len(settings.images)} JPEG files, {size / 1000:.0f} kB each on average'
    title = settings.dataloader.replace('_dataloader', '').replace('train', 'training').capitalize()
    sections = [Section(f'{title} pipeline', 'ms/image',
                        [Entry.of(s.name, w) for s, w in zip(subjects, whole)], [note])]
    for subject, table in zip(subjects, per_round):
        names = [f'{i + 1}. {transform_type(step)}' for i, step in enumerate(subject.pipeline)]
        sections.append(Section(f'Steps of {subject.name}', 'ms/image',
                                [Entry.of(name, column) for name, column in zip(names, table.T)]))
    return sections


def tensor_bytes(inputs: Any) -> int:
    """Return the bytes of a tensor or of a list of tensors."""
    tensors = [inputs] if torch.is_tensor(inputs) else inputs
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _received(subject: Subject, samples: list[dict], batch: int, batches: int) -> float:
    """Return the seconds per image from a worker to the main process, without the start-up."""
    loader = DataLoader(samples * batches, batch, num_workers=1, collate_fn=subject.collate)
    received = iter(loader)
    next(received)
    start = time.perf_counter()
    count = sum(1 for _ in received)
    return (time.perf_counter() - start) / (batch * count)


def measure_transfer(subjects: Sequence[Subject], settings: Settings,
                     batches: int = 8) -> list[Section]:
    """Measure the bytes of an image, collation, and transfer to the main process and the device."""
    packed = []
    for subject in subjects:
        np.random.seed(settings.seed)
        picked = [settings.images[i % len(settings.images)] for i in range(settings.batch)]
        packed.append([subject.load(image) for image in picked])
    works = {s.name: partial(s.collate, samples) for s, samples in zip(subjects, packed)}
    worker = np.zeros((settings.repeats, len(subjects)))
    for times in worker:
        for i, (subject, samples) in enumerate(zip(subjects, packed)):
            times[i] = _received(subject, samples, settings.batch, batches)
    sizes = [np.mean([tensor_bytes(sample['inputs']) for sample in samples]) for samples in packed]
    sections = [
        Section('Bytes from the loader to the device', 'bytes/image',
                [Entry(s.name, size, size, size) for s, size in zip(subjects, sizes)]),
        Section('Collation', 'ms/image', time_interleaved(works, settings.repeats, settings.batch)),
        Section('Worker to main process', 'ms/image',
                [Entry.of(s.name, 1e3 * column) for s, column in zip(subjects, worker.T)]),
    ]
    if settings.device != 'cpu':
        inputs = [s.collate(samples)['inputs'] for s, samples in zip(subjects, packed)]
        copies = {s.name: partial(_to_device, tensors, settings.device)
                  for s, tensors in zip(subjects, inputs)}
        sections.append(Section(f'Copy to {settings.device}', 'ms/image',
                                time_interleaved(copies, settings.repeats, settings.batch)))
    return sections


def _to_device(inputs: Any, device: str) -> None:
    moved = [t.to(device) for t in ([inputs] if torch.is_tensor(inputs) else inputs)]
    synchronize(device)
    del moved


def measure_preprocessors(subjects: Sequence[Subject], settings: Settings) -> list[Section]:
    """Measure data preprocessors and unpacking layers for batches on the device, and their memory bandwidth."""
    works, moved = {}, {}
    for subject in subjects:
        batch = subject.load_batch(settings)
        batch['inputs'] = subject.model.data_preprocessor.cast_data(batch['inputs'])
        works[subject.name] = partial(_preprocess, subject, batch, settings.device)
        out = subject.model.data_preprocessor(dict(batch))['inputs']
        if device_freq(subject.cfg):
            moved[subject.name] = tensor_bytes(batch['inputs']) + tensor_bytes(out)
        if isinstance(subject.model.backbone, UnpackMixin):
            name = f'{subject.name}, unpacking'
            works[name] = partial(_unpack, subject, out)
            moved[name] = tensor_bytes(out) + tensor_bytes(_unpack(subject, out))
    entries = time_interleaved(works, settings.repeats, settings.batch)
    bandwidth = copy_bandwidth(settings)
    notes = []
    for entry in entries:
        if entry.name in moved:
            size = moved[entry.name] / settings.batch
            reached = size / entry.median / 1e6
            notes.append(f'{entry.name}: {size:,.0f} bytes read and written per image, {reached:.2f} GB/s, '
                         f'{reached / bandwidth:.0%} of the copy bandwidth of {settings.device}, {bandwidth:.1f} GB/s')
    return [Section('Data preprocessor on the device', 'ms/image', entries, notes)]


@torch.no_grad()
def _unpack(subject: Subject, inputs: torch.Tensor) -> torch.Tensor:
    pixels = subject.model.backbone.enter(inputs)
    synchronize(subject.device)
    return pixels


def _preprocess(subject: Subject, batch: dict, device: str) -> None:
    subject.model.data_preprocessor(dict(batch))
    synchronize(device)


def copy_bandwidth(settings: Settings, megabytes: int = 256) -> float:
    """Return the GB/s that the device reads and writes while it copies memory."""
    source = torch.zeros(megabytes << 20, dtype=torch.uint8, device=settings.device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        synchronize(settings.device)

    entry = time_interleaved({'copy': copy}, settings.repeats, unit=1)[0]
    return 2 * source.numel() / entry.median / 1e9


def measure_networks(subjects: Sequence[Subject], settings: Settings,
                     amp: bool = False) -> Iterator[Section]:
    """Measure forward and backward passes in float32 or with AMP, and the memory of training."""
    batches = [s.model.data_preprocessor(s.load_batch(settings), True) for s in subjects]
    precision = 'AMP' if amp else 'float32'
    for title, run in ((f'Network forward, {precision}', _forward),
                       (f'Network forward and backward, {precision}', _backward)):
        works = {s.name: partial(run, s, batch, amp) for s, batch in zip(subjects, batches)}
        entries = time_interleaved(works, settings.repeats, settings.batch, title=title)
        yield Section(title, 'ms/image', entries)
    memory = [_training_memory(s, batch, amp) / settings.batch / 1e6
              for s, batch in zip(subjects, batches)]
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
    synchronize(subject.device)


def _loss(subject: Subject, batch: dict, amp: bool) -> torch.Tensor:
    subject.model.train()
    with _autocast(subject.device, amp):
        return subject.model.parse_losses(subject.model(**batch, mode='loss'))[0]


def _backward(subject: Subject, batch: dict, amp: bool) -> None:
    subject.model.zero_grad(set_to_none=True)
    _loss(subject, batch, amp).backward()
    synchronize(subject.device)


def _training_memory(subject: Subject, batch: dict, amp: bool) -> int:
    """Return the peak bytes on a GPU, or the bytes kept for the backward pass on a CPU."""
    if subject.device != 'cpu':
        return peak_memory(partial(_backward, subject, batch, amp), subject.device)
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
    """Measure whole training steps in one process, from the image file to the optimizer."""

    def work(subject: Subject) -> None:
        subject.model.train()
        subject.model.train_step(subject.load_batch(settings), subject.optim_wrapper)
        synchronize(subject.device)

    works = {s.name: partial(work, s) for s in subjects}
    title = 'Training step, end to end'
    entries = time_interleaved(works, settings.repeats, settings.batch, title=title)
    return [Section(title, 'ms/image', entries)]


def resident_memory() -> float:
    """Return the memory of this process in MB (Linux)."""
    pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def measure_memory(subjects: Sequence[Subject], settings: Settings, images: int) -> list[Section]:
    """Measure the memory of the process over ``images`` images of each pipeline, as in a worker."""
    sections = []
    for subject in subjects:
        marks = sorted({1, max(1, images // 10), images // 2, images} - {0})
        entries = []
        with tqdm(total=images, unit='image', desc=subject.name, disable=None) as bar:
            for number in range(1, images + 1):
                subject.load(settings.images[number % len(settings.images)])
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


def jpeg_files(folder: Optional[str], count: int, scratch: str, size: Sequence[int] = IMAGE_SIZE) -> list[str]:
    """Return ``count`` JPEG files: the first ones of ``folder``, or new ones in ``scratch``."""
    if folder is None:
        return make_images(scratch, count, size)
    paths = sorted(str(path) for path in Path(folder).rglob('*')
                   if path.suffix.lower() in ('.jpg', '.jpeg'))
    if not paths:
        raise ValueError(f'{folder}: expected JPEG files, found none')
    return paths[:count]


def benchmark(configs: Sequence[str], sections: Sequence[str], settings: Settings,
              memory: int = 0) -> Iterator[Section]:
    """Measure configs relative to the first of them, section by section.

    Args:
        configs (Sequence[str]): Paths or ``package::file``. The first is the baseline.
        sections (Sequence[str]): Names from ``SECTIONS``.
        settings (Settings): Settings of the run.
        memory (int): Number of images for the memory of a worker. Defaults to 0: not measured.
    """
    subjects = [Subject(config, settings.device, settings.dataloader) for config in configs]
    for name in sections:
        yield from SECTIONS[name](subjects, settings)
    if memory:
        yield from measure_memory(subjects, settings, memory)


@dataclass
class Report:
    """All results of a run, with its machine and command."""
    machine: dict[str, Any]
    command: str
    sections: list[Section]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return dict(machine=self.machine, command=self.command, sections=[
            dict(title=s.title, unit=s.unit, notes=s.notes,
                 entries=[dict(entry._asdict(), ratio=s.ratio(entry)) for entry in s.entries])
            for s in self.sections])

    def markdown(self) -> str:
        """Return Markdown tables of medians, quartiles and ratios."""
        versions = ', '.join(map(' '.join, self.machine['versions'].items()))
        lines = [f'{self.machine["date"]}, {self.machine["cpu"]}, GPU: {self.machine["gpu"]}, '
                 f'{self.machine["threads"]} thread(s), load average '
                 f'{self.machine["load_average"]} at the start; '
                 f'Python {self.machine["python"]}, {versions}', '', f'`{self.command}`']
        for section in self.sections:
            lines += ['', f'### {section.title}', '', f'| | {section.unit} | quartiles | ratio |',
                      '| :-- | --: | --: | --: |']
            lines += [f'| {e.name} | {number(e.median)} | {number(e.low)} to {number(e.high)} | '
                      f'{section.ratio(e):.2f} |' for e in section.entries]
            lines += ['', *section.notes] if section.notes else []
        return '\n'.join(lines) + '\n'


def number(value: float) -> str:
    """Format a number with at least three digits, and with thousands separators."""
    return f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'


def scratch_folder() -> tempfile.TemporaryDirectory:
    """Return a temporary folder for images."""
    return tempfile.TemporaryDirectory(prefix='mmfreq_benchmark_')
