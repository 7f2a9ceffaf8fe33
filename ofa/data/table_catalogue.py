"""`TableCatalogue`: the images that a table names and that can be read, with their labels or numbers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from torch import Tensor

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.common.reading import is_file
from ofa.data.catalogue import Catalogue
from ofa.data.header import Header
from ofa.data.headers import check_pictures, check_readable
from ofa.data.layout import SplitFolders
from ofa.data.listing import list_folder
from ofa.data.pairs import problem_text
from ofa.data.settings import MULTI_LABEL, DataSettings
from ofa.data.table import FILE, SPLIT, Table, read_table
from ofa.data.table_targets import TableTargets, read_labels, read_numbers


@dataclass(frozen=True)
class TableCatalogue(Catalogue):
    """The images of a table, a row each; an image has no class of its own: all labels are 0.

    Attributes:
        table: the table; its rows are not those of the catalogue where files are skipped.
        names: names of the labels or columns of numbers.
        targets: what is told of each image; see `TableTargets.values`.
        without_row: images in the folder that the table does not name.
    """

    table: Table = field(kw_only=True)
    names: tuple[str, ...] = field(kw_only=True)
    targets: Tensor = field(kw_only=True)
    without_row: tuple[str, ...] = field(kw_only=True)

    @property
    def layout(self) -> SplitFolders:
        """What is to be cut: the splits that the table does not name, from all images."""
        splits = {"train", *self.folders.tolist()}
        return SplitFolders(self.table.root, dict.fromkeys(sorted(splits), self.table.root))


def table_targets(table: Table, task: str) -> TableTargets:
    """Return what a table tells of its images for a task."""
    return read_labels(table) if task == MULTI_LABEL else read_numbers(table)


def read_table_catalogue(
    settings: DataSettings, task: str, progress: ProgressCallback = silent
) -> TableCatalogue:
    """Read the table, and check that its images are there and can be read.

    Raises:
        UserError: naming everything that does not fit.
    """
    table = read_table(settings)
    targets = table_targets(table, task)
    paths = [table.root / PurePosixPath(file.replace("\\", "/")) for file in table.files]
    problems = targets.problems + _file_problems(table, paths) + _split_problems(table, settings)
    if problems:
        raise UserError("\n".join([f"{table.path} and the images in {table.root} do not fit.", *problems]))
    headers = check_pictures(table.root, paths, progress)
    if settings.on_unreadable == "stop":
        check_readable(paths, headers)
    readable = [(row, header) for row, header in enumerate(headers) if isinstance(header, Header)]
    rows = [row for row, _ in readable]
    if not rows:
        raise UserError(f"No image that {table.path} names can be read; replace the files.")
    without_row, left_out = _without_row(table, paths)
    splits = np.array(table.splits or ["train"] * len(paths))[rows]
    return TableCatalogue(
        paths=[paths[row] for row in rows],
        labels=np.zeros(len(rows), np.int64),
        folders=splits,
        sizes=np.array([(header.width, header.height) for _, header in readable], np.int64),
        num_transparent=sum(header.is_transparent for _, header in readable),
        unreadable=tuple(
            f"{path} ({reason})"
            for path, reason in zip(paths, headers, strict=True)
            if isinstance(reason, str)
        ),
        left_out=left_out,
        table=table,
        names=targets.names,
        targets=targets.values[rows],
        without_row=without_row,
    )


def _file_problems(table: Table, paths: Sequence[Path]) -> list[str]:
    """Return texts about rows whose file is missing, elsewhere, or named by another row as well."""
    missing, outside, repeated, lines = [], [], [], dict[Path, int]()
    for row, path in enumerate(paths):
        if not table.files[row] or ".." in path.parts or not path.is_relative_to(table.root):
            outside.append(table.row_text(row))
        elif not is_file(path):
            missing.append(table.row_text(row))
        if (line := lines.setdefault(path, table.lines[row])) != table.lines[row]:
            repeated.append(f"{table.row_text(row)}, also in line {line}")
    where = f"The column {FILE!r} holds paths from {table.root} on."
    return [
        *problem_text("Rows whose file is missing", missing, where),
        *problem_text("Rows whose file is not in the folder", outside, where),
        *problem_text("Files that stand in several rows", repeated, "Keep one row for each."),
    ]


def _split_problems(table: Table, settings: DataSettings) -> list[str]:
    """Return texts about sizes of splits that the table names."""
    return [
        f"data.{split}_size is {size}, but the column {SPLIT!r} names the images of {split}; expected null."
        for split, size in (("validation", settings.validation_size), ("test", settings.test_size))
        if size is not None and split in (table.splits or ())
    ]


def _without_row(table: Table, paths: Sequence[Path]) -> tuple[tuple[str, ...], Counter[str]]:
    """Return the images of the folder that no row names, and the number of other files by ending."""
    listing, named = list_folder(table.root), set(paths)
    names = [path.relative_to(table.root).as_posix() for path in listing.paths if path not in named]
    left_out = Counter(listing.left_out)
    if table.path.parent == table.root or table.root in table.path.parents:
        left_out[os.path.splitext(table.path.name)[1].lower()] -= 1  # noqa: PTH122 (as `list_folder` does)
    return tuple(names), +left_out
