"""`Table`: the rows of a CSV file about images, as texts: a file for each, its split, and further cells."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ofa.common.display import short_repr
from ofa.common.errors import UserError
from ofa.common.reading import read_text
from ofa.data.layout import TEST_NAMES, TRAIN_NAMES, VALIDATION_NAMES, images_root
from ofa.data.pairs import problem_text
from ofa.data.settings import DataSettings

FILE, SPLIT = "file", "split"
"""Names of the columns that are no label and no number."""

DELIMITERS = (",", ";", "\t")
MAX_TABLE_BYTES = 2**28
SPLIT_NAMES = {"train": TRAIN_NAMES, "validation": VALIDATION_NAMES, "test": TEST_NAMES}
_EXPECTED = f"expected a column {FILE!r} and at least one more"


@dataclass(frozen=True)
class Table:
    """A row for each image.

    Attributes:
        path: the CSV file.
        root: folder of the images.
        columns: names of the columns of `cells`.
        files: path of each image inside of `root`.
        splits: split of each, a key of `SPLIT_NAMES`; None without such a column.
        cells: texts of each row, one for each of `columns`.
        lines: number of each row's last line in the file.
    """

    path: Path
    root: Path
    columns: tuple[str, ...]
    files: list[str]
    splits: list[str] | None
    cells: list[tuple[str, ...]]
    lines: list[int]

    def row_text(self, row: int) -> str:
        """Return where a row is, for error texts."""
        return f"line {self.lines[row]}, {self.files[row]}"


def read_table(settings: DataSettings) -> Table:
    """Return the rows of a table; `find_table` says which.

    The text is UTF-8, with or without a byte order mark, with any ends of lines. Cells are separated by
    commas, or by semicolons or tabs if the first line has no comma. Empty lines do not count.

    Raises:
        UserError: if there is no table, it cannot be read, or columns or rows are not as expected.
    """
    path = find_table(settings)
    rows, delimiter = _rows(path)
    if not rows:
        raise UserError(f"{path} is empty; {_EXPECTED}.")
    header = rows.pop(0)[1]
    _check_header(path, header)
    uneven = [f"line {line}: {len(cells)} cells" for line, cells in rows if len(cells) != len(header)]
    problems = problem_text(
        f"Lines that do not have {len(header)} cells, as the first has",
        uneven,
        f"Cells are separated by {short_repr(delimiter)}; one that contains it stands in double quotes.",
    )
    if problems or not rows:
        raise UserError(f"{path}: {problems[0]}" if problems else f"{path} has no row below its first line.")
    columns = [position for position, name in enumerate(header) if name.lower() not in (FILE, SPLIT)]
    table = Table(
        path,
        path_root(settings),
        tuple(header[position] for position in columns),
        _column(header, rows, FILE) or [],
        _column(header, rows, SPLIT),
        [tuple(cells[position] for position in columns) for _, cells in rows],
        [line for line, _ in rows],
    )
    return _with_known_splits(table)


def path_root(settings: DataSettings) -> Path:
    """Return the folder of a set of images with a table.

    Raises:
        UserError: if there is none.
    """
    return images_root(settings, "expected images and a CSV file")


def find_table(settings: DataSettings) -> Path:
    """Return the table of a set: `settings.table`, or else the only CSV file in its folder.

    Raises:
        UserError: if there is none, or several without a choice.
    """
    root = path_root(settings)
    if settings.table is not None:
        return root / settings.table
    paths = sorted(path for path in root.iterdir() if path.suffix.lower() == ".csv" and path.name[0] != ".")
    if len(paths) == 1:
        return paths[0]
    if paths:
        names = ", ".join(path.name for path in paths[:5])
        raise UserError(f"{root} has {len(paths)} CSV files ({names}); choose one with data.table=NAME.")
    raise UserError(f"{root} has no CSV file; {_EXPECTED} in one, or data.table=NAME.")


def _rows(path: Path) -> tuple[list[tuple[int, list[str]]], str]:
    """Return number and cells of each line that is not empty, and what separates the cells."""
    text = read_text(path, "table", max_bytes=MAX_TABLE_BYTES).removeprefix("\ufeff")
    first_line = text.lstrip().partition("\n")[0]
    delimiter = next((mark for mark in DELIMITERS if mark in first_line), DELIMITERS[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}, is no line of a CSV file: {error}.") from error
    return [(line, cells) for line, cells in rows if any(cells)], delimiter


def _check_header(path: Path, header: Sequence[str]) -> None:
    names = [name.lower() if name.lower() in (FILE, SPLIT) else name for name in header]
    counts = Counter(names)
    problems = [
        f"{short_repr(name)} stands there {count} times" for name, count in counts.items() if count > 1
    ]
    problems += [f"the column {number} has no name" for number, name in enumerate(names, 1) if not name]
    if FILE not in counts or len(set(names) - {FILE, SPLIT}) == 0:
        listed = ", ".join(map(short_repr, header[:8]))
        problems.append(f"there are {listed}; {_EXPECTED}")
    if problems:
        raise UserError(f"The columns of {path}: {'; '.join(problems)}.")


def _column(header: Sequence[str], rows: Sequence[tuple[int, list[str]]], name: str) -> list[str] | None:
    position = next((place for place, text in enumerate(header) if text.lower() == name), None)
    return None if position is None else [cells[position] for _, cells in rows]


def _with_known_splits(table: Table) -> Table:
    """Return the table with the usual names of the splits."""
    if table.splits is None:
        return table
    by_name = {name: split for split, names in SPLIT_NAMES.items() for name in names}
    unknown = [
        f"{table.row_text(row)}: {short_repr(text)}"
        for row, text in enumerate(table.splits)
        if text.lower() not in by_name
    ]
    problems = problem_text(
        f"Rows with no known {SPLIT}", unknown, "Expected train, validation or test in each of them."
    )
    splits = [by_name.get(text.lower(), "") for text in table.splits]
    if not problems and "train" not in splits:
        problems = [f"No row has the {SPLIT} train; expected images to train on."]
    if problems:
        raise UserError(f"{table.path}: {problems[0]}")
    return Table(table.path, table.root, table.columns, table.files, splits, table.cells, table.lines)
