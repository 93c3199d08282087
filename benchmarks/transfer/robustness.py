#!/usr/bin/env python3
"""Top-1 of the networks of the study on photos that are compressed, blurred, noisy or small. Then run summarize.py.

The networks are those of finetune.py and of the accuracy study, with every eighth validation photo of Imagenette. A
network and seed whose result is in results/robustness.json is not repeated.
"""
import argparse
import json
from pathlib import Path
from typing import Any, Union

import cv2
import numpy as np
from finetune import HERE, RESULTS, Row
from zero_shot import AMOUNTS, CHANGES, CLASSES, EVERY

import mmfreq
from mmfreq.files import atomic_write_text

RESULT, ACCURACY = RESULTS / 'robustness.json', HERE.parent / 'accuracy/configs'
# Networks: the training with the weights, and the config, or the row that has it.
NETWORKS: dict[str, tuple[str, Union[Row, Path]]] = {
    'ResNet-18, RGB': ('accuracy/native-rgb', Row('resnet', '', 0)),
    'ResNet-18, 24N, unpacked': ('accuracy/native-rgb', Row('resnet', '24N', 0)),
    'ResNet-18, 12N, unpacked': ('accuracy/native-rgb', Row('resnet', '12N', 0)),
    'ResNet-18, 24N, from scratch': ('accuracy/dct24n', ACCURACY / 'dct24n.py'),
    'ResNet-18, 12N, from scratch': ('accuracy/dct12n', ACCURACY / 'dct12n.py'),
}
for network, words in (('convnext', 'ConvNeXt'), ('vit', 'ViT')):
    rgb, own = (f'transfer/{network}-{channels}-scratch-10' for channels in ('rgb', '24n'))
    NETWORKS |= {f'{words}, RGB': (rgb, Row(network, '', 0)),
                 f'{words}, 24N, folded': (rgb, Row(network, '24N', 0)),
                 f'{words}, 12N, folded': (rgb, Row(network, '12N', 0)),
                 f'{words}, 24N, from scratch': (own, Row(network, '24N', 0))}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, default=Path('data/imagenette/val'), help='one folder for each class')
    parser.add_argument('--networks', nargs='+', default=list(NETWORKS), choices=NETWORKS, metavar='NETWORK',
                        help=f'{"; ".join(NETWORKS)} (default: all)')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='seeds (default: 0 1 2)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs'), help='of both studies')
    return parser.parse_args()


def main() -> None:
    """Evaluate the missing networks."""
    args = parse_args()
    files = [path for name in CLASSES for path in sorted((args.data / name).iterdir())][::2 * EVERY]
    results = json.loads(RESULT.read_text(encoding='utf-8')) if RESULT.is_file() else {}
    for seed in map(str, args.seeds):
        for name in args.networks:
            checkpoint = args.work_dir / f'{NETWORKS[name][0]}-seed{seed}/epoch_10.pth'
            if seed in results.get(name, {}) or not checkpoint.is_file():
                continue
            model = mmfreq.load_model(str(config_of(name, args.work_dir / 'transfer')), str(checkpoint))
            results.setdefault(name, {})[seed] = evaluate(model, files)
            atomic_write_text(str(RESULT), json.dumps(results, indent=1) + '\n')
            print(f'{name}, seed {seed}: {results[name][seed]}', flush=True)


def config_of(name: str, folder: Path) -> Path:
    """Return the config of a network; freqify writes those of DCT channels into ``folder``."""
    config = NETWORKS[name][1]
    return config.config(folder) if isinstance(config, Row) else config


def evaluate(model: Any, files: list[Path]) -> dict[str, float]:
    """Return the top-1 in percent for each change of the photos, and without any."""
    photos, numbers = [cv2.imread(str(path)) for path in files], sorted(CLASSES)
    labels = np.array([numbers.index(path.parent.name) for path in files])

    def top1(images: list[np.ndarray]) -> float:
        predictions = model.predict(images, batch_size=64)
        return 100 * float(np.mean([item['pred_label'] for item in predictions] == labels))

    scores = {'none': top1(photos)}
    for change, amounts in AMOUNTS.items():
        for amount in amounts:
            scores[f'{change} {amount}'] = top1([CHANGES[change](photo, amount) for photo in photos])
    return scores


if __name__ == '__main__':
    main()
