"""Put the DCT into pipelines: enlarge sizes in pixels, insert the transform before the packer."""
from typing import Any

from mmfreq.config.pipelines import iter_dicts, lazy_step, takes_lazy_image, transform_type
from mmfreq.errors import RefusedError

# Transforms of mmpretrain that resize the image: arguments in pixels, with their defaults.
RESIZES: dict[str, dict[str, Any]] = {
    'RandomResizedCrop': dict(scale=None),
    'EfficientNetRandomCrop': dict(scale=None, crop_padding=32),
    'EfficientNetCenterCrop': dict(crop_size=None, crop_padding=32),
    'Resize': dict(scale=None),
    'ResizeEdge': dict(scale=None),
}

# Transforms whose arguments in pixels refer to the image that they get, resized or not.
CROPS = {
    'CenterCrop': ('crop_size', ),
    'RandomCrop': ('crop_size', 'padding'),
    'Pad': ('size', 'size_divisor'),
}
_EFFECTS = {'Cutout': ('shape', 'magnitude_range'), 'GaussianBlur': ('radius', 'magnitude_range')}
_OTHER_PIXELS = ('PhotoMetricDistortion', 'CopyPaste')  # may return another type than uint8


def convert_pipelines(node: Any, freq: dict, scale: int, path: str, rounds: bool = False) -> Any:
    """Convert every pipeline inside ``node``: a list or tuple of transforms that ends in a packer.

    ``freq`` is inserted before the packer, and sizes in pixels are multiplied by ``scale``. Dicts are
    changed in place. ``path`` is the key of ``node``, for errors, and ``rounds`` says whether earlier
    steps may return other pixels than uint8.
    """
    if isinstance(node, dict):
        wraps = _has_other_pixels(node.get('dataset'))
        for key, child in node.items():
            is_views = key == 'transforms' and transform_type(node) == 'TestTimeAug'
            if is_views and _packs(child[-1][0]):
                node[key] = _with_dct(child, freq, scale, path, rounds)
            else:
                rounds_child = wraps and key == 'pipeline'
                node[key] = convert_pipelines(child, freq, scale, f'{path}.{key}', rounds_child)
    elif isinstance(node, (list, tuple)):
        rounds = rounds or _has_other_pixels(node)
        node = type(node)(convert_pipelines(child, freq, scale, path, rounds) for child in node)
        if node and _packs(node[-1]):
            return _with_dct(node, freq, scale, path, rounds)
    return node


def _with_dct(steps: Any, freq: dict, scale: int, path: str, rounds: bool) -> Any:
    """Convert the steps of a pipeline, or those of TestTimeAug, each a list of alternatives."""
    _check_colors(steps, path)
    if scale != 1:
        _scale_sizes(steps, scale, path)
    rounding = [dict(type='RoundPixels')] if rounds or _has_other_pixels(steps) else []
    before, dct = list(steps[:-1]), [*rounding, dict(freq)]
    if not isinstance(steps[-1], dict):
        dct = [[step] for step in dct]
    elif not rounding and freq.get('block_size') != 4:  # native blocks have the stock pixels
        _resize_lazily(before)
    return type(steps)([*before, *dct, steps[-1]])


def _has_other_pixels(steps: Any) -> bool:
    """Return whether a transform may return pixels of another type than uint8."""
    return any(transform_type(step) in _OTHER_PIXELS or step.get('to_float32')
               for step in iter_dicts(steps))


def _packs(step: Any) -> bool:
    return isinstance(step, dict) and transform_type(step).startswith('Pack')


def _resize_lazily(steps: list) -> None:
    """Leave the last resize to the FusedBlockDCT that follows, if nothing after it needs pixels."""
    at = len(steps) - 1
    while at > 0 and takes_lazy_image(steps[at]):
        at -= 1
    if at >= 0:
        steps[at] = lazy_step(steps[at]) or steps[at]


def _check_colors(steps: Any, path: str) -> None:
    """Refuse images that are not BGR."""
    rgb = False
    for step in iter_dicts(steps):
        kind = transform_type(step)
        rgb ^= bool(kind in ('NumpyToPIL', 'ToPIL') and step.get('to_rgb') or
                    kind in ('PILToNumpy', 'ToNumpy') and step.get('to_bgr'))
    if rgb:
        raise RefusedError(f'{path}: the DCT expects BGR, but NumpyToPIL or PILToNumpy leave RGB')


def _scale_sizes(steps: Any, scale: int, path: str) -> None:
    """Multiply the sizes in pixels of the first resize and of all later transforms, in place."""
    resized, expected = False, f'{path}: expected a transform that resizes, in {", ".join(RESIZES)}'
    for step in iter_dicts(steps):
        kind = transform_type(step)
        resized = resized or kind in RESIZES
        if '/' in kind or kind in CROPS and not resized:
            raise RefusedError(f'{expected}, got {kind}')
        sizes = dict(RESIZES.get(kind, {}))
        if resized:
            sizes.update(dict.fromkeys((*CROPS.get(kind, ()), *_EFFECTS.get(kind, ()))))
        for name, default in sizes.items():
            if step.get(name, default) is not None:
                step[name] = _times(step.get(name, default), scale)
    if not resized:
        raise RefusedError(expected)


def _times(size: Any, scale: int) -> Any:
    """Multiply one or several sizes; -1 (the other side decides) and None stay."""
    if isinstance(size, (list, tuple)):
        return type(size)(_times(side, scale) for side in size)
    return size if size in (None, -1) else size * scale
