"""Check a checkpoint against the network and the input of a config."""
from collections import OrderedDict
from typing import Any, Optional, Sequence

from mmengine.config import Config
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader
from torch import nn

from mmfreq.config.pipelines import check_same, input_specs
from mmfreq.errors import RefusedError
from mmfreq.input_spec import InputSpec


def load_checked(model: nn.Module, file: str, cfg: Config) -> dict[str, Any]:
    """Load a checkpoint into the model of ``cfg`` and return it."""
    checkpoint = CheckpointLoader.load_checkpoint(file, 'cpu', logger='silent')
    specs = input_specs(cfg)
    spec = specs.get('test_dataloader') or next(iter(specs.values()), None)
    try:
        check_checkpoint(checkpoint, spec, unwrapped(model))
    except RefusedError as error:
        raise RefusedError(f'checkpoint {file}: {error}') from error
    return checkpoint


def check_checkpoint(checkpoint: dict[str, Any], spec: Optional[InputSpec],
                     model: nn.Module) -> None:
    """Load a checkpoint into a model without wrappers, whose input is ``spec``.

    A model that keeps stock weights also takes a checkpoint of its stock network.

    Raises:
        RefusedError: The input differs; a weight or running statistic is missing, NaN or Inf; or the
            backbone has others. A host would only log that.
        RuntimeError: A weight has another shape.
    """
    trained = InputSpec.from_checkpoint(checkpoint)
    keeping = [module.block_pixels for module in model.modules()
               if getattr(module, 'keeps_stock_weights', False)]
    if trained is not None and not trained.channels and keeping:
        spec = keeping[0].pixels
    if trained is not None and spec is not None:
        check_same('the training', trained, 'the config', spec)
    weights = checkpoint.get('state_dict', checkpoint)
    state = OrderedDict((key.removeprefix('module.'), value) for key, value in weights.items())
    state._metadata = getattr(weights, '_metadata', OrderedDict())
    for name, module in model.named_modules():
        report = not getattr(module, 'keeps_stock_weights', True) and module.fit_stock_state_dict(
            dict(state), f'{name}.' if name else '')
        if report:
            raise RefusedError(f'stock RGB weights, which {type(module).__name__} takes for training '
                               f'only ({report})')
    missing, unexpected = model.load_state_dict(state, strict=False)
    learned = {name for name, _ in model.named_parameters()}
    learned.update(name for name in model.state_dict() if '.running_' in name)
    broken = [name for name, value in model.state_dict().items()
              if name in learned and not value.isfinite().all()]
    if broken:
        raise RefusedError(f'weights contain NaN or Inf: {some_of(broken)}')
    missing = [key for key in missing if key in learned]
    unexpected = [key for key in unexpected if key.startswith('backbone.')]
    if missing or unexpected:
        raise RefusedError('weights of another network than the config: missing '
                           f'{some_of(missing) or "none"}; unexpected {some_of(unexpected) or "none"}')


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside wrappers for distributed runs and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def check_trained_classes(checkpoint: dict[str, Any], dataset: Any) -> None:
    """Raise RefusedError unless a checkpoint was trained on the classes of ``dataset``."""
    meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    check_same_classes('classes of the data', getattr(dataset, 'metainfo', {}).get('classes'),
                       'of the training', meta.get('classes') or meta.get('CLASSES'))


def check_same_classes(name: str, classes: Any, other_name: str, other: Any) -> None:
    """Raise RefusedError unless two lists of classes, if both are known, are the same."""
    if classes and other and [*classes] != [*other]:
        lost, added = ([item for item in one if item not in two] for one, two in (
            (other, classes), (classes, other)))
        raise RefusedError(f'{name} are not those {other_name}: missing {some_of(lost) or "none"}; '
                           f'extra {some_of(added) or "none, but in another order"}')


def some_of(names: Sequence[Any], most: int = 6) -> str:
    """Return the first names with commas between them, and their number if there are more."""
    rest = f', ... ({len(names)} in all)' if len(names) > most else ''
    return ', '.join(map(str, names[:most])) + rest
