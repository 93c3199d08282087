#!/usr/bin/env python3
"""Carry trained RGB networks over to native DCT channels and fine-tune them. Then run summarize.py.

A finished row writes results/ROW-seedN.json and is not repeated. An interrupted training continues from its last
checkpoint. The ResNets that are carried over, and the stemless ones from scratch, are those of the accuracy study:
run benchmarks/accuracy/run.py --rows native-rgb dct24n dct12n first.
"""
import argparse
import datetime
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / 'accuracy'))

from lite0 import write_checkpoint  # noqa: E402
from logs import commit, machine  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

import mmfreq  # noqa: E402
from mmfreq.apis.freqify.convert import write_freqified  # noqa: E402
from mmfreq.apis.runs import build_runner, train_config  # noqa: E402
from mmfreq.config.pipelines import drop_channels, pipelines  # noqa: E402
from mmfreq.dct.channels import channel_indices  # noqa: E402
from mmfreq.files import atomic_write_text  # noqa: E402

RESULTS, METRIC = HERE / 'results', 'accuracy/top1'
STATISTICS = {'lite0': None}  # by network; None: the shipped ones of 224x224 photos
CLASSES = {'imagenette': 10, 'clothing10': 10, 'flowers17': 17}
# Largest learning rates from scratch.
RATES = {'resnet': 0.2, 'convnext': 2e-3, 'vit': 1e-3, 'lite0': 4e-3, 'cspnext': 4e-3}
OTHER_RATES = (0.5, 2)  # multiples of them, as controls
FINE = 4  # they are divided by it in fine-tuning
PARTS = ('train', 'val', 'test')
ELASTIC = ['24N', '18N', '12N', '6N']
OWN, LONG = ('resnet', 'convnext', 'vit'), 17  # own RGB networks, and the epochs of their second training


@dataclass(frozen=True)
class Row:
    """A network, trained once for each seed.

    Args:
        network (str): Name of a config in ``configs/``.
        channels (str): Native channels, empty for RGB.
        epochs (int): 0 for an evaluation without training.
        start (str): ``'stock'`` for the weights of the trained RGB network, ``'scratch'`` for none.
        stemless (bool): Whether the network is the stemless one of the accuracy study.
        data (str): Data set.
        per_class (int): Training images of each class, drawn by the seed; 0 for all.
        elastic (bool): Whether each training image keeps one of the selections ``ELASTIC`` at random.
        pixels (int): Side to which the RGB image is downsized, before it is enlarged again; 0 for neither.
        source (int): Epochs of the RGB network that the row starts from.
        rate (float): Multiple of the network's largest learning rate.
    """
    network: str
    channels: str
    epochs: int
    start: str = 'stock'
    stemless: bool = False
    data: str = 'imagenette'
    per_class: int = 0
    elastic: bool = False
    pixels: int = 0
    source: int = 10
    rate: float = 1

    @property
    def name(self) -> str:
        """Name of the row in results and work dirs."""
        data = '' if self.data == 'imagenette' else f'-{self.data}'
        data += f'-{self.per_class}each' if self.per_class else ''
        kind = ('-elastic' if self.elastic else '') + ('-stemless' if self.stemless else '')
        size, source = self.pixels or '', '' if self.source == 10 else self.source
        name = f'{self.network}{data}-{self.channels or "RGB"}{size}{kind}-{self.start}{source}-{self.epochs}'.lower()
        return name if self.rate == 1 else f'{name}-rate{self.rate:g}'

    def config(self, folder: Path) -> Path:
        """Return the config; that of DCT channels is written by freqify into ``folder`` unless it is there."""
        if self.stemless:
            return HERE.parent / 'accuracy/configs/dct24n.py'
        stock = HERE / f'configs/{self.network}.py'
        out = folder / f'configs/{self.network}-{self.channels.lower()}.py'
        if self.channels and not out.is_file():
            out.parent.mkdir(parents=True, exist_ok=True)
            stats = STATISTICS.get(self.network, str(HERE.parent / 'accuracy/statistics-4x4.json'))
            write_freqified(str(stock), self.channels, out, stats)
        return out if self.channels else stock

    def checkpoint(self, folder: Path, seed: int) -> Path:
        """Return the RGB network that the training starts from."""
        if self.network == 'lite0':
            return folder / 'lite0.pth'
        if self.network == 'resnet' and self.source == 10:
            return folder.parent / f'accuracy/native-rgb-seed{seed}/epoch_10.pth'
        return folder / f'{self.network}-rgb-scratch-{self.source}-seed{seed}/epoch_{self.source}.pth'

    def options(self, folder: Path, seed: int) -> dict[str, Any]:
        """Return what the training changes in the config."""
        rate = self.rate * RATES[self.network] / (FINE if self.start == 'stock' else 1)
        options = {'randomness.seed': seed, 'param_scheduler.total_steps': max(self.epochs, 1),
                   'param_scheduler.eta_max': rate, 'optim_wrapper.optimizer.lr': rate,
                   'train_cfg.max_epochs': max(self.epochs, 1), 'train_cfg.val_interval': max(self.epochs, 1)}
        if self.start == 'stock':
            options['load_from'] = str(self.checkpoint(folder, seed))
        if self.stemless:
            options['model.backbone.in_channels'] = len(channel_indices(self.channels, 4))
            options |= {f'{part}_dataloader.dataset.pipeline.3.channels': self.channels for part in PARTS}
        if self.network == 'lite0':
            classes = CLASSES[self.data]
            options |= {'model.head.num_classes': classes, 'data_preprocessor.num_classes': classes}
            options |= {f'{part}_dataloader.dataset.data_root': f'data/{self.data}' for part in PARTS}
        if self.per_class:
            options['train_dataloader.dataset.indices'] = drawn(Path('data', self.data, 'train'), self.per_class, seed)
        return options


