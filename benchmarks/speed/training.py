#!/usr/bin/env python3
"""Measure training with worker processes that load, from the image files to the optimizer.

In each round, every config gets a loader with new workers. The clock starts after the batches that
the workers have prepared in advance. The first config is the baseline of the ratios. The tables are
written to PREFIX.md and PREFIX.json after each number of workers.
"""
import argparse
import json
import shlex
import sys
import time
from functools import partial

import cv2
import torch
from measure import Report, Section, Subject, jpeg_files, machine, scratch_folder
from mmengine.optim import build_optim_wrapper
from torch.utils.data import DataLoader, Dataset

from mmfreq.apis.measure import Entry, synchronize
from mmfreq.files import atomic_write_text

_MINE = 'mmfreq::resnet/resnet50-dct{}_8xb32_in1k.py'
CONFIGS = ['mmpretrain::resnet/resnet50_8xb32_in1k.py',
           *map(_MINE.format, ('24s', '24s-int8', '48s-int8', '24s-device'))]


class Images(Dataset):
    """A data set of ``length`` samples that runs the same image files through a training pipeline."""

    def __init__(self, subject: Subject, images: list[str], length: int) -> None:
        self.subject, self.images, self.length = subject, images, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return self.subject.load(self.images[index % len(self.images)])


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    add = parser.add_argument
    add('configs', nargs='*', default=CONFIGS, metavar='CONFIG',
        help=f'config files, the baseline first (default: {" ".join(CONFIGS)})')
    add('--workers', type=int, nargs='+', default=[1, 2, 4, 8, 16], help='numbers of workers (default: %(default)s)')
    add('--batch', type=int, default=64, help='images per batch (default: %(default)s)')
    add('--batches', type=int, default=20, help='timed batches per round (default: %(default)s)')
    add('--rounds', type=int, default=3, help='number of rounds (default: %(default)s)')
    add('--amp', action='store_true', help='train with AMP in float16 on a GPU')
    add('--compile', action='store_true', help='train with torch.compile')
    add('--images', metavar='FOLDER', help='folder of JPEG files (default: 500x375 pixels, made from photographs)')
    add('--device', choices=['cpu', 'cuda'], default=device, help='(default: %(default)s)')
    add('--out', metavar='PREFIX', default='work_dirs/training', help='(default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    if args.amp and args.device == 'cpu':
        raise SystemExit('training: --amp: expected a GPU')
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    report = Report(machine(), shlex.join(['python', *sys.argv]), [])
    with scratch_folder() as scratch:
        images = jpeg_files(args.images, 24, scratch)
        subjects = [Subject(config, args.device) for config in args.configs]
        trainers = [trainer(subject, args.amp, args.compile) for subject in subjects]
        for workers in args.workers:
            seconds: dict[str, list[float]] = {}
            for _ in range(args.rounds):
                for subject, train in zip(subjects, trainers):
                    took = seconds_per_image(subject, train, images, workers, args)
                    seconds.setdefault(subject.name, []).append(1e3 * took)
                    print(f'{workers} workers, {subject.name}: {1 / took:.1f} images/s', flush=True)
            entries = [Entry.of(name, values) for name, values in seconds.items()]
            how = ', AMP' * args.amp + ', compiled' * args.compile
            report.sections.append(Section(f'Training{how}, {workers} workers', 'ms/image', entries))
            atomic_write_text(f'{args.out}.md', report.markdown())
            atomic_write_text(f'{args.out}.json', json.dumps(report.as_dict(), indent=1) + '\n')
    print(report.markdown())


def trainer(subject: Subject, amp: bool, compiled: bool) -> partial:
    """Return a function that trains on a batch with the optimizer of the config."""
    if compiled:
        subject.model.forward = torch.compile(subject.model.forward)  # as mmengine's Runner does
    cfg = dict(subject.cfg.optim_wrapper)
    if amp:
        cfg.update(type='AmpOptimWrapper', dtype='float16')
    return partial(subject.model.train_step, optim_wrapper=build_optim_wrapper(subject.model, cfg))


def seconds_per_image(subject: Subject, train: partial, images: list[str], workers: int,
                      args: argparse.Namespace) -> float:
    """Return the seconds per image, after the batches that were loaded in advance."""
    ahead = 2 * workers + 1  # two batches wait at each worker
    data = Images(subject, images, (ahead + args.batches) * args.batch)
    loader = DataLoader(data, args.batch, num_workers=workers, collate_fn=subject.collate,
                        pin_memory=args.device != 'cpu')
    start = 0.
    for i, batch in enumerate(loader):
        train(batch)
        if i + 1 == ahead:
            synchronize(args.device)
            start = time.perf_counter()
    synchronize(args.device)
    return (time.perf_counter() - start) / (args.batches * args.batch)


if __name__ == '__main__':
    main()
