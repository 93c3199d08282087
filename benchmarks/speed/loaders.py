#!/usr/bin/env python3
"""Measure training pipelines behind different loaders of JPEG files, and images per second with worker processes.

RGB configs are loaded with OpenCV and with mmcv's turbojpeg backend, frequency-domain configs with OpenCV and with
LoadYCbCrFromFile. Channels are sent as int8, and bilinear resizing waits for the DCT. The candidates take turns, and
the first is the baseline of the ratios. Times of pipelines are those of the thread, so that other programs disturb them
less. Without libturbojpeg only OpenCV is measured. The tables are written to PREFIX.md and PREFIX.json.
"""
import argparse
import json
import shlex
import sys
import time
from copy import deepcopy

import cv2
import mmcv
import torch
from measure import Report, Section, Settings, Subject, jpeg_files, machine, measure_pipelines, scratch_folder
from torch.utils.data import DataLoader
from training import Images

from mmfreq.apis.measure import Entry
from mmfreq.config.pipelines import input_spec, lazy_step, transform_type
from mmfreq.dct.planes import decoder
from mmfreq.files import atomic_write_text

CONFIGS = ['mmpretrain::resnet/resnet50_8xb32_in1k.py',
           *map('mmfreq::resnet/resnet50-dct{}_8xb32_in1k.py'.format, ('24s', '24n'))]
INT8 = dict(dtype='int8', scale=6)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('configs', nargs='*', default=CONFIGS, metavar='CONFIG',
        help=f'config files, an RGB one first (default: {" ".join(CONFIGS)})')
    add('--reduce', action='store_true', help='measure LoadYCbCrFromFile with reduce=True, too')
    add('--images', metavar='FOLDER', help='folder of JPEG files (default: made from the photographs in scikit-image)')
    add('--image-count', type=int, default=24, help='number of images (default: %(default)s)')
    add('--size', type=int, nargs=2, default=(500, 375), metavar=('WIDTH', 'HEIGHT'),
        help='pixels of the images that are made (default: %(default)s)')
    add('--repeats', type=int, default=15, help='rounds (default: %(default)s)')
    add('--workers', type=int, nargs='*', default=[], help='numbers of worker processes (default: do not measure)')
    add('--batches', type=int, default=40, help='batches of 32 for each number of workers (default: %(default)s)')
    add('--out', metavar='PREFIX', default='work_dirs/loaders', help='(default: %(default)s)')
    return parser.parse_args()


def candidates(config: str, reduce: bool) -> list[Subject]:
    """Return a config with each of its loaders."""
    spec = input_spec(Subject(config).cfg, Subject(config).pipeline)
    loaders = {'OpenCV': {}, 'turbojpeg': dict(imdecode_backend='turbojpeg')}
    if spec.channels:
        loaders = {'OpenCV': {}, 'planes': dict(type='LoadYCbCrFromFile')}
        if reduce:
            loaders['reduced planes'] = dict(type='LoadYCbCrFromFile', reduce=True)
    subjects = []
    for name, loader in loaders.items() if decoder() else [('OpenCV', {})]:
        subject = Subject(config)
        subject.name = f'{spec.selection if spec.channels else "RGB"}, {name}'
        subject.pipeline = [step_of(deepcopy(step), loader, bool(spec.channels)) for step in subject.pipeline]
        subjects.append(subject)
    return subjects


def step_of(step: dict, loader: dict, is_freq: bool) -> dict:
    """Return a step of a pipeline as it is measured."""
    if transform_type(step) == 'LoadImageFromFile':
        return {**step, **loader}
    if transform_type(step) == 'FusedBlockDCT':
        return {**step, **INT8}
    return (lazy_step(step) if is_freq else None) or step


def images_per_second(subject: Subject, images: list[str], workers: int, batches: int) -> float:
    """Return how many images a loader delivers, without the batches that its workers load while they start."""
    ahead = 2 * workers + 1
    loader = DataLoader(Images(subject, images, 32 * (ahead + batches)), 32, num_workers=workers,
                        collate_fn=subject.collate)
    start = 0.
    for i, _ in enumerate(loader):
        if i + 1 == ahead:
            start = time.perf_counter()
    return 32 * batches / (time.perf_counter() - start)


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    if decoder():
        mmcv.use_backend('turbojpeg')  # which mmcv needs once in a process; a loader names its own
    report = Report(machine(), shlex.join(['python', *sys.argv]), [])
    subjects = [subject for config in args.configs for subject in candidates(config, args.reduce)]
    with scratch_folder() as scratch:
        images = jpeg_files(args.images, args.image_count, scratch, args.size)
        report.sections += measure_pipelines(subjects, Settings(args.repeats, 1, images))
        for workers in args.workers:
            rounds = [[images_per_second(subject, images, workers, args.batches) for subject in subjects]
                      for _ in range(3)]
            entries = [Entry.of(subject.name, values) for subject, values in zip(subjects, zip(*rounds))]
            report.sections.append(Section(f'{workers} workers', 'images/s', entries))
    print(report.markdown())
    atomic_write_text(f'{args.out}.md', report.markdown())
    atomic_write_text(f'{args.out}.json', json.dumps(report.as_dict(), indent=1) + '\n')


if __name__ == '__main__':
    main()
