"""Refuse configs that would train or evaluate on a wrong input without an error."""
import os
from typing import Any, Iterable, Optional, Sequence

from mmengine import registry
from mmengine.config import Config

from mmfreq.config.pipelines import (
    DATALOADERS,
    check_same,
    detection_stride,
    input_specs,
    iter_dicts,
    pipelines,
    transform_type,
)
from mmfreq.errors import RefusedError
from mmfreq.input_spec import InputSpec

# Transforms that leave ``img`` alone, beside packers and loaders of annotations.
_BEHIND_DCT = ('BlockDCT', 'ChannelSelect', 'FreqNormalize', 'TestTimeAug', 'Compose', 'Collect',
               'FilterAnnotations', 'RandomChoice', 'RandomApply', 'MultiView', 'MultiBranch')
_HOSTS = ('mmcv', 'mmdet', 'mmpretrain', 'mmfreq')


def check_config(cfg: Config) -> None:
    """Check a config that is about to be run.

    Raises:
        RefusedError: The pipelines feed the network different inputs, or other channels than it
            takes; a transform or a batch augmentation for pixels gets DCT channels; an evaluator
            reads another COCO file than its data set.
    """
    check_channels(cfg)
    specs = input_specs(cfg)
    for name, spec in specs.items():
        check_same(name, spec, *next(iter(specs.items())))
    for name in DATALOADERS:
        for steps in pipelines(cfg, name):
            _check_behind_dct(name, steps)
        _check_annotation_files(cfg, name.partition('_')[0])
    _check_behind_dct('tta_pipeline', cfg.get('tta_pipeline') or ())
    takes_channels = any(spec.channels for spec in specs.values())
    for node in iter_dicts([cfg.get('model'), cfg.get('data_preprocessor')]):
        if takes_channels and transform_type(node) == 'ResizeMix':
            raise RefusedError('model: ResizeMix resizes pixels, but its batch holds DCT channels. '
                               'Mixup and CutMix work on both')


def check_channels(cfg: Config) -> None:
    """Check that every pipeline returns the channels that the backbone takes.

    Raises:
        RefusedError: Their number is not ``in_channels`` of a backbone whose type starts with
            ``Freq``, or they are not those of its ``freq``. In mmdet, also: the preprocessor is a
            stock one, or its stride is not ``block_size / upscale`` and ``input_stride``.
    """
    for node in iter_dicts(cfg.get('model')):
        kind, keeps = transform_type(node), bool(node.get('pixels') and node.get('freq'))
        expected = node.get('in_channels') if kind.startswith('Freq') else None
        if expected is None and not keeps:
            continue
        stride = detection_stride(cfg)
        if stride is not None and keeps and node.get('input_stride', 4) != stride:
            raise RefusedError(f'{kind} has input_stride={node.get("input_stride", 4)}, but the '
                               f'stride of FreqDetDataPreprocessor is {stride}; expected the same')
        for name, spec in input_specs(cfg).items():
            count = len(spec.channels) or 3
            if expected not in (None, count):
                raise RefusedError(f'{kind} expects in_channels={expected}, but the pipeline of '
                                   f'{name} returns {count} channels')
            if stride is not None and spec.block_size != stride * spec.upscale:
                raise RefusedError(
                    f'FreqDetDataPreprocessor expects block_size / upscale to be its '
                    f'stride={stride}, but the DCT in the pipeline of {name} has '
                    f'block_size={spec.block_size} and upscale={spec.upscale}')
            if keeps:
                check_same(f'freq of {kind}', InputSpec.of(node['freq']),
                           f'the pipeline of {name}', spec)


def _check_behind_dct(name: str, steps: Iterable[Any], first: str = '') -> str:
    """Refuse pixel transforms behind the DCT; return the DCT's transform, '' before it.

    Transforms in a list are a sequence. Lists inside a transform are alternatives that begin alike,
    except for those of TestTimeAug: each of these has the alternatives of one step.
    """
    for step in steps:
        if not isinstance(step, dict):
            first = _check_behind_dct(name, step, first)
            continue
        kind = transform_type(step)
        if first and _takes_pixels(kind):
            raise RefusedError(f'{name}: {kind} comes after {first} and would take DCT channels for '
                               "pixels. Put it before the first of mmfreq's transforms")
        if kind in ('FusedBlockDCT', 'BlockDCT'):
            first = first or kind
        parts: Sequence[Any] = step.get('transforms') or ()
        alternatives = [part for part in parts if not isinstance(part, dict)]
        if kind == 'TestTimeAug' or not alternatives:
            first = _check_behind_dct(name, parts, first)
        else:
            first = max([_check_behind_dct(name, part, first) for part in alternatives])
    return first


def _takes_pixels(kind: str) -> bool:
    """Return whether a transform is one of the hosts' that change ``img``."""
    loads = kind.startswith('Load') and not kind.startswith('LoadImage')
    if not kind or kind in _BEHIND_DCT or loads or kind.startswith('Pack'):
        return False
    for transforms in (registry.TRANSFORMS, *registry.TRANSFORMS.children.values()):
        transform: Optional[type] = transforms.module_dict.get(kind)
        if transform is not None:
            return transform.__module__.split('.')[0] in _HOSTS
    return True


def _check_annotation_files(cfg: Config, part: str) -> None:
    """Refuse a CocoMetric that reads another annotation file than the only CocoDataset."""
    files = set()
    for node in iter_dicts((cfg.get(f'{part}_dataloader') or {}).get('dataset')):
        if transform_type(node) in ('CocoDataset', 'CheckedCocoDataset') and node.get('ann_file'):
            files.add(os.path.realpath(os.path.join(node.get('data_root') or '', node['ann_file'])))
    for node in iter_dicts(cfg.get(f'{part}_evaluator')):
        if transform_type(node) == 'CocoMetric' and node.get('ann_file') and len(files) == 1:
            file = os.path.realpath(node['ann_file'])
            if {file} != files:
                raise RefusedError(f'{part}_evaluator: ann_file is {file}, but {part}_dataloader '
                                   f'reads {files.pop()}; expected the same file')
