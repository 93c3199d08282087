"""Convert stock configs of mmpretrain and mmdet to frequency-domain ones."""
import math
import re
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any, Optional

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmfreq.apis.freqify.model import (
    BLOCK_SIZE,
    MODULES,
    convert_backbone,
    convert_preprocessors,
    keep_backbone,
)
from mmfreq.apis.freqify.pipelines import CROPS, RESIZES, convert_pipelines
from mmfreq.apis.freqify.trial import try_config
from mmfreq.apis.measure import build_model
from mmfreq.config.checks import check_config
from mmfreq.config.paths import config_path
from mmfreq.config.pipelines import (
    DATALOADERS,
    DEFAULT_STRIDE,
    input_specs,
    iter_dicts,
    preprocessor,
    transform_type,
    with_imports,
)
from mmfreq.config.writer import beside, child_text, plain_config, wrapped
from mmfreq.dct.channels import NATIVE_NAMES, channel_indices
from mmfreq.dct.stats import named_sets
from mmfreq.engine.checkpoints import load_checked
from mmfreq.errors import RefusedError
from mmfreq.files import atomic_save, atomic_write_text, check_not_input
from mmfreq.input_spec import META_KEY

_NATIVE = 'imagenette-224-4x4'  # shipped statistics


def freqify(config: str, channels: str, stats: Optional[str] = None,
            keep: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Return the frequency-domain version of a stock config, and sentences for its reader.

    A block of 8x8 pixels must cover ``input_stride`` pixels of the stock image, mostly 4x4, for
    MobileNetV2 2x2. Images therefore become larger: in classification, all sizes in pixels are
    multiplied; in detection, the DCT upscales. It precedes the packer in every pipeline. Native
    blocks of 4x4 pixels need no larger image.

    Args:
        config (str): ``mmpretrain::...``, ``mmdet::...``, or the path of a text-style config.
        channels (str): A named selection, such as ``'24S'`` or, of native blocks, ``'24N'``.
        stats (str, optional): Statistics of the channels. Defaults to None: the shipped ones for
            detection, or for the size nearest to that of the training crops.
        keep (bool): Whether the network keeps the function of stock weights, as it always does with
            native blocks. Defaults to False: it loses its stem, and is trained.

    Raises:
        RefusedError: The config cannot be converted; the message has the reason.
    """
    path = config_path(config)
    if Config._is_lazy_import(str(path)):
        raise RefusedError(f'{config}: expected a text-style config, got one of the new style')
    target, notes = plain_config(path), []
    scope = target.get('default_scope')
    if scope not in MODULES:
        raise RefusedError(f'default_scope: expected {" or ".join(MODULES)}, got {scope}')
    model, native = target.get('model') or {}, channels in NATIVE_NAMES
    pixels, stride = dict(preprocessor(Config(target))), DEFAULT_STRIDE
    if not keep and not native:
        modules, stride = convert_backbone(model, len(channel_indices(channels)), scope)
    freq = dict(type='FusedBlockDCT', channels=channels, stats=stats or _NATIVE, block_size=4) if (
        native) else _transform(target, channels, stats, BLOCK_SIZE // stride, notes)
    if keep or native:
        modules = keep_backbone(model, scope, freq, pixels)
    convert_preprocessors(target, stride, notes)
    scale = freq.get('block_size', BLOCK_SIZE) // (stride * freq.get('upscale', 1))
    for key, value in target.items():
        if key != 'model':
            target[key] = convert_pipelines(value, freq, scale, key)
    target['freq'] = freq
    _convert_hooks_and_datasets(target)
    target['custom_imports'] = with_imports(target.get('custom_imports'), modules)
    cfg = Config(target)
    check_config(cfg)
    if not input_specs(cfg):
        raise RefusedError(f'expected a pipeline in one of {", ".join(DATALOADERS)}')
    return target, list(dict.fromkeys(notes))  # a preprocessor may stand in two places


def _convert_hooks_and_datasets(target: dict[str, Any]) -> None:
    """Save the input in checkpoints, check classes of COCO data sets, draw on image files."""
    hooks = target['default_hooks'] = dict(target.get('default_hooks') or {})
    hooks['input_spec'] = dict(type='InputSpecHook')
    drawing = hooks.get('visualization') or {}
    if transform_type(drawing) == 'VisualizationHook':  # mmpretrain's, which draws on the input
        hooks['visualization'] = dict(drawing, type='FreqVisualizationHook')
    custom = target.get('custom_hooks') or []
    checked = any(transform_type(hook) == 'NumClassCheckHook' for hook in custom)
    for node in iter_dicts([target.get(name) for name in DATALOADERS]):
        if transform_type(node) == 'CocoDataset':
            node['type'] = 'CheckedCocoDataset'  # labels follow the annotation file's order
            if not checked:
                target['custom_hooks'] = [*custom, dict(type='NumClassCheckHook')]


def write_freqified(config: str, channels: str, out: Path, stats: Optional[str] = None,
                    weights: Optional[str] = None) -> list[str]:
    """Try the frequency-domain version of a stock config; write it as a config that inherits it.

    Arguments are those of :func:`freqify`, the file ``out``, and a checkpoint of the stock config.
    The converted checkpoint is written beside ``out``, as ``.pth``. Return the sentences for the reader,
    which ``out`` has as a comment. If anything raises an error, nothing is written.
    """
    path = config_path(config)
    check_not_input(out, path)
    target, notes = freqify(config, channels, stats, keep=weights is not None)
    name = config.rpartition('/')[2]
    comment = wrapped((f'{name} on the DCT channels {channels}, by tools/freqify.py.', *notes))
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, 'draft.py')
        draft.write_text(child_text(config, target, comment, draft.parent), encoding='utf-8')
        if plain_config(draft) != target:
            raise RefusedError('the config has values that a text-style config cannot state')
        cfg = Config.fromfile(str(draft))
        try_config(cfg, Config.fromfile(str(path)))
    if weights is not None:
        notes = [*notes, _carry_over(cfg, weights, out.with_suffix('.pth'))]
        target['load_from'] = str(out.with_suffix('.pth'))  # a training starts from it
    names = beside(out) if weights else {}
    atomic_write_text(out, child_text(config, target, comment, out.parent, names))
    return notes


def freqified_name(config: str, channels: str) -> str:
    """``resnet101_8xb32_in1k.py`` -> ``resnet101-dct24s_8xb32_in1k.py``."""
    first, *rest = config_path(config).stem.split('_')
    return '_'.join([f'{first}-dct{channels.lower()}', *rest]) + '.py'


def _carry_over(cfg: Config, weights: str, out: Path) -> str:
    """Write a stock checkpoint as one of ``cfg``; return a sentence about the changes."""
    check_not_input(out, weights)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build_model(deepcopy(cfg))
    checkpoint = load_checked(model, weights, cfg)
    state, stock = model.state_dict(), checkpoint.get('state_dict', checkpoint)
    spec = next(iter(input_specs(cfg).values()))
    meta = {**(checkpoint.get('meta') or {}), META_KEY: spec.to_dict()}
    atomic_save(out, dict(meta=meta, state_dict=state))
    same = {key for key in state if key in stock and torch.equal(state[key], stock[key])}
    folded = sorted(key for key in state.keys() - same if key.startswith('backbone.'))
    done = f'folded into {" and ".join(folded)}' if folded else 'unpacked in front of the backbone'
    return f'The channels are {done}; {len(same)} of {len(state)} tensors are those of {weights}.'


def _transform(target: dict[str, Any], channels: str, stats: Optional[str], upscale: int,
               notes: list[str]) -> dict[str, Any]:
    """Return the DCT's config. Detection upscales in the transform, classification before it."""
    if target['default_scope'] == 'mmdet':
        name, fits, arguments = 'photos-1333x800', upscale == 2, dict(upscale=upscale)
    else:
        side = _crop_side(target) * upscale
        sides = [int(name[7:]) for name in named_sets() if re.fullmatch(r'photos-\d+', name)]
        nearest = min(sides, key=lambda known: abs(math.log(known / side)))
        name, fits, arguments = f'photos-{nearest}', nearest == side, {}
    if not stats and not fits:
        notes.append(f'The statistics {name} are of images of another size: tools/dataset_stats.py '
                     'computes your own.')
    return dict(type='FusedBlockDCT', channels=channels, stats=stats or name, **arguments)


def _crop_side(target: dict[str, Any]) -> int:
    """Return the longer side that the last transform with a size sets in the first dataloader."""
    side = 224
    loader = next((target[name] for name in DATALOADERS if target.get(name)), None)
    for step in iter_dicts(loader):
        if transform_type(step) in (*RESIZES, *CROPS):
            size = step.get('scale') or step.get('crop_size') or step.get('size') or side
            side = max(size) if isinstance(size, (list, tuple)) else size
    return side
