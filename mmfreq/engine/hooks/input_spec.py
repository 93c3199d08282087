"""Keep the description of the input in checkpoints, and check it when one is loaded."""
from typing import Any, Iterable, Iterator, Optional

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, CheckpointLoader, Runner
from torch import nn

from mmfreq.config.checks import check_config
from mmfreq.config.pipelines import input_specs
from mmfreq.engine.checkpoints import (
    check_checkpoint,
    check_same_classes,
    check_trained_classes,
    unwrapped,
)
from mmfreq.errors import RefusedError
from mmfreq.input_spec import META_KEY, InputSpec


@HOOKS.register_module()
class InputSpecHook(Hook):
    """Save the :class:`~mmfreq.input_spec.InputSpec` of a run in ``meta`` of its checkpoints.

    The spec has values, not names of files, so that statistics or selections that change on disk
    are noticed. When a run begins or loads a checkpoint, the hook also refuses settings that would give
    a wrong number without an error:

    - a config as described at :func:`mmfreq.config.checks.check_config`;
    - data sets of one run whose classes differ;
    - to test or to resume: a checkpoint of another input, network or list of classes.

    A training that starts from a checkpoint of other channels (``load_from``, or ``init_cfg`` of any
    module) takes the columns of the channels that both have.

    Example:
        >>> default_hooks = dict(input_spec=dict(type='InputSpecHook'))
    """
    priority = 'VERY_HIGH'  # before EMAHook copies the model and takes the weights of a checkpoint

    def __init__(self) -> None:
        self.spec: Optional[InputSpec] = None

    def before_run(self, runner: Runner) -> None:
        """Check the config and the classes; describe the input to the backbone."""
        check_config(runner.cfg)
        check_classes(_datasets(runner))
        self._describe(runner)
        if isinstance(runner._train_loop, BaseLoop):  # initialises the weights next
            _describe_initial_weights(runner.model)

    def _describe(self, runner: Runner) -> None:
        self.spec = next(iter(input_specs(runner.cfg).values()), None)
        for _, backbone in _freq_backbones(runner.model):
            backbone.input_spec = self.spec

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Put the spec into ``checkpoint['meta']['input_spec']``."""
        if self.spec is not None:
            checkpoint['meta'][META_KEY] = self.spec.to_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check a checkpoint that is tested or resumed; fit one that a training starts from."""
        self._describe(runner)  # a FlexibleRunner loads before the run begins
        if isinstance(runner._train_loop, BaseLoop) and not runner._resume:
            weights = checkpoint.get('state_dict', checkpoint)
            wrapper = 'module.' if any(key.startswith('module.') for key in weights) else ''
            for name, backbone in _freq_backbones(runner.model):
                backbone.source_specs = (InputSpec.from_checkpoint(checkpoint), )
                backbone.take_channels(weights, f'{wrapper}{name}.')
            return
        try:
            check_checkpoint(checkpoint, self.spec, unwrapped(runner.model))
            for _, dataset in _datasets(runner):
                check_trained_classes(checkpoint, dataset)
        except RefusedError as error:
            raise RefusedError(f'checkpoint {runner._load_from}: {error}') from error


def _describe_initial_weights(model: nn.Module) -> None:
    """Tell the backbones for DCT channels the input of the checkpoints in ``init_cfg``, theirs or a parent's."""
    for _, backbone in _freq_backbones(model):
        backbone.source_specs = ()
    for module in reversed([*unwrapped(model).modules()]):  # parents load after their children
        initial = getattr(module, 'init_cfg', None) or ()
        for entry in [initial] if isinstance(initial, dict) else initial:
            backbones = [backbone for _, backbone in _freq_backbones(module)] if entry.get('checkpoint') else []
            if backbones:
                checkpoint = CheckpointLoader.load_checkpoint(entry['checkpoint'], map_location='cpu')
                for backbone in backbones:
                    backbone.source_specs += (InputSpec.from_checkpoint(checkpoint), )


def _freq_backbones(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """Yield the backbones for DCT channels by name; none if the model is still a config."""
    if isinstance(model, nn.Module):
        for name, module in unwrapped(model).named_modules():
            if hasattr(module, 'source_specs'):
                yield name, module


def _datasets(runner: Runner) -> Iterator[tuple[str, Any]]:
    """Yield the data sets of the loops that are built, by the name of their dataloader."""
    for mode in ('train', 'val', 'test'):
        loop = getattr(runner, f'_{mode}_loop')
        if isinstance(loop, BaseLoop):
            for dataset in leaves(loop.dataloader.dataset):
                yield f'{mode}_dataloader', dataset


def leaves(dataset: Any) -> Iterator[Any]:
    """Yield the data sets that wrappers such as ConcatDataset and RepeatDataset hold."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for child in inner:
        yield from leaves(child) if child is not None else (dataset, )


def check_classes(datasets: Iterable[tuple[str, Any]]) -> None:
    """Raise RefusedError unless the data sets, by their dataloader, have the same classes."""
    first: dict[str, tuple[str, Any]] = {}
    for name, dataset in datasets:
        metainfo = getattr(dataset, 'metainfo', {})
        # mmpretrain numbers the folders of classes that exist in each data set
        names = {'classes': metainfo.get('classes'),
                 'class folders': getattr(dataset, 'folder_to_idx', None)}
        for what, classes in names.items():
            if classes:
                origin, expected = first.setdefault(what, (name, classes))
                check_same_classes(f'{what} of {name}', classes, f'of {origin}', expected)
