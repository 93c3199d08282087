#!/usr/bin/env python3
"""Write the tables and figures of the accuracy study from the available results.

The tables replace the text between the marks in ../ACCURACY.md. pareto.png shows top-1 over training time and over
input size, selections.png the top-1 of each selection, and gates.png the on-rates of the gates.
"""
import json
from pathlib import Path
from typing import Any, Optional

import numpy as np
from matplotlib.figure import Figure
from rows import HERE, ROWS
from summary import (
    Estimate,
    Results,
    any_seed,
    describe_selection,
    difference,
    frequency_correlation,
    load_results,
    reached,
)

from mmfreq.apis.pictures import BASELINE, INK, OTHERS, save_figure
from mmfreq.dct.channels import zigzag_order
from mmfreq.files import atomic_write_text
from mmfreq.selection.rates import OnRates

RESULTS = HERE / 'results'
PAGE = HERE.parent / 'ACCURACY.md'
MARKS = ('<!-- begin of the tables of report.py -->', '<!-- end of the tables of report.py -->')
PAIRS = [('learned24', 'random24'), ('learned24', 'dct24s'), ('dct24s', 'random24'), ('dct24s', 'highest24'),
         ('dct24s', 'dct24d'), ('dct24s', 'dct24t'), ('dct24s-int8', 'dct24s'), ('dct48s-int8', 'dct48s'),
         ('dct48s', 'dct24s'), ('dct64s', 'dct24s'), ('dct192', 'dct24s'), ('dct24s-17epochs', 'rgb-17epochs'),
         ('late96-17epochs', 'dct24s'), ('late96-17epochs', 'dct24s-17epochs'), ('dct24s-stride1', 'rgb-17epochs'),
         ('rgb-128', 'dct24s-stride1')]  # differences to report

# Rows of pareto.png: label, and its offset in both panels (-1 for left or 1 for right, points up).
PICTURED = {
    'rgb': ('RGB 64x64', (1, -2), (1, 3)),
    'rgb-17epochs': ('RGB 64x64, 17 epochs', (1, 5), (1, -4)),
    'rgb-128': ('RGB 128x128', (1, 8), (1, 3)),
    'dct24s': ('24S', (-1, 4), (-1, 6)),
    'dct24s-17epochs': ('24S, 17 epochs', (-1, 4), (-1, 4)),
    'dct24s-stride1': ('24S, stage 2 at stride 1', (1, -6), (1, -4)),
    'late96': ('late entry', (1, 0), (-1, 0)),
    'late96-17epochs': ('late entry, 17 epochs', (1, 4), (-1, 8)),
    'dct24s-int8': ('24S, int8', (-1, -5), (-1, -6)),
    'dct48s': ('48S', (-1, -5), (1, -2)),
    'dct64s': ('64S', (1, -8), (1, -6)),
    'dct192': ('all 192', (1, 0), (1, 0)),
    'gate': ('gate over 192', (1, 0), (1, 0)),
}
SELECTIONS = ('rgb', 'ycbcr', 'dct24s', 'dct24d', 'dct24t', 'learned24', 'random24', 'highest24', 'dct48s', 'dct64s',
              'dct192', 'dct24s-int8', 'dct48s-int8')


def main() -> None:
    """Write all tables and figures."""
    results = load_results(RESULTS)
    speed = json.loads((RESULTS / 'speed.json').read_text(encoding='utf-8'))
    rates = [read_rates(path) for path in sorted(HERE.glob('selections/gate-rates-*.json'))]
    references = list(dict.fromkeys(row.reference for row in ROWS.values()))
    text = '\n'.join(filter(None, [table(results, speed, name) for name in references]))
    text += f'\n{pairs_table(results)}'
    draw_pareto(results, speed, str(HERE / 'pareto.png'))
    draw_selections(results, str(HERE / 'selections.png'))
    if rates:
        text += f'\n{gate_table(rates)}'
        draw_gates(rates, str(HERE / 'gates.png'))
    before, rest = PAGE.read_text(encoding='utf-8').split(MARKS[0])
    atomic_write_text(str(PAGE), f'{before}{MARKS[0]}\n\n{text}\n{MARKS[1]}{rest.split(MARKS[1])[1]}')
    print(text)


