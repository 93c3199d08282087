"""Put the frequency-domain backbone and preprocessor into a model's config."""
import importlib
import math
from typing import Any, Iterator

from mmengine.registry import MODELS

from mmfreq.config.pipelines import DEFAULT_STRIDE, iter_dicts, transform_type
from mmfreq.models.stem import FreqMixin, PatchMixin

BLOCK_SIZE = 8
MODULES = {'mmpretrain': 'mmfreq.models.cls', 'mmdet': 'mmfreq.models.det'}

# Batch augmentations that work on cells as on pixels: they blend inputs or paste without resizing.
_BATCH_AUGMENTS = ('Mixup', 'CutMix')
_PADDING = ('BatchFixedSizePad', )  # which mmdet's preprocessors do in cells
_LEFT_OUT = ('BatchSyncRandomResize', )  # multi-scale training of YOLOX, which can do without


def convert_backbone(model: dict[str, Any], channels: int, scope: str,
                     notes: list[str]) -> tuple[list[str], int]:
    """Put the frequency-domain backbone into a model's config, in place; extend ``notes``.

    Returns:
        tuple[list[str], int]: Modules that the config must import, and the ``input_stride``.

    Raises:
        ValueError: There is no backbone, there are several networks that would take the input,
            mmfreq has no version of this one, or no whole upscaling makes a block cover its
            ``input_stride``.
    """
    backbone = _only_backbone(model)
    prefix, _, kind = backbone['type'].rpartition('.')
    if kind.startswith('Freq'):
        raise ValueError(f'it is a frequency-domain config already: model.backbone is {kind}')
    owner = prefix or scope
    modules = [MODULES[name] for name in dict.fromkeys((scope, owner)) if name in MODULES]
    network = _freq_network(kind, owner, modules)
    name = f'Freq{kind}'
    backbone.update(type=f'{prefix}.{name}' if prefix else name, in_channels=channels)
    patch = backbone.get('patch_size', network.input_stride)
    if issubclass(network, PatchMixin) and isinstance(patch, int) and patch % 4 == 2:
        backbone['input_stride'] = 2
        notes.append(f'input_stride is 2, since patches of {patch} pixels are no multiple of '
                     f'{network.input_stride}: images are four times as large.')
    stride = backbone.get('input_stride', network.input_stride)
    if BLOCK_SIZE % stride:
        raise ValueError(f'model.backbone: expected input_stride of {name} to divide {BLOCK_SIZE}, '
                         f'got {stride}')
    _unfreeze(model, network.unfrozen, notes)
    return modules, stride


def _only_backbone(model: dict[str, Any]) -> dict[str, Any]:
    """Return the backbone's config; refuse a model in which other networks take the input."""
    backbone = model.get('backbone')
    if not isinstance(backbone, dict):
        raise ValueError(f'expected model.backbone, got a {model.get("type")} with '
                         f'{", ".join(sorted(model))}')
    others = [f'model.{key}' for key in model
              if key.startswith('teacher') and not key.endswith('ckpt')]
    for path, node in _named_dicts(model, 'model'):
        is_network = 'backbone' in path.rpartition('.')[2] and 'type' in node
        if is_network and node is not backbone and path not in others:
            others.append(path)
    if others:
        raise ValueError(f'expected one network, got {", ".join(others)} besides model.backbone, '
                         'which would get the same input')
    return backbone


def _named_dicts(node: Any, path: str) -> Iterator[tuple[str, dict]]:
    """Yield every dict inside ``node`` with its path."""
    for key, child in (node.items() if isinstance(node, dict) else enumerate(node)):
        if isinstance(child, dict):
            yield f'{path}.{key}', child
        if isinstance(child, (dict, list, tuple)):
            yield from _named_dicts(child, f'{path}.{key}')


def _freq_network(kind: str, scope: str, modules: list[str]) -> type[FreqMixin]:
    """Return the frequency-domain version of a host's backbone, which ``modules`` register."""
    for module in modules:
        importlib.import_module(module)
    host = MODELS.children.get(scope)
    known = {name: found for name, found in (host.module_dict if host else {}).items()
             if isinstance(found, type) and issubclass(found, FreqMixin)}
    if f'Freq{kind}' not in known:
        raise ValueError(f'model.backbone is {kind}, and mmfreq has no Freq{kind} for {scope}; '
                         f'docs/new_backbone.md lists the {len(known)} that there are, and says '
                         'how to add one')
    return known[f'Freq{kind}']


