#!/usr/bin/env python3
"""Measure how long an image takes from its file to scores: decoding, pre-processing, network.

Each network has random weights and takes RGB pixels or DCT channels. It runs in PyTorch, and as the file that "mmfreq
export" writes in onnxruntime and OpenVINO, in float32. RGB is decoded by OpenCV, channels are made from JPEG planes if
the pipeline allows. Classifiers are resized bilinearly, to 8/7 of their crop. A one-stage detector with random weights
finds nothing, a two-stage one keeps all proposals. Exported detectors resize by themselves. Candidates take turns. On
one thread, times are those of the process, so that other programs disturb them less. What cannot be exported is said.
The table is written to PREFIX.md and PREFIX.json.
"""
import argparse
import gc
import json
import shlex
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

import cv2
import numpy as np
import torch
from measure import Report, jpeg_files, machine, make_images, number, scratch_folder
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

import mmfreq
from mmfreq.apis.export import exporter
from mmfreq.apis.freqify.convert import write_freqified
from mmfreq.apis.measure import build_model, keep_all_proposals, time_interleaved
from mmfreq.config.paths import config_path
from mmfreq.config.pipelines import lazy_step, takes_lazy_image, transform_type
from mmfreq.errors import RefusedError
from mmfreq.files import atomic_write_text

NETWORKS = {
    'ResNet-50': 'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    'MobileNetV3': 'mmpretrain::mobilenet_v3/mobilenet-v3-large_8xb128_in1k.py',
    'EfficientNet-B0': 'mmpretrain::efficientnet/efficientnet-b0_8xb32_in1k.py',
    'Swin-T': 'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
    'Faster R-CNN': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'RTMDet-tiny': 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
}
RUNTIMES = ('PyTorch', 'onnxruntime', 'OpenVINO')
COLUMNS = ('decoding', 'pre-processing', 'network')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('networks', nargs='*', metavar='NETWORK', help=f'names of {", ".join(NETWORKS)}, or stock configs '
        '(default: all names)')
    add('--channels', nargs='+', default=['RGB', '24S', '24N', '12N'], help='inputs (default: %(default)s)')
    add('--runtimes', nargs='+', choices=RUNTIMES, default=RUNTIMES, help='(default: all)')
    add('--batch', type=int, nargs='+', default=[1, 16], help='images at once (default: %(default)s)')
    add('--threads', type=int, default=1, help='threads of the runtimes (default: %(default)s)')
    add('--repeats', type=int, default=9, help='rounds (default: %(default)s)')
    add('--images', metavar='FOLDER', help='folder of JPEG files (default: 500x375 pixels, made from the photographs '
        'in scikit-image)')
    add('--out', metavar='PREFIX', default='work_dirs/latency', help='(default: %(default)s)')
    return parser.parse_args()


