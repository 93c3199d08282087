"""Weights of other networks for those of mmfreq: the released DCTNet classifiers, and stock RGB checkpoints."""
import io
import re
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

import mmengine.runner.checkpoint as checkpoint_module
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmfreq.apis.freqify.convert import convert_backbone, freqify, wrapped
from mmfreq.config.paths import config_path
from mmfreq.config.reader import iter_dicts, single_transforms, unfused
from mmfreq.config.writer import child_text, plain_config
from mmfreq.dct.channels import channel_indices
from mmfreq.files import atomic_write_bytes, atomic_write_text
from mmfreq.hosts.checkpoints import restrict_checkpoint_loading

StateDict = dict[str, torch.Tensor]

# What the released classifiers of K. Xu et al. were trained on, by their number of channels. Their input tensor has the
# channels of Y, then Cb, then Cr, each component's frequencies ascending in natural order: that of ChannelSelect.
_DCTNET_CHANNELS = {24: '24S', 64: '64S', 192: '192'}
_DCTNET_STOCK = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
_DCTNET_COMMENT = (
    'The released DCTNet ResNet-50 classifier (K. Xu et al., CVPR 2020) on the DCT channels {channels}, with the '
    "authors' statistics, for {checkpoint}.",
    'In their code the second stage keeps the grid: stages of 56, 56, 28 and 14 cells.')

# Blocks in each of the four stages of the stock ResNets, by depth and kind of block.
_RESNET_DEPTHS = {
    ('basic', (2, 2, 2, 2)): 18,
    ('basic', (3, 4, 6, 3)): 34,
    ('bottleneck', (3, 4, 6, 3)): 50,
    ('bottleneck', (3, 4, 23, 3)): 101,
    ('bottleneck', (3, 8, 36, 3)): 152,
}


def read_weights(path: str) -> tuple[StateDict, dict[str, Any]]:
    """Reads a checkpoint file, weights-only (:func:`mmfreq.hosts.checkpoints.restrict_checkpoint_loading`).

    Args:
        path (str): A state dict, or a dict with one under ``state_dict``; names may all start with ``module.``, as
            DataParallel leaves them.

    Returns:
        tuple[dict, dict]: The weights by name, on the CPU, without ``module.``; and what else the file holds.

    Raises:
        RefusedCheckpointError: The file holds objects other than weights and what mmengine records beside them.
        ValueError: The file cannot be read so, or holds no state dict; it is named.
    """
    restrict_checkpoint_loading()
    with _named(path):
        try:
            content = checkpoint_module._load_checkpoint(path, map_location='cpu')
        except (EOFError, RuntimeError) as error:
            reason = str(error).partition('\n')[0] or 'it ends too early'
            raise ValueError(f'torch cannot read it weights-only ({reason})') from error
        weights = content.get('state_dict', content) if isinstance(content, dict) else None
        if not isinstance(weights, dict) or not weights:
            raise ValueError('expected a state dict, or a dict with one under "state_dict", got '
                             f'{"nothing" if content == {} or weights == {} else type(content).__name__}')
        others = [str(key) for key, value in weights.items() if not isinstance(key, str) or not torch.is_tensor(value)]
        if others:
            raise ValueError(f'expected a state dict, or a dict with one under "state_dict", got {", ".join(others)}, '
                             'which are no tensors')
    if all(key.startswith('module.') for key in weights):
        weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    rest = {str(key): value for key, value in content.items() if key != 'state_dict'} if 'state_dict' in content else {}
    return dict(weights), rest


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Names the file in errors."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def write_checkpoint(path: str, state_dict: Mapping[str, torch.Tensor], meta: dict[str, Any]) -> None:
    """Writes a checkpoint that the hosts' runners load; the file appears whole or not at all."""
    buffer = io.BytesIO()
    torch.save(dict(state_dict={key: value.clone() for key, value in state_dict.items()}, meta=meta), buffer)
    atomic_write_bytes(path, buffer.getvalue())


