#!/usr/bin/env python3
"""Train networks for each number of input values: on native channels, on downsized RGB, and elastic ones.

An elastic network keeps one of the selections 24N, 18N, 12N and 6N in each training image, drawn at random, and may be
cut to any of them at test time. It and the network for 24N are evaluated on all four, the others on their own input.
RGB networks get images that were downsized to as many values and enlarged again. ResNets start from scratch, and
EfficientNet-Lite0 from its ImageNet weights with 100 images of each class.

A finished training writes results/input_sizes/ROW-seedN.json and is not repeated. An interrupted one continues from
its last checkpoint. Then run summarize.py.
"""
import argparse
from pathlib import Path
from typing import Any

import torch
from finetune import ELASTIC, METRIC, RESULTS, Row, downsize, runner_of, write_checkpoint, write_result

import mmfreq
from mmfreq.apis.runs import build_runner, evaluate, test_config

OUT = RESULTS / 'input_sizes'
SIDES = dict(scratch=(45, 39, 32, 23), stock=(91, 78, 64, 45))  # 1/2, 3/8, 1/4, 1/8 of the values of RGB
PHOTOS = dict(scratch=1, stock=2)  # every n-th photo is evaluated


def rows_of(start: str) -> list[Row]:
    """Return the rows of a start."""
    if start == 'stock':
        kinds: dict[str, Any] = dict(network='lite0', epochs=5, per_class=100)
        rows = [Row(channels='24N', elastic=True, **kinds), *(Row(channels=name, **kinds) for name in ELASTIC)]
    else:
        kinds = dict(network='resnet', epochs=10, start='scratch')
        stemless = dict(kinds, stemless=True)
        rows = [Row(channels='24N', elastic=True, **dict(stemless, epochs=epochs)) for epochs in (10, 20)]
        rows += [Row(channels=name, **stemless) for name in ELASTIC]
    return rows + [Row(channels='', pixels=side, **kinds) for side in (0, *SIDES[start])]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--starts', nargs='+', choices=('scratch', 'stock'), default=['scratch', 'stock'],
                        help='starts of the networks (default: scratch stock)')
    parser.add_argument('--rows', nargs='+', metavar='ROW', help='rows, named as their results (default: all)')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='seeds (default: 0 1 2)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/transfer'), help='logs and checkpoints')
    return parser.parse_args()


def main() -> None:
    """Train and evaluate the missing rows, seed by seed."""
    args = parse_args()
    mmfreq.setup()
    if not (args.work_dir / 'lite0.pth').is_file():
        write_checkpoint(args.work_dir / 'lite0.pth')
    for seed in args.seeds:
        for start in args.starts:
            for row in rows_of(start):
                if row.name in (args.rows or [row.name]):
                    finish(row, seed, args.work_dir)


def finish(row: Row, seed: int, work_dir: Path) -> None:
    """Train one row with one seed and write the top-1 of each selection, unless it exists."""
    target = OUT / f'{row.name}-seed{seed}.json'
    if target.is_file():
        return
    torch.manual_seed(seed)
    runner_of(row, seed, work_dir, validate=False).train()
    selections = ELASTIC if row.channels == '24N' else [row.channels]
    metrics = {channels or 'RGB': accuracy(row, seed, work_dir, channels) for channels in selections}
    write_result(target, row=row.name, seed=seed, metrics=metrics, epochs=row.epochs)
    print(f'{row.name}, seed {seed}:', *(f'{name} {value:.2f}' for name, value in metrics.items()), flush=True)


def accuracy(row: Row, seed: int, work_dir: Path, channels: str) -> float:
    """Return the top-1 on every n-th validation photo, with these channels of the input."""
    options = row.options(work_dir, seed)
    options['test_dataloader.dataset.indices'] = list(range(0, 3925, PHOTOS[row.start]))
    folder = work_dir / f'{row.name}-seed{seed}'
    arguments = dict(config=str(row.config(work_dir)), checkpoint=str(folder), channels=channels, amp=False, tta=False,
                     show=False, show_dir=None, verbose=False, launcher='none', local_rank=0, cfg_options=options,
                     work_dir=str(folder / 'test'))
    cfg = test_config(argparse.Namespace(**arguments))
    downsize(cfg, row.pixels)
    return evaluate(build_runner(cfg), None)[METRIC]


if __name__ == '__main__':
    main()
