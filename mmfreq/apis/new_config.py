"""Write the config that trains a given config's network on a user's data."""
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

import numpy as np
from mmengine.config import Config

from mmfreq.apis.dataset_stats import dataset_statistics, save_stats
from mmfreq.apis.new_data import SPLITS, Data, complete, find_data
from mmfreq.apis.runs import find_checkpoint
from mmfreq.apis.zoo import stock_weights
from mmfreq.config.paths import config_path, packaged_name
from mmfreq.config.pipelines import DATALOADERS, iter_dicts, transform_type, with_imports
from mmfreq.config.writer import child_text, plain_config, stock_base, wrapped
from mmfreq.errors import RefusedError
from mmfreq.files import atomic_write_text, check_not_input

_EPOCHS = ('begin', 'end', 'T_max', 'total_steps', 'step_size', 'milestones')  # of schedulers
_WARM_UPS = ('LinearLR', 'ConstantLR', 'QuadraticWarmupLR')


def write_config(config: str, data_path: str, out: Path, *,
                 folders: Optional[Mapping[str, str]] = None, batch_size: Optional[int] = None,
                 epochs: Optional[int] = None, weights: Optional[str] = None, stats: bool = False,
                 check: bool = True) -> list[str]:
    """Write a config that inherits ``config`` and trains on the data of ``data_path``.

    Lists and statistics are written beside it. If the data or the config are refused, nothing is written.

    Args:
        config (str): As for :func:`mmfreq.config.paths.config_path`.
        data_path (str): As for :func:`mmfreq.apis.new_data.find_data`, and so is ``folders``.
        out (Path): File to write, or to replace.
        folders (Mapping[str, str], optional): See there.
        batch_size (int, optional): Images of a step; the learning rate follows. Defaults to that
            of ``config``, or to less for few images.
        epochs (int, optional): Length of the training. Defaults to that of ``config``.
        weights (str, optional): ``'stock'``, ``'random'``, a checkpoint or a work dir. Defaults to
            the weights in ``config``.
        stats (bool): Whether to measure the statistics of the channels. Defaults to False.
        check (bool): Whether to read every image. Defaults to True.

    Returns:
        list[str]: A description of the data, and the settings that were chosen.
    """
    path = config_path(config)
    target, data = plain_config(path), find_data(data_path, folders or {})
    host, what = ('mmdet', 'COCO annotations') if data.coco else ('mmpretrain', 'labelled images')
    if target.get('default_scope') != host:
        raise RefusedError(f'{config}: expected a config for {host}, since {data_path} has {what}')
    annotations = [one for coco in data.coco.values() for one in coco['annotations']]
    if annotations and any(node.get('with_mask') for node in iter_dicts(target)) and not any(
            one.get('segmentation') for one in annotations):
        raise RefusedError(f'{config}: expected segmentations, since it learns masks; {data_path} has boxes alone')
    dct = [node for node in iter_dicts(target) if {'channels', 'stats'} <= set(node)]
    if stats and not dct:
        raise RefusedError(f'--stats: expected a config with DCT channels, got {config}')
    _set_weights(target, path, weights)
    complete(data, check)
    stem, images = os.path.abspath(out.with_suffix('')), len(data.of('train'))
    texts = {split: text for split in SPLITS if (text := data.text(split))}
    lists = {split: f'{stem}-{split}.{"json" if data.coco else "txt"}' for split in texts}
    for source in (path, *data.files.values()):
        for file in (out, *lists.values()):
            check_not_input(file, source)
    _set_classes(target, data)
    _set_data(target, data, lists)
    _set_hooks(target, f'mmfreq.models.{"det" if data.coco else "cls"}')
    pretrained = [node['checkpoint'] for node in iter_dicts(target.get('model')) if node.get('checkpoint')]
    start = f'starts from {target.get("load_from") or ", ".join(pretrained) or "random weights"}'
    notes = [*data.notes, start, _set_batch(target, path, images, batch_size),
             *_set_schedule(target, images, epochs)]
    out.unlink(missing_ok=True)  # other lists would change the meaning of an older config
    for split, file in lists.items():
        atomic_write_text(file, texts[split])
    if stats:
        measured, _ = dataset_statistics(Config(target, filename=str(path)))
        save_stats(measured, f'{stem}-stats.json')
        notes.append(f'statistics of {measured.meta["images"]:,} images: {stem}-stats.json')
        for node in dct:
            node['stats'] = f'{stem}-stats.json'
    comment = wrapped((f'{packaged_name(path)} on own data, written by mmfreq new.', *notes))
    atomic_write_text(out, child_text(packaged_name(path), target, comment, Path(stem).parent,
                                      _names(path, [*lists.values(), f'{stem}-stats.json'])))
    return notes


