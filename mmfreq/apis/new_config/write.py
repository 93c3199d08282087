"""Write the config that trains a given config's network on a user's data."""
import math
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Optional

from mmengine.config import Config

from mmfreq.apis.dataset_stats import dataset_statistics, save_stats
from mmfreq.apis.new_config.data import Data, describe, find_data, write_list
from mmfreq.apis.zoo import stock_weights
from mmfreq.config.checks import check_config, merge_options
from mmfreq.config.pipelines import DATALOADERS, iter_dicts
from mmfreq.config.paths import config_path, packaged_name
from mmfreq.config.writer import child_text, plain_config, stock_base, wrapped
from mmfreq.files import atomic_write_text, check_not_input, full_path

_SPLIT_OF = {'train_dataloader': 'train', 'val_dataloader': 'val', 'test_dataloader': 'test'}
_BATCHES = 8  # that an epoch has at least, where the images suffice
_MEASURED = 5_000  # images for the statistics, at most
_HERE = '{{fileDirname}}'  # mmengine's word for the folder of the config
_PER_EPOCH = ('begin', 'end', 'T_max', 'total_steps', 'step_size', 'milestones')


def write_config(config: str, data_path: str, out: Path, *, batch_size: Optional[int] = None,
                 epochs: Optional[int] = None, weights: Optional[str] = None, stats: bool = False,
                 check: bool = True) -> list[str]:
    """Write a config that inherits ``config`` and trains on the data of ``data_path``.

    Args:
        config (str): Path or ``package::file`` of a config for mmpretrain or mmdet.
        data_path (str): See :func:`mmfreq.apis.new_config.data.find_data`.
        out (Path): File to write; lists of images stand beside it, if there is need for them.
        batch_size (int, optional): Images of a step. Defaults to that of ``config``, or less for
            few images. The learning rate follows.
        epochs (int, optional): Length of the training; the schedule follows. Defaults to that of
            ``config``.
        weights (str, optional): ``'stock'``, ``'random'`` or a checkpoint to start from. Defaults
            to what ``config`` says, and to ``'stock'`` if a file that it names is not there.
        stats (bool): Whether to measure the statistics of the channels. Defaults to False.
        check (bool): Whether to read every image. Defaults to True.

    Returns:
        list[str]: What was found, and what a reader has to know.

    Raises:
        ValueError: The data or the config cannot be used; nothing is written.
    """
    path = config_path(config)
    check_not_input(out, path)
    base = packaged_name(path)
    target, data = plain_config(path), find_data(data_path, check)
    expected = 'mmdet' if data.is_coco else 'mmpretrain'
    if target.get('default_scope') != expected:
        raise ValueError(f'{config} is a config for {target.get("default_scope")}, but {data_path} '
                         f'has {"COCO annotations" if data.is_coco else "classes of images"}, '
                         f'which {expected} trains on')
    stem, found = out.with_suffix(''), describe(data)
    notes = [*found]
    lists = {name: f'{stem.name}-{name}.{"json" if data.is_coco else "txt"}'
             for name, split in data.splits.items() if split.listed}
    folder = full_path(out).parent
    if (lists or stats) and set('\'"\\') & set(str(folder)):
        raise ValueError(f'--out: {folder}: mmengine takes no quotes and backslashes in the folder of '
                         'a config that names files beside it')
    _set_classes(target, data)
    _set_data(target, data, lists)
    _set_batch(target, len(data.splits['train'].images), batch_size, notes)
    _set_schedule(target, len(data.splits['train'].images), epochs)
    _set_weights(target, path, weights, notes)
    _keep_best(target)
    comment = wrapped((f'{base} on own data, written by mmfreq new.', *found))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as inner:
        draft = Path(inner, out.name)
        for name, file in lists.items():
            write_list(data, name, draft.parent / file)
        draft.write_text(_text(base, target, data, comment, draft.parent), encoding='utf-8')
        cfg = Config.fromfile(str(draft))
        check_config(cfg)
        if stats:
            target = _measure(target, cfg, stem)
        for file in lists.values():
            os.replace(draft.parent / file, folder / file)
    atomic_write_text(out, _text(base, target, data, comment, folder))
    return notes


def _text(base: str, target: dict[str, Any], data: Data, comment: str, folder: Path) -> str:
    """Return the text of the config; pipelines and paths have their names."""
    inherited, names = plain_config(config_path(base)), {}
    for loader in DATALOADERS:
        variable = f'_base_.{_SPLIT_OF[loader].replace("val", "test")}_pipeline'
        leaf, path = _leaf(inherited, loader)
        known = inherited.get(variable.removeprefix('_base_.'))
        names[variable if known == leaf['pipeline'] else f'_base_.{path}.pipeline'] = leaf['pipeline']
    for node in iter_dicts(target):
        value = node.get('ann_file') or ''
        if value.startswith(f'{data.root}/'):
            names[f'data_root + {value[len(str(data.root)):]!r}'] = value
    return child_text(base, target, comment, folder, names)


