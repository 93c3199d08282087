"""Stock configs of mmpretrain and mmdet made frequency-domain ones: converted whole, or refused with the reason."""
import importlib
import math
import re
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, Optional

from mmengine.config import Config
from mmengine.registry import MODELS

from mmfreq.apis.freqify.trial import try_config
from mmfreq.config.paths import config_path
from mmfreq.config.reader import (
    DATALOADERS,
    DEFAULT_STRIDE,
    check_channels,
    datasets_with_pipeline,
    iter_dicts,
    pipeline_blocks,
    transform_type,
    unfused,
)
from mmfreq.config.writer import child_text, plain_config
from mmfreq.dct.channels import channel_indices
from mmfreq.dct.stats import named_sets
from mmfreq.files import atomic_write_text
from mmfreq.models.stem import FreqMixin


@dataclass(frozen=True)
class _Host:
    """What a host's stock configs have in the places that change."""
    module: str
    packer: str
    preprocessor: str


_HOSTS = {
    'mmpretrain': _Host('mmfreq.models.cls', 'PackInputs', 'ClsDataPreprocessor'),
    'mmdet': _Host('mmfreq.models.det', 'PackDetInputs', 'DetDataPreprocessor'),
}

# Transforms of mmpretrain that make the photo a given size, with their arguments in pixels and the defaults of these.
_RESIZES: dict[str, dict[str, Any]] = {
    'RandomResizedCrop': dict(scale=None),
    'EfficientNetRandomCrop': dict(scale=None, crop_padding=32),
    'EfficientNetCenterCrop': dict(crop_size=None, crop_padding=32),
    'Resize': dict(scale=None),
    'ResizeEdge': dict(scale=None),
}

# Those whose arguments in pixels refer to the photo as it comes, resized or not.
_CROPS: dict[str, tuple[str, ...]] = {
    'CenterCrop': ('crop_size', ),
    'RandomCrop': ('crop_size', 'padding'),
    'Pad': ('size', 'size_divisor'),
}
_EFFECTS: dict[str, tuple[str, ...]] = {
    'Cutout': ('shape', 'magnitude_range'),
    'GaussianBlur': ('radius', 'magnitude_range'),
}

# Batch augmentations that work on cells as they do on pixels: they blend whole inputs, or paste without resizing.
_BATCH_AUGMENTS = ('Mixup', 'CutMix')

_BLOCK = 8  # pixels of the enlarged photo that a DCT block covers
_DETECTION = 'photos-1333x800', 2  # shipped statistics for mmdet, and how often its photos were enlarged for them