def table(results: Results, speed: dict[str, Any], reference: str) -> str:
    """Return a table of all rows that are compared with ``reference``, or an empty string without results for it."""
    rows = [name for name, row in ROWS.items() if row.reference == reference and name in results]
    if reference not in rows:
        return ''
    head = ('row', 'seeds', 'top-1 accuracy, %, mean ± deviation', 'difference ± standard error (pairs)', 'epochs',
            's per epoch', 'time per image', 'time of the training', 'multiply-adds (M)', 'values', 'bytes')
    lines = [markdown(head), markdown(['---'] * len(head))]
    for row in rows:
        value = reached(results, row)
        cost = speed.get(ROWS[row].config)
        against = '' if row == reference else paired(difference(results, row, reference))
        one = any_seed(results, row)
        longer = one['epochs'] / any_seed(results, reference)['epochs']
        lines.append(markdown([
            ROWS[row].label, value.count, plus_minus(value, '.2f', value.deviation), against, one['epochs'],
            *(costs(cost, one['iterations'] / one['epochs'], longer) if cost else [''] * 6)]))
    return '\n'.join(lines) + '\n'


def costs(cost: dict[str, Any], batches: float, longer: float) -> list[str]:
    """Return the cells for the costs of an epoch, an image and a training, and for the input.

    Args:
        cost (dict): Entry of speed.json.
        batches (float): Batches of 64 images per epoch.
        longer (float): Number of epochs relative to the reference.
    """
    seconds = (cost['load_ms'] + cost['step_ms']) * 64 * batches / 1e3
    return [f'{seconds:.1f}', f'{cost["time_ratio"]:.2f}', f'{cost["time_ratio"] * longer:.2f}',
            f'{cost["multiply_adds"] / 1e6:.1f}', f'{cost["values"]:,}', f'{cost["bytes"]:,}']


def pairs_table(results: Results) -> str:
    """Return a table of the paired differences of ``PAIRS``."""
    lines = [markdown(['difference', 'points of top-1 ± standard error (pairs)']), markdown(['---'] * 2)]
    for row, reference in PAIRS:
        value = difference(results, row, reference)
        if value is not None:
            lines.append(markdown([f'{ROWS[row].label} - {ROWS[reference].label}', paired(value)]))
    return '\n'.join(lines) + '\n'


def read_rates(path: Path) -> OnRates:
    """Read on-rates. The gates of the study have no halves, which came later."""
    values = json.loads(path.read_text(encoding='utf-8'))
    arrays = [np.array(values[key]) for key in ('channels', 'on_rate', 'probability')]
    return OnRates(*arrays, np.zeros((2, len(arrays[0]))), values['images'])


def gate_table(rates: list[OnRates]) -> str:
    """Return a table of the selections of single gates and of their mean."""
    head = ('gate', 'kept per image', 'Y', 'Cb', 'Cr', 'in 24S', 'in 24D', 'rank correlation, Y')
    lines = [markdown(head), markdown(['---'] * len(head))]
    gates = {f'seed {i}': rate for i, rate in enumerate(rates)}
    gates['mean'] = mean_rates(rates)
    for name, rate in gates.items():
        chosen = describe_selection(rate.top(24))
        lines.append(markdown([name, f'{rate.on_rate.sum():.1f}', *chosen.values(),
                               f'{frequency_correlation(rate.probability):.2f}']))
    return '\n'.join(lines) + '\n'


def mean_rates(rates: list[OnRates]) -> OnRates:
    """Return the mean on-rates and probabilities of several gates."""
    on_rate = np.mean([rate.on_rate for rate in rates], axis=0)
    probability = np.mean([rate.probability for rate in rates], axis=0)
    return OnRates(rates[0].channels, on_rate, probability, rates[0].halves, sum(rate.images for rate in rates))


def markdown(cells: Any) -> str:
    """Return one line of a Markdown table."""
    return '| ' + ' | '.join(str(cell) for cell in cells) + ' |'


def plus_minus(value: Estimate, form: str, spread: Optional[float]) -> str:
    """Return a mean and its uncertainty."""
    return f'{value.mean:{form}}' + ('' if spread is None else f' ± {spread:.2f}')


def paired(value: Optional[Estimate]) -> str:
    """Return a paired difference, its standard error and the number of pairs, or an empty string for None."""
    return '' if value is None else f'{plus_minus(value, "+.2f", value.error)} ({value.count})'


