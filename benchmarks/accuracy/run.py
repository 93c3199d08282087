#!/usr/bin/env python3
"""Run the accuracy study: train every row with every seed, then write the table and the pictures.

A finished training leaves results/ROW-seedN.json and is not repeated; an interrupted one goes on from its last
checkpoint. To run one row anew, delete its files in results/ and in the work dir.
"""
import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional

import torch
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
    parser.add_argument('--jobs', type=int, default=2, help='trainings at a time (default: 2)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/accuracy'), help='logs and checkpoints')
    return parser.parse_args()


def main() -> None:
    """Train what is missing, seed by seed."""
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
    """Return where the result of one training is kept."""
    return RESULTS / f'{row}-seed{seed}.json'


def finish(row: str, seed: int, work_dirs: Path, threads: int, needed: Optional[Future]) -> None:
    """Train one row with one seed after what it needs, unless its result is there, and write the result."""
    target = result_file(row, seed)
    if target.is_file():
        return
    if needed is not None:
        needed.result()
    if ROWS[row].needs and not result_file(ROWS[row].needs, seed).is_file():
        print(f'{row}, seed {seed}: left out, it needs the result of {ROWS[row].needs}', flush=True)
        return
    work_dir = work_dirs / f'{row}-seed{seed}'
    if not train(row, seed, work_dir, threads):
        print(f'{row}, seed {seed}: failed, see {work_dir}/train.log', flush=True)
        return
    result = read_result(row, seed, work_dir)
    RESULTS.mkdir(parents=True, exist_ok=True)
    if row == 'gate':
        keep_selection(work_dir / f'gate_rates_epoch_{result["epochs"]}.json', seed)
    atomic_write_text(str(target), json.dumps(result, indent=1) + '\n')
    print(f'{row}, seed {seed}: top-1 {result["top1"]:.2f}, {result["seconds_per_epoch"]:.1f} s per epoch', flush=True)


def keep_selection(rates: Path, seed: int) -> None:
    """Keep how often a gate used each channel, and its 24 best channels, for the static training on them."""
    found = load_on_rates(str(rates))
    found.meta['config'] = 'gate.py'
    save_on_rates(found, str(HERE / f'selections/gate-rates-{seed}.json'))
    save_selection(found, found.top(24), str(HERE / f'selections/learned-{seed}.json'))


def train(row: str, seed: int, work_dir: Path, threads: int) -> bool:
    """Run tools/train.py; return whether it succeeded."""
    work_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, 'tools/train.py', HERE / 'configs' / f'{ROWS[row].config}.py', '--work-dir',
               work_dir.resolve(), '--resume', '--cfg-options', *ROWS[row].options(seed)]
    environment = {**os.environ, 'OMP_NUM_THREADS': str(threads)}
    with open(work_dir / 'train.log', 'a', encoding='utf-8') as log:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    return done.returncode == 0


def read_result(row: str, seed: int, work_dir: Path) -> dict[str, Any]:
    """Return what one finished training reached and took, from its logs."""
    records = read_records(work_dir)
    steps = [record for record in records if 'loss' in record]
    top1 = {record['step']: record['accuracy/top1'] for record in records if 'accuracy/top1' in record}
    last = max(top1)
    final = [record for record in steps if record['epoch'] == steps[-1]['epoch']]
    first = {record['epoch']: record['step'] for record in reversed(steps)}  # first logged step of each epoch
    iterations = (first[2] - first[1]) * last
    return dict(
        row=row, config=f'{ROWS[row].config}.py', options=ROWS[row].channels.format(seed=seed), seed=seed,
        top1=top1[last], best_top1=max(top1.values()), top1_by_epoch=top1,
        loss=statistics.mean(record['loss'] for record in final), epochs=last, iterations=iterations,
        seconds_per_epoch=statistics.median(record['time'] for record in steps) * iterations / last,
        machine=machine(), date=datetime.date.today().isoformat(), commit=commit())


def read_records(work_dir: Path) -> list[dict[str, Any]]:
    """Return all lines of the logs that training and evaluation left, oldest first, a repeated step once."""
    found: dict[tuple, dict[str, Any]] = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            record = json.loads(line)
            found['loss' in record, record['step']] = record
    return [found[key] for key in sorted(found, key=lambda key: key[1])]


def machine() -> dict[str, Any]:
    """Return what the training ran on."""
    model = platform.processor()
    if Path('/proc/cpuinfo').is_file():
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        model = next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), model)
    return dict(cpu=model, cores=os.cpu_count(), torch=torch.__version__, python=platform.python_version())


def commit() -> str:
    """Return the commit that is checked out; empty outside a git repository."""
    done = subprocess.run(['git', 'describe', '--always', '--dirty', '--abbrev=12'], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    return done.stdout.strip()


if __name__ == '__main__':
    main()