def _unfreeze(model: dict[str, Any], unfrozen: int, notes: list[str]) -> None:
    """Let the first layers be trained, whose weights come from another input."""
    backbone = model['backbone']
    sources = iter_dicts([backbone.get('init_cfg'), model.get('init_cfg')])
    checkpoints = [node.get('checkpoint') for node in sources if node.get('type') == 'Pretrained']
    if checkpoints:
        file = checkpoints[0] or 'whose file you name'
        notes.append(f'init_cfg keeps the stock RGB weights, {file}: they load without what took '
                     'the RGB pixels. Better, where you have one: a classifier trained on the same '
                     'DCT channels.')
    frozen = backbone.get('frozen_stages', unfrozen)
    if frozen > unfrozen:
        backbone['frozen_stages'] = unfrozen
        notes.append(f'frozen_stages is {unfrozen}, in the stock config {frozen}: the first layers '
                     'must be trained, since they take DCT channels and their weights were made for '
                     'RGB pixels.')


def convert_preprocessors(target: dict[str, Any], stride: int, notes: list[str]) -> None:
    """Take normalisation, colours and padding of pixels out of the preprocessors; extend ``notes``.

    Raises:
        ValueError: A preprocessor does something that only works on pixels.
    """
    detection = target['default_scope'] == 'mmdet'
    expected = 'DetDataPreprocessor' if detection else 'ClsDataPreprocessor'
    places = {'model.data_preprocessor': target['model'].get('data_preprocessor'),
              'data_preprocessor': target.get('data_preprocessor')}
    if detection and not any(places.values()):
        raise ValueError('expected model.data_preprocessor')
    for name, node in places.items():
        if not node:
            continue
        kind = transform_type(node) or expected
        if kind != expected:
            raise ValueError(f'{name} is {kind}: only {expected} is known to take DCT channels')
        if detection:
            _convert_detection_preprocessor(node, name, stride, notes)
        elif node.get('pad_size_divisor', 1) != 1:
            raise ValueError(f'{name}: pad_size_divisor={node["pad_size_divisor"]} pads pixels, but '
                             'the inputs are blocks; pad in the pipeline')
        else:
            node.update(mean=None, std=None, to_rgb=False)
    _check_batch_augments({**places, 'model.train_cfg': target['model'].get('train_cfg')})


def _convert_detection_preprocessor(node: dict[str, Any], name: str, stride: int,
                                    notes: list[str]) -> None:
    augments = node.get('batch_augments') or []
    kept = [augment for augment in augments if transform_type(augment) not in _LEFT_OUT]
    others = [kind for kind in map(transform_type, kept) if kind not in _PADDING]
    if others:
        raise ValueError(f'{name}: batch_augments ({", ".join(others)}) resize pixels, but the '
                         'inputs are DCT channels; do it in the pipeline')
    if kept != augments:
        node['batch_augments'] = kept or None
        notes.append(f'batch_augments is without {", ".join(_LEFT_OUT)}, which resizes pixels: '
                     'training images keep the size that the pipeline gives them.')
    node.update(type='FreqDetDataPreprocessor', mean=None, std=None, bgr_to_rgb=False)
    if 'rgb_to_bgr' in node:
        node['rgb_to_bgr'] = False
    if node.get('pad_value'):
        node['pad_value'] = 0
    if stride != DEFAULT_STRIDE:
        node['stride'] = stride
    stock = node.get('pad_size_divisor', 1)
    node['pad_size_divisor'] = math.lcm(stock, stride)
    if node['pad_size_divisor'] != stock:
        notes.append(f'pad_size_divisor is {node["pad_size_divisor"]}, in the stock config {stock}: '
                     f'batches are padded to whole blocks of {stride} pixels.')


def _check_batch_augments(places: dict[str, Any]) -> None:
    """Refuse batch augmentations that only work on pixels."""
    for name, node in places.items():
        found = (node or {}).get('augments') or (node or {}).get('batch_augments')
        for augment in iter_dicts(found):
            kind = transform_type(augment)
            if kind and kind not in (*_BATCH_AUGMENTS, *_PADDING):
                raise ValueError(f'{name}: the batch augmentation {kind} is not known to work on '
                                 f'DCT channels; {" and ".join(_BATCH_AUGMENTS)} do (ResizeMix '
                                 'resizes, which is for pixels)')