def freqify(config: str, channels: str, stats: Optional[str] = None) -> tuple[dict[str, Any], list[str]]:
    """The frequency-domain version of a stock config.

    Photos become larger (classification: every size in pixels; detection: the DCT enlarges them), so that a block of
    8x8 covers what a cell of the backbone's input stands for: mostly 4x4 pixels of the stock network's image, hence
    twice as large, and 2x2 for MobileNetV2. The DCT stands right before the packer, in every pipeline of the config.

    Args:
        config (str): ``mmpretrain::...``, ``mmdet::...``, or the path of a text-style config of either.
        channels (str): A named selection, such as ``'24S'``.
        stats (str, optional): Statistics of the channels. Defaults to None: the shipped ones for detection, or for the
            size of photo nearest to that of the training crops.

    Returns:
        tuple[dict, list[str]]: The config as plain dicts, and what a reader has to know about it.

    Raises:
        ValueError: The config cannot be converted; the message says why.
    """
    target = _read(config)
    scope = target.get('default_scope')
    if scope not in _HOSTS:
        raise ValueError(f'expected default_scope to be one of {", ".join(_HOSTS)}, got {scope!r}')
    host = _HOSTS[scope]
    model = target.get('model')
    if not isinstance(model, dict):
        raise ValueError('expected a model')
    notes: list[str] = []
    if target.get('load_from'):
        notes.append(f'load_from keeps the stock RGB weights, {target["load_from"]}: they load without what took the '
                     'RGB pixels.')
    modules = convert_backbone(model, len(channel_indices(channels)), scope, notes)
    cell = backbone_stride(model['backbone'], scope)
    _convert_preprocessors(target, host, cell, notes)
    _check_batch_augments(target)
    freq = _transform(target, channels, stats, _BLOCK // cell, notes)
    scale = _BLOCK // (cell * freq.get('upscale', 1))
    for key, value in target.items():
        if key != 'model':
            target[key] = _converted(value, freq, host.packer, scale, key)
    _check_pipelines(target, host.packer)
    target['freq'] = freq
    hooks = target.get('custom_hooks') or []
    kinds = [transform_type(hook) for hook in hooks]
    for node in iter_dicts([target.get(name) for name in DATALOADERS]):
        if transform_type(node) == 'CocoDataset':
            node['type'] = 'CheckedCocoDataset'  # labels follow the annotation file's order
            if 'NumClassCheckHook' not in kinds:
                target['custom_hooks'] = [*hooks, dict(type='NumClassCheckHook')]
    hook = (target.get('default_hooks') or {}).get('visualization') or {}
    if transform_type(hook) == 'VisualizationHook':  # of mmpretrain; it would draw on the input
        hook['type'] = 'FreqVisualizationHook'
    imports = target.get('custom_imports') or {}
    known = imports.get('imports') or []
    known = [known] if isinstance(known, str) else known
    target['custom_imports'] = {**imports, 'imports': [*modules, *(name for name in known if name not in modules)]}
    return target, list(dict.fromkeys(notes))  # a preprocessor may stand in two places


def write_freqified(config: str, channels: str, out: Path, stats: Optional[str] = None) -> list[str]:
    """Writes the frequency-domain version of a stock config, once it has been loaded, built and tried.

    Args:
        config (str): As for :func:`freqify`.
        channels (str): As for :func:`freqify`.
        out (Path): File to write; it inherits ``config``.
        stats (str, optional): As for :func:`freqify`.

    Returns:
        list[str]: What a reader has to know about it, also in the file's comment.

    Raises:
        ValueError: The config cannot be converted, or the result does not work; nothing is written.
    """
    target, notes = freqify(config, channels, stats)
    head = f'{config.rpartition("/")[2]} on the DCT channels {channels}, written by tools/freqify.py.'
    comment = wrapped((head, *notes))
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, 'draft.py')
        draft.write_text(child_text(config, target, comment, draft.parent), encoding='utf-8')
        try:
            cfg, made = Config.fromfile(str(draft)), plain_config(draft)
        except Exception as error:
            raise ValueError(f'mmengine cannot read a config that inherits it ({error}); if it does not know the name, '
                             f'give the path: {config_path(config)}') from error
        if made != target:
            raise ValueError('it holds values that a config file cannot state')
    check_channels(cfg)
    try_config(cfg, Config.fromfile(str(config_path(config))))
    atomic_write_text(out, child_text(config, target, comment, out.parent))
    return notes


def wrapped(texts: Iterable[str]) -> str:
    """Texts as the lines of a config's comment."""
    wrapper = textwrap.TextWrapper(117, break_on_hyphens=False, break_long_words=False)  # addresses stay whole
    return '\n'.join(line for text in texts for line in wrapper.wrap(text))


def freq_name(config: str, channels: str) -> str:
    """Name for the frequency-domain version: ``resnet50_8xb32_in1k`` -> ``resnet50-dct24s_8xb32_in1k``."""
    path = config_path(config)
    parts = path.stem.split('_')
    backbone = 1 if plain_config(path).get('default_scope') == 'mmdet' and len(parts) > 1 else 0
    parts[backbone] += f'-dct{channels.lower()}'
    return '_'.join(parts)


def _read(config: str) -> dict[str, Any]:
    path = config_path(config)
    try:
        lazy = path.suffix == '.py' and Config._is_lazy_import(str(path))
        if not lazy:
            return plain_config(path)
    except Exception as error:
        raise ValueError(f'it cannot be read: {type(error).__name__}: {error}') from error
    raise ValueError('it is a Python-style config (read_base or imports), which no text-style config can inherit; give '
                     "the text-style one, such as those that mmengine's names package::file stand for")


# Backbone


