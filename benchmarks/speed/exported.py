#!/usr/bin/env python3
"""Measure files of "mmfreq export" with onnxruntime on the CPU, from decoded pixels to results, image by image.

The files take turns. The first is the baseline of the ratios. Untrained models suffice, because the times of a
classifier do not depend on its weights. The tables are written to PREFIX.md and PREFIX.json.
"""
import argparse
import json
import shlex
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from measure import Report, Section, jpeg_files, machine, scratch_folder
from PIL import Image

from mmfreq.apis.measure import time_interleaved
from mmfreq.files import atomic_write_text


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('files', nargs='+', metavar='MODEL.onnx', help='exported with --input image')
    add('--images', metavar='FOLDER', help='folder of JPEG files (default: 500x375 pixels, made from the '
        'photographs in scikit-image)')
    add('--image-count', type=int, default=4, help='number of images (default: %(default)s)')
    add('--repeats', type=int, default=15, help='number of rounds (default: %(default)s)')
    add('--threads', type=int, default=1, help='threads of onnxruntime (default: %(default)s)')
    add('--out', metavar='PREFIX', default='work_dirs/exported', help='(default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    torch.set_num_threads(args.threads)  # for the report
    with scratch_folder() as scratch:
        paths = jpeg_files(args.images, args.image_count, scratch)
        images = [np.array(Image.open(path).convert('RGB'))[None] for path in paths]
    candidates = {Path(file).stem: partial(run_all, session(file, args.threads), images) for file in args.files}
    report = Report(machine(), shlex.join(['python', *sys.argv]), [])
    entries = time_interleaved(candidates, args.repeats, len(images), title='exported files')
    report.sections.append(Section('From pixels to results with onnxruntime', 'ms/image', entries))
    print(report.markdown(), flush=True)
    atomic_write_text(f'{args.out}.md', report.markdown())
    atomic_write_text(f'{args.out}.json', json.dumps(report.as_dict(), indent=1) + '\n')


def session(file: str, threads: int) -> onnxruntime.InferenceSession:
    """Return a session on the CPU with ``threads`` threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])


def run_all(model: onnxruntime.InferenceSession, images: list[np.ndarray]) -> None:
    """Run a model on each of the images, uint8 (1, H, W, 3)."""
    for image in images:
        model.run(None, {'input': image})


if __name__ == '__main__':
    main()