class Candidate:
    """A network with one kind of input.

    Args:
        config (str): A stock config.
        channels (str): ``'RGB'`` or a selection of channels.
        folder (str): Scratch folder.
    """

    def __init__(self, config: str, channels: str, folder: str) -> None:
        self.is_rgb, path, file = channels == 'RGB', config_path(config), Path(folder, channels)
        if not self.is_rgb:
            path = file.with_suffix('.py')
            write_freqified(config, channels, path)
        self.cfg = Config.fromfile(str(path))
        self.is_detector = self.cfg.default_scope == 'mmdet'
        self.steps = self._pipeline()
        test = dict(self.cfg.test_dataloader.dataset)
        if not self.is_detector:
            test = dict(type='CustomDataset', data_prefix=self._crops(folder), with_label=False)
        pipeline = [self.steps[0], self.steps[-1]] if self.is_rgb and not self.is_detector else self.steps
        self.cfg.test_dataloader.dataset = {**test, 'pipeline': pipeline}
        self.file = file.with_suffix('.onnx')
        self.model = untrained(self.cfg, file.with_suffix('.pth'))
        with self.model.scope():
            self.load, self.preprocess, self.pack = (Compose(part) for part in (
                self.steps[:1], self.steps[1:-1], self.steps[-1:]))

    def _pipeline(self) -> list[dict]:
        """Return the test pipeline as it is measured."""
        load, *steps = self.cfg.test_dataloader.dataset.pipeline
        if not self.is_detector:
            crop = next(step['crop_size'] for step in steps if 'crop_size' in step)
            steps = [dict(type='ResizeEdge', scale=round(crop * 8 / 7), edge='short'),
                     dict(type='CenterCrop', crop_size=crop), *steps[-1 if self.is_rgb else -2:]]
        if self.is_rgb:
            return [load, *steps]
        steps = [lazy_step(step) or step for step in steps]
        if all(transform_type(step) == 'LazyResize' or takes_lazy_image(step) for step in steps[:-2]):
            return [dict(type='LoadYCbCrFromFile'), *steps]
        return self.cfg.test_dataloader.dataset.pipeline

    def _crops(self, folder: str) -> str:
        """Return a folder of images of the crop's size, on which the exported file is checked."""
        crop = self.steps[2]['crop_size']
        crops = Path(folder, f'crops-{crop}')
        crops.mkdir(exist_ok=True)
        make_images(str(crops), 4, (crop, crop))
        return str(crops)

    def decode(self, files: list[str]) -> list[dict]:
        """Read image files."""
        return [self.load(dict(img_path=file, img_id=0)) for file in files]

    def inputs(self, loaded: list[dict]) -> Any:
        """Return the input of the network: an array for classifiers, a batch for detectors."""
        results = [self.preprocess(dict(result)) for result in loaded]
        if self.is_detector:
            return pseudo_collate([self.pack(result) for result in results])
        images = [result['img'] if self.is_rgb else result['img'].transpose(2, 0, 1) for result in results]
        return np.stack(images)

    def runner(self, runtime: str, threads: int) -> Callable[[Any], Any]:
        """Return a function from the network's input to scores, or to boxes; a detector's file takes pixels.

        Raises:
            RefusedError: The network cannot be exported.
        """
        if runtime == 'PyTorch':
            return self.in_pytorch
        if not self.file.exists():
            self.exporter().write(self.file)
            gc.collect()  # the graphs that the export leaves
        return opened(runtime, str(self.file), threads)

    def exporter(self) -> Any:
        """Return the project's exporter of this network."""
        return exporter(self.model, 'image' if self.is_rgb or self.is_detector else 'channels', 'bgr')

    @torch.inference_mode()
    def in_pytorch(self, inputs: Any) -> Any:
        """Compute scores as the exported graph does, or detect by the host's test step."""
        if self.is_detector:
            return self.model.module.test_step(inputs)
        tensor = torch.from_numpy(inputs)  # pixels (N, H, W, 3) become channels_last in the graph
        return self.graph(tensor if self.is_rgb else tensor.contiguous(memory_format=torch.channels_last))

    @property
    def graph(self) -> torch.nn.Module:
        """Return the module that is exported."""
        if not hasattr(self, '_graph'):
            self._graph = self.exporter().network
        return self._graph