def _names(path: Path, files: list[str]) -> dict[str, Any]:
    """Return values by the Python text that names them in the config."""
    leaves = [_leaf(plain_config(path), loader) for loader in DATALOADERS]
    names = {f'_base_.{place}.pipeline': node['pipeline'] for node, place in leaves}
    for file in files:  # mmengine puts the folder of the config in this place
        names[f"'{{{{fileDirname}}}}/{os.path.basename(file)}'"] = file
    return names


def _leaf(target: dict[str, Any], loader: str) -> tuple[dict[str, Any], str]:
    """Return the data set inside a loader's wrappers, and its path in the config."""
    node, path = target.get(loader) or {}, loader
    while 'dataset' in node:
        node, path = node['dataset'], f'{path}.dataset'
    return node, path


def _set_classes(target: dict[str, Any], data: Data) -> None:
    """Set the number of classes where the model has the config's own, and an accuracy's top-k."""
    model, count = target['model'], len(data.classes)
    nodes = [node for node in iter_dicts(model) if isinstance(node.get('num_classes'), int)]
    if not nodes or any('num_things_classes' in node for node in nodes):
        raise RefusedError('config: expected a model with num_classes in its head')
    old = Counter(node['num_classes'] for node in nodes).most_common(1)[0][0]
    for node in (*nodes, *iter_dicts(target.get('data_preprocessor'))):
        if node.get('num_classes') == old:
            node['num_classes'] = count
    metrics = [target.get('val_evaluator'), target.get('test_evaluator')]
    for node in (model.get('head') or {}, *iter_dicts(metrics)):
        if 'topk' in node and np.max(node['topk']) > count:
            node['topk'] = (1, )


def _set_data(target: dict[str, Any], data: Data, lists: dict[str, str]) -> None:
    """Set the data sets and the annotation files of evaluators."""
    target.update(data_root=str(data.root), classes=data.classes)
    for loader, split in zip(DATALOADERS, SPLITS):
        source, (node, _) = split if data.of(split) else 'val', _leaf(target, loader)
        file = lists.get(source) or str(data.files[source])
        values = dict(data_root=str(data.root), ann_file=file, metainfo=dict(classes=data.classes))
        if data.coco:
            folder = data.prefixes.get(source, data.prefixes['train'])
            node.update(values, type='CheckedCocoDataset', data_prefix=dict(img=folder))
        else:
            values.update(type='CustomDataset', pipeline=node['pipeline'])
            node.clear()
            node.update(values)
        for evaluator in iter_dicts(target.get(f'{split}_evaluator')):
            evaluator.update(dict(ann_file=file) if 'ann_file' in evaluator else {})


def _set_hooks(target: dict[str, Any], module: str) -> None:
    """Save the input in checkpoints; keep the last two, and without a gate the best one."""
    hooks = target.setdefault('default_hooks', {})
    target['custom_imports'] = with_imports(target.get('custom_imports'), [module])
    hooks.setdefault('input_spec', dict(type='InputSpecHook'))
    checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook'))
    checkpoint['max_keep_ckpts'] = 2
    if all(node.get('gate') is None for node in iter_dicts(target['model'])):
        checkpoint['save_best'] = 'auto'


def _set_batch(target: dict[str, Any], path: Path, images: int, batch_size: Optional[int]) -> str:
    """Set the batch size, and the learning rate in proportion."""
    loader, optimizer = target['train_dataloader'], target['optim_wrapper']['optimizer']
    recipe, source = _recipe_batch(loader['batch_size'], target.get('auto_scale_lr') or {}, path)
    size = batch_size or min(loader['batch_size'], max(8, 2**int(math.log2(max(1, images / 8)))))
    note = f'the recipe has {optimizer["lr"]:g} for batches of {recipe}, according to {source}'
    for node in (optimizer, *iter_dicts(target.get('param_scheduler'))):
        for key in {'lr', 'eta_min', 'eta_max'} & set(node):
            node[key] = float(f'{node[key] * size / recipe:.4g}')
    loader['batch_size'] = size
    target['auto_scale_lr'] = {**(target.get('auto_scale_lr') or {}), 'base_batch_size': size}
    return f'batch size {size}, learning rate {optimizer["lr"]:g} ({note})'


