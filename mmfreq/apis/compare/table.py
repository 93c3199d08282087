"""Comparisons as tables: normalised sizes, differences, Markdown, CSV and JSON."""
import csv
import io
import json
from dataclasses import asdict
from typing import Any, Iterator, Optional, Sequence

import numpy as np

from mmfreq.apis.compare.measure import Row
from mmfreq.apis.compare.runs import HEADLINES, SHOWN_METRICS
from mmfreq.files import atomic_write_text

_RGB_VALUES = 3 * 224 * 224  # what a classifier's input counts as 1 in Xu et al. 2020, Tables 1 and 2
_CSV_FIELDS = ('channels', 'size_per_channel', 'normalised_size', 'input_bytes', 'parameters', 'flops', 'memory',
               'loader_rate', 'network_rate', 'found', 'notes')


def groups(rows: Sequence[Row]) -> list[list[int]]:
    """Numbers of the rows that are compared with each other, the baseline first: those of one task.

    Where a task has several families, each in at least two rows, those of one family. A row of which neither is known
    is compared with the first row of its task, by its metrics; without any with the first row.
    """
    scopes = [row.scope or _scope_of_metrics(row) or rows[0].scope for row in rows]
    found = []
    for scope in dict.fromkeys(scopes):
        members = [i for i, other in enumerate(scopes) if other == scope]
        usual = next((rows[i].family for i in members if rows[i].family), '')
        families: dict[str, list[int]] = {}
        for i in members:
            families.setdefault(rows[i].family or usual, []).append(i)
        found += families.values() if min(map(len, families.values())) > 1 else [members]
    return found


def _scope_of_metrics(row: Row) -> str:
    known = {**row.metrics, **row.paper}
    return 'mmdet' if any(key.startswith('coco/') for key in known) else 'mmpretrain' if known else ''


def normalised_sizes(rows: Sequence[Row]) -> list[Optional[float]]:
    """Values of each input over those of the RGB input that it stands for.

    For a detector that is 3 x height x width of the image. For a classifier it is the first RGB input of the rows, or
    3x224x224 if there is none, as in the tables of Xu et al. 2020.
    """
    first = _first_rgb(rows)
    rgb = first.input_values if first else _RGB_VALUES
    return [row.input_values and row.input_values / (3 * int(np.prod(row.img_shape)) if row.scope == 'mmdet' else rgb)
            for row in rows]


def _first_rgb(rows: Sequence[Row]) -> Optional[Row]:
    """The first classifier on RGB pixels, if there is one."""
    return next((row for row in rows if row.input_shape and row.scope != 'mmdet' and row.input_shape[0] == 3), None)


def shown_metrics(rows: Sequence[Row]) -> list[str]:
    """Names of the metrics to show of all rows, the headline first."""
    found = dict.fromkeys(key for row in rows for key in (*row.metrics, *row.paper))
    return [key for key in SHOWN_METRICS if key in found] or list(found)


def headline_metrics(rows: Sequence[Row]) -> list[str]:
    """Names of the metrics that models are judged by, one for each task."""
    shown = shown_metrics(rows)
    return [key for key in shown if key in HEADLINES] or shown[:1]


def differences(rows: Sequence[Row], metric: str) -> list[Optional[float]]:
    """What each row has more than the first one of its group: of the runs' results, or without any of the paper's."""
    runs = any(metric in row.metrics for row in rows)
    values = [(row.metrics if runs else row.paper).get(metric) for row in rows]
    found: list[Optional[float]] = [None] * len(rows)
    for group in groups(rows):
        if values[group[0]] is not None and len(group) > 1:
            for i in group:
                found[i] = None if values[i] is None else round(values[i] - values[group[0]], 6)
    return found


def _metric_columns(rows: Sequence[Row]) -> Iterator[tuple[str, list[Optional[float]], str]]:
    """Name, values and number format of the columns that say what the models reach."""
    headlines = headline_metrics(rows)
    for key in shown_metrics(rows):
        runs = any(key in row.metrics for row in rows)
        difference = ('difference' if len(headlines) == 1 else f'{key} difference', differences(rows, key), '+.3f')
        yield key, [row.metrics.get(key) for row in rows], '.4g'
        if key in headlines and runs:
            yield difference
        yield f'{key} (paper)', [row.paper.get(key) for row in rows], '.5g'
        if key in headlines and not runs:
            yield difference


