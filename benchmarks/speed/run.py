#!/usr/bin/env python3
"""Measure the cost of DCT channels relative to RGB pixels on this machine.

The configs take turns. The first is the baseline of the ratios. Medians, quartiles and ratios are
printed and written to PREFIX.md, PREFIX.json and PREFIX.png. No training and no data set is needed:
the images come from scikit-image unless --images names a folder. Other implementations of the DCT
are measured if they are installed (pip install scipy pyjpegio).
"""
import argparse
import json
import shlex
import sys

import cv2
import torch
from measure import SECTIONS, Report, Settings, benchmark, jpeg_files, machine, scratch_folder
from picture import plot_benchmark

from mmfreq.files import atomic_write_text

_MINE = 'mmfreq::resnet/resnet50-dct{}_8xb32_in1k.py'
CONFIGS = ['mmpretrain::resnet/resnet50_8xb32_in1k.py',
           *map(_MINE.format, ('24s', '24s-int8', '48s-int8'))]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('configs', nargs='*', default=CONFIGS, metavar='CONFIG',
        help=f'config files, the baseline first (default: {" ".join(CONFIGS)})')
    add('--sections', nargs='+', choices=[*SECTIONS, 'none'], default=list(SECTIONS),
        help='sections to measure (default: all; amp is slow on a processor without bfloat16)')
    add('--out', metavar='PREFIX', default='work_dirs/benchmark', help='(default: %(default)s)')
    add('--repeats', type=int, default=15, help='number of rounds (default: %(default)s)')
    add('--batch', type=int, default=8, help='images per batch (default: %(default)s)')
    add('--images', metavar='FOLDER', help='folder of JPEG files (default: 500x375 pixels, quality '
        '95, made from the photographs in scikit-image)')
    add('--image-count', type=int, default=24, help='number of images (default: %(default)s)')
    add('--memory', type=int, default=0, metavar='N', help='also measure the memory of the process over '
        'N images of each pipeline (default: do not)')
    add('--dataloader', choices=['train_dataloader', 'test_dataloader'], default='train_dataloader',
        help='loader whose pipelines are measured (default: %(default)s)')
    add('--threads', type=int, default=1, help='threads of torch (default: %(default)s)')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    add('--device', choices=['cpu', 'cuda'], default=device, help='device of the networks '
        '(default: the GPU if there is one)')
    add('--quick', action='store_true', help='one round over two images, to check that '
        'everything runs')
    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    if args.quick:
        args.repeats, args.batch, args.image_count = 1, 2, 2
    if min(args.repeats, args.batch, args.image_count, args.threads) < 1 or args.memory < 0:
        raise SystemExit('benchmark: expected --repeats, --batch, --image-count, --threads >= 1, '
                         '--memory >= 0')
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(0)
    report = Report(machine(), shlex.join(['python', *sys.argv]), [])
    print(report.markdown())
    with scratch_folder() as scratch:
        try:
            images = jpeg_files(args.images, args.image_count, scratch)
            settings = Settings(args.repeats, args.batch, images, args.device,
                                dataloader=args.dataloader)
            sections = [name for name in args.sections if name != 'none']
            for section in benchmark(args.configs, sections, settings, args.memory):
                report.sections.append(section)
                text = Report(report.machine, '', [section]).markdown()
                print(text.partition('###')[2], flush=True)
        except ValueError as error:
            raise SystemExit(f'benchmark: {error}') from error
        finally:
            write(report, args.out)


def write(report: Report, prefix: str) -> None:
    """Write all finished sections, even after an interruption."""
    if report.sections:
        atomic_write_text(f'{prefix}.md', report.markdown())
        atomic_write_text(f'{prefix}.json', json.dumps(report.as_dict(), indent=1) + '\n')
        plot_benchmark(report.sections, f'{prefix}.png')
        print(f'written: {prefix}.md {prefix}.json {prefix}.png')


if __name__ == '__main__':
    main()
