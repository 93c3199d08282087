"""Check data sets, checkpoints and files against a config, before anything long starts."""
import logging
import os
from collections import OrderedDict
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator, Optional, Sequence

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, CheckpointLoader, Runner
from torch import nn
from torch.utils.data import DataLoader

from mmfreq.config.checks import FrontEnd, check_same, front_ends, literal_config
from mmfreq.config.inspect import iter_dicts, transform_type
from mmfreq.config.paths import config_path
from mmfreq.config.writer import stock_base
from mmfreq.files import read_lines
from mmfreq.hosts.checkpoints import RefusedCheckpointError, unwrapped

IMAGE_ENDINGS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')  # of mmpretrain's data sets
_SPLITS = {'train', 'val', 'test', 'training', 'validation'}


# Files


def check_data_folders(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Check the folders of class-folder and COCO data sets on this machine's disk.

    Raises:
        ValueError: One is not there, and the message has the folder and the expected layout; or
            the folders of classes differ, or are not as many as the head has classes.
    """
    found: dict[str, Any] = {}
    head = (cfg.get('model') or {}).get('head')
    count = head.get('num_classes') if isinstance(head, dict) else None
    for loader in loaders:
        nodes = list(iter_dicts((cfg.get(loader) or {}).get('dataset')))
        backends = [node['backend_args'] for node in nodes if node.get('backend_args')]
        for node in nodes:
            kind = transform_type(node)
            is_coco = 'Coco' in kind
            if not backends and (is_coco or kind in ('CustomDataset', 'ImageNet')):
                folders = _check_data_folder(loader, node, is_coco, count)
                if folders:
                    found[loader] = SimpleNamespace(folder_to_idx=folders)
    check_classes({'model.head': count} if count else {}, found)
    for part in ('val', 'test'):
        if f'{part}_dataloader' in loaders:
            _check_annotations(cfg, part)


def _check_annotations(cfg: Config, part: str) -> None:
    """Refuse an evaluator whose annotation file is another one than that of its only COCO set."""
    sets = [node for node in iter_dicts((cfg.get(f'{part}_dataloader') or {}).get('dataset'))
            if 'Coco' in transform_type(node) and node.get('ann_file')]
    for node in iter_dicts(cfg.get(f'{part}_evaluator')):
        if len(sets) == 1 and node.get('ann_file'):
            file = os.path.join(sets[0].get('data_root') or '', sets[0]['ann_file'])
            if os.path.realpath(file) != os.path.realpath(node['ann_file']):
                raise ValueError(f'{part}_evaluator: ann_file={node["ann_file"]}, but '
                                 f'{part}_dataloader reads {file}; expected the same file')


def check_steps(name: str, loader: DataLoader) -> None:
    """Raise ValueError unless a loader gives at least one batch in an epoch."""
    if not len(loader):
        raise ValueError(f'{name}: expected a batch_size that {len(loader.dataset)} images fill at '
                         f'least once, since drop_last=True leaves out what does not fill one; got '
                         f'{loader.batch_sampler.batch_size}')


def _check_data_folder(loader: str, dataset: dict, is_coco: bool,
                       num_classes: Optional[int]) -> list[str]:
    """Check the files of a data set; return its folders of classes, if it has such."""
    root, annotations = Path(dataset.get('data_root') or ''), dataset.get('ann_file')
    prefix = dataset.get('data_prefix') or dataset.get('split') or ''
    prefixes = list(prefix.values()) if isinstance(prefix, dict) else [prefix]
    if '://' in str([dataset.get('data_root'), annotations, *prefixes]):
        return []
    listed = f'meta/{dataset.get("split")}.txt'  # what ImageNet takes by itself where it is there
    if transform_type(dataset) == 'ImageNet' and not annotations and (root / listed).exists():
        annotations = listed
    folders = [root / (part or '') for part in prefixes]
    layout = f'{folders[0]}/<class>/<image>'
    if annotations:
        layout = f'{root / annotations} and images in {folders[0]}'
    for path in (root, *folders, *([root / annotations] if annotations else [])):
        if not path.exists():
            there = sorted(p.name for p in root.iterdir())[:6] if root.is_dir() else []
            raise ValueError(f'{loader}: no such file or folder: {path}; expected {layout}'
                             + (f'; {root} has {", ".join(there)}' if there else '')
                             + '; set its data_root')
    if annotations and not is_coco and dataset.get('with_label', True):
        _check_labels(root / annotations, folders[0], num_classes)
    if annotations or is_coco or not dataset.get('with_label', True):
        return []
    classes = sorted(path.name for path in folders[0].iterdir() if path.is_dir())
    if set(classes) <= _SPLITS:
        raise ValueError(f'{loader}: expected {layout}, but {folders[0]} has '
                         f'{", ".join(classes) or "no folders"} instead of a folder for each '
                         'class; set its data_root or data_prefix')
    if loader == 'train_dataloader':
        _check_not_empty(folders[0], classes, dataset.get('extensions', IMAGE_ENDINGS))
    return classes


def _check_labels(file: Path, folder: Path, num_classes: Optional[int]) -> None:
    """Refuse a list of images and labels whose lines are no such pairs, or whose first is no image."""
    lines = read_lines(file)
    for number, line in enumerate(lines, 1):
        path, _, label = line.strip().rpartition(' ')
        if not path or not label.isdigit() or num_classes and int(label) >= num_classes:
            most = f' to {num_classes - 1}, for num_classes={num_classes}'
            raise ValueError(f'{file}: line {number}: expected the path of an image, a blank '
                             f'and a label, 0{most if num_classes else ""}; got {line.strip()!r}')
    if not lines:
        raise ValueError(f'{file}: expected a line for each image, found none')
    first = lines[0].strip().rpartition(' ')[0]
    if first.startswith('\ufeff') or not (folder / first).is_file():
        raise ValueError(f'{file}: line 1: no such image: {folder / first}' + (
            ', since the file begins with a byte order mark; expected UTF-8 without one'
            if first.startswith('\ufeff') else ''))


def _check_not_empty(folder: Path, classes: list[str], endings: Sequence[str]) -> None:
    """Refuse to train on a class without images; for an evaluation the host only warns."""
    known = tuple(ending.lower() for ending in endings)
    for name in classes:
        files = chain.from_iterable(part[2] for part in os.walk(folder / name, followlinks=True))
        if not any(file.lower().endswith(known) for file in files):
            raise ValueError(f'train_dataloader: no images in {folder / name}; expected files that '
                             f'end in {" ".join(endings)}, or no such folder in any split')


def check_initial_weights(cfg: Config) -> None:
    """Check the file that ``init_cfg`` of the backbone names.

    Raises:
        ValueError: It is not there, and the message says what to do; or it was trained on another
            selection of channels.
    """
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    initial = backbone.get('init_cfg')
    checkpoint = initial.get('checkpoint') if isinstance(initial, dict) else None
    if not checkpoint or '://' in checkpoint:
        return
    if Path(checkpoint).exists():
        loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
        trained = _trained_front_end(loaded.get('meta') or {})
        for _, ours in front_ends(cfg):
            if trained and trained.channels and trained.channels != ours.channels:
                raise ValueError(f'model.backbone.init_cfg: {checkpoint} was trained on channels '
                                 f'{trained.words["channels"]}, but the config selects '
                                 f'{ours.words["channels"]}')
        return
    configs = Path(__file__).parents[1] / '.mim' / 'configs'
    found = [f'mmfreq::{path.relative_to(configs).as_posix()}'
             for path in configs.glob(f'*/{Path(checkpoint).parent.name}.py')]
    free = ' model.backbone.frozen_stages=-1' if backbone.get('frozen_stages', -1) >= 0 else ''
    ways = [f'train it: tools/train.py {found[0]}'] if found else []
    stock = _stock_options(cfg)
    if stock:
        ways.append(f'take stock weights: --cfg-options {stock}{free}')
    ways.append(f'start at random: --cfg-options model.backbone.init_cfg=None{free}')
    raise ValueError(f'model.backbone.init_cfg: no such file: {checkpoint}; {"; or ".join(ways)}')


def _stock_options(cfg: Config) -> str:
    """Return options that take the weights of the stock config that ``cfg`` inherits, if any."""
    base = stock_base(Path(cfg.filename)) if cfg.filename else ''
    if '::' not in base:
        return ''
    backbone = Config.fromfile(str(config_path(base))).model.backbone
    initial = backbone.get('init_cfg') or {}
    if '://' not in initial.get('checkpoint', ''):
        return ''
    options = {'init_cfg.checkpoint': initial['checkpoint'],
               'init_cfg.prefix': initial.get('prefix')}
    if backbone.get('convert_weights'):
        options['convert_weights'] = True
    return ' '.join(f'model.backbone.{key}={value}' for key, value in options.items())


# Classes


def check_classes(heads: dict[str, int], datasets: dict[str, Any]) -> None:
    """Check that data sets, by dataloader, have the same classes, as many as the heads, by name.

    Raises:
        ValueError: The message names the classes that differ, or both counts.
    """
    first: dict[str, tuple] = {}
    for name, dataset in datasets.items():
        for leaf in _leaves(dataset):
            for what, classes in _class_names(leaf).items():
                origin, expected = first.setdefault(what, (name, classes))
                if classes != expected:
                    raise ValueError(f'{what} of {name} are not those of {origin}: '
                                     f'{_difference(classes, expected)}')
    for name, count in heads.items():
        for what, (origin, classes) in first.items():
            if count != len(classes):
                raise ValueError(f'{name}: num_classes={count}, but {origin} has {len(classes)} '
                                 f'{what}: {some_of(classes)}; set num_classes, or data_root and '
                                 'classes of the data')


def model_heads(model: nn.Module) -> dict[str, int]:
    """Return ``num_classes`` of the heads that predict the classes of the data, by name."""
    heads = {}
    for name, module in model.named_modules():
        last, count = name.rpartition('.')[2], getattr(module, 'num_classes', None)
        if last in ('panoptic_fusion_head', 'language_model', 'reid'):
            return {}  # heads count things, tokens or identities
        if last in ('head', 'bbox_head', 'mask_head') and isinstance(count, int):
            heads[name] = count
    return heads


def _leaves(dataset: Any) -> Iterator[Any]:
    """Yield the data sets that wrappers such as ConcatDataset and RepeatDataset hold."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for child in inner:
        yield from _leaves(child) if child is not None else (dataset, )


def _class_names(dataset: Any) -> dict[str, tuple]:
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    folders = getattr(dataset, 'folder_to_idx', None)
    found = {'classes': tuple(classes) if classes else None, 'class folders': tuple(folders or ())}
    return {what: names for what, names in found.items() if names}


def _difference(classes: tuple, expected: tuple) -> str:
    missing = [name for name in expected if name not in classes]
    extra = [name for name in classes if name not in expected]
    parts = [f'{some_of(names)} {word}' for names, word in ((missing, 'missing'), (extra, 'extra'))
             if names]
    return ', '.join(parts) or f'{some_of(classes)} instead of {some_of(expected)}'


def some_of(names: Sequence[Any], most: int = 6) -> str:
    """Return the first names with commas between them, and how many there are if there are more."""
    rest = f', ... ({len(names)} in all)' if len(names) > most else ''
    return ', '.join(map(str, names[:most])) + rest


# Checkpoints


def check_weights(model: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Load ``checkpoint`` into ``model``; refuse it unless it is one of this network.

    Raises:
        RefusedCheckpointError: A parameter is missing or has another shape, the backbone has
            others, or the weights are stock RGB ones for a network on DCT channels.
    """
    model, state = unwrapped(model), _state_dict(checkpoint)
    for name, module in model.named_modules():
        if hasattr(module, 'fit_stock_state_dict'):
            report = module.fit_stock_state_dict(dict(state), f'{name}.')
            if report:
                raise RefusedCheckpointError(
                    f'the checkpoint has stock RGB weights, which {type(module).__name__} takes '
                    f'for training only ({report})')
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        lines = str(error).splitlines()
        shapes = [line.strip() for line in lines if 'size mismatch' in line] or lines
        raise RefusedCheckpointError('the checkpoint is of another network than the config: '
                                     f'{some_of(shapes)}') from error
    learnt = {name for name, _ in model.named_parameters()}
    learnt.update(name for name in model.state_dict() if '.running_' in name)
    broken = [name for name, value in model.state_dict().items()
              if name in learnt and not value.isfinite().all()]
    if broken:
        raise RefusedCheckpointError(f'{len(broken)} of {len(learnt)} weights are no finite numbers'
                                     f', since the training diverged: {some_of(broken)}')
    lacking = [key for key in missing if key in learnt]
    foreign = [key for key in unexpected if key.startswith('backbone.')]
    if lacking or foreign:
        raise RefusedCheckpointError(
            'the checkpoint is of another network than the config: missing '
            f'{some_of(lacking) or "none"}; unexpected {some_of(foreign) or "none"}')


def _state_dict(checkpoint: dict[str, Any]) -> OrderedDict:
    """Return the weights under the names that a model without wrapper gives them."""
    weights = checkpoint.get('state_dict', checkpoint)
    state = OrderedDict((key.removeprefix('module.'), value) for key, value in weights.items())
    state._metadata = getattr(weights, '_metadata', OrderedDict())
    return state


def _trained_front_end(meta: dict[str, Any]) -> Optional[FrontEnd]:
    """Return what a checkpoint was trained on, if its config says; that text is never run."""
    if not isinstance(meta.get('cfg'), str):
        return None
    try:
        found = front_ends(Config(literal_config(meta['cfg'])))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        print_log('the config in the checkpoint cannot be read, so that its channels and '
                  f'statistics are not compared: {error}', 'current', logging.WARNING)
        return None
    return found[0][1] if found else None


def check_trained_front_end(cfg: Config, meta: dict[str, Any]) -> None:
    """Refuse a checkpoint, by its ``meta``, that was trained on other channels or statistics.

    Raises:
        RefusedCheckpointError: The message has both values.
    """
    trained, ours = _trained_front_end(meta), front_ends(cfg)
    try:
        if trained and ours:
            check_same('the training of the checkpoint', trained, *ours[-1])
    except ValueError as error:
        raise RefusedCheckpointError(str(error)) from error


def check_trained_classes(meta: dict[str, Any], dataset: Any) -> None:
    """Raise RefusedCheckpointError unless training had the classes of ``dataset``."""
    trained = meta.get('dataset_meta') or {}
    trained = trained.get('classes') or trained.get('CLASSES')
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    if trained and classes and tuple(trained) != tuple(classes):
        difference = _difference(tuple(classes), tuple(trained))
        raise RefusedCheckpointError('the classes of the data are not those that the checkpoint '
                                     f'was trained on: {difference}')


def check_checkpoint(file: str, cfg: Config, model: Optional[nn.Module] = None) -> None:
    """Read a file and refuse it unless it was trained on this input, and is one of ``model``."""
    checkpoint = CheckpointLoader.load_checkpoint(file, map_location='cpu')
    with naming(file):
        if model is not None:
            check_weights(model, checkpoint)
        check_trained_front_end(cfg, checkpoint.get('meta') or {})


@contextmanager
def naming(file: str) -> Iterator[None]:
    """Put the name of the checkpoint before what refuses it."""
    try:
        yield
    except RefusedCheckpointError as error:
        raise RefusedCheckpointError(f'checkpoint: {file}: {error}') from error


class CheckpointCheckHook(Hook):
    """Check each checkpoint that a Runner loads; in fine-tuning, only count what fits.

    Args:
        partial (bool): Whether the checkpoint may be of another network: ``load_from`` in training.
    """
    priority = 'VERY_LOW'  # behind EMAHook, which swaps the weights

    def __init__(self, partial: bool = False) -> None:
        self.partial = partial

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check or count, before the Runner loads the weights."""
        meta = checkpoint.get('meta') or {}
        if self.partial:
            own, state = unwrapped(runner.model).state_dict(), _state_dict(checkpoint)
            fitting = [key for key, value in own.items()
                       if key in state and state[key].shape == value.shape]
            runner.logger.info(f'load_from: {len(fitting)} of {len(own)} tensors of the model are '
                               'in the checkpoint with their shape')
            try:
                check_trained_front_end(runner.cfg, meta)
            except RefusedCheckpointError as error:
                runner.logger.warning(f'load_from: {error}')
            return
        with naming(runner._load_from):
            check_weights(runner.model, checkpoint)
            check_trained_front_end(runner.cfg, meta)
            for loop in (runner._train_loop, runner._test_loop):
                if isinstance(loop, BaseLoop):  # the other one is a config still
                    check_trained_classes(meta, loop.dataloader.dataset)