def _leaf(target: dict[str, Any], loader: str) -> tuple[dict[str, Any], str]:
    """Return the data set that a loader's wrappers hold, and its path."""
    if not target.get(loader):
        raise ValueError(f'expected {loader} in the config')
    node, path = target[loader]['dataset'], f'{loader}.dataset'
    while 'dataset' in node:
        node, path = node['dataset'], f'{path}.dataset'
    if 'pipeline' not in node:
        raise ValueError(f'{path}: expected one data set with a pipeline, got a {node.get("type")}')
    return node, path


# The parts


def _set_classes(target: dict[str, Any], data: Data) -> None:
    """Set the number of classes wherever the model has the config's own, and top-k."""
    model, count = target.get('model') or {}, len(data.classes)
    nodes = [node for node in iter_dicts(model) if isinstance(node.get('num_classes'), int)]
    if not nodes or any('num_things_classes' in node for node in nodes):
        raise ValueError('expected a model with num_classes in its head, for one label an image or '
                         'boxes and masks')
    masks = any(node.get('mask_head') for node in iter_dicts(model))
    if masks and not any(entry.get('segmentation')
                         for entry in data.splits['train'].coco['annotations']):
        raise ValueError(f'{data.splits["train"].annotations}: the annotations have no '
                         'segmentation, which this config learns; take one for boxes, such as '
                         'mmfreq::faster_rcnn/faster-rcnn_r50-dct24s_fpn_1x_coco.py')
    old = Counter(node['num_classes'] for node in nodes).most_common(1)[0][0]
    for node in (*nodes, *iter_dicts(target.get('data_preprocessor'))):
        if node.get('num_classes') == old:
            node['num_classes'] = count
    for node in iter_dicts([model, target.get('val_evaluator'), target.get('test_evaluator')]):
        asked = node.get('topk')
        if asked and max(asked if isinstance(asked, (list, tuple)) else [asked]) > count:
            node['topk'] = (1, )


def _set_data(target: dict[str, Any], data: Data, lists: dict[str, str]) -> None:
    """Set data sets and evaluators."""
    target.update(data_root=str(data.root), classes=data.classes)
    for loader, wanted in _SPLIT_OF.items():
        name = wanted if wanted in data.splits else 'val'
        split, (node, path) = data.splits[name], _leaf(target, loader)
        where = dict(ann_file=f'{_HERE}/{lists[name]}') if name in lists else {}
        if data.is_coco:
            if 'Coco' not in node['type']:
                raise ValueError(f'{path}: expected a CocoDataset, got {node["type"]}')
            files = where or dict(ann_file=str(split.annotations))
            folder = f'{split.prefix}/' if split.prefix else ''
            node.update(data_root=str(data.root), metainfo=dict(classes=data.classes), **files,
                        data_prefix=dict(img=folder))
            for evaluator in iter_dicts(target.get(f'{wanted}_evaluator')):
                evaluator.update(files if 'ann_file' in evaluator else {})
        else:
            pipeline = node['pipeline']
            node.clear()
            node.update(type='CustomDataset', data_root=str(data.root),
                        **(where or dict(data_prefix=split.prefix)),
                        metainfo=dict(classes=data.classes), pipeline=pipeline)


