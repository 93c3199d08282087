"""Check what a config feeds the network, the transforms behind the DCT, and the keys of options."""
import ast
import inspect
import re
from copy import deepcopy
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Callable, Iterable, Iterator, Optional, Sequence

import numpy as np
from mmengine import registry
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, TestLoop, ValLoop

from mmfreq.config.inspect import (
    DATALOADERS,
    PIXELS_TO_CHANNELS,
    dct_channels,
    detection_stride,
    device_freq,
    iter_dicts,
    network_pipeline,
    pipelines,
    preprocessor,
    takes_lazy_image,
    transform_type,
    unfused,
)
from mmfreq.dct.blocks import check_positive_int
from mmfreq.dct.stats import block_stats

_CONVERSIONS = ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr')
_IMAGENET_MEAN = {123.675, 116.28, 103.53}
# Transforms that leave ``img`` alone, beside packers and loaders of annotations.
_BEHIND_DCT = ('BlockDCT', 'ChannelSelect', 'FreqNormalize', 'TestTimeAug', 'Compose', 'Collect',
               'FilterAnnotations', 'RandomChoice', 'RandomApply', 'MultiView', 'MultiBranch')
_RUN_KEYS = {*inspect.signature(Runner).parameters, 'data_preprocessor', 'tta_model',
             'tta_pipeline', 'custom_imports', 'runner_type', 'compile', 'sync_bn', 'optimizer',
             'find_unused_parameters', 'model_wrapper_cfg', 'activation_checkpointing',
             'efficient_conv_bn_eval', 'strategy'} - {'cfg'}
_LOOPS = {'train_cfg': (EpochBasedTrainLoop, IterBasedTrainLoop), 'val_cfg': (ValLoop, ),
          'test_cfg': (TestLoop, )}


# What the network gets


@dataclass(frozen=True)
class FrontEnd:
    """What a pipeline and the preprocessor feed the network; equal if they commute.

    Attributes:
        channels (tuple[int, ...]): DCT channels in order; empty for pixels.
        statistics (tuple): Mean and std of each channel, all steps taken together: what is
            subtracted from a coefficient, and what it is then divided by.
        block_size (int): Side of a block; 1 for pixels.
        upscale (int): Upscaling before the DCT; 1 for pixels.
        colours (str): What the components are.
        words (dict[str, str]): For messages, how the config says each of them.
    """
    channels: tuple[int, ...]
    statistics: tuple[tuple[float, ...], ...]
    block_size: int
    upscale: int
    colours: str
    words: dict[str, str] = field(compare=False)


def front_end(cfg: Config, pipeline: list[dict]) -> FrontEnd:
    """Return what ``pipeline`` and the preprocessor of ``cfg`` feed the network.

    Raises:
        ValueError: Unknown channels or statistics; the preprocessor does not undo what the pipeline
            does for transport, it treats DCT channels as pixels, or both compute the DCT.
    """
    if device_freq(cfg) and dct_channels(unfused(pipeline)):
        raise ValueError("the preprocessor's placement='device' expects images, but the pipeline "
                         'has DCT transforms')
    expanded = network_pipeline(cfg, pipeline)
    steps = {transform_type(step): step for step in iter_dicts(expanded)}
    node = preprocessor(cfg)
    selected, block_size = dct_channels(expanded) or ((), 1)
    normalize = dict(steps.get('FreqNormalize', {}))
    mean, std = np.zeros(1), np.ones(1)
    if selected:
        _check_preprocessor(node, normalize, len(selected))
    if normalize:
        stats = block_stats(normalize['stats'], block_size)
        mean = stats.mean[list(selected)]
        std = stats.std[list(selected)] / (normalize.get('scale') or 1)
    before = node.get('mean') is not None
    if before:
        mean = mean + np.array(node['mean'], float) * std
        std = std * np.array(node['std'], float)
    upscale = steps.get('BlockDCT', {}).get('upscale', 1)
    order = steps.get('YCbCr', {}).get('channel_order', 'bgr')
    colours = f'YCbCr of {order}' if 'YCbCr' in steps else 'BGR'
    if any(node.get(key) for key in _CONVERSIONS):
        colours += ', reversed'
    said = {key: normalize[key] for key in ('stats', 'dtype', 'scale') if key in normalize}
    for key in ('mean', 'std') if before else ():
        said[f'data_preprocessor.{key}'] = node[key]
    names = steps.get('ChannelSelect', {}).get('channels', 'all')
    words = dict(
        channels=_short(names) if selected else 'none', colours=colours,
        statistics=', '.join(f'{key}={_short(value)}' for key, value in said.items()) or 'none',
        block_size=str(block_size), upscale=str(upscale))
    return FrontEnd(tuple(selected), (_rounded(mean), _rounded(std)), block_size, upscale, colours,
                    words)


