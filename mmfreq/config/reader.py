"""Reading OpenMMLab configs: their pipelines, and whether the channels they select fit their model."""
from typing import Any, Iterator, Optional

from mmengine.config import Config

from mmfreq.dct.channels import channel_indices

DEFAULT_STRIDE = 4  # of FreqDetDataPreprocessor, in pixels
DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def iter_dicts(node: Any) -> Iterator[dict]:
    """Every dict inside ``node``, itself included, depth first."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, (dict, list, tuple)):
        for child in (node.values() if isinstance(node, dict) else node):
            yield from iter_dicts(child)


def datasets_with_pipeline(node: Any) -> list[dict]:
    """The configs of the data sets inside ``node`` that have a pipeline, outermost only.

    A wrapper with its own pipeline, such as MultiImageMixDataset, counts; what it wraps has only the first steps.
    """
    if isinstance(node, dict) and node.get('pipeline'):
        return [node]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ()
    return [found for child in children for found in datasets_with_pipeline(child)]


def pipelines(cfg: Config, dataloader: str) -> list[list[dict]]:
    """The pipelines of a dataloader's data sets; empty if the config has no such dataloader."""
    return [node['pipeline'] for node in datasets_with_pipeline((cfg.get(dataloader) or {}).get('dataset'))]


def transform_type(transform: dict) -> str:
    """Type name of a transform's config, without a scope prefix."""
    kind = transform.get('type', '')
    return (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]


def single_transforms(fused: dict) -> list[dict]:
    """The four single transforms that the config of a FusedBlockDCT stands for."""
    arguments = (('YCbCr', ('channel_order', )), ('BlockDCT', ('block_size', 'upscale')),
                 ('ChannelSelect', ('channels', 'block_size')),
                 ('FreqNormalize', ('stats', 'block_size', 'dtype', 'scale')))
    return [dict(type=kind, **{key: fused[key] for key in keys if key in fused}) for kind, keys in arguments]


def unfused(node: Any) -> Any:
    """A pipeline, or whatever holds one, with the four single transforms for every FusedBlockDCT in its lists."""
    if isinstance(node, dict) and transform_type(node) == 'TestTimeAug':
        return {**node, 'transforms': _unfused_alternatives(node['transforms'])}
    if isinstance(node, dict):
        return {key: unfused(child) for key, child in node.items()}
    if not isinstance(node, (list, tuple)):
        return node
    return [step for child in node for step in (
        single_transforms(child) if isinstance(child, dict) and transform_type(child) == 'FusedBlockDCT'
        else [unfused(child)])]


def _unfused_alternatives(lists: list[list[dict]]) -> list[list[dict]]:
    """The transforms of TestTimeAug, a list of alternatives for each step: a FusedBlockDCT makes four steps."""
    return [made for step in lists for made in (
        [[single] for single in single_transforms(step[0])]
        if [transform_type(one) for one in step] == ['FusedBlockDCT'] else [unfused(step)])]


def device_freq(cfg: Config) -> Optional[dict]:
    """What a config's preprocessor makes of photos on the network's device (``freq``); None if the pipeline does it."""
    nodes = [*iter_dicts(cfg.get('model')), *iter_dicts(cfg.get('data_preprocessor'))]
    return next((dict(node['freq']) for node in nodes if node.get('placement') == 'device' and node.get('freq')), None)


def network_pipeline(cfg: Config, pipeline: list[dict]) -> list[dict]:
    """A pipeline of ``cfg`` with the single DCT transforms: for a fused one, and for those on the device."""
    freq = device_freq(cfg)
    steps = [dict(freq, type='FusedBlockDCT')] if freq else []
    return unfused([*pipeline[:-1], *steps, *pipeline[-1:]])


def dct_channels(pipeline: list[dict]) -> Optional[tuple[list[int], int]]:
    """Channel numbers that a pipeline gives, in order, and the side of its blocks; None without :class:`BlockDCT`."""
    found = None
    for transform in iter_dicts(pipeline):
        if transform_type(transform) == 'BlockDCT':
            block_size = transform.get('block_size', 8)
            found = list(range(3 * block_size**2)), block_size
        elif transform_type(transform) == 'ChannelSelect':
            block_size = transform.get('block_size', 8)
            found = channel_indices(transform['channels'], block_size), block_size
    return found


def pipeline_channels(pipeline: list[dict]) -> int:
    """Number of channels that a pipeline gives: 3 without :class:`BlockDCT`."""
    found = dct_channels(pipeline)
    return len(found[0]) if found else 3


def pipeline_blocks(pipeline: list[dict]) -> tuple[int, int]:
    """``block_size`` and ``upscale`` of a pipeline; 1 and 1 without :class:`BlockDCT`."""
    blocks = 1, 1
    for transform in iter_dicts(pipeline):
        if transform_type(transform) == 'BlockDCT':
            blocks = transform.get('block_size', 8), transform.get('upscale', 1)
    return blocks


def detection_stride(cfg: Config) -> Optional[int]:
    """Stride of a detector's FreqDetDataPreprocessor; None if ``cfg`` is no config of mmdet.

    Raises:
        ValueError: The preprocessor is a stock one, which takes the input's cells for pixels.
    """
    nodes = [node for node in [*iter_dicts(cfg.get('model')), *iter_dicts(cfg.get('data_preprocessor'))]
             if transform_type(node).endswith('DataPreprocessor')]
    if cfg.get('default_scope') != 'mmdet' and not any('Det' in transform_type(node) for node in nodes):
        return None
    strides = [node.get('stride', DEFAULT_STRIDE) for node in nodes if transform_type(node).startswith('Freq')]
    if not strides:
        raise ValueError("a frequency-domain detector expects data_preprocessor=dict(type='FreqDetDataPreprocessor', "
                         f'...), got {", ".join(map(transform_type, nodes)) or "none"}')
    return strides[0]


def check_channels(cfg: Config) -> None:
    """Raises ValueError if a pipeline does not give what a frequency-domain backbone takes.

    Args:
        cfg (Config): Backbones whose type starts with ``Freq`` are checked against every dataloader's pipelines: the
            number of channels, and in mmdet the preprocessor and the pixels that a cell covers, its ``stride``.
    """
    for node in iter_dicts(cfg.get('model')):
        expected = node.get('in_channels')
        if not transform_type(node).startswith('Freq') or expected is None:
            continue
        stride = detection_stride(cfg)
        for name in DATALOADERS:
            for pipeline in pipelines(cfg, name):
                if device_freq(cfg) and dct_channels(unfused(pipeline)):
                    raise ValueError("the preprocessor's placement='device' expects photos, but the pipeline of "
                                     f'{name} has DCT transforms')
                pipeline = network_pipeline(cfg, pipeline)
                if pipeline_channels(pipeline) != expected:
                    raise ValueError(f'{transform_type(node)} expects in_channels={expected}, but the pipeline of '
                                     f'{name} gives {pipeline_channels(pipeline)} channels')
                block_size, upscale = pipeline_blocks(pipeline)
                if stride is not None and block_size != stride * upscale:
                    raise ValueError(f'FreqDetDataPreprocessor expects block_size / upscale to be its stride={stride}, '
                                     f'but the DCT in the pipeline of {name} has block_size={block_size} and '
                                     f'upscale={upscale}')
