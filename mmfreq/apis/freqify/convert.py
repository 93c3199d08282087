"""Convert stock configs of mmpretrain and mmdet to frequency-domain ones, or refuse with a reason."""
import math
import re
import tempfile
from pathlib import Path
from typing import Any, Optional

from mmengine.config import Config

from mmfreq.apis.freqify.model import (
    BLOCK_SIZE,
    MODULES,
    convert_backbone,
    convert_preprocessors,
)
from mmfreq.apis.freqify.pipelines import CROPS, RESIZES, check_pipelines, convert_pipelines
from mmfreq.apis.freqify.trial import try_config
from mmfreq.config.checks import check_channels
from mmfreq.config.pipelines import DATALOADERS, iter_dicts, transform_type
from mmfreq.config.paths import config_path
from mmfreq.config.writer import child_text, plain_config, wrapped
from mmfreq.dct.channels import channel_indices
from mmfreq.dct.stats import named_sets
from mmfreq.files import atomic_write_text, check_not_input

_PACKERS = {'mmpretrain': 'PackInputs', 'mmdet': 'PackDetInputs'}
_DETECTION = 'photos-1333x800', 2  # shipped statistics for mmdet, and their upscale


def freqify(config: str, channels: str,
            stats: Optional[str] = None) -> tuple[dict[str, Any], list[str]]:
    """Return the frequency-domain version of a stock config.

    Images become larger (classification: every size in pixels; detection: the DCT upscales them),
    so that a block of 8x8 pixels covers the backbone's ``input_stride``: mostly 4x4 pixels of the
    stock network's image, hence twice as large, and 2x2 for MobileNetV2. The DCT goes right before
    the packer in every pipeline of the config.

    Args:
        config (str): ``mmpretrain::...``, ``mmdet::...``, or the path of a text-style config of
            either.
        channels (str): A named selection, such as ``'24S'``.
        stats (str, optional): Statistics of the channels. Defaults to None: the shipped ones for
            detection, or for the size nearest to that of the training crops.

    Returns:
        tuple[dict, list[str]]: The config as plain dicts, and what a reader has to know about it.

    Raises:
        ValueError: The config cannot be converted; the message says why.
    """
    target = _read(config)
    scope = target.get('default_scope')
    if scope not in MODULES:
        raise ValueError(f'expected default_scope to be one of {", ".join(MODULES)}, got {scope!r}')
    model = target.get('model')
    if not isinstance(model, dict):
        raise ValueError('expected a model')
    notes: list[str] = []
    if target.get('load_from'):
        notes.append(f'load_from keeps the stock RGB weights, {target["load_from"]}: they load '
                     'without what took the RGB pixels.')
    modules, stride = convert_backbone(model, len(channel_indices(channels)), scope, notes)
    convert_preprocessors(target, stride, notes)
    freq = _transform(target, channels, stats, BLOCK_SIZE // stride, notes)
    scale = BLOCK_SIZE // (stride * freq.get('upscale', 1))
    for key, value in target.items():
        if key != 'model':
            target[key] = convert_pipelines(value, freq, _PACKERS[scope], scale, key)
    check_pipelines(target, _PACKERS[scope])
    target['freq'] = freq
    _convert_hooks_and_datasets(target)
    imports = target.get('custom_imports') or {}
    known = imports.get('imports') or []
    known = [known] if isinstance(known, str) else known
    imports = {**imports, 'imports': list(dict.fromkeys([*modules, *known]))}
    target['custom_imports'] = imports
    return target, list(dict.fromkeys(notes))  # a preprocessor may stand in two places


def _convert_hooks_and_datasets(target: dict[str, Any]) -> None:
    """Check the classes of COCO data sets; draw predictions on image files instead of the input."""
    hooks = target.get('custom_hooks') or []
    checked = any(transform_type(hook) == 'NumClassCheckHook' for hook in hooks)
    for node in iter_dicts([target.get(name) for name in DATALOADERS]):
        if transform_type(node) == 'CocoDataset':
            node['type'] = 'CheckedCocoDataset'  # labels follow the annotation file's order
            if not checked:
                target['custom_hooks'] = [*hooks, dict(type='NumClassCheckHook')]
    hook = (target.get('default_hooks') or {}).get('visualization') or {}
    if transform_type(hook) == 'VisualizationHook':  # mmpretrain's, which draws on the input
        hook['type'] = 'FreqVisualizationHook'


def write_freqified(config: str, channels: str, out: Path,
                    stats: Optional[str] = None) -> list[str]:
    """Write the frequency-domain version of a stock config, once it has been built and tried.

    Arguments are those of :func:`freqify`, and the file ``out``, which inherits ``config``. Return
    what a reader has to know, as the file's comment does.

    Raises:
        ValueError: The config cannot be converted, or the result does not work; nothing is written.
    """
    check_not_input(out, config_path(config))
    target, notes = freqify(config, channels, stats)
    head = (f'{config.rpartition("/")[2]} on the DCT channels {channels}, written by '
            'tools/freqify.py.')
    comment = wrapped((head, *notes))
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, 'draft.py')
        draft.write_text(child_text(config, target, comment, draft.parent), encoding='utf-8')
        try:
            cfg, made = Config.fromfile(str(draft)), plain_config(draft)
        except Exception as error:
            raise ValueError(f'mmengine cannot read a config that inherits it ({error}); if it does '
                             f'not know the name, give the path: {config_path(config)}') from error
        if made != target:
            raise ValueError('it holds values that a config file cannot state')
    check_channels(cfg)
    try_config(cfg, Config.fromfile(str(config_path(config))))
    atomic_write_text(out, child_text(config, target, comment, out.parent))
    return notes