def table_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the comparison table; columns without any figure are left out."""
    columns = [('model', [row.name for row in rows])]
    columns += [(name, [_number(value, form) for value in values]) for name, values, form in _metric_columns(rows)]
    columns += [
        ('channels', [str(row.input_shape[0]) if row.input_shape else '-' for row in rows]),
        ('size per channel', ['x'.join(map(str, row.input_shape[1:])) if row.input_shape else '-' for row in rows]),
        ('normalised size', [_number(value, '.4g') for value in normalised_sizes(rows)]),
        ('bytes per image', [_number(row.input_bytes, ',') for row in rows]),
        ('parameters', [_number(row.parameters, '.2f', 1e6, ' M') for row in rows]),
        ('FLOPs (multiply-adds)', [_number(row.flops, '.3f', 1e9, ' G') for row in rows]),
        ('memory', [_number(row.memory, '.1f', 1e6, ' MB') for row in rows]),
        ('loading images/s', [_number(row.loader_rate, '.0f') for row in rows]),
        ('network images/s', [_number(row.network_rate, '.1f') for row in rows]),
    ]
    columns = [(name, cells) for name, cells in columns if set(cells) != {'-'}]
    return [name for name, _ in columns], [list(cells) for cells in zip(*(cells for _, cells in columns))]


def _number(value: Optional[float], pattern: str, unit: Optional[float] = None, suffix: str = '') -> str:
    return '-' if value is None else format(value / unit if unit else value, pattern) + suffix


def table_notes(rows: Sequence[Row]) -> list[str]:
    """What to know beside the figures: a line for each note, with the names of the rows that have it."""
    names: dict[str, list[str]] = {}
    for row in rows:
        for note in (*row.notes, *([f'best result: {row.found}'] if row.found else [])):
            names.setdefault(note, []).append(row.name)
    notes = [f'{", ".join(having) if len(having) < len(rows) or len(rows) == 1 else "all"}: {note}'
             for note, having in names.items()]
    stated = {i for key in headline_metrics(rows)
              for i, value in enumerate(differences(rows, key)) if value is not None}
    first = _first_rgb(rows)
    if first and first.input_values != _RGB_VALUES:
        shape = 'x'.join(map(str, first.input_shape))
        notes.append(f'a normalised size of 1 is the input of {first.name}, {shape}')
    baselines = [group[0] for group in groups(rows) if stated & set(group)]
    if baselines not in ([], [0]):
        named = ', '.join(rows[i].name for i in baselines)
        notes.append(f'differences are to the first row of each family: {named}')
    return notes


def markdown_table(rows: Sequence[Row]) -> str:
    """The comparison as a Markdown table, columns aligned for reading in a terminal, notes below it."""
    header, cells = table_cells(rows)
    widths = [max(len(line[i]) for line in (header, *cells)) for i in range(len(header))]

    def line(values: Sequence[str]) -> str:
        aligned = [v.ljust(w) if i == 0 else v.rjust(w) for i, (v, w) in enumerate(zip(values, widths))]
        return f'| {" | ".join(aligned)} |'

    rule = [':' + '-' * (widths[0] - 1), *('-' * (w - 1) + ':' for w in widths[1:])]
    notes = [f'- {note}' for note in table_notes(rows)]
    return '\n'.join([line(header), line(rule), *map(line, cells), *([''] if notes else []), *notes]) + '\n'


def plain_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """All figures as plain values: fields of :class:`Row`, and the sizes and differences that follow from them."""
    sizes = normalised_sizes(rows)
    more = {key: differences(rows, key) for key in headline_metrics(rows)}
    return [dict(asdict(row), channels=row.input_shape[0] if row.input_shape else None,
                 size_per_channel=list(row.input_shape[1:]) if row.input_shape else None,
                 input_values=row.input_values, normalised_size=sizes[i],
                 difference={key: values[i] for key, values in more.items() if values[i] is not None})
            for i, row in enumerate(rows)]


def csv_table(rows: Sequence[Row]) -> str:
    """The comparison as CSV with plain numbers; columns without any figure are left out."""
    plain = plain_rows(rows)
    columns: list[tuple[str, list[Any]]] = [('model', [row.name for row in rows])]
    columns += [(name, values) for name, values, _ in _metric_columns(rows)]
    for key in _CSV_FIELDS:
        columns.append((key, [row[key] for row in plain]))
    columns = [(name, [_plain_cell(value) for value in values]) for name, values in columns]
    columns = [(name, cells) for name, cells in columns if set(cells) != {None} or name in ('found', 'notes')]
    buffer = io.StringIO()
    csv.writer(buffer).writerows([[name for name, _ in columns], *zip(*(cells for _, cells in columns))])
    return buffer.getvalue()


def _plain_cell(value: Any) -> Any:
    """A value of one cell: sizes as 56x56, notes in one text."""
    if not isinstance(value, list):
        return value
    return 'x'.join(map(str, value)) if value and isinstance(value[0], int) else '; '.join(value)


def save_comparison(rows: Sequence[Row], prefix: str) -> list[str]:
    """Writes ``PREFIX.md``, ``.csv`` (plain numbers), ``.json`` (all figures) and ``.png``; returns their names."""
    from mmfreq.apis.compare.picture import plot_comparison
    atomic_write_text(f'{prefix}.md', markdown_table(rows))
    atomic_write_text(f'{prefix}.csv', csv_table(rows))
    atomic_write_text(f'{prefix}.json', json.dumps(plain_rows(rows), indent=1) + '\n')
    plot_comparison(rows, f'{prefix}.png')
    return [f'{prefix}.{suffix}' for suffix in ('md', 'csv', 'json', 'png')]