def _check_preprocessor(node: dict, normalize: dict, channels: int) -> None:
    """Refuse a preprocessor that takes DCT channels for pixels, or leaves int8 as it is."""
    mean, std = node.get('mean') or [0], node.get('std') or [1]
    got = f'got mean={node.get("mean")}, std={node.get("std")}'
    for key in _CONVERSIONS:
        if node.get(key):
            raise ValueError(f'data_preprocessor.{key}: expected False, since the pipeline gives '
                             f'{channels} DCT channels, got {node[key]!r}')
    if {len(mean), len(std)} - {1, channels}:
        raise ValueError('data_preprocessor: expected one mean and std, or one for each of the '
                         f'{channels} channels of the pipeline, {got}')
    if set(mean) == _IMAGENET_MEAN:
        raise ValueError('data_preprocessor: expected no mean of RGB pixels for DCT channels, '
                         f'{got}')
    scale = normalize.get('scale')
    if normalize and (set(mean) != {0} or set(std) != {scale or 1}):
        expected = (f"mean=[0], std=[{scale}], which undo dtype='int8', scale={scale} of the "
                    'pipeline' if scale else 'mean=None, std=None, since FreqNormalize or '
                    'FusedBlockDCT normalises to float32')
        raise ValueError(f'data_preprocessor: expected {expected}; {got}')


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f'{value:.6g}') for value in values)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'


def named_pipelines(cfg: Config) -> Iterator[tuple[str, list[dict]]]:
    """Yield the pipelines of ``cfg`` with the name of their dataloader, or ``'tta_pipeline'``."""
    for name in DATALOADERS:
        for pipeline in pipelines(cfg, name):
            yield name, pipeline
    if cfg.get('tta_pipeline'):
        yield 'tta_pipeline', cfg['tta_pipeline']


def front_ends(cfg: Config) -> list[tuple[str, FrontEnd]]:
    """Return what each pipeline of ``cfg`` feeds the network; an error names the pipeline."""
    found = []
    for name, pipeline in named_pipelines(cfg):
        try:
            found.append((name, front_end(cfg, pipeline)))
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
    return found


def check_same(name: str, one: FrontEnd, other_name: str, other: FrontEnd) -> None:
    """Raise ValueError, naming both values, unless both feed the network the same."""
    for item in fields(FrontEnd):
        if item.compare and getattr(one, item.name) != getattr(other, item.name):
            raise ValueError(f'{item.name}: {name} has {one.words[item.name]}, but {other_name} '
                             f'has {other.words[item.name]}; expected the same')


# Configs


def check_channels(cfg: Config) -> None:
    """Check that every pipeline gives what the frequency-domain backbones of ``cfg`` take.

    Raises:
        ValueError: As :func:`front_end`; a pipeline gives another number of channels than
            ``in_channels`` of a backbone whose type starts with ``Freq``; or, in mmdet, the
            preprocessor is a stock one or its stride is not block_size / upscale.
    """
    for node in iter_dicts(cfg.get('model')):
        kind, expected = transform_type(node), node.get('in_channels')
        if not kind.startswith('Freq') or expected is None:
            continue
        stride = detection_stride(cfg)
        for name, front in front_ends(cfg):
            given = len(front.channels) or 3
            if given != expected:
                raise ValueError(f'{kind} expects in_channels={expected}, but the pipeline of '
                                 f'{name} gives {given} channels')
            if stride is not None and front.block_size != stride * front.upscale:
                raise ValueError(
                    f'FreqDetDataPreprocessor expects block_size / upscale to be its '
                    f'stride={stride}, but the DCT in the pipeline of {name} has '
                    f'block_size={front.block_size} and upscale={front.upscale}')


