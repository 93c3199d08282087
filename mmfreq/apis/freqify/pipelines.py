"""Put the DCT into pipelines: sizes in pixels grow, the transform goes before the packer."""
from typing import Any

from mmfreq.config.pipelines import (
    DATALOADERS,
    datasets_with_pipeline,
    dct_channels,
    iter_dicts,
    lazy_step,
    stock_resize,
    takes_lazy_image,
    transform_type,
    unfused,
)

# Transforms of mmpretrain that give an image its size: arguments in pixels, with their defaults.
RESIZES: dict[str, dict[str, Any]] = {
    'RandomResizedCrop': dict(scale=None),
    'EfficientNetRandomCrop': dict(scale=None, crop_padding=32),
    'EfficientNetCenterCrop': dict(crop_size=None, crop_padding=32),
    'Resize': dict(scale=None),
    'ResizeEdge': dict(scale=None),
}

# Transforms whose arguments in pixels refer to the image as it comes, resized or not.
CROPS: dict[str, tuple[str, ...]] = {
    'CenterCrop': ('crop_size', ),
    'RandomCrop': ('crop_size', 'padding'),
    'Pad': ('size', 'size_divisor'),
}
_EFFECTS: dict[str, tuple[str, ...]] = {
    'Cutout': ('shape', 'magnitude_range'),
    'GaussianBlur': ('radius', 'magnitude_range'),
}
# Transforms that leave pixels of another type than uint8.
_OTHER_PIXELS = ('PhotoMetricDistortion', 'CopyPaste')


def convert_pipelines(node: Any, freq: dict, packer: str, scale: int, path: str) -> Any:
    """Convert every pipeline inside ``node``: a list or tuple of transforms that ends in a packer.

    Args:
        node (Any): A value of the config. Dicts are changed in place; lists and tuples, which keep
            their type, are returned anew.
        freq (dict): Config of the transform that goes before the packer.
        packer (str): Type of the host's packer.
        scale (int): Factor for sizes in pixels.
        path (str): Key of ``node`` in the config, for errors.

    Raises:
        ValueError: A pipeline cannot be converted; the message says why.
    """
    if isinstance(node, dict):
        if transform_type(node) == 'TestTimeAug':
            node['transforms'] = _convert_views(node['transforms'], freq, packer, scale, path)
        else:
            for key, child in node.items():
                node[key] = convert_pipelines(child, freq, packer, scale, f'{path}.{key}')
            _round_what_is_wrapped(node)
    elif isinstance(node, (list, tuple)):
        steps = [convert_pipelines(child, freq, packer, scale, path) for child in node]
        packers = [step for step in steps if isinstance(step, dict) and _is_packer(step)]
        if packers:
            _convert_steps(steps, packers, steps[-1], packer, scale, path)
            rounding = [dict(type='RoundPixels')] if _has_other_pixels(steps) else []
            steps[-1:-1] = [*rounding, dict(freq)]
            _resize_lazily(steps)
        elif _has_other_pixels(steps[:-1]):
            _round_in_views(steps[-1])
        return type(node)(steps)
    return node


def _round_what_is_wrapped(node: dict) -> None:
    """Round pixels before the DCT of a data set that goes on with what another's pipeline gives."""
    steps = node.get('pipeline')
    if steps and _has_other_pixels(node.get('dataset')) and not _rounds(steps):
        before = map(stock_resize, steps[:-2])
        node['pipeline'] = type(steps)([*before, dict(type='RoundPixels'), *steps[-2:]])


def _resize_lazily(steps: list) -> None:
    """Leave a resize to the FusedBlockDCT before the packer, where nothing between needs pixels."""
    at = len(steps) - 3
    while at > 0 and takes_lazy_image(steps[at]):
        at -= 1
    lazy = lazy_step(steps[at]) if at >= 0 and isinstance(steps[at], dict) else None
    if lazy and transform_type(steps[-2]) == 'FusedBlockDCT':
        steps[at] = lazy


def _convert_views(views: Any, freq: dict, packer: str, scale: int, path: str) -> Any:
    """Convert the transforms of TestTimeAug: a list of alternatives for each step."""
    packers = [step for steps in views for step in steps if _is_packer(step)]
    if not packers or any(not _is_packer(step) for step in views[-1]):
        raise ValueError(f'{path}: expected the last transforms of TestTimeAug to be {packer}, got '
                         f'{", ".join(map(transform_type, views[-1]))}')
    _convert_steps(views, packers, views[-1][-1], packer, scale, path)
    rounding = [[dict(type='RoundPixels')]] if _has_other_pixels(views) else []
    return type(views)([*views[:-1], *rounding, [dict(freq)], views[-1]])


