#!/usr/bin/env python3
"""Measure start-up times: imports, the first image with and without compiled loops, a worker, eight processes.

Every figure comes from a new process. Stock and frequency-domain processes take turns. The table is printed and written
to a file.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader
from tqdm import tqdm

CONFIGS = {'stock RGB': 'mmpretrain::resnet/resnet50_8xb32_in1k.py',
           'DCT-24S': 'mmfreq::resnet/resnet50-dct24s_8xb32_in1k.py'}
IMPORTS = {'import mmpretrain': 'import mmpretrain.datasets', 'import mmfreq': 'import mmfreq',
           'import both': 'import mmfreq, mmpretrain.datasets'}


class Images:
    """A data set of one image that runs through the training pipeline of a config."""

    def __init__(self, config: str, image: str) -> None:
        from mmcv.transforms import Compose

        from mmfreq.config.paths import config_path
        init_default_scope('mmpretrain')
        cfg = Config.fromfile(str(config_path(config)))
        self.steps, self.image = Compose(cfg.train_dataloader.dataset.pipeline), image

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return self.steps(dict(img_path=self.image, gt_label=0))['inputs']


def measure_here(kind: str, config: str, image: str) -> float:
    """Return the seconds to build a pipeline and load an image, or to get the first batch of a new worker."""
    import mmpretrain.datasets  # noqa: F401

    import mmfreq  # noqa: F401
    start = time.perf_counter()
    images = Images(config, image)
    if kind == 'first image':
        images[0]
    else:
        start = time.perf_counter()
        next(iter(DataLoader(images, num_workers=1, multiprocessing_context=kind)))
    return time.perf_counter() - start


def start(kind: str, config: str, image: str, cache: str) -> subprocess.Popen:
    """Start a process that measures and stores its compiled loops in ``cache``."""
    command = [sys.executable, __file__, '--measure', kind, config, image]
    environment = {**os.environ, 'NUMBA_CACHE_DIR': cache, 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def seconds(process: subprocess.Popen) -> float:
    """Return the seconds that a process measured.

    Raises:
        RuntimeError: The process failed; the message is its last line.
    """
    output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(errors.strip().splitlines()[-1])
    return float(output.split()[-1])


def measure(image: str, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of ``repeats`` rounds by name; an empty cache and eight processes are measured once."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as crowd, \
            tqdm(total=repeats * (3 + 3 * len(CONFIGS)) + 3, unit='process', disable=None) as bar:

        def add(name: str, value: float) -> None:
            times.setdefault(name, []).append(value)
            bar.update()

        add('first image, nothing compiled: DCT-24S', seconds(start('first image', CONFIGS['DCT-24S'], image, empty)))
        for _ in range(repeats):
            for name, code in IMPORTS.items():
                begin = time.perf_counter()
                subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
                add(name, time.perf_counter() - begin)
            for kind in ('first image', 'fork', 'spawn'):
                title = kind if kind == 'first image' else f"a worker's first batch, {kind}"
                for name, config in CONFIGS.items():
                    add(f'{title}: {name}', seconds(start(kind, config, image, empty)))
        begin = time.perf_counter()
        processes = [start('first image', CONFIGS['DCT-24S'], image, crowd) for _ in range(8)]
        for process in processes:
            seconds(process)
        add('eight processes at once, nothing compiled', time.perf_counter() - begin)
        add('first image after these eight: DCT-24S', seconds(start('first image', CONFIGS['DCT-24S'], image, crowd)))
    return times


def main() -> None:
    """Measure, print and write, or take one measurement in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=5, help='rounds (default: %(default)s)')
    parser.add_argument('--out', default='work_dirs/cold_start.md', help='(default: %(default)s)')
    parser.add_argument('--measure', nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(measure_here(*args.measure))
        return
    from measure import machine, make_images, number

    from mmfreq.files import atomic_write_text
    with tempfile.TemporaryDirectory() as folder:
        times = measure(make_images(folder, 1)[0], args.repeats)
    lines = [f'{key}: {value}' for key, value in machine().items() if key != 'versions']
    lines += ['', '| | s | range |', '| :-- | --: | --: |']
    for name, values in times.items():
        middle, low, high = (number(f(values)) for f in (statistics.median, min, max))
        lines.append(f'| {name} | {middle} | {low} to {high} |')
    text = '\n'.join(lines) + '\n'
    print(text)
    atomic_write_text(args.out, text)


if __name__ == '__main__':
    main()
