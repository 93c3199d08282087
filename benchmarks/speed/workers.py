#!/usr/bin/env python3
"""Measure the memory of a data loader's workers, forked and spawned, with the training pipeline of a config.

The figures come from the Linux kernel, in MB, for one of two workers after its share of the images:
resident: all pages of the worker, including those that it shares with its parent;
shared out (PSS): each page divided by the number of processes that share it;
its own (USS): the pages that no other process has.
"""
import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cold_start import CONFIGS, Images
from torch.utils.data import DataLoader

FIGURES = {'resident': ('Rss', ), 'shared out (PSS)': ('Pss', ), 'its own (USS)': ('Private_Clean', 'Private_Dirty')}


def memory() -> list[float]:
    """Return ``FIGURES`` of this process in MB."""
    kilobytes = {}
    for line in Path('/proc/self/smaps_rollup').read_text(encoding='ascii').splitlines()[1:]:
        key, value = line.split()[:2]
        kilobytes[key.rstrip(':')] = int(value)
    return [sum(kilobytes[key] for key in keys) * 1.024e-3 for keys in FIGURES.values()]


class Watched(Images):
    """A data set that repeats one image and returns the memory of the loading process with each."""

    def __init__(self, config: str, image: str, count: int) -> None:
        super().__init__(config, image)
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index), memory()


def measure(config: str, image: str, count: int, context: str) -> list[float]:
    """Return the memory of a worker after ``count`` images, taken with its last batch."""
    import mmpretrain.datasets  # noqa: F401

    import mmfreq  # noqa: F401
    loader = DataLoader(Watched(config, image, 2 * count), 10, num_workers=2, multiprocessing_context=context)
    for _, figures in loader:
        last = [float(column[-1]) for column in figures]
    return last


def main() -> None:
    """Measure every variant in a new process and print, or measure one variant in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=200, help='images per worker (default: %(default)s)')
    parser.add_argument('--measure', nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        config, image, context = args.measure
        print(*measure(config, image, args.images, context))
        return
    from measure import make_images
    print(f'| | {" | ".join(FIGURES)} |\n| :-- | --: | --: | --: |')
    with TemporaryDirectory() as folder:
        image = make_images(folder, 1)[0]
        for context in ('fork', 'spawn'):
            for name, config in CONFIGS.items():
                command = [sys.executable, __file__, '--images', str(args.images), '--measure', config, image, context]
                output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                figures = ' | '.join(f'{float(value):,.0f}' for value in output.split()[-len(FIGURES):])
                print(f'| {name}, {context} | {figures} |', flush=True)


if __name__ == '__main__':
    main()
