"""Read training runs: their configs, their results, and published results of the same configs."""
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmfreq.apis.zoo import metafile_models
from mmfreq.config.paths import config_path
from mmfreq.config.pipelines import datasets_with_pipeline, iter_dicts, transform_type
from mmfreq.dct.channels import read_json
from mmfreq.errors import RefusedError

# The metrics by which models are judged: name in words, name in metafiles, factor to their unit.
METRICS = {
    'accuracy/top1': ('top-1 accuracy, %', 'Top 1 Accuracy', 1),
    'coco/bbox_mAP': ('box AP, %', 'box AP', 100),
    'coco/segm_mAP': ('mask AP, %', 'mask AP', 100),
    'gate/kept': ('channels kept', '', 1),
}


@dataclass
class Run:
    """A training run, or a config alone."""
    argument: str  # work dir or config, as the user named it
    name: str  # of the config
    cfg: Config
    seed: Any = None  # randomness.seed, or the work dir if mmengine drew it; None without a run
    metrics: dict[str, float] = field(default_factory=dict)  # mmengine's names and units
    source: str = ''  # of the metrics: 'test of epoch_6.pth', 'validation 6' (of an epoch or step)


def read_run(run_or_config: str) -> Run:
    """Read a config file, or the config and the results of a work dir."""
    folder = Path(run_or_config)
    files = [*folder.glob('*.py')] if folder.is_dir() else [config_path(run_or_config)]
    if len(files) != 1:
        raise RefusedError(f'{folder}: expected a work dir with one config, got {len(files)}')
    run = Run(run_or_config, files[0].stem, Config.fromfile(str(files[0])))
    if folder.is_dir():
        starts = sorted(folder.glob('*/vis_data/config.py'))
        if run.cfg.get('resume') and starts:  # load_from is then a checkpoint of the run itself
            first = Config.fromfile(str(starts[0]))
            run.cfg.update(resume=False, load_from=first.get('load_from'))
        seed = (run.cfg.get('randomness') or {}).get('seed')
        run.seed = str(folder.resolve()) if seed is None else seed
        run.metrics, run.source = results(folder, run.cfg)
    return run


def results(folder: Path, cfg: Config) -> tuple[dict[str, float], str]:
    """Return the metrics of a run, and their source; empty if it has no results.

    The newest test in ``test/`` counts, else the last validation in the logs. A test from before the
    last start of the training does not count, nor one of other weights, data or metrics than those of
    the run.
    """
    logs = sorted(folder.glob('*/vis_data/scalars.json'), reverse=True)
    start = logs[0].parts[-3] if logs else ''  # such as 20260131_235959
    for file in sorted(folder.glob('test/*/*.json'), reverse=True):
        test = Config.fromfile(str(file.parent / 'vis_data/config.py'))
        weights = Path(test.load_from).resolve()
        if start <= file.parent.name and weights.parent == folder.resolve() and _is_same(test, cfg):
            return _metrics(read_json(file, 'metrics')), f'test of {weights.name}'
    for log in logs:
        for line in reversed(log.read_text(encoding='utf-8').splitlines()):
            values = json.loads(line) if line.endswith('}') else {}  # the last may be cut off
            if metrics := _metrics(values):
                return metrics, f'validation {values["step"]}'
    return {}, ''


def _is_same(test: Config, cfg: Config) -> bool:
    """Return whether two configs test the same model with the same data and metrics."""
    return all(test.get(key) == cfg.get(key) for key in ('model', 'test_evaluator')) and (
        test.test_dataloader.dataset == cfg.test_dataloader.dataset)


def _metrics(values: dict[str, Any]) -> dict[str, float]:
    """Return the metrics among the values of a log; their names have a prefix: 'coco/bbox_mAP'."""
    return {key: value for key, value in values.items()
            if '/' in key and type(value) in (int, float) and math.isfinite(value)}


def group_runs(runs: list[Run]) -> list[list[Run]]:
    """Group runs of one config with different seeds, in the order of their first runs.

    A second run of a seed is no second sample: it starts another group, as each config does.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = run.argument if run.seed is None else _without_seed(run.cfg)
        while any(run.seed == other.seed for other in groups.get(key, ())):
            key += ' again'
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def _without_seed(cfg: Config) -> str:
    """Return a config as text, without its seed, paths of the run, and visualizer.

    It matters whether a run started from other weights; their path does not matter.
    """
    values = cfg.to_dict()
    values['load_from'] = bool(values.get('load_from')) and not values.get('resume')
    for key in ('resume', 'work_dir', 'visualizer', 'vis_backends'):
        values.pop(key, None)
    values['randomness'] = {**(values.get('randomness') or {}), 'seed': None}
    return json.dumps(values, sort_keys=True, default=str)


def published_metrics(run: Run) -> dict[str, float]:
    """Return the authors' results for the config of a run, in mmengine's names and units.

    They are in the metafiles. There is none if the data are not those of the shipped config.
    """
    stated: dict[str, float] = {}
    for file, model in metafile_models('mmfreq'):
        if Path(file.rpartition('::')[2]).stem == run.name:
            shipped = config_path(file if '::' in file else f'mmfreq::{file}')
            if _data(run.cfg) == _data(Config.fromfile(str(shipped))):
                for result in model.get('Results', []):
                    stated.update(result['Metrics'])
    return {key: round(stated[title] / factor, 6)
            for key, (_, title, factor) in METRICS.items() if title in stated}


def _data(cfg: Config) -> tuple[Any, ...]:
    """Return type and root of the data sets to test on, and the model's numbers of classes."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    sets = [(transform_type(node), str(node.get('data_root')).rstrip('/'))
            for node in datasets_with_pipeline(loader.get('dataset'))]
    return sets, {node.get('num_classes') for node in iter_dicts(cfg.get('model'))}