def differences(given: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> list[str]:
    """What keeps ``given`` from being loaded as ``expected``, one line for each name; empty if nothing does."""
    shapes = {key: tuple(value.shape) for key, value in expected.items()}
    return [
        *(f'unknown: {key} {tuple(given[key].shape)}' for key in given if key not in shapes),
        *(f'missing: {key} {shapes[key]}' for key in shapes if key not in given),
        *(f'misshapen: {key} {tuple(given[key].shape)}, expected {shape}' for key, shape in shapes.items()
          if key in given and tuple(given[key].shape) != shape),
    ]


# DCTNet


def convert_dctnet(path: str, out: Path, channels: Optional[str] = None) -> list[str]:
    """Writes a released DCTNet ResNet-50 classifier as a checkpoint of mmpretrain, and the config that evaluates it.

    Args:
        path (str): The authors' file: a dict with ``state_dict``, ``epoch``, ``best_prec1`` and the like.
        out (Path): Checkpoint to write, ``.pth``; the config stands beside it with the ending ``.py``.
        channels (str, optional): As for :func:`dctnet_channels`.

    Returns:
        list[str]: What was done.

    Raises:
        RefusedCheckpointError: As :func:`read_weights`.
        ValueError: The file is not such a classifier; all weights that do not fit are listed. Nothing is written.
    """
    weights, rest = read_weights(path)
    with _named(path):
        channels = dctnet_channels(weights, channels)
        target, _ = freqify(_DCTNET_STOCK, channels, 'dctnet-classification')
        target['model']['backbone']['strides'] = (1, 1, 2, 2)
        # their statistics make much of what rounding colours does, which FusedBlockDCT leaves out
        target = {**unfused(target), 'freq': single_transforms(target['freq'])}
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(deepcopy(target['model']))
        state_dict = from_dctnet(weights, model.state_dict())
    numbers = {key: value.item() if hasattr(value, 'item') else value for key, value in rest.items()
               if isinstance(value, (str, int, float)) or getattr(value, 'shape', None) == ()}
    left = [key for key in rest if key not in numbers]
    comment = wrapped(line.format(channels=channels, checkpoint=out.name) for line in _DCTNET_COMMENT)
    text = child_text(_DCTNET_STOCK, target, comment, out.parent)
    write_checkpoint(str(out), state_dict, {**numbers, 'source': Path(path).name, 'channels': channels})
    atomic_write_text(out.with_suffix('.py'), text)
    return [f'{len(weights)} tensors, channels {channels}; in meta: {", ".join(numbers) or "nothing"}; '
            f'left out: {", ".join(left) or "nothing"}']


def dctnet_channels(weights: StateDict, channels: Optional[str] = None) -> str:
    """The channels that a released DCTNet classifier takes.

    Args:
        weights (dict): Its weights, of :func:`read_weights`.
        channels (str, optional): A selection; it must have as many channels as the weights. Defaults to None: what the
            authors used for 24, 64 and 192 channels.

    Returns:
        str: A selection for ChannelSelect.

    Raises:
        ValueError: The first layer takes another number of channels. Where there is none, ``from_dctnet`` says so.
    """
    first = weights.get('model.0.0.conv1.weight', torch.zeros(64, 64, 1, 1))
    count = first.shape[1] if first.ndim > 1 else 0
    found = channels or _DCTNET_CHANNELS.get(count)
    if found is None:
        raise ValueError(f'model.0.0.conv1.weight takes {count} channels, the released classifiers '
                         f'{", ".join(map(str, _DCTNET_CHANNELS))}: say which ones they are (channels)')
    if len(channel_indices(found)) != count:
        raise ValueError(f'model.0.0.conv1.weight takes {count} channels, but {found} has '
                         f'{len(channel_indices(found))}')
    return found


def from_dctnet(weights: StateDict, expected: Mapping[str, torch.Tensor]) -> StateDict:
    """Weights of a released DCTNet ResNet-50 classifier under mmpretrain's names.

    Args:
        weights (dict): ``model.{stage}.{block}.*`` with stages 0..3, and ``fc.*``.
        expected (dict): State dict of mmpretrain's classifier with FreqResNet-50.

    Returns:
        dict: The same tensors, named and ordered as ``expected``.

    Raises:
        ValueError: A weight is unknown, missing or has another shape than expected; all such are listed.
    """
    names = {_dctnet_name(key): key for key in expected}
    if not any(name in weights for name in names if name.startswith('model.')):
        raise ValueError(f'expected names such as {next(iter(names))}, got {", ".join(list(weights)[:5])}, ...')
    wrong = differences(weights, {name: expected[key] for name, key in names.items()})
    if wrong:
        raise ValueError('\n  '.join(['not the weights of a DCTNet ResNet-50 classifier:', *wrong]))
    return {key: weights[name] for name, key in names.items()}


def _dctnet_name(key: str) -> str:
    stage = re.match(r'backbone\.layer(\d)\.', key)
    return f'model.{int(stage.group(1)) - 1}.{key[stage.end():]}' if stage else key.removeprefix('head.')


# Stock RGB checkpoints


def convert_stock(path: str, out: Path, channels: str, config: Optional[str] = None) -> list[str]:
    """Writes a stock RGB checkpoint as one for the frequency-domain version of its backbone.

    Args:
        path (str): A checkpoint in the layout of mmpretrain, mmdet or torchvision.
        out (Path): Checkpoint to write.
        channels (str): A named selection; its number of channels counts.
        config (str, optional): The stock config that the checkpoint belongs to. Defaults to None: a ResNet, ResNetV1c
            or ResNetV1d, recognised by its weights.

    Returns:
        list[str]: What was done.

    Raises:
        RefusedCheckpointError: As :func:`read_weights`.
        ValueError: The weights are not those of the backbone; all that do not fit are listed. Nothing is written.
    """
    backbone, others = split_stock(read_weights(path)[0])
    with _named(path):
        stock = plain_config(config_path(config)) if config else dict(model=dict(backbone=resnet_config(backbone)))
        model, scope = stock.get('model') or {}, stock.get('default_scope', 'mmpretrain')
        convert_backbone(model, len(channel_indices(channels)), scope, [])
        if any(node.get('type') == 'Pretrained' for node in iter_dicts(model['backbone'].get('init_cfg'))):
            del model['backbone']['init_cfg']
        with DefaultScope.overwrite_default_scope(scope), torch.random.fork_rng():
            torch.manual_seed(0)  # what is newly made is the same in every conversion
            made = MODELS.build(deepcopy(model['backbone']))
            made.init_weights()
        state_dict = {f'backbone.{key}': value for key, value in from_stock(backbone, made).items()}
    write_checkpoint(str(out), {**state_dict, **others}, dict(source=Path(path).name, channels=channels))
    kept = sorted({key.partition('.')[0] for key in others})
    return [f'{len(state_dict)} tensors of {model["backbone"]["type"]} with {len(channel_indices(channels))} channels; '
            f'kept as they are: {", ".join(kept) or "no others"}']


def split_stock(weights: StateDict) -> tuple[StateDict, StateDict]:
    """Backbone and rest of a stock checkpoint, in the layout of mmpretrain and mmdet or in torchvision's.

    Returns:
        tuple[dict, dict]: The backbone's weights without ``backbone.``; all others as the hosts name them:
        torchvision's ``fc.*`` becomes ``head.fc.*``.
    """
    backbone = {key.removeprefix('backbone.'): value for key, value in weights.items() if key.startswith('backbone.')}
    if backbone:
        return backbone, {key: value for key, value in weights.items() if not key.startswith('backbone.')}
    classifier = {f'head.{key}': value for key, value in weights.items() if key.startswith('fc.')}
    return {key: value for key, value in weights.items() if not key.startswith('fc.')}, classifier


def resnet_config(backbone: StateDict) -> dict[str, Any]:
    """Config of mmpretrain's stock ResNet that has these weights: ResNet, ResNetV1c or ResNetV1d, by its blocks.

    Raises:
        ValueError: The blocks are not those of one of them.
    """
    found = [re.match(r'layer([1-4])\.(\d+)\.', key) for key in backbone]
    blocks = tuple(1 + max((int(m.group(2)) for m in found if m and int(m.group(1)) == stage), default=-1)
                   for stage in (1, 2, 3, 4))
    kind = 'bottleneck' if 'layer1.0.conv3.weight' in backbone else 'basic'
    depth = _RESNET_DEPTHS.get((kind, blocks))
    if depth is None:
        raise ValueError(f'expected the weights of a ResNet, got {kind} blocks {blocks} in layer1 to layer4; name the '
                         'stock config that the checkpoint belongs to')
    deep = any(key.startswith('stem.') for key in backbone)
    pooled = any(re.match(r'layer2\.0\.downsample\.2\.', key) for key in backbone)
    return dict(type={(False, False): 'ResNet', (True, False): 'ResNetV1c'}.get((deep, pooled), 'ResNetV1d'),
                depth=depth)


def from_stock(backbone: StateDict, model: nn.Module) -> StateDict:
    """Stock RGB weights in a frequency-domain backbone, by its own way of loading them.

    Args:
        backbone (dict): The stock backbone's weights, names without prefix.
        model (nn.Module): The frequency-domain backbone, initialised. Its log line says what was dropped, sliced and
            newly made.

    Returns:
        dict: Its state dict.

    Raises:
        ValueError: A weight is unknown, missing or has another shape than expected; all such are listed.
    """
    try:
        model.load_state_dict(backbone, strict=True)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return model.state_dict()
