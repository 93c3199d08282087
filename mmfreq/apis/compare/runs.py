"""What a work dir holds of a run, and what was published for its config."""
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import yaml
from mmengine.config import Config

from mmfreq.config.paths import config_path
from mmfreq.config.reader import datasets_with_pipeline, iter_dicts, transform_type

# Known metrics: name in words, name in metafiles, factor from mmengine's unit to that of both.
METRICS = {
    'accuracy/top1': ('top-1 accuracy, %', 'Top 1 Accuracy', 1),
    'accuracy/top5': ('top-5 accuracy, %', 'Top 5 Accuracy', 1),
    'coco/bbox_mAP': ('box AP, %', 'box AP', 100),
    'coco/bbox_mAP_50': ('box AP50, %', 'box AP50', 100),
    'coco/segm_mAP': ('mask AP, %', 'mask AP', 100),
    'coco/segm_mAP_50': ('mask AP50, %', 'mask AP50', 100),
    'gate/kept': ('channels kept', '', 1),
}
HEADLINES = ('accuracy/top1', 'coco/bbox_mAP', 'coco/segm_mAP')


@dataclass
class Run:
    """What an argument of the comparison stands for.

    Attributes:
        name (str): Name of the config, or of the work dir if that has none.
        config (Path | None): The config's file.
        work_dir (Path | None): The work dir, if the argument is one.
        cfg (Config | None): The config, if it can be read.
        metrics (dict[str, float]): Results of the run.
        found (str): Where they are from: ``metrics.json`` or ``validation at step 6``.
        seed (int | str): ``randomness.seed``; the work dir of a run that drew its seed.
        notes (list[str]): What is missing, and why.
    """
    name: str
    config: Optional[Path]
    work_dir: Optional[Path] = None
    cfg: Optional[Config] = None
    metrics: dict[str, float] = field(default_factory=dict)
    found: str = ''
    seed: Any = None
    notes: list[str] = field(default_factory=list)


def find_run(run_or_config: str) -> Run:
    """Find the config file and the work dir that an argument stands for.

    The config of a work dir is the one in it; if there is none, or several, the copy beside the
    newest log.

    Raises:
        ValueError: There is no such file, folder or package.
    """
    folder = Path(run_or_config)
    if not folder.is_dir():
        config = config_path(run_or_config)
        return Run(config.stem, config)
    configs = list(folder.glob('*.py'))
    if len(configs) == 1:
        return Run(configs[0].stem, configs[0], folder)
    copy = max(folder.glob('*/vis_data/config.py'), default=None)
    note = f'{folder}: expected one config, found {len(configs)}; took {copy}'
    return Run(folder.resolve().name, copy, folder, notes=[note])


def read_run(run_or_config: str) -> Run:
    """Find a run, then read its config and its results; what cannot be read becomes a note."""
    run = find_run(run_or_config)
    step = None
    if run.work_dir:
        run.metrics, run.found, step = results(run.work_dir, run.notes)
        run.seed = str(run.work_dir.resolve())
    try:
        run.cfg = Config.fromfile(str(run.config)) if run.config else None
    except Exception as error:  # a config is a program: it may raise anything
        run.notes.append(f'the config cannot be read: {one_line(error)}')
    if run.work_dir and run.cfg:
        seed = (run.cfg.get('randomness') or {}).get('seed')
        run.seed = run.seed if seed is None else seed
        schedule = run.cfg.get('train_cfg') or {}
        planned = schedule.get('max_epochs') or schedule.get('max_iters')
        if planned and step and step < planned:
            run.notes.append(f'the last validation in the logs is at step {step} of {planned}')
    return run


