"""Convert the released DCTNet classifiers to checkpoints and configs of mmpretrain."""
import re
from copy import deepcopy
from pathlib import Path
from typing import Any, Optional

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import CheckpointLoader

from mmfreq.apis.freqify.convert import freqify
from mmfreq.config.pipelines import DATALOADERS, input_specs, pipelines, stock_resize
from mmfreq.config.writer import child_text, wrapped
from mmfreq.files import atomic_save, atomic_write_text, check_not_input
from mmfreq.input_spec import DCT_ARGUMENTS, META_KEY

# The selections of the released classifiers of K. Xu et al., by their number of channels. Their
# channels are in the order of ChannelSelect: Y, Cb, Cr, ascending in natural order.
_CHANNELS = {24: '24S', 64: '64S', 192: '192'}
_STOCK = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
_COMMENT = (
    'The released DCTNet ResNet-50 classifier (K. Xu et al., CVPR 2020) on the DCT channels '
    "{channels}, with the authors' statistics, for {checkpoint}.",
    'In their code the second stage keeps the grid: stages of 56, 56, 28 and 14 cells.')


def convert_dctnet(path: str, out: Path, channels: Optional[str] = None) -> str:
    """Write a released DCTNet ResNet-50 classifier for mmpretrain, and the config to evaluate it.

    Args:
        path (str): The authors' file: a dict with ``state_dict``, ``epoch``, ``best_prec1``, ...
        out (Path): Checkpoint to write, ``.pth``. The config has the same name and ends in ``.py``.
        channels (str, optional): Name of the selection, which is returned. Defaults to None: the
            authors' selection of as many channels as the weights take.

    Raises:
        KeyError, RuntimeError: Weights are unknown, missing or misshapen. Nothing is written.
    """
    check_not_input(out, path)
    content = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    weights = {_mmpretrain_name(name.removeprefix('module.')): value  # of DataParallel
               for name, value in content['state_dict'].items()}
    channels = channels or _CHANNELS[weights['backbone.layer1.0.conv1.weight'].shape[1]]
    target, _ = freqify(_STOCK, channels, 'dctnet-classification')
    target['model']['backbone']['strides'] = (1, 1, 2, 2)
    _use_single_transforms(target)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(deepcopy(target['model']))
    model.load_state_dict(weights)
    meta = {key: value.item() if hasattr(value, 'item') else value  # of NumPy
            for key, value in content.items() if isinstance(value, (str, int, float))}
    spec = input_specs(Config(target))['test_dataloader']
    meta.update({'source': Path(path).name, META_KEY: spec.to_dict()})
    comment = wrapped(line.format(channels=channels, checkpoint=out.name) for line in _COMMENT)
    atomic_save(out, dict(state_dict=model.state_dict(), meta=meta))
    atomic_write_text(out.with_suffix('.py'), child_text(_STOCK, target, comment, out.parent))
    return channels


def _use_single_transforms(target: dict[str, Any]) -> None:
    """Replace FusedBlockDCT, which does not round colours: these statistics are of rounded ones."""
    fused = target['freq']
    target['freq'] = [dict(type=kind, **{name: fused[name] for name in names if name in fused})
                      for kind, names in DCT_ARGUMENTS.items()]
    lists = [steps for name in DATALOADERS for steps in pipelines(target, name)]
    for steps in (target['train_pipeline'], target['test_pipeline'], *lists):
        steps[:] = [*map(stock_resize, steps[:-2]), *deepcopy(target['freq']), steps[-1]]


def _mmpretrain_name(name: str) -> str:
    stage = re.match(r'model\.(\d)\.', name)
    return f'backbone.layer{int(stage[1]) + 1}.{name[stage.end():]}' if stage else f'head.{name}'