def untrained(cfg: Config, file: Path) -> Any:
    """Return a model with random weights."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build_model(cfg.copy())
    torch.save(dict(state_dict=model.state_dict()), file)
    loaded = mmfreq.load_model(cfg, str(file), 'cpu')
    keep_all_proposals(loaded.module)
    if hasattr(loaded.module, 'bbox_head'):
        loaded.module.bbox_head.test_cfg.score_thr = 0.05  # else NMS takes the thousands of boxes that are random
    return loaded


def opened(runtime: str, file: str, threads: int) -> Callable[[np.ndarray], Any]:
    """Return a function that runs an exported file."""
    if runtime == 'onnxruntime':
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
        return lambda inputs: session.run(None, {'input': inputs})
    import openvino
    settings = dict(INFERENCE_NUM_THREADS=threads, PERFORMANCE_HINT='LATENCY', INFERENCE_PRECISION_HINT='f32')
    compiled = openvino.Core().compile_model(file, 'CPU', settings)
    return lambda inputs: compiled([inputs])


def measure(candidates: dict[str, Candidate], files: list[str], batch: int, args: argparse.Namespace
            ) -> tuple[list[dict], list[str]]:
    """Return a row for each input and runtime, and what cannot be measured."""
    chosen = [files[i % len(files)] for i in range(batch)]
    loaded = {name: candidate.decode(chosen) for name, candidate in candidates.items()}
    inputs = {name: candidate.inputs(loaded[name]) for name, candidate in candidates.items()}
    works: dict[tuple, Callable] = {}
    rows, notes = [], []
    for name, candidate in candidates.items():
        works[name, 'decoding'] = partial(candidate.decode, chosen)
        works[name, 'pre-processing'] = partial(candidate.inputs, loaded[name])
        for runtime in args.runtimes:
            if candidate.is_detector and runtime != 'PyTorch' and batch > 1:
                continue
            in_file = candidate.is_detector and runtime != 'PyTorch'
            value = np.asarray(loaded[name][0]['img'])[None] if in_file else inputs[name]
            try:
                works[name, runtime] = partial(candidate.runner(runtime, args.threads), value)
                works[name, runtime]()
                rows.append(dict(input=name, runtime=runtime, batch=batch, threads=args.threads,
                                 bytes=tensor_bytes(value) // batch, in_file=in_file))
            except Exception as error:
                works.pop((name, runtime), None)
                notes.append(f'{name} in {runtime}: {type(error).__name__}: {first_line(error)}')
    clock = 'process_time' if args.threads == 1 else 'perf_counter'
    entries = time_interleaved(works, args.repeats, batch, clock=clock)
    times = {key: entry.median for key, entry in zip(works, entries)}
    for row in rows:
        keys = 'decoding', 'pre-processing', row['runtime']
        row.update(zip(COLUMNS, (times[row['input'], key] for key in keys)))
        if row.pop('in_file'):
            row['pre-processing'] = 0.
        row['sum'] = sum(row[column] for column in COLUMNS)
    return rows, notes


def tensor_bytes(inputs: Any) -> int:
    """Return the bytes of an array, or of the images in a detector's batch."""
    return inputs.nbytes if isinstance(inputs, np.ndarray) else sum(image.nbytes for image in inputs['inputs'])


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, shortened."""
    return (str(error).strip().splitlines() or [''])[0][:200]


def table(rows: list[dict]) -> str:
    """Return a Markdown table: times and their shares of the sum, and the sum relative to RGB's in this runtime."""
    lines = ['| network | input | runtime | batch | threads | decoding | pre-processing | network | sum, ms/image | '
             'ratio | bytes |', '| :-- | :-- | :-- | --: | --: | --: | --: | --: | --: | --: | --: |']
    for row in rows:
        same = [other for other in rows if other['input'] == 'RGB' and all(
            other[key] == row[key] for key in ('model', 'runtime', 'batch', 'threads'))]
        ratio = f'{row["sum"] / same[0]["sum"]:.2f}' if same else ''
        parts = (f'{number(row[column])} ({row[column] / row["sum"]:.0%})' for column in COLUMNS)
        lines.append(f'| {row["model"]} | {row["input"]} | {row["runtime"]} | {row["batch"]} | {row["threads"]} | '
                     f'{" | ".join(parts)} | {number(row["sum"])} | {ratio} | {row["bytes"]:,} |')
    return '\n'.join(lines)


def candidate(config: str, channels: str, folder: str) -> Optional[Candidate]:
    """Return a candidate; None, and a line, if the config cannot be converted."""
    try:
        return Candidate(config, channels, folder)
    except RefusedError as error:
        print(f'{config}, {channels}: {error}', flush=True)
        return None


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    warnings.simplefilter('ignore')  # torch.export warns of the gate's attributes
    mmfreq.setup()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(0)
    rows, notes = [], []
    for name in args.networks or NETWORKS:
        with scratch_folder() as folder, tempfile.TemporaryDirectory() as scratch:
            files = jpeg_files(args.images, max(args.batch), scratch)
            built = {channels: candidate(NETWORKS.get(name, name), channels, folder) for channels in args.channels}
            built = {channels: each for channels, each in built.items() if each}
            for batch in args.batch:
                measured, said = measure(built, files, batch, args)
                rows += [dict(model=name, **row) for row in measured]
                notes += [f'{name}, batch {batch}: {note}' for note in said]
                report = Report(machine(), shlex.join(['python', *sys.argv]), [])
                text = '\n'.join([report.markdown(), table(rows), '', *notes, ''])
                found = dict(report.as_dict(), rows=rows, notes=notes)
                atomic_write_text(f'{args.out}.md', text)
                atomic_write_text(f'{args.out}.json', json.dumps(found, indent=1) + '\n')
    print(text)


if __name__ == '__main__':
    main()
