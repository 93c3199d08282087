"""Read OpenMMLab configs: their pipelines, and the input that these feed the network."""
from dataclasses import replace
from typing import Any, Iterator, Optional

import numpy as np
from mmengine.config import Config

from mmfreq.dct.channels import ChannelSpec, channel_indices
from mmfreq.dct.lazy_image import LAZY_RESIZES
from mmfreq.errors import RefusedError
from mmfreq.input_spec import DCT_TRANSFORMS, InputSpec

DEFAULT_STRIDE = 4  # of FreqDetDataPreprocessor, in pixels
DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
COLOR_CONVERSIONS = ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr')


def iter_dicts(node: Any) -> Iterator[dict]:
    """Yield every dict inside ``node``, itself included, depth first."""
    if isinstance(node, dict):
        yield node
    for child in _children(node):
        yield from iter_dicts(child)


def _children(node: Any) -> Any:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, (list, tuple)) else ()


def datasets_with_pipeline(node: Any) -> list[dict]:
    """Return the configs of the data sets inside ``node`` that have a pipeline, outermost only.

    A wrapper with a pipeline of its own, such as MultiImageMixDataset, counts. The data set inside
    has only the first steps.
    """
    if isinstance(node, dict) and node.get('pipeline'):
        return [node]
    return [dataset for child in _children(node) for dataset in datasets_with_pipeline(child)]


def pipelines(cfg: Config, dataloader: str) -> list[list[dict]]:
    """Return the pipelines of a dataloader's data sets; none if there is no such dataloader."""
    dataset = (cfg.get(dataloader) or {}).get('dataset')
    return [node['pipeline'] for node in datasets_with_pipeline(dataset)]


def named_pipelines(cfg: Config) -> list[tuple[str, list[dict]]]:
    """Return all pipelines that feed the network, each with its name for messages.

    They are those of the data sets, ``tta_pipeline``, and those to which a hook of the hosts switches.
    The steps of a wrapper follow those of the data set inside. A pipeline with a MultiBranch or a
    RandomChoice is returned once for each of its branches.
    """
    named = [(name, steps) for name in DATALOADERS for steps in _whole(cfg.get(name))]
    named.append(('tta_pipeline', cfg.get('tta_pipeline') or []))
    for hook in all_hooks(cfg):
        named += [(transform_type(hook), node[key]) for node in iter_dicts(hook)
                  for key in ('switch_pipeline', 'train_pipeline') if node.get(key)]
    return [(name, way) for name, steps in named if steps for way in _ways(list(steps))]


def all_hooks(cfg: Config) -> list[dict]:
    """Return the configs of all hooks."""
    return list(filter(None, [*(cfg.get('custom_hooks') or ()), *(cfg.get('default_hooks') or {}).values()]))


def _whole(node: Any) -> list[list[dict]]:
    """Return the pipelines inside ``node``, each with those of the wrappers around its data set."""
    own = list(node.get('pipeline') or ()) if isinstance(node, dict) else []
    inside = {key: value for key, value in node.items() if key != 'pipeline'} if own else node
    inner = [steps for child in _children(inside) for steps in _whole(child)]
    return [[*steps, *own] for steps in inner or [[]] if steps or own]


def _ways(steps: list[dict]) -> list[list[dict]]:
    """Return the ways through steps: one, or one for each branch."""
    ways: list[list[dict]] = [[]]
    for step in steps:
        inner = [way for branch in _branches(step) for way in _ways([branch] if isinstance(branch, dict) else branch)]
        ways = [[*way, *rest] for way in ways for rest in inner or [[step]]]
    return ways


def _branches(step: dict) -> list[Any]:
    """Return the branches of a MultiBranch, or of a RandomChoice with a DCT; of another step none."""
    if transform_type(step) == 'MultiBranch':
        return [step[name] for name in step['branch_field'] if name in step]
    has_dct = any(transform_type(node) in DCT_TRANSFORMS for node in iter_dicts(step))
    return list(step['transforms']) if has_dct and transform_type(step) == 'RandomChoice' else []


def transform_type(transform: dict) -> str:
    """Return the type name of a transform's config, without a scope prefix."""
    kind = transform.get('type', '')
    return (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]


def with_imports(imports: Optional[dict], modules: list[str]) -> dict:
    """Return ``custom_imports`` with more modules in front."""
    own = (imports or {}).get('imports') or []
    names = [*modules, *([own] if isinstance(own, str) else own)]
    return {**(imports or {}), 'imports': list(dict.fromkeys(names))}


def stock_resize(step: dict) -> dict:
    """Return the stock transform's config for a LazyResize; any other step as it is."""
    if transform_type(step) != 'LazyResize':
        return step
    arguments = {key: value for key, value in step.items() if key not in ('type', 'resize')}
    return dict(type=step['resize'], **arguments)


def lazy_step(step: dict) -> Optional[dict]:
    """Return the LazyResize for a stock resize; None for any other step or interpolation."""
    kind = transform_type(step)
    default = 'bicubic' if kind == 'EfficientNetRandomCrop' else 'bilinear'
    if kind not in LAZY_RESIZES or step.get('interpolation', default) != 'bilinear':
        return None
    arguments = {key: value for key, value in step.items() if key != 'type'}
    return dict(type='LazyResize', resize=step['type'], **arguments)


