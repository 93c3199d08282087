"""Refuse configs that would train or evaluate on a wrong input without an error."""
import os
from typing import Any, Iterable, Iterator, Optional

from mmengine import registry
from mmengine.config import Config

from mmfreq.config.pipelines import (
    DATALOADERS,
    DEFAULT_STRIDE,
    all_hooks,
    check_drop,
    check_same,
    input_specs,
    iter_dicts,
    named_pipelines,
    preprocessor,
    transform_type,
)
from mmfreq.errors import RefusedError
from mmfreq.input_spec import InputSpec

# Transforms that leave ``img`` alone, beside packers and loaders of annotations.
_AFTER_DCT = ('BlockDCT', 'ChannelSelect', 'FreqNormalize', 'ChannelDrop', 'TestTimeAug', 'Compose', 'Collect',
              'FilterAnnotations', 'RandomChoice', 'RandomApply', 'MultiView')
_HOSTS = ('mmcv', 'mmdet', 'mmpretrain', 'mmseg', 'mmfreq')


def check_config(cfg: Config) -> None:
    """Check a config that is about to be run.

    Raises:
        RefusedError: The pipelines feed the network different inputs, or other channels than it
            takes; a transform or a batch augmentation for pixels gets DCT channels; a ChannelDrop does not
            fit its input; an evaluator reads another COCO file than its data set; a sliding window of
            pixels would cut DCT channels.
    """
    check_channels(cfg)
    specs = input_specs(cfg)
    for name, spec in specs.items():
        check_same(name, spec, *next(iter(specs.items())))
    for name, steps in named_pipelines(cfg):
        _check_after_dct(name, steps)
        for number, step in enumerate(steps):
            if transform_type(step) == 'ChannelDrop':
                check_drop(name, InputSpec.from_steps(steps[:number]), step['keep'], step.get('block_size', 8))
    for name in DATALOADERS:
        _check_annotation_files(cfg, name.partition('_')[0])
    takes_channels = any(spec.channels for spec in specs.values())
    for node in iter_dicts([cfg.get('model'), cfg.get('data_preprocessor'), all_hooks(cfg)]):
        if takes_channels and node.get('mode') == 'slide':
            raise RefusedError("model.test_cfg.mode: expected 'whole', since 'slide' counts pixels, and the "
                               'network takes DCT channels')
        if takes_channels and transform_type(node) == 'ResizeMix':
            raise RefusedError('ResizeMix resizes pixels, but its batch holds DCT channels. Mixup and CutMix '
                               'work on both')


def check_channels(cfg: Config) -> None:
    """Check that the pipelines and the preprocessor fit a frequency-domain backbone.

    Raises:
        RefusedError: The pipelines return other channels than ``freq`` of the backbone. In mmdet and
            mmseg, also: the preprocessor is a stock one, or its stride is not the backbone's ``input_stride``.
    """
    for node in iter_dicts(cfg.get('model')):
        kind, freq = transform_type(node), node.get('freq') if node.get('pixels') else None
        if freq or kind.startswith('Freq') and 'in_channels' in node:
            if cfg.get('default_scope') in ('mmdet', 'mmseg'):
                _check_stride(preprocessor(cfg), kind, freq and node.get('input_stride', 4))
            for name, spec in input_specs(cfg).items() if freq else ():
                check_same(f'freq of {kind}', InputSpec.of(freq), f'the pipeline of {name}', spec)


def _check_stride(node: dict, kind: str, input_stride: Optional[int]) -> None:
    """Refuse a preprocessor that takes cells for pixels or has another stride, if any is known."""
    own = transform_type(node)
    if not own.startswith('Freq'):
        raise RefusedError('a frequency-domain detector or segmentor expects data_preprocessor=dict('
                           f"type='Freq{own}', ...), got {node.get('type')}")
    stride = node.get('stride', DEFAULT_STRIDE)
    if input_stride not in (None, stride):
        raise RefusedError(f'{kind} has input_stride={input_stride}, but the stride of {own} is {stride}; '
                           'expected the same')


def _check_after_dct(name: str, steps: Iterable[Any]) -> None:
    """Refuse transforms of pixels after the DCT."""
    dct = ''
    for step in _in_order(steps):
        kind = transform_type(step)
        if dct and _takes_pixels(kind):
            raise RefusedError(f'{name}: {kind} comes after {dct} and would take DCT channels for '
                               "pixels. Put it before the first of mmfreq's transforms")
        if kind in ('FusedBlockDCT', 'BlockDCT'):
            dct = kind


def _in_order(steps: Iterable[Any]) -> Iterator[dict]:
    """Yield the steps of a pipeline, and those inside TestTimeAug, RandomChoice and others."""
    for step in steps:
        inner = step
        if isinstance(step, dict):
            yield step
            inner = step.get('transforms') or ()
        yield from _in_order(inner)


def _takes_pixels(kind: str) -> bool:
    """Return whether a transform is one of the hosts' that change ``img``."""
    loads = kind.startswith('Load') and not kind.startswith('LoadImage')
    if not kind or kind in _AFTER_DCT or loads or kind.startswith('Pack'):
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
