"""Convert the released DCTNet classifiers to checkpoints and configs of mmpretrain."""
import io
import re
from copy import deepcopy
from pathlib import Path
from typing import Any, Mapping, Optional

import mmengine.runner.checkpoint as checkpoint_module
import torch
from mmengine.registry import MODELS, DefaultScope

from mmfreq.apis.freqify.convert import freqify
from mmfreq.config.pipelines import single_transforms, unfused
from mmfreq.config.writer import child_text, wrapped
from mmfreq.dct.channels import channel_indices
from mmfreq.files import atomic_write_bytes, atomic_write_text, check_not_input

StateDict = dict[str, torch.Tensor]

# What the released classifiers of K. Xu et al. were trained on, by their number of channels. Their
# input has the channels of Y, then Cb, then Cr, ascending in natural order, as ChannelSelect.
_CHANNELS = {24: '24S', 64: '64S', 192: '192'}
_STOCK = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
_FIRST = 'model.0.0.conv1.weight'
_COMMENT = (
    'The released DCTNet ResNet-50 classifier (K. Xu et al., CVPR 2020) on the DCT channels '
    "{channels}, with the authors' statistics, for {checkpoint}.",
    'In their code the second stage keeps the grid: stages of 56, 56, 28 and 14 cells.')


def read_weights(path: str) -> tuple[StateDict, dict[str, Any]]:
    """Read a checkpoint file, weights-only.

    Returns:
        tuple[dict, dict]: Weights by name, on the CPU, without the ``module.`` of DataParallel;
        and the file's rest.

    Raises:
        RefusedCheckpointError: The file cannot be read this way, or holds no state dict.
        ValueError: The state dict holds something else than tensors.
    """
    content = checkpoint_module._load_checkpoint(path, map_location='cpu')
    weights = content.get('state_dict', content)
    others = [str(key) for key, value in weights.items()
              if not (isinstance(key, str) and torch.is_tensor(value))]
    if others:
        raise ValueError(f'{path}: expected a state dict, or a dict with one under "state_dict", '
                         f'got {", ".join(others)}, which are no named tensors')
    if all(key.startswith('module.') for key in weights):
        weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    rest = content if 'state_dict' in content else {}
    return dict(weights), {str(key): rest[key] for key in rest if key != 'state_dict'}


def convert_dctnet(path: str, out: Path, channels: Optional[str] = None) -> list[str]:
    """Write a released DCTNet ResNet-50 classifier for mmpretrain, and the config to evaluate it.

    Args:
        path (str): The authors' file: a dict with ``state_dict``, ``epoch``, ``best_prec1``, ...
        out (Path): Checkpoint to write, ``.pth``; the config has the same name and ends in ``.py``.
        channels (str, optional): As for :func:`dctnet_channels`.

    Returns:
        list[str]: What was done.

    Raises:
        RefusedCheckpointError: As :func:`read_weights`.
        ValueError: The file is no such classifier; all weights that do not fit are listed. Nothing
            is written.
    """
    check_not_input(out, path)
    weights, rest = read_weights(path)
    try:
        channels = dctnet_channels(weights, channels)
        target, _ = freqify(_STOCK, channels, 'dctnet-classification')
        target['model']['backbone']['strides'] = (1, 1, 2, 2)
        # FusedBlockDCT does not round colours, which the authors' statistics make much of
        target = {**unfused(target), 'freq': single_transforms(target['freq'])}
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(deepcopy(target['model']))
        state_dict = from_dctnet(weights, model.state_dict())
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    meta = {}
    for key, value in rest.items():
        if isinstance(value, (str, int, float)) or getattr(value, 'shape', None) == ():
            meta[key] = value.item() if hasattr(value, 'item') else value
    left = [key for key in rest if key not in meta]
    comment = wrapped(line.format(channels=channels, checkpoint=out.name) for line in _COMMENT)
    text = child_text(_STOCK, target, comment, out.parent)
    buffer = io.BytesIO()
    torch.save(dict(state_dict={key: value.clone() for key, value in state_dict.items()},
                    meta={**meta, 'source': Path(path).name, 'channels': channels}), buffer)
    atomic_write_bytes(str(out), buffer.getvalue())
    atomic_write_text(out.with_suffix('.py'), text)
    return [f'{len(weights)} tensors, channels {channels}; in meta: {", ".join(meta) or "nothing"}; '
            f'left out: {", ".join(left) or "nothing"}']


def dctnet_channels(weights: StateDict, channels: Optional[str] = None) -> str:
    """Return the selection that a released DCTNet classifier takes.

    That is ``channels``, if it has as many as the weights, or what the authors used for 24, 64 and
    192 channels.

    Raises:
        ValueError: There is no first layer, or it takes another number of channels.
    """
    first = weights.get(_FIRST)
    if first is None:
        raise ValueError(f'expected the weights of a DCTNet ResNet-50 classifier, such as {_FIRST}, '
                         f'got {", ".join(list(weights)[:5])}, ...')
    count = first.shape[1] if first.ndim > 1 else 0
    found = channels or _CHANNELS.get(count)
    if found is None:
        raise ValueError(f'{_FIRST} takes {count} channels, the released classifiers '
                         f'{", ".join(map(str, _CHANNELS))}: name yours (channels)')
    if len(channel_indices(found)) != count:
        raise ValueError(f'{_FIRST} takes {count} channels, but {found} has '
                         f'{len(channel_indices(found))}')
    return found


def from_dctnet(weights: StateDict, expected: Mapping[str, torch.Tensor]) -> StateDict:
    """Rename the weights of a released DCTNet ResNet-50 classifier to mmpretrain's names.

    Args:
        weights (dict): ``model.{stage}.{block}.*`` with stages 0..3, and ``fc.*``.
        expected (dict): State dict of mmpretrain's classifier with FreqResNet-50.

    Returns:
        dict: The same tensors, named and ordered as ``expected``.

    Raises:
        ValueError: A weight is unknown, missing or misshapen; all such are listed.
    """
    names = {_dctnet_name(key): key for key in expected}
    wrong = []
    for name in dict.fromkeys((*weights, *names)):
        given = tuple(weights[name].shape) if name in weights else None
        shape = tuple(expected[names[name]].shape) if name in names else None
        if shape is None:
            wrong.append(f'unknown: {name} {given}')
        elif given is None:
            wrong.append(f'missing: {name} {shape}')
        elif given != shape:
            wrong.append(f'misshapen: {name} {given}, expected {shape}')
    if wrong:
        raise ValueError('\n  '.join(['not the weights of a DCTNet ResNet-50 classifier:', *wrong]))
    return {key: weights[name] for name, key in names.items()}


def _dctnet_name(key: str) -> str:
    stage = re.match(r'backbone\.layer(\d)\.', key)
    return (f'model.{int(stage.group(1)) - 1}.{key[stage.end():]}' if stage
            else key.removeprefix('head.'))