def takes_lazy_image(step: dict) -> bool:
    """Return whether a step may come between LazyResize and the DCT: it slices, or looks at labels."""
    kind = transform_type(step)
    if kind == 'CenterCrop':
        return not step.get('auto_pad')
    return kind in ('RandomFlip', 'LoadAnnotations', 'FilterAnnotations')


def preprocessor(cfg: Config) -> dict:
    """Return the config of the data preprocessor, innermost if one holds another; {} without."""
    holders = [node for node in iter_dicts(cfg.get('model')) if node.get('data_preprocessor')]
    node = (holders or [cfg])[0].get('data_preprocessor') or {}
    while node.get('data_preprocessor'):
        node = node['data_preprocessor']
    return node


def device_freq(cfg: Config) -> Optional[dict]:
    """Return ``freq`` of a preprocessor with ``placement='device'``; None if a pipeline does it.

    Without ``dtype`` and ``scale``, which the layer on the device ignores.
    """
    node = preprocessor(cfg)
    if node.get('placement') != 'device' or not node.get('freq'):
        return None
    return {key: value for key, value in node['freq'].items() if key not in ('dtype', 'scale')}


def input_spec(cfg: Config, pipeline: list[dict]) -> InputSpec:
    """Return the input that ``pipeline`` and the preprocessor of ``cfg`` feed the network.

    Raises:
        RefusedError: The preprocessor normalises channels again, or does not undo int8.
        ValueError: Unknown channels or statistics.
    """
    node, freq = preprocessor(cfg), device_freq(cfg)
    spec = InputSpec.from_steps([freq] if freq else iter_dicts(pipeline))
    mean, std = node.get('mean'), node.get('std')
    if not spec.channels:
        colors = spec.colors
        if any(node.get(key) for key in COLOR_CONVERSIONS):
            colors = dict(bgr='rgb').get(colors, f'{colors}, reversed')
        return replace(spec, mean=tuple(mean or ()), std=tuple(std or ()), colors=colors)
    if len(spec.channels) == 3 and any(node.get(key) for key in COLOR_CONVERSIONS):
        raise RefusedError('data_preprocessor: expected no conversion of colours, which would swap the 3 DCT channels')
    scale, own_mean, own_std = spec.scale or 1, mean or [0], std or [1]
    if set(spec.mean) == {0.} and set(spec.std) == {1.}:  # the preprocessor alone normalises
        return replace(spec, mean=tuple((np.array(spec.mean) + own_mean).tolist()),
                       std=tuple((np.array(spec.std) * own_std).tolist()))
    if set(own_mean) != {0} or set(own_std) != {scale}:
        expected = f'mean=[0], std=[{scale:g}], which undo int8' if spec.scale else 'mean=None, std=None'
        raise RefusedError(f'data_preprocessor: expected {expected}, since the channels are normalised; '
                           f'got mean={mean}, std={std}')
    return spec


def input_specs(cfg: Config) -> dict[str, InputSpec]:
    """Return the input that the pipelines of each name in :func:`named_pipelines` feed the network.

    Raises:
        RefusedError: As :func:`input_spec`, or two pipelines of one name differ.
    """
    specs: dict[str, InputSpec] = {}
    for name, pipeline in named_pipelines(cfg):
        try:
            spec = input_spec(cfg, pipeline)
        except ValueError as error:
            raise RefusedError(f'{name}: {error}') from error
        check_same(name, spec, f'another pipeline of {name}', specs.setdefault(name, spec))
    return specs


def drop_channels(cfg: Config, dataloader: str, keep: list[ChannelSpec]) -> None:
    """Insert a ChannelDrop into the pipelines of a dataloader, after the DCT.

    Raises:
        RefusedError: A pipeline has no DCT, does not normalise, or lacks channels of a selection; an
            invalid selection.
    """
    for steps in pipelines(cfg, dataloader):
        spec = InputSpec.from_steps(steps)
        check_drop(dataloader, spec, keep, spec.block_size)
        last = max(i for i, step in enumerate(steps) if transform_type(step) in DCT_TRANSFORMS)
        steps.insert(last + 1, dict(type='ChannelDrop', keep=keep, block_size=spec.block_size))


def check_drop(name: str, spec: InputSpec, keep: list[ChannelSpec], block_size: int) -> None:
    """Raise RefusedError unless a ChannelDrop fits the input ``spec`` that it gets in the pipeline ``name``."""
    if not any(spec.mean):
        raise RefusedError(f'{name}: expected normalised DCT channels, whose mean is 0, to drop some of them, '
                           f'got {spec}')
    if block_size != spec.block_size:
        raise RefusedError(f'{name}: ChannelDrop has block_size={block_size}, but the DCT has {spec.block_size}')
    for channels in keep:
        try:
            missing = {*channel_indices(channels, block_size)} - {*spec.channels}
        except ValueError as error:
            raise RefusedError(str(error)) from error
        if missing:
            raise RefusedError(f'{name}: expected channels of its input, {spec}, got {channels}')


def check_same(name: str, spec: InputSpec, other_name: str, other: InputSpec) -> None:
    """Raise RefusedError, which has both values, unless two inputs are the same."""
    for attribute in spec.differences(other):
        raise RefusedError(f'{attribute}: {name} has {spec.describe(attribute)}, but {other_name} has '
                           f'{other.describe(attribute)}; expected the same')