def check_config(cfg: Config) -> None:
    """Check what needs only the config; raise ValueError in one line, with what to change."""
    if not cfg.get('model'):
        raise ValueError('the config has no model; _base_ names a config that has one')
    check_channels(cfg)
    _check_top_level(cfg)
    _check_loops(cfg)
    _check_schedule(cfg)
    _check_topk(cfg)
    for name, pipeline in named_pipelines(cfg):
        _check_behind_dct(name, pipeline)
        _check_lazy_images(name, pipeline)
    found = front_ends(cfg)
    for name, other in found[1:]:
        check_same(*found[0], name, other)
    for node in iter_dicts([cfg.get('model'), cfg.get('data_preprocessor')]):
        if transform_type(node) == 'ResizeMix' and found and found[0][1].channels:
            raise ValueError('model: ResizeMix resizes pixels, but its batch holds DCT channels; '
                             'Mixup and CutMix work on both')


def _follow(steps: Iterable[dict], state: Any, visit: Callable[[dict, Any], Any]) -> Any:
    """Thread a state through a pipeline by ``visit(step, state)``; return the last one.

    Transforms in a list are a sequence; lists inside a transform are alternatives, but for those of
    TestTimeAug, each of which has the alternatives of one step. Alternatives begin with the same
    state, and if one of them ends with a state, so do all.
    """
    for step in steps:
        state = visit(step, state)
        parts = step.get('transforms') or ()
        sequence = [part for part in parts if isinstance(part, dict)]
        lists = [part for part in parts if not isinstance(part, dict)]
        if transform_type(step) == 'TestTimeAug':
            for part in lists:
                state = _alternatives([[one] for one in part], state, visit)
        elif parts:
            state = _alternatives([sequence, *lists] if sequence else lists, state, visit)
    return state


def _alternatives(branches: Iterable[Sequence[dict]], state: Any,
                  visit: Callable[[dict, Any], Any]) -> Any:
    ends = [_follow(branch, state, visit) for branch in branches]
    return next(filter(None, ends), None)


def _check_behind_dct(name: str, steps: Sequence[dict]) -> None:
    """Refuse pixel transforms behind the DCT."""

    def visit(step: dict, first: Optional[str]) -> Optional[str]:
        kind = transform_type(step)
        if first and _takes_pixels(kind):
            raise ValueError(f'{name}: {kind} comes behind {first}, where img holds DCT '
                             'channels instead of pixels; put it before the first of mmfreq\'s '
                             'transforms')
        return first or (kind if kind in ('FusedBlockDCT', 'BlockDCT') else None)

    _follow(steps, None, visit)


def _check_lazy_images(name: str, steps: Sequence[dict]) -> None:
    """Refuse transforms that need pixels between a LazyResize and the DCT."""

    def visit(step: dict, lazy: Optional[dict]) -> Optional[dict]:
        kind = transform_type(step)
        if kind in PIXELS_TO_CHANNELS:
            return None
        if lazy and not step.get('transforms') and not takes_lazy_image(step):
            raise ValueError(f'{name}: {kind} needs pixels, but LazyResize leaves them to a '
                             f"FusedBlockDCT behind it; write type={lazy['resize']!r} instead")
        return step if kind == 'LazyResize' else lazy

    _follow(steps, None, visit)


def _takes_pixels(kind: str) -> bool:
    """Whether a transform is one of the hosts' that change ``img``; a user's own may take channels."""
    loads = kind.startswith('Load') and not kind.startswith('LoadImage')
    if not kind or kind in _BEHIND_DCT or loads or kind.startswith('Pack'):
        return False
    for transforms in (registry.TRANSFORMS, *registry.TRANSFORMS.children.values()):
        known = transforms.module_dict.get(kind)
        if known is not None:
            return known.__module__.split('.')[0] in ('mmcv', 'mmdet', 'mmpretrain', 'mmfreq')
    return True


def _check_top_level(cfg: Config) -> None:
    for key in cfg:
        near = get_close_matches(key, _RUN_KEYS - {'tta_pipeline'}, 1, 0.88)
        rest = [value for other, value in cfg.items() if other != key]
        used = cfg[key] and any(node == cfg[key] for node in iter_dicts(rest))  # a variable
        if near and key not in _RUN_KEYS and not used:
            raise ValueError(f'nothing reads the key {key!r}; did you mean {near[0]!r}?')


def _check_loops(cfg: Config) -> None:
    for name, loops in _LOOPS.items():
        values = cfg.get(name) or {}
        known = {'type', 'by_epoch', '_scope_'}.union(*map(_arguments, loops))
        for key in values:
            if key not in known and values.get('type') in (None, *(c.__name__ for c in loops)):
                near = get_close_matches(key, known, 1, 0.6) or sorted(known - {'_scope_'})
                raise ValueError(f'nothing reads {name}.{key}; did you mean {" or ".join(near)}?')


