#!/usr/bin/env python3
"""Measure what the frequency input costs against RGB pixels, on this machine.

The first config is the baseline. Candidates take turns; medians, quartiles and ratios are printed and written as
PREFIX.md, PREFIX.json and PREFIX.png. Nothing is trained and no data set is needed: photos come from scikit-image
unless --images names a folder. Peers that are not installed are left out (pip install scipy pyjpegio).
"""
import argparse
import json
import shlex
import sys

import cv2
import torch
from measure import SECTIONS, Report, Settings, benchmark, machine, photo_files, scratch_folder
from picture import plot_benchmark

from mmfreq.files import atomic_write_text

CONFIGS = ['mmpretrain::resnet/resnet50_8xb32_in1k.py',
           *(f'mmfreq::resnet/resnet50-{name}_8xb32_in1k.py' for name in ('dct24s', 'dct24s-int8', 'dct48s-int8'))]


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', default=CONFIGS, metavar='CONFIG', help='config files, the baseline '
                        f'first (default: {" ".join(CONFIGS)})')
    parser.add_argument('--sections', nargs='+', choices=[*SECTIONS, 'none'], default=list(SECTIONS),
                        help='what to measure (default: all; amp is the network under AMP, slow on a processor without '
                        'bfloat16)')
    parser.add_argument('--out', metavar='PREFIX', default='work_dirs/benchmark', help='(default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=15, help='rounds (default: %(default)s)')
    parser.add_argument('--batch', type=int, default=8, help='images of a batch (default: %(default)s)')
    parser.add_argument('--images', metavar='FOLDER', help='JPEG files to read (default: 500x375 pixels, quality 95, '
                        'made of the photographs of scikit-image)')
    parser.add_argument('--image-count', type=int, default=24, help='how many of them (default: %(default)s)')
    parser.add_argument('--memory', type=int, default=0, metavar='N', help='watch the memory of the process over N '
                        'images of each training pipeline (default: do not)')
    parser.add_argument('--threads', type=int, default=1, help='threads of torch (default: %(default)s)')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cuda' if torch.cuda.is_available() else 'cpu',
                        help='where the networks run (default: the GPU if there is one)')
    parser.add_argument('--quick', action='store_true', help='one round over two photos: shows that it runs, measures '
                        'nothing')
    return parser.parse_args()


def main() -> None:
    """Measures, prints, writes."""
    args = parse_args()
    if args.quick:
        args.repeats, args.batch, args.image_count = 1, 2, 2
    if min(args.repeats, args.batch, args.image_count, args.threads) < 1 or args.memory < 0:
        raise SystemExit('benchmark: expected --repeats, --batch, --image-count and --threads >= 1, --memory >= 0')
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(0)
    report = Report(machine(), shlex.join(['python', *sys.argv]), [])
    print(report.markdown())
    with scratch_folder() as scratch:
        try:
            settings = Settings(args.repeats, args.batch, photo_files(args.images, args.image_count, scratch),
                                args.device)
            for section in benchmark(args.configs, [s for s in args.sections if s != 'none'], settings, args.memory):
                report.sections.append(section)
                print(Report(report.machine, '', [section]).markdown().partition('###')[2], flush=True)
        except ValueError as error:
            raise SystemExit(f'benchmark: {error}') from error
        finally:
            write(report, args.out)


def write(report: Report, prefix: str) -> None:
    """Writes what has been measured, also when it is interrupted."""
    if report.sections:
        atomic_write_text(f'{prefix}.md', report.markdown())
        atomic_write_text(f'{prefix}.json', json.dumps(report.as_dict(), indent=1) + '\n')
        plot_benchmark(report.sections, f'{prefix}.png')
        print(f'written: {prefix}.md {prefix}.json {prefix}.png')


if __name__ == '__main__':
    main()