def _round_in_views(last: Any) -> None:
    """Round pixels before the DCT of TestTimeAug, if ``last`` is one whose loader may make others."""
    for node in iter_dicts(last):
        views = node.get('transforms', ()) if transform_type(node) == 'TestTimeAug' else ()
        if views and not _rounds(views):
            node['transforms'] = type(views)([*views[:-2], [dict(type='RoundPixels')], *views[-2:]])


def _has_other_pixels(steps: Any) -> bool:
    """Whether a transform may give the DCT pixels that are not uint8."""
    return any(transform_type(step) in _OTHER_PIXELS or step.get('to_float32')
               for step in iter_dicts(steps))


def _rounds(steps: Any) -> bool:
    return any(transform_type(step) == 'RoundPixels' for step in iter_dicts(steps))


def _is_packer(step: dict) -> bool:
    return transform_type(step).startswith('Pack')


def _convert_steps(steps: Any, packers: list[dict], last: Any, packer: str, scale: int,
                   path: str) -> None:
    for step in packers:
        if transform_type(step) != packer:
            raise ValueError(f'{path}: the pipeline packs with {transform_type(step)}; only '
                             f'{packer} is known to take DCT channels')
    if packers[-1] is not last:
        raise ValueError(f'{path}: expected {packer} to be the last transform, got '
                         f'{transform_type(last)} behind it, which would get DCT channels')
    _check_colors_and_labels(steps, path)
    if scale != 1:
        _scale_sizes(steps, scale, path)


def _check_colors_and_labels(steps: Any, path: str) -> None:
    """Refuse images that leave BGR, and pipelines with nothing but segmentation maps to learn."""
    rgb, loads = False, []
    for step in iter_dicts(steps):
        kind = transform_type(step)
        rgb ^= bool(kind in ('NumpyToPIL', 'ToPIL') and step.get('to_rgb') or
                    kind in ('PILToNumpy', 'ToNumpy') and step.get('to_bgr'))
        if kind == 'LoadAnnotations':
            loads.append(step.get('with_bbox', True) or step.get('with_mask', False))
    if rgb:
        raise ValueError(f'{path}: the image is RGB before the packer, by NumpyToPIL(to_rgb) '
                         'without PILToNumpy(to_bgr) or the reverse; the DCT expects BGR')
    if loads and not any(loads):
        raise ValueError(f'{path}: only segmentation maps are loaded; boxes or masks are expected')


def _scale_sizes(steps: Any, scale: int, path: str) -> None:
    """Multiply what resizes the image, and the sizes in pixels behind it, in place."""
    resized = False
    for step in iter_dicts(steps):
        kind = transform_type(step)
        if '/' in kind:
            raise ValueError(f'{path}: {kind} is not a transform of mmpretrain: which of its '
                             'arguments are sizes in pixels is not known')
        if kind in CROPS and not resized:
            raise ValueError(f'{path}: {kind} crops or pads images that nothing has resized before, '
                             'so that nothing makes them larger')
        sizes = dict(RESIZES.get(kind, {}))
        resized = resized or kind in RESIZES
        if resized:
            sizes.update(dict.fromkeys((*CROPS.get(kind, ()), *_EFFECTS.get(kind, ()))))
        for name, default in sizes.items():
            if step.get(name, default) is not None:
                step[name] = _times(step.get(name, default), scale)
    if not resized:
        raise ValueError(f'{path}: expected a transform that resizes the image, one of '
                         f'{", ".join(RESIZES)}')


def _times(size: Any, scale: int) -> Any:
    """Multiply a size or several; -1 (as the other side demands) and None stay."""
    if isinstance(size, (list, tuple)):
        return type(size)(_times(side, scale) for side in size)
    return size if size is None or size == -1 else size * scale


def check_pipelines(target: dict[str, Any], packer: str) -> None:
    """Raise ValueError unless there is a loader, and the pipelines of all loaders have the DCT."""
    if not any(target.get(name) for name in DATALOADERS):
        raise ValueError(f'expected a loader with a pipeline, one of {", ".join(DATALOADERS)}; the '
                         'config has none')
    for name in DATALOADERS:
        loader = target.get(name)
        found = datasets_with_pipeline(loader.get('dataset')) if isinstance(loader, dict) else []
        if loader and not found:
            raise ValueError(f'{name}: expected a data set with a pipeline')
        for dataset in found:
            if dct_channels(unfused(dataset['pipeline'])) is None:
                raise ValueError(f'{name}: expected a pipeline that ends in {packer}, got '
                                 f'{" -> ".join(map(transform_type, dataset["pipeline"]))}')