def _check_schedule(cfg: Config) -> None:
    """Refuse lengths below 1, and schedules that end before the training or never begin."""
    loop = cfg.get('train_cfg') or {}
    for key in ('max_epochs', 'max_iters', 'val_interval'):
        if key in loop:
            check_positive_int(f'train_cfg.{key}', loop[key])
    for node in iter_dicts(cfg.get('param_scheduler')):
        _check_scheduler_arguments(node)
        key = 'max_epochs' if node.get('by_epoch', True) else 'max_iters'
        length, kind = loop.get(key), transform_type(node)
        begin, end = node.get('begin', 0), node.get('end', length)
        if end is not None and end <= begin:
            raise ValueError(f'param_scheduler: {kind} begins at {begin} and ends at {end}'
                             + ('' if 'end' in node else f', which is train_cfg.{key}')
                             + '; expected a later end; mmfreq new --epochs N sets all of them')
        if length and begin + node.get('total_steps', length) < min(end, length):
            raise ValueError(f'param_scheduler: {kind} has total_steps={node["total_steps"]}, but '
                             f'train_cfg.{key}={length}; expected the same')


def _check_scheduler_arguments(node: dict) -> None:
    known = _known_arguments(node)
    for key in node:
        if known and key not in known | {'type', '_scope_', 'convert_to_iter_based'}:
            near = get_close_matches(key, known, 1, 0.8) or sorted(known - {'optimizer', 'param_name'})
            raise ValueError(f'param_scheduler: {transform_type(node)} takes no {key}; expected '
                             f'{", ".join(near)}')


def _check_topk(cfg: Config) -> None:
    counts = []
    for node in iter_dicts(cfg.get('model')):
        if isinstance(node.get('head'), dict) and 'num_classes' in node['head']:
            counts.append(node['head']['num_classes'])
    for name in ('val_evaluator', 'test_evaluator'):
        for node in iter_dicts(cfg.get(name)):
            topk = node.get('topk') or 1
            if counts and counts[0] and np.max(topk) > counts[0]:
                raise ValueError(f'{name}: topk={topk} asks for more classes than '
                                 f'model.head.num_classes={counts[0]}; set {name}.topk=1')