def freq_name(config: str, channels: str) -> str:
    """Return a name: ``resnet50_8xb32_in1k`` becomes ``resnet50-dct24s_8xb32_in1k``."""
    path = config_path(config)
    parts = path.stem.split('_')
    detection = plain_config(path).get('default_scope') == 'mmdet'
    parts[1 if detection and len(parts) > 1 else 0] += f'-dct{channels.lower()}'
    return '_'.join(parts)


def _read(config: str) -> dict[str, Any]:
    path = config_path(config)
    try:
        if path.suffix != '.py' or not Config._is_lazy_import(str(path)):
            return plain_config(path)
    except SyntaxError as error:  # of the look for imports; plain_config says all itself
        raise ValueError(f'it cannot be read: {type(error).__name__}: {error}') from error
    raise ValueError('it is a Python-style config (read_base or imports), which no text-style '
                     'config can inherit; give the text-style one, such as those that mmengine\'s '
                     'names package::file stand for')


def _transform(target: dict[str, Any], channels: str, stats: Optional[str], upscale: int,
               notes: list[str]) -> dict:
    """Return the DCT's config: detection upscales in the transform, classification before it."""
    freq = dict(type='FusedBlockDCT', channels=channels)
    if target['default_scope'] == 'mmpretrain':
        return dict(freq, stats=stats or _crop_stats(_crop_side(target) * upscale, notes))
    name, shipped_upscale = _DETECTION
    if not stats and upscale != shipped_upscale:
        notes.append(f'The statistics {name} are of images upscaled {shipped_upscale} times, here '
                     f'it is {upscale}: tools/dataset_stats.py computes your own.')
    return dict(freq, stats=stats or name, upscale=upscale)


def _crop_stats(side: int, notes: list[str]) -> str:
    """Return the shipped statistics of square crops nearest in size to ``side`` pixels."""
    sides = [int(name[len('photos-'):]) for name in named_sets()
             if re.fullmatch(r'photos-\d+', name)]
    nearest = min(sides, key=lambda known: abs(math.log(known / side)))
    if nearest != side:
        notes.append(f'The statistics photos-{nearest} are of {nearest}x{nearest} crops, the images '
                     f'here have {side} pixels a side: tools/dataset_stats.py computes your own.')
    return f'photos-{nearest}'


def _crop_side(target: dict[str, Any]) -> int:
    """Return the side that the last transform with a size gives the first loader's images."""
    side = 224
    loader = next((target[name] for name in DATALOADERS if target.get(name)), None)
    for step in iter_dicts(loader):
        kind = transform_type(step)
        for name in (*RESIZES.get(kind, ()), *CROPS.get(kind, ()))[:1]:
            size = step.get(name) or side
            side = max(size) if isinstance(size, (list, tuple)) else size
    return side