def _set_batch(target: dict[str, Any], images: int, batch_size: Optional[int],
               notes: list[str]) -> None:
    """Set the batch size, and the learning rate in proportion, as the hosts scale it."""
    loader, scaling = target['train_dataloader'], target.get('auto_scale_lr') or {}
    known = loader['batch_size']
    size = batch_size or min(known, max(8, 2**max(0, images // _BATCHES).bit_length() // 2))
    ratio = size / scaling.get('base_batch_size', known)
    optimizer = target['optim_wrapper']['optimizer']
    before, optimizer['lr'] = optimizer['lr'], _rounded(optimizer['lr'] * ratio)
    schedulers = target.get('param_scheduler') or []
    for node in iter_dicts(schedulers):
        for key in ('eta_max', 'eta_min'):
            if node.get(key):
                node[key] = _rounded(node[key] * ratio)
    loader['batch_size'] = size
    target['auto_scale_lr'] = {**scaling, 'base_batch_size': size}
    notes.append(f'batch size {size}, learning rate {optimizer["lr"]:g} (the recipe: {before:g} for '
                 f'{scaling.get("base_batch_size", known)} images)')


def _rounded(value: float) -> float:
    return float(f'{value:.4g}')


def _set_schedule(target: dict[str, Any], images: int, epochs: Optional[int]) -> None:
    """Set the length of the training and of its schedule; shorten what warms up by iterations."""
    loop = target.get('train_cfg') or {}
    known = loop.get('max_epochs')
    if not known and epochs:
        raise ValueError('--epochs: the config trains by iterations: set train_cfg.max_iters')
    if not known:
        return
    epochs = epochs or known
    loop['max_epochs'] = epochs
    if loop.get('val_interval', 1) > epochs:
        loop['val_interval'] = epochs
    iterations = epochs * -(-images // target['train_dataloader']['batch_size'])
    for node in iter_dicts(target.get('param_scheduler')):
        if node.get('by_epoch', True):
            _set_phase(node, epochs, known)
        if not node.get('by_epoch', True) and node.get('end', 0) > iterations // 10:
            node['end'] = max(1, iterations // 10)


def _set_phase(node: dict[str, Any], epochs: int, known: int) -> None:
    """Shorten a scheduler by epochs; a warm-up that leaves no epoch to others counts iterations."""
    before = {key: node[key] for key in _PER_EPOCH if key in node}
    for key, value in before.items():
        node[key] = _times(value, epochs / known)
    for key in ('begin', 'end'):
        if before.get(key, known) < known:  # a border between two of them
            node[key] = min(node[key], epochs - 1)
    if node.get('end') == 0:
        node.update(by_epoch=False, end=math.inf)
        node.pop('convert_to_iter_based', None)
    elif before.get('T_max') == before.get('end', known) - before.get('begin', 0):
        node['T_max'] = node.get('end', epochs) - node.get('begin', 0)


def _times(value: Any, ratio: float) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_times(item, ratio) for item in value)
    return value and max(1, round(value * ratio))


def _set_weights(target: dict[str, Any], path: Path, weights: Optional[str],
                 notes: list[str]) -> None:
    """Set what the network starts from."""
    backbone = target['model'].get('backbone') or {}
    initial = (backbone.get('init_cfg') or {})
    named = initial.get('checkpoint', '') if isinstance(initial, dict) else ''
    missing = named and '://' not in named and not Path(named).exists()
    if missing and weights is None:
        weights = 'stock'
        notes.append(f'{named} is not there, from which {path.stem} starts: stock weights instead '
                     '(--weights random or FILE: others)')
    if weights is None:
        return
    if named:
        backbone['init_cfg'] = None
    if backbone.get('frozen_stages', -1) >= 0 and weights in ('stock', 'random'):
        backbone['frozen_stages'] = -1
    if weights == 'random':
        return
    target['load_from'] = weights
    if weights == 'stock':
        target['load_from'] = stock_weights(stock_base(path)) or stock_weights(packaged_name(path))
        if not target['load_from']:
            raise ValueError(f'--weights stock: no weights were published for {stock_base(path)}')
    elif '://' not in weights and not Path(weights).is_file():
        raise ValueError(f'--weights: expected stock, random or a checkpoint, no such file: {weights}')
    elif '://' not in weights:
        target['load_from'] = str(full_path(weights))
    notes.append(f'starts from {target["load_from"]}')


def _keep_best(target: dict[str, Any]) -> None:
    """Keep the last two checkpoints, and the best, which for a gate may be one that keeps too much."""
    hook = target.setdefault('default_hooks', {}).setdefault('checkpoint', {})
    hook.update(type=hook.get('type', 'CheckpointHook'), max_keep_ckpts=2)
    if all(node.get('gate') is None for node in iter_dicts(target['model'])):
        hook['save_best'] = 'auto'


def _measure(target: dict[str, Any], cfg: Config, stem: Path) -> dict[str, Any]:
    """Measure the statistics of the channels, and return the config that takes them."""
    freq = cfg.get('freq')
    key = 'freq.0.stats' if isinstance(freq, list) else 'freq.stats'
    if not freq:
        raise ValueError('--stats: expected a config with a variable freq, which has the DCT')
    stats, _ = dataset_statistics(cfg, images=_MEASURED)
    save_stats(stats, str(stem.with_name(f'{stem.name}-stats.json')))
    changed = Config(target, cfg_text=cfg.text)  # which says that pipelines copy freq
    merge_options(changed, {key: f'{_HERE}/{stem.name}-stats.json'})
    return changed.to_dict()
