"""Read accuracy, loss and time of a finished training from the logs in its work dir."""
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
    """Return the metrics, loss, iterations and times of a finished training, and where it ran."""
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
        starts=len(list(work_dir.glob('*/vis_data/scalars.json'))),  # above 1: interrupted and resumed
        seconds_per_epoch=statistics.median(record['time'] for record in steps) * iterations / last,
        machine=machine(), date=datetime.date.today().isoformat(), commit=commit())


def read_records(work_dir: Path) -> list[dict[str, Any]]:
    """Return all records of the logs of training and evaluation in the order of their steps, repeated steps once."""
    records: dict[tuple, dict[str, Any]] = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # an interrupted write
                continue
            records['loss' in record, record['step']] = record
    return [records[key] for key in sorted(records, key=lambda key: key[1])]


def machine() -> dict[str, Any]:
    """Return the processor and the versions of torch and Python."""
    model = platform.processor()
    if Path('/proc/cpuinfo').is_file():
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        model = next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), model)
    return dict(cpu=model, cores=os.cpu_count(), torch=torch.__version__, python=platform.python_version())


def commit() -> str:
    """Return the current commit, or an empty string outside a git repository."""
    done = subprocess.run(['git', 'describe', '--always', '--dirty', '--abbrev=12'], cwd=Path(__file__).parent,
                          capture_output=True, text=True, check=False)
    return done.stdout.strip()
