#!/usr/bin/env python3
r"""The channels that EfficientNet-Lite0 with its ImageNet weights needs, and its accuracy on them, without training.

Each gate sees 3,000 training photos of Imagenette once, without their labels, as ``mmfreq gate`` does. The accuracy is
the top-1 among the 1,000 classes on the first 60 validation photos of each class. A result that results/gates.json
holds is not repeated, and results/gates has the rates of each gate, for tools/gate_heatmap.py.

    python benchmarks/transfer/lite0.py -o work_dirs/transfer/lite0.pth
    python benchmarks/transfer/gates.py work_dirs/transfer/lite0.pth data/imagenette

``--detector`` adds a gate in front of a trained detector on RGB, and compares its map with the first one of 24 native
channels. After detection.py:

    python benchmarks/transfer/gates.py work_dirs/transfer/lite0.pth data/imagenette --detector \
        benchmarks/transfer/configs/faster-rcnn.py work_dirs/transfer/faster-rcnn-rgb-seed1/epoch_24.pth
"""
import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Optional

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / 'accuracy')]

from logs import commit, machine  # noqa: E402
from summary import rank_correlation  # noqa: E402

import mmfreq  # noqa: E402
from mmfreq.apis.freqify.convert import write_freqified  # noqa: E402
from mmfreq.apis.gate import carry_over, learn_channels, training_images  # noqa: E402
from mmfreq.apis.inference import Model  # noqa: E402
from mmfreq.dct.channels import COMPONENTS, channel_indices, zigzag_order  # noqa: E402
from mmfreq.files import atomic_write_text  # noqa: E402
from mmfreq.selection.rates import OnRates, load_on_rates, save_on_rates  # noqa: E402
from mmfreq.selection.static import write_static  # noqa: E402

CONFIG, RESULTS = HERE / 'configs/lite0-224.py', HERE / 'results/gates.json'
CLASSES = dict(n01440764=0, n02102040=217, n02979186=482, n03000684=491, n03028079=497, n03394916=566, n03417042=569,
               n03425413=571, n03445777=574, n03888257=701)  # folder, number in ImageNet
GATES = [(channels, target, seed) for seed in (0, 1, 2) for channels, target in (('192', 24), ('48N', 12), ('48N', 24))]
REFERENCES = ('RGB', '48N', '24N', '12N', '192', '24S', '24D')
BATCH_SIZE = 12


def main() -> None:
    """Do what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='the weights, which lite0.py writes')
    parser.add_argument('imagenette', type=Path, help='folder with train and val')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/transfer/gates'))
    parser.add_argument('--detector', nargs=2, metavar=('CONFIG', 'CHECKPOINT'))
    args = parser.parse_args()
    mmfreq.setup()
    results = json.loads(RESULTS.read_text(encoding='utf-8')) if RESULTS.is_file() else {}
    for name, gate in [(name, None) for name in REFERENCES] + [('{}-{}-seed{}'.format(*gate), gate) for gate in GATES]:
        if name not in results:
            results[name] = run(name, gate, args)
            atomic_write_text(RESULTS, json.dumps(results, indent=1) + '\n')
            print(name, results[name], flush=True)
    if args.detector and 'detector' not in results:
        results['detector'] = before_detector(*args.detector, args.work_dir)
        atomic_write_text(RESULTS, json.dumps(results, indent=1) + '\n')


def run(name: str, gate: Optional[tuple[str, int, int]], args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate a named selection, or learn one and evaluate it."""
    photos = [(file, label) for folder, label in CLASSES.items()
              for file in sorted((args.imagenette / 'val' / folder).iterdir())[:60]]
    model = carried_over(gate[0] if gate else name, args)
    if gate is None:
        return dict(top1=top1(model, photos))
    channels, target, seed = gate
    files = [str(file) for folder in CLASSES for file in sorted((args.imagenette / 'train' / folder).iterdir())[:300]]
    start, start_cpu = time.perf_counter(), time.process_time()
    rates = learn_channels(model, files, target, len(files) // BATCH_SIZE, BATCH_SIZE, seed)
    times = dict(seconds=round(time.perf_counter() - start), cpu_seconds=round(time.process_time() - start_cpu))
    rates.meta['config'] = CONFIG.name
    save_on_rates(rates, str(HERE / f'results/gates/{name}.json'))
    selection, config = args.work_dir / f'{name}-selection.json', args.work_dir / f'{name}.py'
    write_static(rates, rates.top(target), args.work_dir / f'{channels}.py', selection, config)
    static = mmfreq.load_model(config, carry_over(model, str(args.work_dir / f'{channels}.pth'), config))
    return dict(top1=top1(static, photos), **times, **described(rates, target), machine=machine(), commit=commit())


def before_detector(config: str, checkpoint: str, work_dir: Path) -> dict[str, Any]:
    """Learn 24 native channels for a detector; compare their ranking with that of the classifier."""
    path = work_dir / 'detector-48N.py'
    write_freqified(config, '48N', path, weights=checkpoint)
    model = mmfreq.load_model(path, path.with_suffix('.pth'))
    rates = learn_channels(model, training_images(model, 10**6, seed=0), 24, 250, batch_size=2)
    rates.meta['config'] = Path(config).name
    save_on_rates(rates, str(HERE / 'results/gates/detector.json'))
    other = load_on_rates(str(HERE / 'results/gates/48N-24-seed0.json'))
    logits = [item.halves.mean(axis=0).reshape(3, -1) for item in (rates, other)]
    correlation = {name: round(rank_correlation(*pair), 3) for name, *pair in zip(COMPONENTS, *logits)}
    return dict(config=Path(config).name, images=rates.images, **described(rates, 24),
                with_classifier=dict(rank_correlation=correlation, in_common=len({*rates.top(24)} & {*other.top(24)})),
                machine=machine(), commit=commit())


def carried_over(channels: str, args: argparse.Namespace) -> Model:
    """Return the network on all channels of a name, or on RGB."""
    path = args.work_dir / f'{channels}.py'
    if channels == 'RGB':
        return mmfreq.load_model(CONFIG, args.checkpoint)
    if not path.with_suffix('.pth').is_file():
        write_freqified(str(CONFIG), channels, path, weights=args.checkpoint)
    return mmfreq.load_model(path, path.with_suffix('.pth'))


def top1(model: Model, photos: list[tuple[Path, int]]) -> float:
    """Return the accuracy in percent."""
    predictions = model.predict([file for file, _ in photos], batch_size=50)
    right = [prediction['pred_label'] == label for prediction, (_, label) in zip(predictions, photos)]
    return round(100 * float(np.mean(right)), 2)


def described(rates: OnRates, target: int) -> dict[str, Any]:
    """Return the selection, its overlap with named ones, and the rank correlation of zigzag index and logit."""
    selection, size, logits = rates.top(target), rates.block_size**2, rates.halves.mean(axis=0)
    zigzag = np.argsort(zigzag_order(rates.block_size))
    named = [name for name in REFERENCES if name != 'RGB' and (name[-1] == 'N') == (size == 16)]
    return dict(
        channels=selection, verdict=rates.verdict(),
        components={name: sum(channel // size == i for channel in selection) for i, name in enumerate(COMPONENTS)},
        in_common={name: len({*selection} & {*channel_indices(name, rates.block_size)}) for name in named
                   if len(channel_indices(name, rates.block_size)) == target},
        rank_correlation={name: round(rank_correlation(zigzag, logits[size * i:size * i + size]), 3)
                          for i, name in enumerate(COMPONENTS)})


if __name__ == '__main__':
    main()
