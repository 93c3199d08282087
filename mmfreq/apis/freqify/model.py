"""Put the frequency-domain backbone and preprocessor into a config."""
import importlib
import math
from typing import Any, Optional

from mmengine.registry import MODELS, DefaultScope

from mmfreq.config.pipelines import DEFAULT_STRIDE, iter_dicts, transform_type
from mmfreq.dct.channels import channel_indices
from mmfreq.errors import RefusedError
from mmfreq.models.stem import PatchMixin

BLOCK_SIZE = 8
MODULES = {'mmpretrain': 'mmfreq.models.cls', 'mmdet': 'mmfreq.models.det'}

_PIXELS = ('type', 'mean', 'std', 'to_rgb', 'bgr_to_rgb', 'rgb_to_bgr', 'pad_value', 'pad_size_divisor')
_DROPPED_AUGMENT = 'BatchSyncRandomResize'  # resizes pixels; YOLOX trains without it


def convert_backbone(model: dict[str, Any], channels: int, scope: str) -> tuple[list[str], int]:
    """Put the frequency-domain backbone into a model's config, in place.

    Return the modules that the config must import, and the ``input_stride``.
    """
    backbone = _only_backbone(model)
    kind = backbone['type']
    modules, network = _known(kind, 'Freq', scope)
    backbone.update(type=prefixed(kind, 'Freq'), in_channels=channels)
    patch = backbone.get('patch_size', network.input_stride)
    if issubclass(network, PatchMixin) and isinstance(patch, int) and patch % 4 == 2:
        backbone['input_stride'] = 2  # 14 pixels, the side of a patch, are not a multiple of 4
    stride = backbone.get('input_stride', network.input_stride)
    if BLOCK_SIZE % stride:
        raise RefusedError(f'model.backbone: input_stride must divide {BLOCK_SIZE}, got {stride}')
    if backbone.get('frozen_stages', network.unfrozen) > network.unfrozen:
        backbone['frozen_stages'] = network.unfrozen  # the first layers start anew
    return modules, stride


def keep_backbone(model: dict[str, Any], scope: str, freq: dict[str, Any],
                  pixels: dict[str, Any]) -> list[str]:
    """Put the backbone that keeps the function of stock weights into a model's config, in place.

    ``freq`` is the config of the FusedBlockDCT, ``pixels`` that of the stock preprocessor. Return the
    modules that the config must import.
    """
    backbone = _only_backbone(model)
    kind = backbone['type']
    _, network = _find(kind, 'Freq', scope)
    modules, _ = _known(kind, 'Unpacked', scope)
    stock = {key: pixels[key] for key in _PIXELS if key in pixels}
    prefix, arguments = 'Unpacked', {}
    if network and issubclass(network, PatchMixin):
        with DefaultScope.overwrite_default_scope(scope):
            embedding = MODELS.build(dict(backbone)).get_submodule(network.projection)
        if embedding.kernel_size == embedding.stride and not any(
                step % DEFAULT_STRIDE for step in embedding.stride):
            count = len(channel_indices(freq['channels'], freq.get('block_size', 8)))
            prefix, arguments = 'Freq', dict(in_channels=count)
    backbone.update(type=prefixed(kind, prefix), **arguments, freq=dict(freq), pixels=stock)
    return modules


def prefixed(kind: str, prefix: str) -> str:
    """Return the name of a version of a backbone: ``mmpretrain.ViG`` as ``mmpretrain.FreqViG``."""
    host, dot, name = kind.rpartition('.')
    return f'{host}{dot}{prefix}{name}'


def _find(kind: str, prefix: str, scope: str) -> tuple[list[str], Optional[type]]:
    """Return the modules that register a version of a backbone, and its class if there is one."""
    host, _, name = prefixed(kind, prefix).rpartition('.')
    owner = host or scope
    modules = [MODULES[item] for item in dict.fromkeys((scope, owner)) if item in MODULES]
    for module in modules:  # each registers its backbones
        importlib.import_module(module)
    return modules, MODELS.children[owner].module_dict.get(name) if owner in MODULES else None


def _known(kind: str, prefix: str, scope: str) -> tuple[list[str], type]:
    """Return the same; raise RefusedError if there is no such class."""
    modules, network = _find(kind, prefix, scope)
    if not network:
        raise RefusedError(f'model.backbone is {kind}, but mmfreq has no {prefixed(kind, prefix)} for '
                           f'{scope}: docs/new_backbone.md')
    return modules, network


def _only_backbone(model: dict[str, Any]) -> dict[str, Any]:
    """Return the backbone's config; refuse a model in which other networks take the same input."""
    backbone = model.get('backbone')
    if not isinstance(backbone, dict):
        raise RefusedError(f'expected model.backbone, got {", ".join(model) or "no model"}')
    others = [key for node in iter_dicts(model) for key, child in node.items()
              if 'backbone' in key and isinstance(child, dict) and 'type' in child
              and child is not backbone or key.startswith('teacher') and not key.endswith('ckpt')]
    if others:
        raise RefusedError(f'expected no network besides model.backbone, got {", ".join(others)}')
    return backbone


def convert_preprocessors(target: dict[str, Any], stride: int, notes: list[str]) -> None:
    """Adapt the preprocessors of a config to DCT channels, in place; extend ``notes``.

    Normalisation and conversion of colours go. Padding is in cells of ``stride`` pixels.
    """
    detection, model = target['default_scope'] == 'mmdet', target['model']
    expected = 'DetDataPreprocessor' if detection else 'ClsDataPreprocessor'
    places = {'model.data_preprocessor': model.get('data_preprocessor') or {},
              'data_preprocessor': target.get('data_preprocessor') or {}}
    for name, node in places.items():
        kind = transform_type(node) or expected
        if kind != expected:
            raise RefusedError(f'{name} is {kind}, but only {expected} can take DCT channels')
        if node and detection:
            _convert_detection_preprocessor(node, stride, notes)
        elif node.get('pad_size_divisor', 1) != 1:
            raise RefusedError(f'{name}: pad_size_divisor would count blocks; pad in the pipeline')
        elif node:
            node.update(mean=None, std=None, to_rgb=False)


def _convert_detection_preprocessor(node: dict[str, Any], stride: int, notes: list[str]) -> None:
    augments = node.get('batch_augments') or []
    others = [augment for augment in augments if transform_type(augment) != _DROPPED_AUGMENT]
    if others != augments:
        node['batch_augments'] = others or None
        notes.append(f'batch_augments is without {_DROPPED_AUGMENT}, which resizes pixels: '
                     'training images keep the size that the pipeline sets.')
    node.update(type='FreqDetDataPreprocessor', mean=None, std=None, bgr_to_rgb=False,
                pad_size_divisor=math.lcm(node.get('pad_size_divisor', 1), stride))
    unset = dict(rgb_to_bgr=False, pad_value=0)
    node.update((key, value) for key, value in unset.items() if node.get(key))
    if stride != DEFAULT_STRIDE:
        node['stride'] = stride
