"""Learn which channels a trained network needs, and carry it over to them."""
import math
import random
import sys
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS
from mmengine.runner import CheckpointLoader, Runner
from torch.utils.data import Dataset
from tqdm import tqdm

from mmfreq.apis.freqify.convert import freqified_name, write_freqified
from mmfreq.apis.inference import Model
from mmfreq.apis.measure import build_model
from mmfreq.apis.runs import read_config
from mmfreq.apis.terminal import say_failed
from mmfreq.config.pipelines import input_specs, iter_dicts, pipelines, transform_type
from mmfreq.engine.hooks.input_spec import leaves
from mmfreq.errors import RefusedError
from mmfreq.files import atomic_save
from mmfreq.input_spec import META_KEY
from mmfreq.selection.frozen import selection_distances, static_rates, train_gate
from mmfreq.selection.gate import ChannelGate
from mmfreq.selection.hook import halves_of
from mmfreq.selection.rates import OnRates

MOST_IMAGES = 12  # in a batch
TRIES = 10  # images, until one can be read
COMPARED = 20  # batches on which selections are compared


class ImageFiles(Dataset):
    """Image files without labels, as a pipeline packs them."""

    def __init__(self, files: Sequence[str], pipeline: list[dict]) -> None:
        self.files = files
        self.pipeline = Compose([step for step in pipeline
                                 if transform_type(step) != 'LoadAnnotations'])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return what the pipeline makes of an image, or of one of the next if it cannot be read."""
        for attempt in range(TRIES):
            number = (index + attempt) % len(self)
            try:
                return self.pipeline(dict(img_path=self.files[number], img_id=number))
            except Exception as error:  # a damaged image does not end the others
                failure = error
                say_failed(self.files[number], error)
        raise failure


def with_all_channels(config: str, checkpoint: str, channels: str, out: Path) -> tuple[str, str]:
    """Return a config and a checkpoint of many DCT channels.

    Those of pixels are carried over to ``channels``, and written into a folder of that name in
    ``out``. Others are the result themselves.
    """
    if any(spec.channels for spec in input_specs(read_config(config)).values()):
        return config, checkpoint
    path = out / channels / freqified_name(config, channels)
    write_freqified(config, channels, path, weights=checkpoint)
    return str(path), str(path.with_suffix('.pth'))


def training_images(model: Model, count: int, seed: int) -> list[str]:
    """Return the files of ``count`` training images, or of all if there are fewer.

    Raises:
        RefusedError: The config has no training images in files.
    """
    if not model.cfg.get('train_dataloader'):
        raise RefusedError('the config has no train_dataloader; name a folder of images')
    with model.scope():
        dataset = DATASETS.build(deepcopy(model.cfg.train_dataloader.dataset))
    places = [(leaf, index) for leaf in leaves(dataset) for index in range(len(leaf))]
    chosen = random.Random(seed).sample(places, min(count, len(places)))
    files = [leaf.get_data_info(index).get('img_path') for leaf, index in chosen]
    if not files or None in files:
        raise RefusedError('the training images are not in files; name a folder of images')
    return files


def learn_channels(model: Model, files: Sequence[str], target: int, steps: int, batch_size: int,
                   seed: int = 0) -> OnRates:
    """Train a gate in front of a network that does not change, and show the progress.

    The images go through the test pipeline, and none of their labels is read.

    Args:
        model (Model): The network, of many DCT channels.
        files (Sequence[str]): Images.
        target (int): Channels to keep.
        steps (int): Batches to train on. They repeat the images if these are too few.
        batch_size (int): Images in a batch.
        seed (int): Of the order of the images and of the draws. Defaults to 0.

    Raises:
        RefusedError: The target is not less than the number of channels, or the network has a gate
            of its own.
    """
    spec = input_specs(model.cfg)['test_dataloader']
    if not 0 < target < len(spec.channels):
        raise RefusedError(f'expected a target of 1..{len(spec.channels) - 1} channels, got {target}')
    if any(node.get('gate') is not None for node in iter_dicts(model.cfg.model)):
        raise RefusedError('the network has a gate of its own: tools/select_channels.py')
    torch.manual_seed(seed)
    network = _frozen(model)
    gate = ChannelGate(len(spec.channels), per_image=False).to(next(model.module.parameters()).device)
    progress = tqdm(train_gate(gate, network, _batches(model, files, batch_size, seed), target, steps),
                    total=steps, unit='batch', mininterval=0.2 if sys.stderr.isatty() else 60)
    for loss in progress:
        progress.set_postfix_str(f'{int(gate.budget)} channels, loss {loss:.3f}', refresh=False)
    images = min(len(files), steps * batch_size)
    return static_rates(gate, spec, images, config=model.cfg.filename)


def compare_selections(model: Model, files: Sequence[str], selections: Mapping[str, Sequence[int]],
                       batch_size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Compare selections by the output of a network on them, without labels.

    Args:
        model (Model): The network, of many DCT channels.
        files (Sequence[str]): Images, of which at most :data:`COMPARED` batches are used.
        selections (Mapping[str, Sequence[int]]): Channels by the name of the selection.
        batch_size (int): Images in a batch.
        seed (int): Of the order of the images. Defaults to 0.

    Returns:
        dict[str, np.ndarray]: By name, float64 (batches, ):
            :func:`~mmfreq.selection.frozen.distance` to the output on all channels.
    """
    spec = input_specs(model.cfg)['test_dataloader']
    kept = torch.tensor(np.array([np.isin(spec.channels, channels) for channels in selections.values()]))
    count = min(COMPARED, -(-len(files) // batch_size))
    batches = (inputs for inputs, _ in islice(_batches(model, files, batch_size, seed), count))
    progress = tqdm(batches, 'compare', count, unit='batch', mininterval=0.2 if sys.stderr.isatty() else 60)
    return dict(zip(selections, selection_distances(_frozen(model), progress, kept).T))


def describe_distances(distances: Mapping[str, np.ndarray]) -> str:
    """Describe what :func:`compare_selections` returns; the others are compared with the first."""
    (_, own), *others = distances.items()
    lines = [f'distance to the output on all channels: {own.mean():.3f} of its deviation']
    for name, values in others:
        difference = values - own
        error = difference.std(ddof=1) / len(own)**0.5 if len(own) > 1 else math.nan
        lines.append(f'distance with {name}: {values.mean():.3f}, difference {difference.mean():+.3f} ± {error:.3f}')
    return '\n'.join(lines)


def _frozen(model: Model) -> Callable[[torch.Tensor], Any]:
    """Return the network of which a gate needs the output: all of a classifier, a detector without its heads."""
    module = model.module.requires_grad_(False)
    module.to(memory_format=torch.channels_last)  # convolutions on a CPU then take half of the time
    return module if model.cfg.default_scope == 'mmpretrain' else module.extract_feat


def _batches(model: Model, files: Sequence[str], batch_size: int,
             seed: int) -> Iterator[tuple[torch.Tensor, Optional[list[bool]]]]:
    """Yield preprocessed inputs, and which images are of the second half, without an end."""
    with model.scope():
        dataset = ImageFiles(files, pipelines(model.cfg, 'test_dataloader')[0])
        loader = Runner.build_dataloader(dict(
            model.cfg.test_dataloader, dataset=dataset, batch_size=batch_size,
            sampler=dict(type='InfiniteSampler', seed=seed)))
    for batch in loader:
        yield model.module.data_preprocessor(batch)['inputs'], halves_of(batch)


def carry_over(model: Model, checkpoint: str, config: Path) -> Path:
    """Write the checkpoint of a static config, with the weights of the channels that it keeps.

    Args:
        model (Model): The network of many channels.
        checkpoint (str): Its checkpoint, for ``meta``.
        config (Path): The static config.

    Returns:
        Path: The checkpoint, beside the config.
    """
    cfg, out = Config.fromfile(str(config)), config.with_suffix('.pth')
    with model.scope():
        static = build_model(deepcopy(cfg))
    spec, source = (input_specs(item)['test_dataloader'] for item in (cfg, model.cfg))
    static.backbone.input_spec, static.backbone.source_specs = spec, (source, )
    static.load_state_dict(model.module.state_dict())
    loaded = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
    meta = {**(loaded.get('meta') or {}), META_KEY: spec.to_dict()}
    atomic_save(out, dict(meta=meta, state_dict=static.state_dict()))
    return out
