#!/usr/bin/env python3
"""Measure the time per image of each row in training: loading, and a step of forward, backward and update.

Times are processor times of one thread, so that other programs on the machine have little effect. The rows take turns.
The result is the median over the turns of the ratio to the row's reference.
"""
import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Callable

import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from rows import HERE, ROWS

from mmfreq.files import atomic_write_text

BATCH = 64


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', nargs='+', default=list(ROWS), choices=ROWS, metavar='ROW')
    parser.add_argument('--turns', type=int, default=15, help='number of turns (default: 15)')
    parser.add_argument('--out', type=Path, default=HERE / 'results/speed.json', help='default: %(default)s')
    return parser.parse_args()


def main() -> None:
    """Measure, and update the file of results."""
    args = parse_args()
    torch.set_num_threads(1)
    reference = {ROWS[row].config: ROWS[ROWS[row].reference].config for row in args.rows}
    configs = list(dict.fromkeys([*reference.values(), *reference]))
    subjects = {name: Subject(name) for name in configs}
    turns = []
    for _ in range(args.turns + 1):  # the first turn warms up
        turns.append({name: (seconds(subject.load), seconds(subject.step)) for name, subject in subjects.items()})
    result = json.loads(args.out.read_text(encoding='utf-8')) if args.out.is_file() else {}  # keeps other rows
    for name in configs:
        result[name] = subjects[name].summary(name, turns[1:], reference.get(name, name))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(str(args.out), json.dumps(result, indent=1) + '\n')
    for name in configs:
        print(name, result[name])


def seconds(work: Callable[[], None]) -> float:
    """Return the processor time of ``work``."""
    start = time.process_time()
    work()
    return time.process_time() - start


class Subject:
    """The network and the training data of one config."""

    def __init__(self, name: str) -> None:
        cfg = Config.fromfile(HERE / f'configs/{name}.py')
        init_default_scope(cfg.default_scope)
        self.images = DATASETS.build(cfg.train_dataloader.dataset)
        self.model = MODELS.build({**cfg.model, 'data_preprocessor': {'type': 'ClsDataPreprocessor',
                                                                      **cfg.data_preprocessor}})
        self.model.train()
        self.optimizer = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.batch: list = []
        self.at = 0

    def load(self) -> None:
        """Load the next batch."""
        indices = [(self.at + 101 * i) % len(self.images) for i in range(BATCH)]
        self.batch = [self.images[index] for index in indices]
        self.at += 1

    def step(self) -> None:
        """Train on the last batch."""
        inputs = torch.stack([sample['inputs'] for sample in self.batch])
        data = self.model.data_preprocessor(
            dict(inputs=inputs, data_samples=[sample['data_samples'] for sample in self.batch]), True)
        losses = self.model(**data, mode='loss')
        self.optimizer.update_params(self.model.parse_losses(losses)[0])

    def summary(self, name: str, turns: list[dict[str, tuple[float, float]]], reference: str) -> dict:
        """Return milliseconds per image, ratios to the reference, multiply-adds and the size of the input."""
        load, step = zip(*(turn[name] for turn in turns))
        ratios = [sum(turn[name]) / sum(turn[reference]) for turn in turns]
        network = [turn[name][1] / turn[reference][1] for turn in turns]
        inputs = self.batch[0]['inputs']
        self.model.eval()
        macs = get_model_complexity_info(self.model.backbone, tuple(inputs.shape), show_table=False, show_arch=False)
        return dict(load_ms=1e3 * statistics.median(load) / BATCH, step_ms=1e3 * statistics.median(step) / BATCH,
                    time_ratio=statistics.median(ratios), step_ratio=statistics.median(network),
                    multiply_adds=macs['flops'], input=list(inputs.shape), values=inputs.numel(),
                    bytes=inputs.numel() * inputs.element_size())


if __name__ == '__main__':
    main()
