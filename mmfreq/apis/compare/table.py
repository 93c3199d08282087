"""Comparisons as tables: normalised sizes, differences, Markdown, CSV and JSON."""
import csv
import io
from dataclasses import asdict
from typing import Any, NamedTuple, Optional, Sequence

import numpy as np

from mmfreq.apis.compare.rows import Row
from mmfreq.apis.compare.runs import HEADLINES, METRICS

_RGB_VALUES = 3 * 224 * 224  # a classifier's input of size 1 in Xu et al. 2020, Tables 1 and 2


class Difference(NamedTuple):
    """What a row has more than its baseline.

    Attributes:
        mean (float): Mean difference of runs with a common seed; without any, that of the rows.
        error (float | None): Its standard error; None with fewer than two common seeds.
        seeds (int): Number of common seeds.
    """
    mean: float
    error: Optional[float] = None
    seeds: int = 0


class Column(NamedTuple):
    """A column of the table: plain values and, for the reader, their format.

    Attributes:
        name (str): The header.
        values (Sequence): One value a row, None where there is none.
        pattern (str): Format of the values. Defaults to ''.
        unit (float): What a value is divided by before it is formatted. Defaults to 1.
        suffix (str): Text behind it. Defaults to ''.
        errors (Sequence): What stands behind ±, None where there is none. Defaults to none.
        error_name (str): What that is.
    """
    name: str
    values: Sequence[Any]
    pattern: str = ''
    unit: float = 1
    suffix: str = ''
    errors: Sequence[Optional[float]] = ()
    error_name: str = ''

    def cells(self) -> list[str]:
        """Return the formatted values."""
        found = []
        for value, error in zip(self.values, self.errors or [None] * len(self.values)):
            if isinstance(value, (int, float)):
                value = format(value / self.unit if self.unit != 1 else value, self.pattern)
            error_text = '' if error is None else f' ± {error:.2g}'
            found.append('-' if value is None else f'{value}{error_text}{self.suffix}')
        return found


def groups(rows: Sequence[Row]) -> list[list[int]]:
    """Return the numbers of the rows that are compared with each other, the baseline first.

    These are the rows of one task, classification or detection; if each family of a task has two
    rows or more, those of one family. What is unknown of a row is taken from the first.
    """
    scopes = [row.scope or rows[0].scope for row in rows]
    found = []
    for scope in dict.fromkeys(scopes):
        members = [i for i, other in enumerate(scopes) if other == scope]
        families: dict[str, list[int]] = {}
        for i in members:
            families.setdefault(rows[i].family or rows[members[0]].family, []).append(i)
        found += families.values() if min(map(len, families.values())) > 1 else [members]
    return found


def normalised_sizes(rows: Sequence[Row]) -> list[Optional[float]]:
    """Return the values of each input over those of the RGB input that it stands for.

    For a detector that is 3 x height x width of the image. For a classifier it is the first RGB
    input of the rows, or 3x224x224 if there is none, as in Xu et al. 2020.
    """
    first = _first_rgb(rows)
    rgb = first.input_values if first else _RGB_VALUES
    found: list[Optional[float]] = []
    for row in rows:
        detector = row.scope == 'mmdet' and row.img_shape
        whole = 3 * int(np.prod(row.img_shape)) if detector else rgb
        found.append(row.input_values and row.input_values / whole)
    return found


def _first_rgb(rows: Sequence[Row]) -> Optional[Row]:
    """Return the first classifier on RGB pixels, if there is one."""
    for row in rows:
        if row.input_shape and row.scope != 'mmdet' and row.input_shape[0] == 3:
            return row
    return None


def shown_metrics(rows: Sequence[Row]) -> list[str]:
    """Return the names of the known metrics that any row has; of all metrics if none is known."""
    found = dict.fromkeys(key for row in rows for key in (*row.metrics, *row.paper))
    return [key for key in METRICS if key in found] or list(found)


def headline_metrics(rows: Sequence[Row]) -> list[str]:
    """Return the names of the metrics that models are judged by."""
    shown = shown_metrics(rows)
    return [key for key in shown if key in HEADLINES] or shown[:1]


def differences(rows: Sequence[Row], metric: str) -> list[Optional[Difference]]:
    """Return what each row has more than the baseline of its group.

    Results of runs count, published ones only if there are none of runs.
    """
    runs = any(metric in row.metrics for row in rows)
    found: list[Optional[Difference]] = [None] * len(rows)
    for first, *others in groups(rows):
        for i in (first, *others) if others else ():
            found[i] = _difference(rows[i], rows[first], metric, runs)
    return found