def draw_pareto(results: Results, speed: dict[str, Any], path: str) -> None:
    """Draw top-1 over training time and over input size, with the standard error of the mean over seeds."""
    figure = Figure(figsize=(11.5, 5), layout='constrained')
    axes = figure.subplots(1, 2, sharey=True)
    base = any_seed(results, 'rgb')['epochs']
    for axis, title in zip(axes, ('processor time of the training, RGB = 1', 'values per image, RGB = 1')):
        axis.set_xlabel(title, color=INK)
        axis.grid(alpha=0.25)
        axis.spines[['top', 'right']].set_visible(False)
        axis.set_xscale('log', base=2)
        axis.xaxis.set_major_formatter('{x:g}')
    axes[0].set_ylabel('top-1 (%), mean of the seeds', color=INK)
    for row, (label, first, second) in PICTURED.items():
        if row not in results or ROWS[row].config not in speed:
            continue
        cost, epochs = speed[ROWS[row].config], any_seed(results, row)['epochs']
        value = reached(results, row)
        spots = (cost['time_ratio'] * epochs / base, cost['values'] / speed['rgb']['values'])
        for axis, spot, (across, up) in zip(axes, spots, (first, second)):
            axis.errorbar(spot, value.mean, value.error, fmt='o', color=BASELINE if row.startswith('rgb') else OTHERS,
                          capsize=3, markersize=5)
            axis.annotate(label, (spot, value.mean), xytext=(7 * across, up), textcoords='offset points',
                          ha='left' if across > 0 else 'right', va='center', fontsize=8, color=INK)
    axes[0].set_xlim(0.4, 5)
    axes[1].set_xlim(0.18, 9)
    save_figure(figure, path)


def draw_selections(results: Results, path: str) -> None:
    """Draw the top-1 of each selection after ten epochs, best first, with standard errors."""
    rows = [row for row in SELECTIONS if row in results]
    rows.sort(key=lambda row: reached(results, row).mean)
    figure = Figure(figsize=(8, 0.36 * len(rows) + 0.9), layout='constrained')
    axis = figure.subplots()
    for height, row in enumerate(rows):
        value = reached(results, row)
        axis.errorbar(value.mean, height, xerr=value.error, fmt='o', color=BASELINE if row == 'rgb' else OTHERS,
                      capsize=3, markersize=5)
        axis.annotate(f'{value.mean:.1f}', (value.mean, height), xytext=(0, 5), textcoords='offset points', ha='center',
                      fontsize=7, color=INK)
    axis.set_yticks(range(len(rows)), [ROWS[row].label for row in rows])
    axis.set_ylim(-0.6, len(rows) - 0.3)
    axis.set_xlabel('top-1 (%), mean of the seeds and its standard error', color=INK)
    axis.grid(axis='x', alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
    save_figure(figure, path)


def draw_gates(rates: list[OnRates], path: str) -> None:
    """Draw the mean probability of each channel over several gates, with its standard deviation below."""
    probability = np.array([rate.probability for rate in rates])
    parts = [('probability of being kept, mean', probability.mean(axis=0), 1.)]
    if len(rates) > 1:
        parts.append(('deviation between seeds', probability.std(axis=0, ddof=1), 0.6))
    figure = Figure(figsize=(7.8, 2.6 * len(parts) + 0.1), layout='constrained')
    for line, (title, values, top) in zip(figure.subfigures(len(parts), 1, squeeze=False)[:, 0], parts):
        axes = line.subplots(1, 3)
        for axis, component, grid in zip(axes, ('Y', 'Cb', 'Cr'), values.reshape(3, 8, 8)):
            image = axis.imshow(grid, cmap='viridis', vmin=0, vmax=top)
            axis.set_title(component, fontsize=10, color=INK)
            axis.set_xticks([])
            axis.set_yticks([])
            for zigzag, index in enumerate(zigzag_order()):
                row, column = divmod(index, 8)
                color = 'black' if grid[row, column] > 0.6 * top else 'white'
                label = axis.text(column, row, zigzag, ha='center', va='center', fontsize=7, color=color)
                label.set_in_layout(False)
        line.colorbar(image, ax=axes, shrink=0.9, label=title)
    save_figure(figure, path)


if __name__ == '__main__':
    main()