def drawn(folder: Path, count: int, seed: int) -> list[int]:
    """Draw ``count`` images of each class, which are numbered in the order of the folders of ``folder``."""
    generator, indices, start = np.random.default_rng(seed), [], 0
    for sub in sorted(path for path in folder.iterdir() if path.is_dir()):
        images = len(list(sub.iterdir()))
        indices += sorted(start + generator.choice(images, count, replace=False))
        start += images
    return [int(index) for index in indices]


def all_rows() -> dict[str, Row]:
    """Return the rows by their names, the most important ones first."""
    rows = [Row('resnet', channels, epochs) for epochs in (0, 1, 3) for channels in ('24N', '12N')]
    rows += [Row('resnet', '24N', epochs, start, True) for epochs in (1, 3) for start in ('stock', 'scratch')]
    rows += transfers(10, 10) + fine_tunings('convnext')
    rows += [Row('resnet', '24N', 10), Row('resnet', '24N', 10, stemless=True), Row('resnet', '', 10)]
    rows += fine_tunings('vit') + transfers(0, 5) + transfers(50, 8)
    rows += [Row('resnet', '12N', epochs, start, True) for epochs in (1, 3) for start in ('stock', 'scratch')]
    rows += [Row('resnet', '12N', 10), Row('resnet', '12N', 10, stemless=True)]
    rows += [Row('resnet', '', epochs, 'scratch') for epochs in (1, 3)]
    rows += [Row(network, '', LONG, 'scratch') for network in OWN]
    rows += [Row(network, channels, 0, source=LONG) for network in OWN for channels in ('24N', '12N')]
    rows += [Row(network, channels, epochs, 'scratch') for network in OWN[1:]
             for channels, epochs in (('48N', 10), ('24N', LONG))]
    rows += [Row(network, channels, 10, 'scratch', rate=rate) for network in OWN[1:]
             for channels in ('', '24N') for rate in OTHER_RATES]
    return {row.name: row for row in rows}


