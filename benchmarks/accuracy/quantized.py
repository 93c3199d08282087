#!/usr/bin/env python3
"""Quantise exported classifiers to int8 with onnxruntime: top-1 and time of float32 and int8, for each config.

The calibration images are those of the config's training data set, through its test pipeline. A classifier on pixels is
exported with the pixels of its crop, one on DCT channels with the channels. The first layer, which normalises pixels or
unpacks channels, stays in float32 with --keep-first. Times are those of the process on one thread, in turns.
"""
import argparse
import tempfile
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import onnx
import onnxruntime
import torch
from mmcv.transforms import Compose
from mmengine.registry import DATASETS
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from tqdm import tqdm

from mmfreq.apis.export import exporter
from mmfreq.apis.inference import Model, load_model
from mmfreq.apis.measure import time_interleaved
from mmfreq.apis.runs import read_config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('configs', nargs='+', metavar='CONFIG', help='classifiers, each with its checkpoint beside it, as .pth')
    add('--images', type=int, default=600, help='test images, evenly spaced (default: %(default)s)')
    add('--calibrate', type=int, default=100, help='calibration images, evenly spaced (default: %(default)s)')
    add('--method', default='MinMax', choices=('MinMax', 'Entropy', 'Percentile'), help='(default: %(default)s)')
    add('--keep-first', action='store_true', help='keep the first convolution in float32')
    add('--labels', type=int, nargs='+', help='classes of the network for those of the data set, in order (default: '
        'the same)')
    add('--repeats', type=int, default=15, help='rounds of 16 images (default: %(default)s)')
    return parser.parse_args()


class Arrays(CalibrationDataReader):
    """Calibration data from an iterator of inputs."""

    def __init__(self, inputs: Iterator[np.ndarray]) -> None:
        self.inputs = inputs

    def get_next(self) -> Any:
        """Return the next input by its name; None at the end."""
        array = next(self.inputs, None)
        return None if array is None else {'input': array}


def inputs(cfg: Any, model: Model, part: str, count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield inputs (1, ...) of the exported file and labels of a data set's images, by the test pipeline."""
    pipeline = cfg.test_dataloader.dataset.pipeline
    with model.scope():
        samples = DATASETS.build({**deepcopy(cfg[f'{part}_dataloader'].dataset), 'pipeline': []})
        steps = Compose(deepcopy(pipeline[:-1]))
    for index in np.linspace(0, len(samples) - 1, count).round().astype(int):
        sample = samples[index]
        image = steps(deepcopy(sample))['img']
        is_pixels = image.shape[2] == 3
        yield (image if is_pixels else image.transpose(2, 0, 1))[None], sample['gt_label']


def export(cfg: Any, model: Model, file: Path) -> None:
    """Write a classifier that takes what its pipeline returns before the packer."""
    steps = cfg.test_dataloader.dataset.pipeline
    is_freq = any('channels' in step for step in steps)
    if not is_freq:  # pixels of the crop; all images of the data set have its size
        model.cfg.test_dataloader.dataset.pipeline = [steps[0], steps[-1]]
    exporter(model, 'channels' if is_freq else 'image', 'bgr').write(file)


def quantise(file: Path, out: Path, calibration: Iterator[np.ndarray], args: argparse.Namespace) -> None:
    """Write an int8 version, with scales of weights by channel."""
    prepared = file.with_suffix('.prepared.onnx')
    quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
    first = next(node.name for node in onnx.load(prepared).graph.node if node.op_type == 'Conv')
    quantize_static(str(prepared), str(out), Arrays(calibration), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                    nodes_to_exclude=[first] if args.keep_first else [],
                    calibrate_method=getattr(CalibrationMethod, args.method))


def session(file: Path) -> onnxruntime.InferenceSession:
    """Return a session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])


def main() -> None:
    """Export, quantise, measure and print a table."""
    args = parse_args()
    torch.set_num_threads(1)
    sessions, top1, batches = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for config in args.configs:
            cfg, name, file = read_config(config), Path(config).stem, Path(folder, f'{Path(config).stem}.onnx')
            model = load_model(deepcopy(cfg), Path(config).with_suffix('.pth'))
            export(cfg, model, file)
            int8 = file.with_suffix('.int8.onnx')
            quantise(file, int8, (array for array, _ in inputs(cfg, model, 'train', args.calibrate)), args)
            pair = {f'{name}, float32': session(file), f'{name}, int8': session(int8)}
            hits: dict[str, list[bool]] = {title: [] for title in pair}
            arrays = []
            for array, label in tqdm(inputs(cfg, model, 'val', args.images), disable=None):
                arrays = [*arrays, array][:16]
                for title, one in pair.items():
                    scores = one.run(None, {'input': array})[0]
                    hits[title].append(int(scores.argmax()) == (args.labels[label] if args.labels else label))
            sessions.update(pair)
            top1.update((title, 100 * np.mean(found)) for title, found in hits.items())
            batches.update(dict.fromkeys(pair, np.concatenate(arrays)))
        works = {title: partial(one.run, None, {'input': batches[title]}) for title, one in sessions.items()}
        entries = time_interleaved(works, args.repeats, 16, clock='process_time')
    print('| file | top-1, % | ms/image | ratio |\n| :-- | --: | --: | --: |')
    for entry in entries:
        ratio = entry.median / entries[0].median
        print(f'| {entry.name} | {top1[entry.name]:.2f} | {entry.median:.2f} | {ratio:.2f} |')


if __name__ == '__main__':
    main()
