#!/usr/bin/env python3
"""Compare the loaders of JPEG files by the channels that they lead to, and by the top-1 of a trained classifier.

The images are those of the config's test data set, and bilinear resizing waits for the DCT. Decibels are those of the
difference from the stock loader's coefficients, relative to 255 levels. The DCT is orthonormal, so that this is also
the difference of the samples, as far as the channels hold it.
"""
import argparse
from copy import deepcopy
from typing import Any, Callable, Iterator

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.dataset import default_collate
from mmengine.registry import DATASETS
from tqdm import tqdm

from mmfreq.apis.inference import load_model
from mmfreq.apis.runs import read_config
from mmfreq.config.pipelines import input_spec, lazy_step

LOADERS = {'stock': {}, 'planes': dict(type='LoadYCbCrFromFile'),
           'reduced planes': dict(type='LoadYCbCrFromFile', reduce=True)}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a classifier on DCT channels')
    parser.add_argument('checkpoint')
    parser.add_argument('--images', type=int, help='test only so many, evenly spaced (default: all)')
    parser.add_argument('--labels', type=int, nargs='+', help='classes of the network for those of the data set, in '
                        'order (default: the same)')
    return parser.parse_args()


def main() -> None:
    """Measure and print a table."""
    args = parse_args()
    torch.set_num_threads(1)
    cfg = read_config(args.config)
    model, dataset = load_model(cfg, args.checkpoint), cfg.test_dataloader.dataset
    spec = input_spec(cfg, dataset.pipeline)
    with model.scope():
        samples = DATASETS.build({**deepcopy(dataset), 'pipeline': []})
        first, *rest = [lazy_step(step) or step for step in dataset.pipeline]
        pipelines = [Compose([{**first, **loader}, *rest]) for loader in LOADERS.values()]
        chosen = np.linspace(0, len(samples) - 1, args.images or len(samples)).round().astype(int)
        rows = list(compared(model.module, pipelines, (samples[i] for i in tqdm(chosen, disable=None)), spec))
    truth, classes, errors = (np.array(column) for column in zip(*rows))
    truth = np.array(args.labels or range(truth.max() + 1))[truth]
    luma = np.array(spec.channels) < spec.block_size**2
    print(f'{len(rows)} images\n\n| loader | top-1, % | other class than with the stock loader, % | luma, dB | '
          'chroma, dB |\n| :-- | --: | --: | --: | --: |')
    for i, name in enumerate(LOADERS):
        squares = errors[:, i].mean(axis=0) * np.square(spec.std)
        decibels = [10 * np.log10(spec.block_size**2 * 255**2 / max(squares[part].sum() / each, 1e-9))
                    for part, each in ((luma, 1), (~luma, 2))]
        print(f'| {name} | {100 * np.mean(classes[:, i] == truth):.2f} | '
              f'{100 * np.mean(classes[:, i] != classes[:, 0]):.2f} | {decibels[0]:.1f} | {decibels[1]:.1f} |')


@torch.no_grad()
def compared(network: torch.nn.Module, pipelines: list[Callable], samples: Iterator[dict], spec: Any
             ) -> Iterator[tuple[int, list[int], list[np.ndarray]]]:
    """Yield label, classes and mean squares of the differences from the first pipeline's channels, of each image."""
    for sample in samples:
        packed = [pipeline(deepcopy(sample)) for pipeline in pipelines]
        inputs = [each['inputs'].float().numpy() / (spec.scale or 1) for each in packed]
        found = network.test_step(default_collate(packed))
        yield (sample['gt_label'], [int(each.pred_label) for each in found],
               [np.square(each - inputs[0]).mean(axis=(1, 2)) for each in inputs])


if __name__ == '__main__':
    main()
