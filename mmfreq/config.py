"""Reading OpenMMLab configs: their pipelines, and whether the channels they select fit their model."""
from typing import Any, Iterator

from mmengine.config import Config

from mmfreq.channels import channel_indices

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def iter_dicts(node: Any) -> Iterator[dict]:
    """Every dict inside ``node``, itself included, depth first."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, (dict, list, tuple)):
        for child in (node.values() if isinstance(node, dict) else node):
            yield from iter_dicts(child)


def pipelines(cfg: Config, dataloader: str) -> list[list[dict]]:
    """The pipelines of a dataloader's dataset, wrapped datasets included; empty without such a dataloader."""
    dataset = (cfg.get(dataloader) or {}).get('dataset')
    return [node['pipeline'] for node in iter_dicts(dataset) if 'pipeline' in node]


def transform_type(transform: dict) -> str:
    """Type name of a transform's config, without a scope prefix."""
    kind = transform.get('type', '')
    return (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]


def pipeline_channels(pipeline: list[dict]) -> int:
    """Number of channels that a pipeline gives: 3 without :class:`BlockDCT`."""
    channels = 3
    for transform in iter_dicts(pipeline):
        if transform_type(transform) == 'BlockDCT':
            channels = 3 * transform.get('block_size', 8)**2
        elif transform_type(transform) == 'ChannelSelect':
            channels = len(channel_indices(transform['channels'], transform.get('block_size', 8)))
    return channels


def check_channels(cfg: Config) -> None:
    """Raises ValueError if a pipeline does not give as many channels as a frequency-domain backbone takes.

    Args:
        cfg (Config): Backbones whose type starts with ``Freq`` are checked against every dataloader's pipelines.
    """
    for node in iter_dicts(cfg.get('model')):
        expected = node.get('in_channels')
        if not transform_type(node).startswith('Freq') or expected is None:
            continue
        for name in DATALOADERS:
            for pipeline in pipelines(cfg, name):
                if pipeline_channels(pipeline) != expected:
                    raise ValueError(f'{transform_type(node)} expects in_channels={expected}, but the pipeline of '
                                     f'{name} gives {pipeline_channels(pipeline)} channels')
