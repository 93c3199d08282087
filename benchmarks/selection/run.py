#!/usr/bin/env python3
"""Train gates on several data sets, and record what they keep at every validation.

Every run is the gate of benchmarks/accuracy (ResNet-18 at half width, 64x64 pixels, from scratch)
with another data set, length or target. A run that results.json holds is not repeated. The data
sets are class folders DATA/NAME/{train,val}: flowers17 (1,088 images for training), clothing10
(1,000) and imagenette (7,000).
"""
import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE.parent / 'accuracy')]

from logs import commit, machine, read_records  # noqa: E402
from summary import describe_selection, frequency_correlation  # noqa: E402

from mmfreq.apis.pictures import save_figure  # noqa: E402
from mmfreq.files import atomic_write_text  # noqa: E402
from mmfreq.selection.rates import DECIDED, OnRates, load_on_rates  # noqa: E402

RESULTS = HERE / 'results.json'


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        data (str): Folder of the data set.
        classes (int): Its number of classes.
        images (int): Images that the training takes of it; 0 for all.
        target (int): Channels to keep.
        epochs (int): Length.
        interval (int): Epochs between two validations.
        seed (int): Of the training.
    """
    data: str
    classes: int
    images: int
    target: int
    epochs: int
    interval: int
    seed: int = 0

    @property
    def name(self) -> str:
        """Name of the run in results.json."""
        images = f'-{self.images}' if self.images else ''
        return f'{self.data}{images}-{self.epochs}epochs-target{self.target}-seed{self.seed}'

    def options(self, data: Path) -> list[str]:
        """Return ``--cfg-options`` of tools/train.py."""
        parts = ('train', 'val', 'test')
        options = [f'{part}_dataloader.dataset.data_root={data / self.data}' for part in parts]
        if self.images:
            step = len(list((data / self.data / 'train').rglob('*.*'))) // self.images
            options.append('train_dataloader.dataset.indices='
                           f'[{",".join(str(step * i) for i in range(self.images))}]')
        return [*options, f'model.head.num_classes={self.classes}',
                f'data_preprocessor.num_classes={self.classes}', f'randomness.seed={self.seed}',
                f'train_cfg.max_epochs={self.epochs}', f'train_cfg.val_interval={self.interval}',
                f'param_scheduler.1.end={self.epochs}',
                f'param_scheduler.1.T_max={self.epochs - 1}', f'custom_hooks.0.target={self.target}']


RUNS = [Run('flowers17', 17, 0, 24, 12, 2), Run('imagenette', 10, 200, 6, 60, 10),
        Run('flowers17', 17, 0, 24, 30, 5), Run('clothing10', 10, 0, 48, 30, 5),
        Run('imagenette', 10, 0, 24, 10, 2), Run('clothing10', 10, 0, 12, 60, 10),
        Run('flowers17', 17, 0, 24, 12, 2, seed=1), Run('flowers17', 17, 0, 24, 30, 5, seed=1),
        Run('imagenette', 10, 0, 24, 10, 2, seed=1)]


def main() -> None:
    """Train what is missing, and draw."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', nargs='*', type=int, default=range(len(RUNS)),
                        help='numbers of the runs, in this order (default: all; none: only draw)')
    parser.add_argument('--data', type=Path, default=Path('data'), help='folder of the data sets')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/selection'))
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding='utf-8')) if RESULTS.is_file() else {}
    for run in [RUNS[number] for number in args.runs]:
        if run.name not in results:
            results[run.name] = train(run, args.data.resolve(), args.work_dir.resolve() / run.name)
            atomic_write_text(RESULTS, json.dumps(results, indent=1) + '\n')
    draw(list(results.values()))
    print(table(list(results.values())))


