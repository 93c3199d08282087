#!/usr/bin/env python3
"""Measure the time of tools/dataset_stats.py relative to decoding the same images.

Both read a folder of class folders and take turns. OpenCV decodes, in a data loader with the same number of workers.
"""
import argparse
import statistics
import time

import cv2
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mmfreq.apis.dataset_stats import coefficient_dataset, dataset_statistics
from mmfreq.config.paths import config_path


class Decoded(Dataset):
    """A data set that decodes images and returns their heights."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> int:
        return len(cv2.imread(self.paths[index]))


def seconds(cfg: Config, images: int, workers: int) -> tuple[float, float]:
    """Return the seconds of decoding and of the statistics."""
    dataset = coefficient_dataset(cfg)
    order = torch.randperm(len(dataset))[:images].tolist()
    paths = [dataset.get_data_info(i)['img_path'] for i in order]
    start = time.perf_counter()
    for _ in DataLoader(Decoded(paths), 8, num_workers=workers):
        pass
    middle = time.perf_counter()
    dataset_statistics(cfg, workers, images)
    return middle - start, time.perf_counter() - middle


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='images in class folders')
    parser.add_argument('--config', default='mmfreq::resnet/resnet50-dct24s_8xb32_in1k.py', help='default: %(default)s')
    parser.add_argument('--images', type=int, default=1000, help='number of images (default: %(default)s)')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2], help='numbers of workers (default: 0 1 2)')
    parser.add_argument('--repeats', type=int, default=3, help='number of rounds (default: %(default)s)')
    args = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    cfg = Config.fromfile(str(config_path(args.config)))
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset = dict(type='CustomDataset', data_prefix=args.folder, pipeline=pipeline)
    images = min(args.images, len(coefficient_dataset(cfg)))
    turns = {workers: [] for workers in args.workers}
    for _ in tqdm(range(args.repeats), unit='round'):
        for workers in args.workers:
            turns[workers].append(seconds(cfg, images, workers))
    print('| workers | decoding alone, images/s | statistics, images/s | time, decoding = 1 |')
    print('| --: | --: | --: | --: |')
    for workers, times in turns.items():
        decoding, whole = (images / statistics.median(column) for column in zip(*times))
        ratio = statistics.median(both / alone for alone, both in times)
        print(f'| {workers} | {decoding:,.0f} | {whole:,.0f} | {ratio:.1f} |')


if __name__ == '__main__':
    main()