def convert_backbone(model: dict[str, Any], channels: int, scope: str, notes: list[str]) -> list[str]:
    """Puts the frequency-domain backbone into a model's config, in place.

    Args:
        model (dict): A model's config with ``backbone``, plain dicts.
        channels (int): Number of DCT channels.
        scope (str): The config's ``default_scope``.
        notes (list[str]): Gets what a reader has to know.

    Returns:
        list[str]: The modules that a config must import for the backbone.

    Raises:
        ValueError: There is no backbone, or more networks than one that would take the input, or mmfreq has no version
            of it.
    """
    backbone = model.get('backbone')
    if not isinstance(backbone, dict):
        raise ValueError(f'expected model.backbone, got a {model.get("type")} with {", ".join(sorted(model))}')
    others = [f'model.{key}' for key in model if key.startswith('teacher') and not key.endswith('ckpt')]
    others += [path for path, node in _named_dicts(model, 'model') if 'backbone' in path.rpartition('.')[2]
               and node is not backbone and 'type' in node and path not in others]
    if others:
        raise ValueError(f'expected one network, got {", ".join(others)} besides model.backbone, which would get the '
                         'same input')
    kind = transform_type(backbone)
    if kind.startswith('Freq'):
        raise ValueError(f'it is a frequency-domain config already: model.backbone is {kind}')
    owner = backbone['type'].rpartition('.')[0] or scope
    modules = [_HOSTS[name].module for name in dict.fromkeys((scope, owner)) if name in _HOSTS]
    known = freq_backbones(owner, modules)
    if f'Freq{kind}' not in known:
        raise ValueError(f'model.backbone is {backbone["type"]}, and mmfreq has no Freq{kind} for {owner}, only '
                         f'{", ".join(known) or "none"}; docs/new_backbone.md says how to add one')
    backbone.update(type=f'{backbone["type"][:-len(kind)]}Freq{kind}', in_channels=channels)
    _unfreeze(model, notes)
    return modules


def _named_dicts(node: Any, path: str) -> Iterator[tuple[str, dict]]:
    """Every dict inside ``node`` that stands under a key, with its path."""
    for key, child in (node.items() if isinstance(node, dict) else enumerate(node)):
        if isinstance(child, dict):
            yield f'{path}.{key}', child
        if isinstance(child, (dict, list, tuple)):
            yield from _named_dicts(child, f'{path}.{key}')


def freq_backbones(scope: str, modules: list[str]) -> list[str]:
    """Names of the frequency-domain backbones in a host's registry, after importing ``modules``."""
    for module in modules:
        importlib.import_module(module)
    host = MODELS.children.get(scope)
    return [name for name, kind in (host.module_dict if host else {}).items()
            if name.startswith('Freq') and isinstance(kind, type) and issubclass(kind, FreqMixin)]


def backbone_stride(backbone: dict[str, Any], scope: str) -> int:
    """Pixels of the stock network's image that a cell of a frequency-domain backbone's input covers.

    Args:
        backbone (dict): The backbone's config; what registers its type is imported.
        scope (str): The config's ``default_scope``.

    Raises:
        ValueError: No enlargement by a whole number makes a block of 8x8 cover so many.
    """
    owner, _, kind = backbone['type'].rpartition('.')
    cell = MODELS.children[owner or scope].get(kind).input_stride
    if _BLOCK % cell:
        raise ValueError(f'model.backbone: expected a cell of {kind} to cover a part of {_BLOCK} pixels, got {cell}')
    return cell


def _unfreeze(model: dict[str, Any], notes: list[str]) -> None:
    """Lets the first layers of the backbone be trained, whose weights come from another input."""
    backbone = model['backbone']
    checkpoints = [node.get('checkpoint') for node in (*iter_dicts(backbone.get('init_cfg')),
                                                       *iter_dicts(model.get('init_cfg')))
                   if node.get('type') == 'Pretrained']
    if checkpoints:
        file = checkpoints[0] or 'whose file you name'
        notes.append(f'init_cfg keeps the stock RGB weights, {file}: they load without what took the RGB pixels. '
                     'Better, where you have one: a classifier trained on the same DCT channels.')
    frozen = backbone.get('frozen_stages', -1)
    if frozen >= 0:
        backbone['frozen_stages'] = -1
        notes.append(f'frozen_stages is -1, in the stock config {frozen}: the first layers must be trained, since they '
                     'take DCT channels and their weights were made for RGB pixels.')


# Preprocessor


def _convert_preprocessors(target: dict[str, Any], host: _Host, cell: int, notes: list[str]) -> None:
    """Takes normalisation, colour conversion and padding of pixels out of the data preprocessors."""
    nodes = [(name, node) for name, node in (('model.data_preprocessor', target['model'].get('data_preprocessor')),
                                             ('data_preprocessor', target.get('data_preprocessor'))) if node]
    if not nodes and host.preprocessor == 'DetDataPreprocessor':
        raise ValueError('expected model.data_preprocessor')
    for name, node in nodes:
        kind = transform_type(node) or host.preprocessor
        if kind != host.preprocessor:
            raise ValueError(f'{name} is {kind}: only {host.preprocessor} is known to take DCT channels')
        if kind == 'ClsDataPreprocessor':
            if node.get('pad_size_divisor', 1) != 1:
                raise ValueError(f'{name}: pad_size_divisor={node["pad_size_divisor"]} pads pixels, but the inputs are '
                                 'blocks; pad in the pipeline')
            node.update(mean=None, std=None, to_rgb=False)
        else:
            _convert_detection_preprocessor(node, name, cell, notes)