# Options


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Merge ``--cfg-options`` into ``cfg`` in place.

    A variable of the config, such as ``freq`` or ``train_pipeline``, changes wherever the config
    has copied it. A new key at the top must be one that a Runner reads; below, it must not look
    like a misspelling of a key or an argument that is there.

    Raises:
        ValueError: A key that nothing reads; the message has the nearest one.
    """
    variables: dict[str, dict[str, Any]] = {}
    others = {}
    for key, value in options.items():
        top = key.partition('.')[0]
        if top in cfg and top not in _RUN_KEYS:
            numeric = top == 'freq' and key.endswith('.channels') and isinstance(value, int)
            variables.setdefault(top, {})[key] = str(value) if numeric else value
        else:
            others[key] = value
    for name, changes in variables.items():
        _override_variable(cfg, name, changes)
    for key in others:
        _check_key(cfg, key)
    cfg.merge_from_dict(others)


def _check_key(cfg: Config, key: str) -> None:
    """Refuse an unknown key at the top, and what looks like a misspelling below."""
    node: Any = cfg._cfg_dict
    top = key.partition('.')[0]
    if top not in node and top not in _RUN_KEYS:
        near = [f'{loader}.dataset.{top}' for loader in DATALOADERS
                if top in ((cfg.get(loader) or {}).get('dataset') or {})]
        near += [f'{loop}.{top}' for loop in _LOOPS if top in (cfg.get(loop) or {})]
        near = near or get_close_matches(top, [*node, *_RUN_KEYS], 1)
        raise ValueError(f'{key}: the config has no key {top!r}'
                         + (f'; did you mean {" and ".join(map(repr, near))}?' if near else ''))
    for part in key.split('.'):
        if isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict) and part in node:
            node = node[part]
        else:
            break
    if isinstance(node, dict) and part not in node and part != '_delete_':
        known = _known_arguments(node)
        near = get_close_matches(part, [*node, *known], 1, 0.8)
        if near and part not in known:
            raise ValueError(f'{key}: the config has no key {part!r} there; did you mean '
                             f'{near[0]!r}?')


def _known_arguments(node: dict) -> set[str]:
    """Return the arguments of the class that ``node`` names, where its registry is loaded."""
    kind, known = transform_type(node), set()
    for root in vars(registry).values():
        if kind and isinstance(root, registry.Registry):
            for child in (root, *root.children.values()):
                if kind in child.module_dict:
                    known |= _arguments(child.module_dict[kind])
    return known


def _arguments(kind: Any) -> set[str]:
    """Return the names of arguments of a function, or of a class and its bases."""
    makers = [c.__init__ for c in kind.__mro__[:-1]] if isinstance(kind, type) else [kind]
    names: set[str] = set()
    for maker in makers:
        names.update(inspect.signature(maker).parameters)
    return names - {'self', 'args', 'kwargs', 'runner', 'dataloader', 'evaluator'}


def _override_variable(cfg: Config, name: str, changes: dict[str, Any]) -> None:
    """Override a variable, such as ``freq``, and every copy that the config made of it."""
    old = deepcopy(cfg[name])
    for key in changes:
        _check_key(cfg, key)
    cfg.merge_from_dict(changes)
    if not _is_copied(cfg.text, name):  # what reads runner.cfg, such as a hook of the user's, has it
        return
    new = cfg[name]
    if not isinstance(old, (dict, list, tuple)):
        holders = [key for key in _holders(cfg._cfg_dict, old, '') if key != name]
        raise ValueError(f'{name}: nothing reads it any more, since the config has copied its value'
                         f'; override {", ".join(holders[:4]) or "the keys that are read"} instead')
    pairs = [(old, new)]
    if isinstance(old, (list, tuple)) and not name.endswith('_pipeline'):
        pairs += zip(old, new)
    for before, after in list(pairs):
        if isinstance(before, dict):  # freq of a preprocessor need not have the type
            pairs.append((_without_type(before), _without_type(after)))
    pairs = [(before, after) for before, after in pairs if before and before != after]
    replaced = _replaced({key: cfg[key] for key in cfg if key != name}, pairs)
    if pairs and replaced == {key: cfg[key] for key in cfg if key != name}:
        raise ValueError(f'{name}: the config has no copy of it, so that overriding it reaches '
                         'nothing')
    for key, value in replaced.items():
        cfg[key] = value


def _is_copied(text: str, name: str) -> bool:
    """Return whether the text of a config uses a variable; so it is taken to in a dumped one."""
    try:
        return bool(literal_config(text.partition('\n')[2]))  # behind the name of the file
    except ValueError:
        code = re.sub('#.*', '', text)
        return re.search(rf'\b{re.escape(name)}\b(?!\s*=[^=])', code) is not None


def _without_type(step: dict) -> dict:
    return {key: value for key, value in step.items() if key != 'type'}


def _holders(node: Any, value: Any, path: str) -> Iterator[str]:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in items:
        here = f'{path}.{key}' if path else str(key)
        if isinstance(child, (dict, list, tuple)):
            yield from _holders(child, value, here)
        elif child == value:
            yield here


def _replaced(node: Any, pairs: list[tuple[Any, Any]]) -> Any:
    """Return ``node`` with the second of each pair wherever the first stands."""
    for old, new in pairs:
        if type(node) is type(old) and node == old or isinstance(node, dict) and node == old:
            return deepcopy(new)
    if isinstance(node, dict):
        return {key: _replaced(child, pairs) for key, child in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_replaced(child, pairs) for child in node)
    return node


# Configs in checkpoints


def literal_config(text: str) -> dict[str, Any]:
    """Return the values of a dumped config without running it.

    Args:
        text (str): Assignments of literals and ``dict(...)`` calls, as ``Config.pretty_text``.

    Raises:
        ValueError: The text has something else.
    """
    try:
        values = {}
        for line in ast.parse(text).body:
            if not isinstance(line, ast.Assign) or not isinstance(line.targets[0], ast.Name):
                raise ValueError(f'line {line.lineno} is no assignment')
            values[line.targets[0].id] = _literal(line.value)
        return values
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f'not a dumped config ({error})') from error


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        made = {}
        for argument in node.args:
            made.update(_literal(argument))
        return made | {item.arg: _literal(item.value) for item in node.keywords}
    if isinstance(node, (ast.List, ast.Tuple)):
        items = map(_literal, node.elts)
        return list(items) if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict):
        return dict(zip(map(ast.literal_eval, node.keys), map(_literal, node.values)))
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):
        return float(node.id)
    return ast.literal_eval(node)