def _difference(row: Row, base: Row, metric: str, runs: bool) -> Optional[Difference]:
    mean = (row.metrics if runs else row.paper).get(metric)
    reference = (base.metrics if runs else base.paper).get(metric)
    if mean is None or reference is None:
        return None
    paired = []
    for seed, metrics in row.seeds.items() if runs and row is not base else ():
        if metric in metrics and metric in base.seeds.get(seed, {}):
            paired.append(metrics[metric] - base.seeds[seed][metric])
    error = float(np.std(paired, ddof=1) / len(paired)**0.5) if len(paired) > 1 else None
    return Difference(round(float(np.mean(paired or mean - reference)), 6), error, len(paired))


def columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of the table; those without any figure are left out."""
    counts = [len(row.seeds) or None for row in rows]
    grouped = any(len(row.seeds) > 1 for row in rows)
    found = [Column('model', [row.name for row in rows])]
    found += [Column('runs', counts)] if grouped else []
    for key in shown_metrics(rows):
        found += _metric_columns(rows, key)
    shapes = [row.input_shape for row in rows]
    found += [
        Column('results from', [row.found or None for row in rows]),
        Column('channels', [shape and shape[0] for shape in shapes]),
        Column('size per channel', [shape and f'{shape[1]}x{shape[2]}' for shape in shapes]),
        Column('normalised size', normalised_sizes(rows), '.4g'),
        Column('bytes per image', [row.input_bytes for row in rows], ','),
        Column('parameters', [row.parameters for row in rows], '.2f', 1e6, ' M'),
        Column('FLOPs (multiply-adds)', [row.flops for row in rows], '.3f', 1e9, ' G'),
        Column('memory', [row.memory for row in rows], '.1f', 1e6, ' MB'),
        Column('loading images/s', [row.loader_rate for row in rows], '.0f'),
        Column('network images/s', [row.network_rate for row in rows], '.1f'),
    ]
    return [column for column in found if set(column.values) != {None}]


def _metric_columns(rows: Sequence[Row], key: str) -> list[Column]:
    """Return a metric, the published one, and behind the first of them the difference."""
    headlines = headline_metrics(rows)
    found = [Column(key, [row.metrics.get(key) for row in rows], '.4g', errors=[
        row.spread.get(key) for row in rows], error_name='standard deviation')]
    found.append(Column(f'{key} (paper)', [row.paper.get(key) for row in rows], '.5g'))
    if key in headlines:
        name = 'difference' if len(headlines) == 1 else f'{key} difference'
        deltas = differences(rows, key)
        place = 1 if any(key in row.metrics for row in rows) else 2
        found.insert(place, Column(
            name, [delta and delta.mean for delta in deltas], '+.3f', errors=[
                delta and delta.error for delta in deltas], error_name='standard error'))
        if any(delta and delta.error is not None for delta in deltas):
            found.insert(place + 1, Column(f'{name}: common seeds', [
                delta and (delta.seeds or None) for delta in deltas]))
    return found


def table_notes(rows: Sequence[Row]) -> list[str]:
    """Return what to know beside the figures: each note once, with the names of its rows."""
    names: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            names.setdefault(note, []).append(row.name)
    notes = []
    for note, having in names.items():
        notes.append(f'{"all" if len(having) == len(rows) > 1 else ", ".join(having)}: {note}')
    first = _first_rgb(rows)
    if first and first.input_values != _RGB_VALUES:
        shape = 'x'.join(map(str, first.input_shape))
        notes.append(f'a normalised size of 1 is the input of {first.name}, {shape}')
    baselines = [rows[group[0]].name for group in groups(rows)] if rows else []
    if len(baselines) > 1 and shown_metrics(rows):
        notes.append(f'differences are to the first row of each family: {", ".join(baselines)}')
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
        side = '<' if i == 0 else '>'
        header.append(format(column.name, f'{side}{width}'))
        rule.append((':' + '-' * (width - 1))[::1 if i == 0 else -1])
        padded.append([format(cell, f'{side}{width}') for cell in cells])
    lines = [f'| {" | ".join(line)} |' for line in (header, rule, *zip(*padded))]
    notes = [f'- {note}' for note in table_notes(rows)]
    return '\n'.join([*lines, *([''] if notes else []), *notes]) + '\n'


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
    named: dict[str, Sequence[Any]] = {}
    for column in columns(rows):
        named[column.name] = column.values
        if set(column.errors) - {None}:
            named[f'{column.name}, {column.error_name}'] = column.errors
    named['notes'] = ['; '.join(row.notes) for row in rows]
    buffer = io.StringIO()
    csv.writer(buffer).writerows([named, *zip(*named.values())])
    return buffer.getvalue()
