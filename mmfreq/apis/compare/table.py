"""Comparisons as tables: normalised sizes, differences, Markdown, CSV and JSON."""
import csv
import io
from dataclasses import asdict
from itertools import zip_longest
from typing import Any, NamedTuple, Optional, Sequence

import numpy as np

from mmfreq.apis.compare.rows import Row
from mmfreq.apis.compare.runs import HEADLINES, METRICS

_RGB_SHAPE = 3, 224, 224  # a classifier's input of size 1 in Xu et al. 2020, Tables 1 and 2


class Difference(NamedTuple):
    """What a row has more than its baseline."""
    mean: float  # over runs with a common seed; without any, of the rows' means
    error: Optional[float] = None  # standard error of that, with two common seeds or more
    seeds: int = 0  # number of common seeds


class Column(NamedTuple):
    """A column of the table, None where there is no value."""
    name: str
    values: Sequence[Any]
    pattern: str = ''  # format of value / unit
    unit: float = 1
    suffix: str = ''
    errors: Sequence[Optional[float]] = ()  # what stands behind ±

    def cells(self) -> list[str]:
        """Return the formatted values."""
        found = []
        for value, error in zip_longest(self.values, self.errors):
            if isinstance(value, (int, float)):
                value = format(value / self.unit if self.unit != 1 else value, self.pattern)
            error_text = '' if error is None else f' ± {error:.2g}'
            found.append('-' if value is None else f'{value}{error_text}{self.suffix}')
        return found


def families(rows: Sequence[Row]) -> list[list[int]]:
    """Return the numbers of the rows of each family; the first of them is its baseline."""
    found: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        found.setdefault(row.family, []).append(i)
    return list(found.values())


def normalised_sizes(rows: Sequence[Row]) -> list[Optional[float]]:
    """Return the values of each input over those of the RGB input that it stands for.

    For a detector that is 3 x height x width of the image. For a classifier it is the first RGB
    input of the rows, or 3x224x224 if there is none, as in Xu et al. 2020.
    """
    rgb, found = _rgb_shape(rows), []
    for row in rows:
        shape = (3, *row.img_shape) if row.scope == 'mmdet' and row.img_shape else rgb
        found.append(float(np.prod(row.input_shape) / np.prod(shape)) if row.input_shape else None)
    return found


def _rgb_shape(rows: Sequence[Row]) -> tuple[int, int, int]:
    for row in rows:
        if row.input_shape and row.input_shape[0] == 3 and row.scope != 'mmdet':
            return row.input_shape
    return _RGB_SHAPE


def shown_metrics(rows: Sequence[Row]) -> list[str]:
    """Return the names of the known metrics that any row has; of all metrics if none is known."""
    found = dict.fromkeys(key for row in rows for key in (*row.metrics, *row.paper))
    return [key for key in METRICS if key in found] or list(found)


def headline_metrics(rows: Sequence[Row]) -> list[str]:
    """Return the names of the metrics that models are judged by."""
    shown = shown_metrics(rows)
    return [key for key in shown if key in HEADLINES] or shown[:1]


def differences(rows: Sequence[Row], metric: str) -> list[Optional[Difference]]:
    """Return what each row has more than the first one of its family.

    Results of runs count, published ones only if there are none of runs.
    """
    source = 'metrics' if any(metric in row.metrics for row in rows) else 'paper'
    baselines: dict[str, Row] = {}
    found: list[Optional[Difference]] = []
    for row in rows:
        base = baselines.setdefault(row.family, row)
        values, reference = getattr(row, source), getattr(base, source)
        if metric not in values or metric not in reference:
            found.append(None)
            continue
        seeds = []
        for seed, metrics in row.seeds.items() if row is not base else ():
            if metric in metrics and metric in base.seeds.get(seed, {}):
                seeds.append(metrics[metric] - base.seeds[seed][metric])
        mean = float(np.mean(seeds or values[metric] - reference[metric]))
        error = float(np.std(seeds, ddof=1) / len(seeds)**0.5) if len(seeds) > 1 else None
        found.append(Difference(round(mean, 6), error, len(seeds)))
    return found


def columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of the table; those without any figure are left out."""
    found = [Column('model', [row.name for row in rows])]
    if any(row.spread for row in rows):
        found.append(Column('runs', [len(row.seeds) or None for row in rows]))
    for key in shown_metrics(rows):
        found.append(Column(key, [row.metrics.get(key) for row in rows], '.4g',
                            errors=[row.spread.get(key) for row in rows]))
        found.append(Column(f'{key} (paper)', [row.paper.get(key) for row in rows], '.5g'))
        if key in headline_metrics(rows):
            deltas = differences(rows, key)
            found.append(Column(f'{key} difference', [delta and delta.mean for delta in deltas],
                                '+.3f', errors=[delta and delta.error for delta in deltas]))
            if any(row.spread for row in rows):
                common = [delta and delta.seeds or None for delta in deltas]
                found.append(Column(f'{key} common seeds', common))
    shapes = [row.input_shape for row in rows]
    found += [
        Column('results from', [row.found or None for row in rows]),
        Column('channels', [shape and shape[0] for shape in shapes]),
        Column('size per channel', [shape and f'{shape[1]}x{shape[2]}' for shape in shapes]),
    ]
    return [column for column in (*found, *cost_columns(rows)) if set(column.values) != {None}]


def cost_columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of what the models take in and cost, normalised size first."""
    found = [
        Column('normalised size', normalised_sizes(rows), '.4g'),
        Column('bytes per image', [row.input_bytes for row in rows], ',.0f'),
        Column('parameters', [row.parameters for row in rows], '.2f', 1e6, ' M'),
        Column('FLOPs (multiply-adds)', [row.flops for row in rows], '.3f', 1e9, ' G'),
        Column('memory', [row.memory for row in rows], '.1f', 1e6, ' MB'),
        Column('loading images/s', [row.loader_rate for row in rows], '.0f'),
        Column('network images/s', [row.network_rate for row in rows], '.1f'),
    ]
    return [column for column in found if set(column.values) != {None}] or found[:1]


def table_notes(rows: Sequence[Row]) -> list[str]:
    """Return what to know beside the figures: each note once, with the names of its rows."""
    names: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            names.setdefault(note, []).append(row.name)
    notes = [f'{", ".join(having)}: {note}' for note, having in names.items()]
    if _rgb_shape(rows) != _RGB_SHAPE:
        shape = 'x'.join(map(str, _rgb_shape(rows)))
        notes.append(f'a normalised size of 1 is an input of {shape}')
    if len(families(rows)) > 1:
        notes.append('differences are to the first row of the same family')
    if any(row.spread for row in rows):
        notes.append('±: standard deviation of results over the runs of a row, standard error of '
                     'differences over the common seeds')
    return notes


def markdown_table(rows: Sequence[Row]) -> str:
    """Return the comparison as a Markdown table, aligned for a terminal, with notes below it."""
    header, rule, padded = [], [], []
    for i, column in enumerate(columns(rows)):
        cells = column.cells()
        width = max(map(len, (column.name, *cells)))
        side = '>' if i else '<'
        header.append(format(column.name, f'{side}{width}'))
        rule.append((':' + '-' * (width - 1))[::-1 if i else 1])
        padded.append([format(cell, f'{side}{width}') for cell in cells])
    lines = [f'| {" | ".join(line)} |' for line in (header, rule, *zip(*padded))]
    notes = [f'- {note}' for note in table_notes(rows)]
    return '\n'.join([*lines, '', *notes]).rstrip() + '\n'


def plain_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return all figures as plain values: fields of :class:`Row`, sizes and differences."""
    plain = []
    for row, size in zip(rows, normalised_sizes(rows)):
        plain.append(dict(asdict(row), normalised_size=size, difference={}))
    for key in headline_metrics(rows):
        for row, delta in zip(plain, differences(rows, key)):
            if delta:
                row['difference'][key] = delta._asdict()
    return plain


def csv_table(rows: Sequence[Row]) -> str:
    """Return the comparison as CSV with plain numbers in base units, and the notes."""
    table: list[Sequence[Any]] = []
    for column in columns(rows):
        table.append([column.name, *column.values])
        if any(error is not None for error in column.errors):
            table.append([f'{column.name} ±', *column.errors])
    table.append(['notes', *['; '.join(row.notes) for row in rows]])
    buffer = io.StringIO()
    csv.writer(buffer).writerows(zip(*table))
    return buffer.getvalue()
