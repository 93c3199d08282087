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
    """Load a checkpoint into the model of ``cfg`` and return it.

    Raises:
        RefusedError: As :func:`check_checkpoint`. The message names the file.
    """
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
    """Load a checkpoint; refuse it if it was trained on another input, or is of another network.

    Args:
        checkpoint (dict): As a Runner saves it.
        spec (InputSpec, optional): The input of ``model``.
        model (nn.Module): The network, without wrappers, which gets the weights.

    Raises:
        RefusedError: The input differs; a weight or running statistic is missing, NaN or Inf; or the
            backbone has others. A host would only log that.
        RuntimeError: A weight has another shape.
    """
    trained = InputSpec.from_checkpoint(checkpoint)
    if trained is not None and spec is not None:
        check_same('the training', trained, 'the config', spec)
    weights = checkpoint.get('state_dict', checkpoint)
    state = OrderedDict((key.removeprefix('module.'), value) for key, value in weights.items())
    state._metadata = getattr(weights, '_metadata', OrderedDict())
    for name, module in model.named_modules():
        report = hasattr(module, 'fit_stock_state_dict') and module.fit_stock_state_dict(
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
    trained = meta.get('classes') or meta.get('CLASSES')
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    if trained and classes and tuple(trained) != tuple(classes):
        raise RefusedError('the classes of the data are not those of the training: '
                           f'{class_difference(tuple(classes), tuple(trained))}')


def class_difference(classes: tuple, expected: tuple) -> str:
    """Describe how two lists of classes differ."""
    missing = [name for name in expected if name not in classes]
    extra = [name for name in classes if name not in expected]
    parts = [f'{some_of(names)} {word}' for names, word in ((missing, 'missing'), (extra, 'extra'))
             if names]
    return ', '.join(parts) or f'{some_of(classes)} instead of {some_of(expected)}'


def some_of(names: Sequence[Any], most: int = 6) -> str:
    """Return the first names with commas between them, and their number if there are more."""
    rest = f', ... ({len(names)} in all)' if len(names) > most else ''
    return ', '.join(map(str, names[:most])) + rest
