#!/usr/bin/env python3
"""Run the accuracy study: train every row with every seed. Then run report.py for tables and figures.

A finished training writes results/ROW-seedN.json and is not repeated. An interrupted training continues from its last
checkpoint. To repeat a row, delete its files in results/ and its work dir.
"""
import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Optional

from logs import read_result
from rows import HERE, ROWS

from mmfreq.files import atomic_write_text
from mmfreq.selection.rates import load_on_rates, save_on_rates
from mmfreq.selection.static import save_selection

ROOT = HERE.parent.parent
RESULTS = HERE / 'results'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', nargs='+', default=list(ROWS), choices=ROWS, metavar='ROW',
                        help='rows to train, in this order (default: all of rows.py)')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='seeds (default: 0 1 2)')
    parser.add_argument('--jobs', type=int, default=2, help='number of parallel trainings (default: 2)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/accuracy'), help='logs and checkpoints')
    return parser.parse_args()


def main() -> None:
    """Run the missing trainings, seed by seed."""
    args = parse_args()
    threads = max(os.cpu_count() // args.jobs, 1)
    tasks: dict[tuple[str, int], Future] = {}
    with ThreadPoolExecutor(args.jobs) as pool:
        for seed in args.seeds:
            for row in args.rows:
                needed = tasks.get((ROWS[row].needs, seed))
                tasks[row, seed] = pool.submit(finish, row, seed, args.work_dir, threads, needed)
    for task in tasks.values():
        task.result()


def result_file(row: str, seed: int) -> Path:
    """Return the path of the result of one training."""
    return RESULTS / f'{row}-seed{seed}.json'


def finish(row: str, seed: int, work_dirs: Path, threads: int, needed: Optional[Future]) -> None:
    """Train one row with one seed and write the result, unless it exists; first wait for the training ``needed``."""
    target = result_file(row, seed)
    if target.is_file():
        return
    if needed is not None:
        needed.result()
    if ROWS[row].needs and not result_file(ROWS[row].needs, seed).is_file():
        print(f'{row}, seed {seed}: skipped, because {ROWS[row].needs} has no result', flush=True)
        return
    work_dir = work_dirs / f'{row}-seed{seed}'
    if not train(row, seed, work_dir, threads):
        print(f'{row}, seed {seed}: failed, see {work_dir}/train.log', flush=True)
        return
    result = dict(row=row, config=f'{ROWS[row].config}.py', channels=ROWS[row].channels.format(seed=seed), seed=seed,
                  **read_result(work_dir))
    RESULTS.mkdir(parents=True, exist_ok=True)
    rates = work_dir / f'gate_rates_epoch_{result["epochs"]}.json'
    if rates.is_file():
        keep_selection(rates, seed)
    atomic_write_text(str(target), json.dumps(result, indent=1) + '\n')
    print(f'{row}, seed {seed}: top-1 {result["metrics"]["accuracy/top1"]:.2f}, '
          f'{result["seconds_per_epoch"]:.1f} s per epoch', flush=True)


def keep_selection(rates: Path, seed: int) -> None:
    """Save the on-rates of the row gate, and its 24 best channels for the row learned24."""
    on_rates = load_on_rates(str(rates))
    on_rates.meta['config'] = 'gate.py'
    save_on_rates(on_rates, str(HERE / f'selections/gate-rates-{seed}.json'))
    save_selection(on_rates, on_rates.top(24), str(HERE / f'selections/learned-{seed}.json'))


def train(row: str, seed: int, work_dir: Path, threads: int) -> bool:
    """Run tools/train.py; return whether it succeeded."""
    work_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, 'tools/train.py', HERE / 'configs' / f'{ROWS[row].config}.py', '--work-dir',
               work_dir.resolve(), '--resume', '--cfg-options', *ROWS[row].options(seed)]
    environment = {'OMP_NUM_THREADS': str(threads), **os.environ}
    with open(work_dir / 'train.log', 'a', encoding='utf-8') as log:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    return done.returncode == 0


if __name__ == '__main__':
    main()