def fine_tunings(network: str) -> list[Row]:
    """Return the rows of a network with a patch embedding: RGB from scratch, carried over, and from scratch."""
    rows = [Row(network, '', 10, 'scratch'), Row(network, '24N', 0), Row(network, '12N', 0)]
    rows += [Row(network, channels, epochs) for epochs in (1, 3) for channels in ('24N', '12N')]
    rows += [Row(network, '24N', epochs, 'scratch') for epochs in (3, 10, 1)]
    return rows + [Row(network, channels, 10) for channels in ('24N', '12N', '')]


def transfers(per_class: int, epochs: int) -> list[Row]:
    """Return the rows of EfficientNet-Lite0 on other data."""
    starts = (('', 'stock'), ('24N', 'stock'), ('12N', 'stock'), ('', 'scratch'))
    return [Row('lite0', channels, epochs, start, data=data, per_class=per_class)
            for data in ('flowers17', 'clothing10') for channels, start in starts]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', nargs='+', choices=all_rows(), metavar='ROW', help='rows (default: all)')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='seeds (default: 0 1 2)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/transfer'), help='logs and checkpoints')
    return parser.parse_args()


def main() -> None:
    """Train the missing rows, one after the other."""
    args = parse_args()
    mmfreq.setup()
    if not (args.work_dir / 'lite0.pth').is_file():
        write_checkpoint(args.work_dir / 'lite0.pth')
    for name in args.rows or all_rows():
        for seed in args.seeds:
            finish(all_rows()[name], seed, args.work_dir)


def finish(row: Row, seed: int, work_dir: Path) -> None:
    """Train one row with one seed and write the result. Skip it if the result exists or the start is missing."""
    target = RESULTS / f'{row.name}-seed{seed}.json'
    if target.is_file():
        return
    if row.start == 'stock' and not row.checkpoint(work_dir, seed).is_file():
        print(f'{row.name}, seed {seed}: skipped, because there is no {row.checkpoint(work_dir, seed)}', flush=True)
        return
    torch.manual_seed(seed)
    runner = runner_of(row, seed, work_dir)
    runner.train() if row.epochs else runner.val()
    if f'val/{METRIC}' not in runner.message_hub.log_scalars:  # the last validation was interrupted
        runner.val()
    metrics = {METRIC: runner.message_hub.get_scalar(f'val/{METRIC}').current()}
    write_result(target, row=row.name, seed=seed, metrics=metrics, epochs=row.epochs)
    print(f'{row.name}, seed {seed}: top-1 {metrics[METRIC]:.2f}', flush=True)


def write_result(target: Path, **values: Any) -> None:
    """Write the result of a training, with machine, date and commit."""
    target.parent.mkdir(parents=True, exist_ok=True)
    values |= dict(machine=machine(), date=datetime.date.today().isoformat(), commit=commit())
    atomic_write_text(str(target), json.dumps(values, indent=1) + '\n')


def runner_of(row: Row, seed: int, work_dir: Path, validate: bool = True) -> Runner:
    """Build the runner of one training, which continues an interrupted one."""
    config = row.config(work_dir)
    arguments = dict(config=str(config), work_dir=str(work_dir / f'{row.name}-seed{seed}'), resume='auto',
                     no_validate=not validate, amp=False, auto_scale_lr=False, verbose=False, launcher='none',
                     local_rank=0, cfg_options=row.options(work_dir, seed))
    cfg = train_config(argparse.Namespace(**arguments))
    if row.elastic:
        drop_channels(cfg, 'train_dataloader', ELASTIC)
    downsize(cfg, row.pixels)
    runner = build_runner(cfg)
    runner.model.to(memory_format=torch.channels_last)  # the same numbers, faster
    return runner


def downsize(cfg: Config, pixels: int) -> None:
    """Let all pipelines of a config of RGB downsize their square crop, and enlarge it again; 0 changes nothing."""
    for steps in [steps for part in PARTS for steps in pipelines(cfg, f'{part}_dataloader') if pixels]:
        crop, = (step.get('crop_size') or step['scale'] for step in steps if 'Crop' in step['type'])
        steps[-1:-1] = [dict(type='Resize', scale=(pixels, pixels), interpolation='area'),
                        dict(type='Resize', scale=(crop, crop), interpolation='bicubic')]


if __name__ == '__main__':
    main()
