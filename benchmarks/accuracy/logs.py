"""What a finished training reached and took, from the logs in its work dir."""
import datetime
import json
import os
import platform
import statistics
import subprocess
from pathlib import Path
from typing import Any

import torch


def read_result(work_dir: Path) -> dict[str, Any]:
    """Return what one finished training reached and took, from its logs."""
    records = read_records(work_dir)
    steps = [record for record in records if 'loss' in record]
    evaluations = {record['step']: record for record in records if 'loss' not in record}
    last = max(evaluations)
    metrics = {key: value for key, value in evaluations[last].items() if '/' in key}
    final = [record for record in steps if record['epoch'] == steps[-1]['epoch']]
    first = {record['epoch']: record['step'] for record in reversed(steps)}  # first logged step of each epoch
    iterations = (first[2] - first[1]) * last
    return dict(
        metrics=metrics, loss=statistics.mean(record['loss'] for record in final), epochs=last, iterations=iterations,
        starts=len(list(work_dir.glob('*/vis_data/scalars.json'))),  # more than one: it was interrupted and resumed
        seconds_per_epoch=statistics.median(record['time'] for record in steps) * iterations / last,
        machine=machine(), date=datetime.date.today().isoformat(), commit=commit())


def read_records(work_dir: Path) -> list[dict[str, Any]]:
    """Return all lines of the logs that training and evaluation left, oldest first, a repeated step once."""
    found: dict[tuple, dict[str, Any]] = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # a line that was cut off
                continue
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
    done = subprocess.run(['git', 'describe', '--always', '--dirty', '--abbrev=12'], cwd=Path(__file__).parent,
                          capture_output=True, text=True, check=False)
    return done.stdout.strip()