def _convert_detection_preprocessor(node: dict[str, Any], name: str, cell: int, notes: list[str]) -> None:
    if node.get('batch_augments'):
        kinds = ', '.join(map(transform_type, node['batch_augments']))
        raise ValueError(f'{name}: batch_augments ({kinds}) resize or pad pixels, but the inputs are DCT channels; do '
                         'it in the pipeline')
    node.update(type='FreqDetDataPreprocessor', mean=None, std=None, bgr_to_rgb=False)
    if 'rgb_to_bgr' in node:
        node['rgb_to_bgr'] = False
    if node.get('pad_value'):
        node['pad_value'] = 0
    if cell != DEFAULT_STRIDE:
        node['stride'] = cell
    stock = node.get('pad_size_divisor', 1)
    node['pad_size_divisor'] = math.lcm(stock, cell)
    if node['pad_size_divisor'] != stock:
        notes.append(f'pad_size_divisor is {node["pad_size_divisor"]}, in the stock config {stock}: batches are padded '
                     f'to whole blocks of {cell} pixels.')


def _check_batch_augments(target: dict[str, Any]) -> None:
    """Raises ValueError if classification mixes its batches in a way that only works on pixels."""
    places = {
        'model.train_cfg': target['model'].get('train_cfg'),
        'model.data_preprocessor': target['model'].get('data_preprocessor'),
        'data_preprocessor': target.get('data_preprocessor'),
    }
    for name, node in places.items():
        found = (node or {}).get('augments') or (node or {}).get('batch_augments')
        for augment in iter_dicts(found):
            kind = transform_type(augment)
            if kind and kind not in _BATCH_AUGMENTS:
                raise ValueError(f'{name}: the batch augmentation {kind} is not known to work on DCT channels; '
                                 f'{" and ".join(_BATCH_AUGMENTS)} do (ResizeMix resizes, which is for pixels)')


# Transform


def _transform(target: dict[str, Any], channels: str, stats: Optional[str], larger: int, notes: list[str]) -> dict:
    """The DCT for photos to be enlarged ``larger`` times: in mmdet by the transform itself."""
    freq = dict(type='FusedBlockDCT', channels=channels)
    if target['default_scope'] == 'mmdet':
        return dict(freq, stats=stats or _detection_stats(larger, notes), upscale=larger)
    return dict(freq, stats=stats or _photo_stats(_photo_side(target) * larger, notes))


def _detection_stats(larger: int, notes: list[str]) -> str:
    """The shipped statistics of photos for detection."""
    name, times = _DETECTION
    if larger != times:
        notes.append(f'The statistics {name} are of photos enlarged {times} times, here it is {larger}: '
                     'tools/dataset_stats.py computes your own.')
    return name


def _photo_stats(side: int, notes: list[str]) -> str:
    """The shipped statistics of square crops nearest in size to ``side`` pixels."""
    sides = [int(name[len('photos-'):]) for name in named_sets() if re.fullmatch(r'photos-\d+', name)]
    nearest = min(sides, key=lambda known: abs(math.log(known / side)))
    if nearest != side:
        notes.append(f'The statistics photos-{nearest} are of {nearest}x{nearest} crops, the photos here have {side} '
                     'pixels a side: tools/dataset_stats.py computes your own.')
    return f'photos-{nearest}'


def _photo_side(target: dict[str, Any]) -> int:
    """Side of the first loader's photos, as the last transform with a size states it; 224 if none does."""
    side = 224
    for step in iter_dicts(next((target[name] for name in DATALOADERS if target.get(name)), None)):
        kind = transform_type(step)
        for name in (*_RESIZES.get(kind, ()), *_CROPS.get(kind, ()))[:1]:
            size = step.get(name) or side
            side = max(size) if isinstance(size, (list, tuple)) else size
    return side


# Pipelines


