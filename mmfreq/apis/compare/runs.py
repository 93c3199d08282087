"""What a work dir holds of a run, and what was published for its config."""
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from mmengine.config import Config

from mmfreq.apis.zoo import metafile_models
from mmfreq.config.pipelines import datasets_with_pipeline, iter_dicts, transform_type
from mmfreq.config.paths import config_path, one_line
from mmfreq.dct.channels import read_json
from mmfreq.hosts.checkpoints import best_in

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
_TESTED = 'metrics.json'  # of tools/test.py --out
HEADLINES = ('accuracy/top1', 'coco/bbox_mAP', 'coco/segm_mAP')


@dataclass
class Run:
    """What an argument of the comparison stands for."""
    argument: str
    name: str  # of the config, or of a work dir without one
    cfg: Optional[Config] = None
    metrics: dict[str, float] = field(default_factory=dict)
    found: str = ''  # where they are from: 'metrics.json', 'validation at step 6'
    seed: Any = None  # randomness.seed, or the work dir if the run drew it; None without a run
    notes: list[str] = field(default_factory=list)  # what is missing, and why


def read_run(run_or_config: str) -> Run:
    """Read a config, and the results of a work dir; what cannot be read becomes a note.

    Raises:
        ValueError: There is no such file, folder or package.
    """
    folder = Path(run_or_config)
    if not folder.is_dir():
        configs = [config_path(run_or_config)]
        run = Run(run_or_config, configs[0].stem)
    else:
        configs = list(folder.glob('*.py'))
        run = Run(run_or_config, folder.resolve().name, seed=str(folder.resolve()))
        try:
            run.metrics, run.found = results(folder)
            best = best_in(folder)
            if len(best) == 1 and run.found != _TESTED:
                run.notes.append('the results are of the last validation; for those of '
                                 f'{best[0].name}: {_test_command(folder)}')
        except ValueError as error:
            run.notes.append(str(error))
        except Exception as error:  # logs hold whatever was written before a crash
            run.notes.append(f'the results cannot be read: {one_line(error)}')
    if len(configs) != 1:
        run.notes.append(f'{folder}: expected one config, found {len(configs)}')
        return run
    run.name = configs[0].stem
    try:
        run.cfg = Config.fromfile(str(configs[0]))
        _restore_start(run.cfg, folder)
    except Exception as error:  # a config is a program: it may raise anything
        run.notes.append(f'the config cannot be read: {one_line(error)}')
        return run
    if run.seed is not None:
        seed = (run.cfg.get('randomness') or {}).get('seed')
        run.seed = run.seed if seed is None else seed
    return run


def _restore_start(cfg: Config, folder: Path) -> None:
    """Set ``load_from`` to what an interrupted run began with; going on has replaced it."""
    if not cfg.get('resume'):
        return
    for file in sorted(folder.glob('*/vis_data/config.py')):
        first = Config.fromfile(str(file))
        if not first.get('resume'):
            cfg.update(resume=False, load_from=first.get('load_from'))
            return


def results(work_dir: Path) -> tuple[dict[str, float], str]:
    """Return metrics of a run, and where they are from.

    ``metrics.json`` (``tools/test.py --out``) goes before the last validation in the logs. The best
    epoch does not count: its checkpoint may be gone, and no metric says whether more is better.

    Raises:
        ValueError: There are no results, or ``metrics.json`` is damaged.
    """
    tested = work_dir / _TESTED
    if tested.exists():
        return _numbers(read_json(tested, 'metrics')), tested.name
    for log in sorted(work_dir.glob('*/vis_data/scalars.json'), reverse=True):
        for line in reversed(log.read_text(encoding='utf-8', errors='replace').splitlines()):
            try:
                values = _numbers(json.loads(line))
            except ValueError:  # a line that was cut off
                continue
            metrics = {key: value for key, value in values.items() if '/' in key}
            if metrics:
                return metrics, f'validation at step {values.get("step")}'
    raise ValueError(f'no results yet; {_test_command(work_dir)}')


def _test_command(work_dir: Path) -> str:
    configs = [*map(str, work_dir.glob('*.py'))]
    config = configs[0] if len(configs) == 1 else 'CONFIG'
    return f'mmfreq test {config} {work_dir} --out {work_dir / _TESTED}'


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items()
            if type(value) in (int, float) and math.isfinite(value)}


def group_runs(runs: list[Run]) -> list[list[Run]]:
    """Group runs of one config with different seeds, in the order of their first runs."""
    groups: dict[tuple, list[Run]] = {}
    seen: Counter = Counter()
    for number, run in enumerate(runs):
        config = number if run.seed is None or run.cfg is None else _without_seed(run.cfg)
        groups.setdefault((config, seen[config, run.seed]), []).append(run)
        seen[config, run.seed] += 1  # one seed twice is not two samples
    return list(groups.values())


def _without_seed(cfg: Config) -> str:
    """Return a config as text, without its seed, paths of the run, and visualizer.

    Whether a run started from other weights counts; their path does not.
    """
    values = cfg.to_dict()
    values['load_from'] = bool(values.get('load_from')) and not values.get('resume')
    for key in ('resume', 'work_dir', 'visualizer', 'vis_backends'):
        values.pop(key, None)
    values['randomness'] = {**(values.get('randomness') or {}), 'seed': None}
    return json.dumps(values, sort_keys=True, default=str)


def published_metrics(run: Run) -> dict[str, float]:
    """Return what the metafiles state for the config of a run, in mmengine's names and units.

    Empty, with a note, if the run's data are not those of the shipped config of that name. All
    results are the authors': see each entry's ``Source``.
    """
    stated: dict[str, float] = {}
    for file, model in metafile_models('mmfreq'):
        if Path(file.rpartition('::')[2]).stem == run.name:
            config = file if '::' in file else f'mmfreq::{file}'
            for result in model.get('Results', []):
                stated.update(result['Metrics'])
    if not stated or run.cfg is None:
        return {}
    try:
        if _data(run.cfg) != _data(Config.fromfile(str(config_path(config)))):
            raise ValueError(f'the data are not those of {config}')
    except Exception as error:  # as in read_run
        run.notes.append(f'no published results: {one_line(error)}')
        return {}
    return {key: round(stated[title] / factor, 6)
            for key, (_, title, factor) in METRICS.items() if title in stated}


def _data(cfg: Config) -> tuple[Any, ...]:
    """Return type and root of the data sets to test on, and the model's numbers of classes."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    sets, classes = [], set()
    for node in datasets_with_pipeline(loader.get('dataset')):
        sets.append((transform_type(node), str(node.get('data_root')).rstrip('/')))
    for node in iter_dicts(cfg.get('model')):
        classes.add(node.get('num_classes'))
    return sets, classes
