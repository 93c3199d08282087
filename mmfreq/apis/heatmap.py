"""Measure how often a trained gate keeps each channel, and draw it."""
from typing import Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from tqdm import tqdm

from mmfreq.apis.pictures import INK, save_figure
from mmfreq.config.pipelines import input_specs
from mmfreq.dct.channels import COMPONENTS, zigzag_order
from mmfreq.engine.checkpoints import load_checked
from mmfreq.errors import RefusedError
from mmfreq.selection.gate import find_gate
from mmfreq.selection.rates import GateCounter, OnRates


def measure_on_rates(cfg: Config, checkpoint: str, dataloader: str = 'val_dataloader') -> OnRates:
    """Return the on-rates, in evaluation, of a trained gate over all images of a dataloader.

    Only the gate is run, since it comes first. A progress bar is shown.

    Raises:
        RefusedError: The model has no gate, the config has no such dataloader, or the checkpoint
            does not fit.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if cfg.get(dataloader) is None:
        raise RefusedError(f'expected a {dataloader} in the config')
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
    gate = find_gate(model)
    load_checked(model, checkpoint, cfg)
    model = model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()
    loader = Runner.build_dataloader(cfg[dataloader], seed=0)
    counter = GateCounter(len(loader.dataset), input_specs(cfg)[dataloader])
    with torch.no_grad():
        for batch in tqdm(loader, unit='batch'):
            gate(model.data_preprocessor(batch)['inputs'])
            counter.add(gate)
    return counter.finish(dict(config=cfg.filename, checkpoint=checkpoint,
                               budget=int(gate.budget)))


def plot_on_rates(rates: Sequence[OnRates], names: Sequence[str], path: str) -> None:
    """Draw how often gates keep each channel (Xu et al. 2020, Fig. 5).

    Each gate is a row of three grids for Y, Cb and Cr, with low frequencies at the upper left, the
    zigzag index in each square and the on-rate as colour. Channels that a gate lacks are blank. The
    title says whether the gate has decided.

    Args:
        rates (Sequence[OnRates]): One for each gate.
        names (Sequence[str]): Titles of the gates.
        path (str): PNG or SVG file to write.
    """
    figure = Figure(figsize=(10.6, 3.6 * len(rates) + 0.1), layout='constrained')
    rows = figure.subfigures(len(rates), 1, squeeze=False)[:, 0]
    for row, rate, name in zip(rows, rates, names):
        kept = rate.kept()
        row.suptitle(f'{name}: {kept["all"]:.1f} of {len(rate.channels)} channels kept per image\n'
                     f'{rate.describe()}', x=0.01, ha='left', fontsize=11, color=INK)
        axes = row.subplots(1, 3)
        grid = np.full(3 * rate.block_size**2, np.nan)
        grid[rate.channels] = rate.on_rate
        for axis, component, values in zip(axes, COMPONENTS, np.split(grid, 3)):
            image = _draw_on_rates(axis, values.reshape(rate.block_size, -1))
            axis.set_title(f'{component}: {kept[component]:.1f}', fontsize=10, color=INK)
        row.colorbar(image, ax=axes, shrink=0.9, label='on-rate')
    save_figure(figure, path)


def _draw_on_rates(axis: 'matplotlib.axes.Axes', rates: np.ndarray) -> 'matplotlib.image.AxesImage':
    size = len(rates)
    image = axis.imshow(np.ma.masked_invalid(rates), cmap='viridis', vmin=0, vmax=1)
    for zigzag, index in enumerate(zigzag_order(size)):
        row, column = divmod(index, size)
        rate = rates[row, column]
        color = '#b0b0b0' if np.isnan(rate) else '#000000' if rate > 0.6 else '#ffffff'
        label = axis.text(column, row, zigzag, ha='center', va='center', fontsize=8, color=color)
        label.set_in_layout(False)  # it lies inside its square
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    return image
