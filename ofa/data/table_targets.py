"""The targets in the cells of a table: labels that an image has or has not, and numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ofa.common.display import short_repr
from ofa.data.pairs import problem_text
from ofa.data.table import Table

LABELS = "labels"
"""Name of the column that lists the labels of an image, instead of a column for each."""

UNKNOWN = -1
"""Target of a label of which nothing is known."""


@dataclass(frozen=True)
class TableTargets:
    """What a table tells of each image.

    Attributes:
        names: names of the labels or columns.
        values: 0, 1 or `UNKNOWN` (rows, labels), int8; or numbers (rows, columns), float64, NaN if unknown.
        problems: texts about cells that cannot be read.
    """

    names: tuple[str, ...]
    values: Tensor
    problems: list[str]


def read_labels(table: Table) -> TableTargets:
    """Return the labels of each row, in the order of the columns, or of the names of listed ones.

    A column for each label holds 0 and 1; an empty cell, or -1, is unknown. A column `labels` lists the
    names, separated by `|` or `;`; those that are not listed are known to be absent.
    """
    if [name.lower() for name in table.columns] == [LABELS]:
        return _listed_labels(table)
    known = {"": UNKNOWN, "-1": UNKNOWN, "-1.0": UNKNOWN, "0": 0, "0.0": 0, "1": 1, "1.0": 1}
    rows, wrong = [], []
    for row, cells in enumerate(table.cells):
        for name, text in zip(table.columns, cells, strict=True):
            if text not in known:
                wrong.append(f"{table.row_text(row)}, {name}: {short_repr(text)}")
        rows.append([known.get(text, UNKNOWN) for text in cells])
    problems = problem_text(
        "Cells that are no label",
        wrong,
        f"Expected 0 or 1, or nothing if it is unknown; or one column {LABELS!r} with names separated by |.",
    )
    return TableTargets(table.columns, torch.tensor(rows, dtype=torch.int8), problems)


def _listed_labels(table: Table) -> TableTargets:
    sets = [{name.strip() for name in re.split(r"[|;]", cells[0])} - {""} for cells in table.cells]
    names = tuple(sorted(set[str]().union(*sets)))
    rows = [[int(name in labels) for name in names] for labels in sets]
    problems = [] if names else [f"The column {LABELS!r} lists no label at all; expected some."]
    return TableTargets(names, torch.tensor(rows, dtype=torch.int8).view(len(sets), len(names)), problems)


def read_numbers(table: Table) -> TableTargets:
    """Return the numbers of each row; an empty cell is unknown."""
    rows, wrong = [], []
    for row, cells in enumerate(table.cells):
        numbers = [_number(text) for text in cells]
        for name, text, number in zip(table.columns, cells, numbers, strict=True):
            if number is None:
                wrong.append(f"{table.row_text(row)}, {name}: {short_repr(text)}")
        rows.append([math.nan if number is None else number for number in numbers])
    problems = problem_text(
        "Cells that are no finite number", wrong, "Expected e.g. 2.5 or 1e-3, or nothing where it is unknown."
    )
    return TableTargets(table.columns, torch.tensor(rows, dtype=torch.float64), problems)


def _number(text: str) -> float | None:
    """Return the number that a cell holds, NaN for an empty one; None if it is none, or not finite."""
    if not text:
        return math.nan
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def label_counts(labels: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the numbers of images that have each label, and that have it not."""
    positive, negative = ((labels == value).sum(0).tolist() for value in (1, 0))
    return tuple(positive), tuple(negative)


def unknown_rows(values: Tensor) -> Tensor:
    """Return of which rows nothing is known, bool (rows,)."""
    return is_unknown(values).all(1)


def is_unknown(values: Tensor) -> Tensor:
    """Return which labels or numbers are unknown, in the shape of `values`."""
    return values.isnan() if values.is_floating_point() else values == UNKNOWN


def constant_columns(values: Tensor, names: Sequence[str]) -> list[str]:
    """Return the names of the columns with fewer than two different known numbers."""
    columns = [column[~column.isnan()] for column in values.T]
    return [name for name, column in zip(names, columns, strict=True) if len(column.unique()) < 2]