def train(run: Run, data: Path, work_dir: Path) -> dict[str, Any]:
    """Run one training, and return what its validations measured."""
    work_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, 'tools/train.py', 'benchmarks/accuracy/configs/gate.py', '--work-dir',
               str(work_dir), '--resume', '--cfg-options', *run.options(data)]
    with open(work_dir / 'train.log', 'a', encoding='utf-8') as log:
        environment = {'OMP_NUM_THREADS': '1', **os.environ, 'PYTHONPATH': str(ROOT)}
        subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT,
                       check=True)
    accuracies = {record['step']: record['accuracy/top1'] for record in read_records(work_dir)
                  if 'accuracy/top1' in record}
    rates = {epoch: load_on_rates(str(work_dir / f'gate_rates_epoch_{epoch}.json'))
             for epoch in accuracies}
    last = rates[max(rates)]
    return dict(asdict(run), validations=[validation(rates[epoch], accuracies[epoch])
                                          for epoch in sorted(rates)],
                selection=last.top(run.target), machine=machine(), commit=commit())


def validation(rates: OnRates, accuracy: float) -> dict[str, Any]:
    """Return what one validation measured."""
    selection = describe_selection(rates.top(rates.meta['budget']))
    return dict(iteration=rates.meta['iter'], kept=round(rates.kept()['all'], 3), accuracy=accuracy,
                **rates.verdict(), in_24S=selection['24S'],
                rank_correlation_Y=round(frequency_correlation(rates.probability), 3))


def label(result: dict[str, Any]) -> str:
    """Return the data set, its images, the target and the seed of a run."""
    images = f' ({result["images"]} images)' if result['images'] else ''
    return f'{result["data"]}{images}, {result["target"]} channels, seed {result["seed"]}'


def table(results: list[dict[str, Any]]) -> str:
    """Return one line per run, in Markdown, from its last validation."""
    lines = ['| run | iterations | kept | largest miss | agreement | decided | in 24S | rank correlation |',
             '| :-- | --: | --: | --: | --: | :-- | --: | --: |']
    for result in results:
        last = result['validations'][-1]
        miss = max(abs(item['kept'] / item['count'] - 1) for item in result['validations'])
        lines.append(f'| {label(result)} | {last["iteration"]} | {last["kept"]:.1f} | {miss:.1%} | '
                     f'{last["agreement"]:.2f} | {"yes" if last["decided"] else "no"} | '
                     f'{last["in_24S"]} | {last["rank_correlation_Y"]:.2f} |')
    return '\n'.join(lines)


def draw(results: list[dict[str, Any]]) -> None:
    """Draw what the runs kept, and how their agreement tells a choice from noise."""
    figure = Figure(figsize=(12, 4.2), layout='constrained')
    kept, choice = figure.subplots(1, 2)
    for number, result in enumerate(results):
        color, steps = f'C{number}', result['validations']
        iterations = [100 * step['iteration'] / steps[-1]['iteration'] for step in steps]
        kept.plot(iterations, [step['count'] for step in steps], '--', color=color, linewidth=1)
        kept.plot(iterations, [step['kept'] for step in steps], 'o', color=color)
        last = steps[-1]
        choice.plot(last['agreement'], last['rank_correlation_Y'], 'o', color=color,
                    label=f'{label(result)}, {last["iteration"]} iterations')
    kept.set(xlabel='training, %', ylabel='channels kept per image', yscale='log',
             title='Channels kept (dots), budget (dashes)')
    kept.set_yticks([6, 12, 24, 48, 96, 192], [6, 12, 24, 48, 96, 192])
    kept.minorticks_off()
    choice.axvline(DECIDED, color='grey', linewidth=1)
    choice.set(xlabel='agreement of the halves (decided: right of the line)',
               ylabel='rank correlation of frequency\nand probability, Y',
               title='Decided gates prefer low frequencies')
    choice.invert_yaxis()
    choice.legend(fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5), frameon=False)
    save_figure(figure, str(ROOT / 'docs/gates.png'))


if __name__ == '__main__':
    main()
