"""What a work dir holds of a run, and what was published for its config: found as far as the files allow."""
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import yaml

from mmfreq.config.paths import config_path

# What a table shows of a run's metrics; a run that has none of these shows all it has. The best result is the best by
# the first of them that the run has.
SHOWN_METRICS = ('accuracy/top1', 'accuracy/top5', 'coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/segm_mAP',
                 'coco/segm_mAP_50', 'gate/kept')
HEADLINES = ('accuracy/top1', 'coco/bbox_mAP', 'coco/segm_mAP')  # one for each task

# How metafiles name metrics, and the unit of mmengine's in theirs.
_METAFILE_NAMES = {'accuracy/top1': ('Top 1 Accuracy', 1), 'accuracy/top5': ('Top 5 Accuracy', 1),
                   'coco/bbox_mAP': ('box AP', 0.01), 'coco/bbox_mAP_50': ('box AP50', 0.01),
                   'coco/segm_mAP': ('mask AP', 0.01), 'coco/segm_mAP_50': ('mask AP50', 0.01)}


@dataclass
class Run:
    """What an argument of the comparison stands for.

    Attributes:
        name (str): Name of the config, or of the work dir if that has none.
        config (Path | None): The config's file.
        work_dir (Path | None): The work dir, if the argument is one.
        notes (list[str]): What is missing, and why.
    """
    name: str
    config: Optional[Path]
    work_dir: Optional[Path] = None
    notes: list[str] = field(default_factory=list)


def find_run(run_or_config: str) -> Run:
    """The config file and the work dir that an argument stands for.

    A work dir holds the config of its run; where it holds none, or several, the copy beside the newest log counts.

    Raises:
        ValueError: There is no such file, folder or package.
    """
    folder = Path(run_or_config)
    if not folder.is_dir():
        config = config_path(run_or_config)
        return Run(config.stem, config)
    configs = sorted(folder.glob('*.py'))
    if len(configs) == 1:
        return Run(configs[0].stem, configs[0], folder)
    copy = max(folder.glob('*/vis_data/config.py'), default=None)
    taken = f'took {copy}' if copy else 'and no copy beside a log'
    return Run(folder.resolve().name, copy, folder, [f'{folder}: expected one config, found {len(configs)}; {taken}'])


def best_metrics(work_dir: Optional[Path], notes: list[str]) -> tuple[dict[str, float], str]:
    """The best results in a work dir, and where they were found; says in ``notes`` what is missing or damaged."""
    if work_dir is None:
        return {}, ''
    results = [('metrics.json', _metrics_file(work_dir / 'metrics.json', notes))]
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    for log in logs:
        results += [(f'validation at step {step}', found) for step, found in _validations(log, notes)]
    results = [(where, found) for where, found in results if found]
    if not results:
        notes.append(f'no results in {work_dir}: ' + ('no validation in its logs yet' if logs else 'no logs') +
                     f', no metrics.json (tools/test.py CONFIG {work_dir} --out {work_dir / "metrics.json"})')
        return {}, ''
    found_keys = dict.fromkeys(key for _, found in results for key in found)
    headline = next((key for key in SHOWN_METRICS if key in found_keys), next(iter(found_keys)))
    where, best = max(results, key=lambda result: result[1].get(headline, -math.inf))
    return best, where


def last_step(work_dir: Path) -> Optional[int]:
    """The largest step at which a log in a work dir has a validation: an epoch, or an iteration; None without any."""
    steps = [step for log in work_dir.glob('*/vis_data/scalars.json') for step, _ in _validations(log, [])]
    return max((step for step in steps if isinstance(step, int)), default=None)


def _validations(log: Path, notes: list[str]) -> list[tuple[Any, dict[str, float]]]:
    """Steps and metrics of all validations in one ``scalars.json``."""
    lines = [line for line in _text(log, notes).splitlines() if line.strip()]
    values = [value for value in map(_parsed, lines) if value is not None]
    if len(values) < len(lines):
        notes.append(f'{log}: {len(lines) - len(values)} of {len(lines)} lines are damaged')
    found = [(value.get('step'), {key: number for key, number in _numbers(value).items() if '/' in key})
             for value in values]
    return [(step, metrics) for step, metrics in found if metrics]


def _metrics_file(path: Path, notes: list[str]) -> dict[str, float]:
    """The metrics that ``tools/test.py --out`` wrote; empty if there is no such file."""
    if not path.exists():
        return {}
    known = len(notes)
    values = _parsed(_text(path, notes))
    found = _numbers(values or {})
    if len(notes) == known and not found:
        notes.append(f'{path} is damaged' if values is None else f'{path} has no metrics')
    return found


def _text(path: Path, notes: list[str]) -> str:
    try:
        return path.read_text(encoding='utf-8', errors='replace')
    except OSError as error:
        notes.append(f'{path} cannot be read: {error.strerror}')
        return ''


def _parsed(text: str) -> Optional[dict[str, Any]]:
    """A JSON object, or None."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    """The finite numbers among the values."""
    return {key: value for key, value in values.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)}


def published_metrics(name: str) -> dict[str, float]:
    """Results that the metafiles state for the config ``name``, in mmengine's names and units; empty if there are none.

    All of them are the authors': see each entry's ``Source``.
    """
    root = Path(__file__).parent / '.mim'
    for metafile in sorted(root.glob('configs/*/metafile.yml')):
        for model in yaml.safe_load(metafile.read_text(encoding='utf-8')).get('Models', []):
            if model['Name'] == name:
                stated = {key: value for result in model.get('Results', []) for key, value in result['Metrics'].items()}
                return {key: round(stated[title] * unit, 6) for key, (title, unit) in _METAFILE_NAMES.items()
                        if title in stated}
    return {}