def _converted(node: Any, freq: dict, packer: str, scale: int, path: str) -> Any:
    """Convert every pipeline inside ``node``: a list or tuple of transforms that ends in ``packer``.

    Dicts are changed in place; a list stays a list, a tuple a tuple.
    """
    if isinstance(node, dict):
        if transform_type(node) == 'TestTimeAug':
            node['transforms'] = _converted_views(node['transforms'], freq, packer, scale, path)
        else:
            for key, child in node.items():
                node[key] = _converted(child, freq, packer, scale, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        made = [_converted(child, freq, packer, scale, path) for child in node]
        packers = [step for step in made if isinstance(step, dict) and _is_packer(step)]
        if packers:
            _convert_steps(made, packers, made[-1], packer, scale, path)
            made.insert(-1, dict(freq))
        return type(node)(made)
    return node


def _converted_views(views: Any, freq: dict, packer: str, scale: int, path: str) -> Any:
    """Convert the transforms of TestTimeAug: a list of alternatives for each step."""
    packers = [step for steps in views for step in steps if _is_packer(step)]
    if not packers or any(not _is_packer(step) for step in views[-1]):
        raise ValueError(f'{path}: expected the last transforms of TestTimeAug to be {packer}, got '
                         f'{", ".join(map(transform_type, views[-1]))}')
    _convert_steps(views, packers, views[-1][-1], packer, scale, path)
    return type(views)([*views[:-1], [dict(freq)], views[-1]])


def _convert_steps(steps: Any, packers: list[dict], last: Any, packer: str, scale: int,
                   path: str) -> None:
    _check_packer(packers, last, packer, path)
    _check_steps(steps, path)
    _enlarge(steps, scale, path)


def _is_packer(step: dict) -> bool:
    return transform_type(step).startswith('Pack')


def _check_packer(packers: list[dict], last: Any, packer: str, path: str) -> None:
    for step in packers:
        if transform_type(step) != packer:
            raise ValueError(f'{path}: the pipeline packs with {transform_type(step)}; only {packer} is known to take '
                             'DCT channels')
    if packers[-1] is not last:
        raise ValueError(f'{path}: expected {packer} to be the last transform, got {transform_type(last)} behind it, '
                         'which would get DCT channels')


def _check_steps(steps: Any, path: str) -> None:
    """Raises ValueError if the photo leaves BGR, or if there is nothing but segmentation maps to learn."""
    rgb = False
    loads = []
    for step in iter_dicts(steps):
        kind = transform_type(step)
        rgb ^= bool(kind in ('NumpyToPIL', 'ToPIL') and step.get('to_rgb') or
                    kind in ('PILToNumpy', 'ToNumpy') and step.get('to_bgr'))
        if kind == 'LoadAnnotations':
            loads.append(step.get('with_bbox', True) or step.get('with_mask', False))
    if rgb:
        raise ValueError(f'{path}: the photo is RGB before the packer, by NumpyToPIL(to_rgb) without '
                         'PILToNumpy(to_bgr) or the reverse; the DCT expects BGR')
    if loads and not any(loads):
        raise ValueError(f'{path}: only segmentation maps are loaded; boxes or masks are expected')


def _enlarge(steps: Any, scale: int, path: str) -> None:
    """Makes a pipeline's photo ``scale`` times as large, in place: what resizes it, and sizes in pixels behind that."""
    if scale == 1:
        return
    resized = False
    for step in iter_dicts(steps):
        kind = transform_type(step)
        if '/' in kind:
            raise ValueError(f'{path}: {kind} is not a transform of mmpretrain: which of its arguments are sizes in '
                             'pixels is not known')
        if kind in _CROPS and not resized:
            raise ValueError(f'{path}: {kind} crops or pads photos that nothing has resized before, so that nothing '
                             'makes them larger')
        resized = resized or kind in _RESIZES
        behind = (*_CROPS.get(kind, ()), *_EFFECTS.get(kind, ())) if resized else ()
        for name, default in (*_RESIZES.get(kind, {}).items(), *((name, None) for name in behind)):
            if step.get(name, default) is not None:
                step[name] = _times(step.get(name, default), scale)
    if not resized:
        raise ValueError(f'{path}: expected a transform that resizes the photo, one of {", ".join(_RESIZES)}')


def _times(size: Any, scale: int) -> Any:
    """A size or several, multiplied; -1 (as the other side demands) and None stay."""
    if isinstance(size, (list, tuple)):
        return type(size)(_times(side, scale) for side in size)
    return size if size is None or size == -1 else size * scale


def _check_pipelines(target: dict[str, Any], packer: str) -> None:
    """Raises ValueError unless there is a loader, and every pipeline that one runs has the DCT."""
    if not any(target.get(name) for name in DATALOADERS):
        raise ValueError(f'expected a loader with a pipeline, one of {", ".join(DATALOADERS)}; the config has none')
    for name in DATALOADERS:
        loader = target.get(name)
        found = datasets_with_pipeline(loader.get('dataset')) if isinstance(loader, dict) else []
        if loader and not found:
            raise ValueError(f'{name}: expected a data set with a pipeline')
        for dataset in found:
            if pipeline_blocks(unfused(dataset['pipeline']))[0] == 1:
                raise ValueError(f'{name}: expected a pipeline that ends in {packer}, got '
                                 f'{" -> ".join(map(transform_type, dataset["pipeline"]))}')
