"""Look into OpenMMLab configs: their pipelines, and the channels that these give."""
from typing import Any, Iterator, Optional

from mmengine.config import Config

from mmfreq.dct.channels import channel_indices
from mmfreq.dct.lazy_image import LAZY_RESIZES

DEFAULT_STRIDE = 4  # of FreqDetDataPreprocessor, in pixels
DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')

# The transforms that take pixels and lead to channels, the first of each way.
PIXELS_TO_CHANNELS = ('YCbCr', 'FusedBlockDCT')

# The single transforms that a FusedBlockDCT stands for, with the arguments that each takes of it.
_SINGLE = {
    'YCbCr': ('channel_order', ),
    'BlockDCT': ('block_size', 'upscale'),
    'ChannelSelect': ('channels', 'block_size'),
    'FreqNormalize': ('stats', 'block_size', 'dtype', 'scale'),
}


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

    A wrapper with a pipeline of its own, such as MultiImageMixDataset, counts; what it wraps has
    only the first steps.
    """
    if isinstance(node, dict) and node.get('pipeline'):
        return [node]
    found = []
    for child in _children(node):
        found += datasets_with_pipeline(child)
    return found


def pipelines(cfg: Config, dataloader: str) -> list[list[dict]]:
    """Return the pipelines of a dataloader's data sets; none if there is no such dataloader."""
    dataset = (cfg.get(dataloader) or {}).get('dataset')
    return [node['pipeline'] for node in datasets_with_pipeline(dataset)]


def transform_type(transform: dict) -> str:
    """Return the type name of a transform's config, without a scope prefix."""
    kind = transform.get('type', '')
    return (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]


def single_transforms(fused: dict) -> list[dict]:
    """Return the four single transforms that the config of a FusedBlockDCT stands for."""
    steps = []
    for kind, keys in _SINGLE.items():
        steps.append(dict(type=kind, **{key: fused[key] for key in keys if key in fused}))
    return steps


def stock_resize(step: dict) -> dict:
    """Return the stock transform's config for a LazyResize; any other step as it is."""
    if transform_type(step) != 'LazyResize':
        return step
    kept = {key: value for key, value in step.items() if key not in ('type', 'resize')}
    return dict(type=step['resize'], **kept)


def lazy_step(step: dict) -> Optional[dict]:
    """Return the LazyResize for a stock resize; None for any other step or interpolation."""
    kind = transform_type(step)
    default = 'bicubic' if kind == 'EfficientNetRandomCrop' else 'bilinear'
    if kind not in LAZY_RESIZES or step.get('interpolation', default) != 'bilinear':
        return None
    kept = {key: value for key, value in step.items() if key != 'type'}
    return dict(type='LazyResize', resize=step['type'], **kept)


def takes_lazy_image(step: dict) -> bool:
    """Return whether a step may come between LazyResize and the DCT: it slices, or looks at labels."""
    kind = transform_type(step)
    if kind == 'CenterCrop':
        return not step.get('auto_pad')
    return kind in ('RandomFlip', 'LoadAnnotations', 'FilterAnnotations')


def unfused(node: Any) -> Any:
    """Copy a pipeline, or what holds one, with the single transforms that its fused ones stand for.

    FusedBlockDCT becomes four transforms, LazyResize the stock one. Tuples stay tuples. In
    TestTimeAug, which lists the alternatives of each step, a FusedBlockDCT becomes four steps.
    """
    if isinstance(node, dict):
        made = {key: unfused(child) for key, child in stock_resize(node).items()}
        if transform_type(node) == 'TestTimeAug':
            made['transforms'] = _unfused_steps(node['transforms'])
        return made
    return _unfused_steps(node) if isinstance(node, (list, tuple)) else node


def _unfused_steps(steps: Any) -> Any:
    made = []
    for step in steps:
        alone = isinstance(step, (list, tuple)) and len(step) == 1  # in TestTimeAug
        child = step[0] if alone else step
        if isinstance(child, dict) and transform_type(child) == 'FusedBlockDCT':
            singles = single_transforms(child)
            made += [type(step)([single]) for single in singles] if alone else singles
        else:
            made.append(unfused(step))
    return type(steps)(made)


def preprocessor(cfg: Config) -> dict:
    """Return the config of the data preprocessor, innermost if one holds another; {} without."""
    holders = [node for node in iter_dicts(cfg.get('model')) if node.get('data_preprocessor')]
    found = (holders or [cfg])[0].get('data_preprocessor') or {}
    while found.get('data_preprocessor'):
        found = found['data_preprocessor']
    return found


def device_freq(cfg: Config) -> Optional[dict]:
    """Return ``freq`` of a preprocessor with ``placement='device'``; None if a pipeline does it.

    Without ``dtype`` and ``scale``, which the layer on the device leaves aside.
    """
    node = preprocessor(cfg)
    if node.get('placement') != 'device' or not node.get('freq'):
        return None
    return {key: value for key, value in node['freq'].items() if key not in ('dtype', 'scale')}


def network_steps(cfg: Config, pipeline: list[dict]) -> list[dict]:
    """Return a pipeline of ``cfg`` with the DCT in it, also where the device computes it."""
    freq = device_freq(cfg)
    steps = [dict(freq, type='FusedBlockDCT')] if freq else []
    return [*pipeline[:-1], *steps, *pipeline[-1:]]


def network_pipeline(cfg: Config, pipeline: list[dict]) -> list[dict]:
    """Return :func:`network_steps` with single DCT transforms for fused ones."""
    return unfused(network_steps(cfg, pipeline))


def dct_channels(pipeline: list[dict]) -> Optional[tuple[list[int], int]]:
    """Return a pipeline's channel numbers in order and its block_size; None without BlockDCT."""
    found = None
    for transform in iter_dicts(pipeline):
        block_size = transform.get('block_size', 8)
        if transform_type(transform) == 'BlockDCT':
            found = list(range(3 * block_size**2)), block_size
        elif transform_type(transform) == 'ChannelSelect':
            found = channel_indices(transform['channels'], block_size), block_size
    return found


def detection_stride(cfg: Config) -> Optional[int]:
    """Return the stride of a detector's FreqDetDataPreprocessor; None for no config of mmdet.

    Raises:
        ValueError: The preprocessor is a stock one, which takes the input's cells for pixels.
    """
    node = preprocessor(cfg)
    kind = transform_type(node)
    if cfg.get('default_scope') != 'mmdet' and 'Det' not in kind:
        return None
    if not kind.startswith('Freq'):
        raise ValueError('a frequency-domain detector expects data_preprocessor=dict('
                         f"type='FreqDetDataPreprocessor', ...), got {kind or 'none'}")
    return node.get('stride', DEFAULT_STRIDE)