def one_line(error: Exception) -> str:
    """Return type and message of an error in one line of at most some 200 characters."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text[:200]}{"..." if len(text) > 200 else ""}'


def results(work_dir: Path, notes: list[str]) -> tuple[dict[str, float], str, Optional[int]]:
    """Return metrics of a run, where they are from, and the step if they are from a log.

    ``metrics.json`` (``tools/test.py --out``) goes before the last validation in the logs. The best
    epoch does not count: its checkpoint may be gone, and no metric says whether more is better.
    ``notes`` receives what is missing or damaged.
    """
    tested = work_dir / 'metrics.json'
    for file in (tested, *sorted(work_dir.glob('*/vis_data/scalars.json'), reverse=True)):
        try:
            text = file.read_text(encoding='utf-8', errors='replace') if file.exists() else ''
        except OSError as error:
            notes.append(f'{file}: {error.strerror}')
            continue
        if file == tested and text:
            metrics = _numbers(text)
            if metrics:
                return metrics, file.name, None
            notes.append(f'{file}: expected a JSON object with metrics')
            continue
        for line in reversed(text.splitlines()):
            values = _numbers(line)
            metrics = {key: value for key, value in values.items() if '/' in key}
            if metrics:
                step = values.get('step')
                return metrics, f'validation at step {step}', step
    notes.append(f'{work_dir}: no results; tools/test.py CONFIG {work_dir} --out {tested}')
    return {}, '', None


def _numbers(text: str) -> dict[str, Any]:
    """Return the finite numbers of a JSON object; none of a line that was cut off."""
    try:
        values = json.loads(text)
    except ValueError:
        return {}
    values = values if isinstance(values, dict) else {}
    return {key: value for key, value in values.items()
            if type(value) in (int, float) and math.isfinite(value)}


def _fingerprint(run: Run) -> Optional[str]:
    """Return what runs of one config share; None for a config without a work dir.

    That is the config without seed, paths of the run, and visualizer. Whether a run started from
    other weights counts; their path does not.
    """
    if not run.work_dir or run.cfg is None:
        return None
    values = run.cfg.to_dict()
    values['load_from'] = bool(values.get('load_from')) and not values.get('resume')
    for key in ('resume', 'work_dir', 'visualizer', 'vis_backends'):
        values.pop(key, None)
    values['randomness'] = {**(values.get('randomness') or {}), 'seed': None}
    return json.dumps(values, sort_keys=True, default=str)


def group_runs(runs: list[Run]) -> list[list[Run]]:
    """Group runs of one config with different seeds, in the order of their first runs."""
    groups: dict[tuple[Any, int], list[Run]] = {}
    for number, run in enumerate(runs):
        content = _fingerprint(run)
        key = (content, 0) if content else (None, number)
        while run.seed in [other.seed for other in groups.get(key, [])]:
            key = (content, key[1] + 1)  # one seed twice is not two samples
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def published_metrics(run: Run) -> dict[str, float]:
    """Return what the metafiles state for the config of a run, in mmengine's names and units.

    Empty, with a note, if the run's data are not those of the shipped config of that name. All
    results are the authors': see each entry's ``Source``.
    """
    stated: dict[str, float] = {}
    for metafile in Path(__file__).parents[2].glob('.mim/configs/*/metafile.yml'):
        for model in yaml.safe_load(metafile.read_text(encoding='utf-8')).get('Models', []):
            if model['Name'] == run.name and run.cfg is not None:
                config = model['Config']
                for result in model.get('Results', []):
                    stated.update(result['Metrics'])
    if not stated:
        return {}
    if '::' not in config:
        config = f'mmfreq::{config.removeprefix("configs/")}'
    try:
        same = _data(run.cfg) == _data(Config.fromfile(str(config_path(config))))
        reason = '' if same else f'the data are not those of {config}'
    except Exception as error:  # as in read_run
        reason = one_line(error)
    if reason:
        run.notes.append(f'no published results: {reason}')
        return {}
    return {key: round(stated[title] / factor, 6)
            for key, (_, title, factor) in METRICS.items() if title in stated}


def _data(cfg: Config) -> tuple[Any, ...]:
    """Return type and root of the data sets to test on, and the model's numbers of classes."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    sets = [(transform_type(node), str(node.get('data_root')).rstrip('/'))
            for node in datasets_with_pipeline(loader.get('dataset'))]
    heads = [node for node in iter_dicts(cfg.get('model')) if 'num_classes' in node]
    return sets, {node['num_classes'] for node in heads}