def _recipe_batch(size: int, scaling: dict[str, Any], path: Path) -> tuple[int, str]:
    """Return for how many images the learning rate is, and the source of this number.

    The file nearest to the config counts that has a base_batch_size or has it in its name: RTMDet inherits
    a base_batch_size of 16 from mmdet's schedule, but its rate is for 8 GPUs with 32 images each.
    """
    for file in _files(path):
        if re.search(r'^auto_scale_lr\b[^)]*base_batch_size', file.read_text('utf-8'), re.M):
            return scaling['base_batch_size'], 'its auto_scale_lr'
        if gpus := re.search(r'_(\d+)xb(\d+)', file.stem):
            return int(gpus[1]) * int(gpus[2]), f'the {gpus[0][1:]} in its name'
    return size, 'its batch size'


def _files(path: Path) -> Iterator[Path]:
    """Yield a config file, then the files that it inherits."""
    yield path
    for base in Config._get_base_files(str(path)):
        yield from _files(config_path(base) if '::' in base else path.parent / base)


def _set_schedule(target: dict[str, Any], images: int, epochs: Optional[int]) -> list[str]:
    """Set the length of the training and of its schedule; name the settings that do not follow."""
    loop, schedulers = target.get('train_cfg') or {}, target.get('param_scheduler')
    before, notes = loop.get('max_epochs'), []
    if epochs and not before:
        raise RefusedError('--epochs: the config trains by iterations; set train_cfg.max_iters')
    if not before:
        return []
    loop['max_epochs'] = epochs = epochs or before
    tenth = max(1, epochs * math.ceil(images / target['train_dataloader']['batch_size']) // 10)
    fixed = list(_epoch_settings(target, epochs))
    for node in [node for node in iter_dicts(schedulers) if 'type' in node]:
        if node.get('by_epoch', True):
            for key in {*_EPOCHS} & {*node}:
                scaled = np.rint(np.multiply(node[key], epochs / before)).astype(int)
                node[key] = np.maximum(scaled, 0 if key in ('begin', 'end') else 1).tolist()
        elif transform_type(node) not in _WARM_UPS:
            fixed.append(f'{node["type"]} by iterations')
        elif node.get('end', math.inf) > tenth:
            node['end'] = tenth
            notes.append(f'the warm-up takes {tenth} iterations, a tenth of the training')
    if isinstance(schedulers, list):  # without those that have no epoch left
        target['param_scheduler'] = [
            node for node in schedulers if node.get('begin', 0) < node.get('end', math.inf)]
    if fixed and epochs != before:
        notes.append(f'{before} epochs became {epochs}; these settings stay: {"; ".join(fixed)}')
    return notes


def _epoch_settings(target: dict[str, Any], epochs: int) -> Iterator[str]:
    """Yield settings other than the schedule that count epochs; intervals if they are longer."""
    for part in ('train_cfg', 'model', 'custom_hooks', 'default_hooks'):
        for node in iter_dicts(target.get(part)):
            name = node.get('type', part)
            intervals = ('val_interval', 'interval' if name == 'CheckpointHook' else '')
            for key, value in node.items():
                is_count = type(value) is int and (
                    'epoch' in key and key != 'max_epochs' or key in intervals and value > epochs)
                if is_count or key == 'dynamic_intervals':
                    yield f'{name}.{key}={value}'


def _set_weights(target: dict[str, Any], path: Path, weights: Optional[str]) -> None:
    """Set the weights from which the network starts."""
    backbone = target['model'].get('backbone') or {}
    if weights and 'checkpoint' in (backbone.get('init_cfg') or {}):
        backbone['init_cfg'] = None
    if weights in ('stock', 'random') and backbone.get('frozen_stages', -1) >= 0:
        backbone['frozen_stages'] = -1
    if weights in (None, 'random'):
        return
    source = find_checkpoint(weights)[0] if weights != 'stock' else (
        stock_weights(stock_base(path)) or stock_weights(packaged_name(path)))
    if not source:
        raise RefusedError(f'--weights stock: no weights are published for {stock_base(path)}')
    target['load_from'] = source if '://' in source else os.path.abspath(source)
