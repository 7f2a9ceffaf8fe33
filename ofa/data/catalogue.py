"""`Catalogue`: all photographs of a folder that can be read, with their classes and sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.data.header import Header
from ofa.data.headers import check_pictures, check_readable
from ofa.data.layout import Layout
from ofa.data.listing import list_pictures
from ofa.data.order import Rows
from ofa.data.settings import DataSettings


@dataclass(frozen=True)
class Catalogue:
    """The photographs of a set, a row each.

    Attributes:
        paths: file of each photograph.
        labels: class of each, shape (n,).
        folders: split whose folder it lies in, shape (n,), texts.
        sizes: width and height in pixels as displayed, shape (n, 2).
        num_transparent: number of photographs with an alpha channel or a transparent colour.
        unreadable: texts `PATH (REASON)` of the files that are skipped.
        left_out: number of other files by ending; see `Listing`.
    """

    paths: list[Path]
    labels: Rows
    folders: npt.NDArray[np.str_]
    sizes: Rows
    num_transparent: int
    unreadable: tuple[str, ...]
    left_out: Counter[str]


def read_catalogue(layout: Layout, settings: DataSettings, progress: ProgressCallback = silent) -> Catalogue:
    """List the photographs of all folders, and check that they can be read.

    Raises:
        UserError: if a class is empty, or files cannot be read: all of them, or, if they are to be skipped,
            those of a class without any other.
    """
    paths: list[Path] = []
    labels: list[int] = []
    folders: list[str] = []
    left_out: Counter[str] = Counter()
    for split, folder in layout.folders.items():
        listing = list_pictures(folder, layout.class_names)
        paths += listing.paths
        labels += listing.labels
        folders += [split] * len(listing.paths)
        left_out += listing.left_out
    headers = check_pictures(layout.root, paths, progress)
    if settings.on_unreadable == "stop":
        check_readable(paths, headers)
    rows = [row for row, header in enumerate(headers) if isinstance(header, Header)]
    readable = [header for header in headers if isinstance(header, Header)]
    _check_classes(layout, labels, folders, rows)
    texts = zip(paths, headers, strict=True)
    return Catalogue(
        [paths[row] for row in rows],
        np.array(labels, np.int64)[rows],
        np.array(folders)[rows],
        np.array([(header.width, header.height) for header in readable], np.int64),
        sum(header.is_transparent for header in readable),
        tuple(f"{path} ({reason})" for path, reason in texts if isinstance(reason, str)),
        left_out,
    )


def _check_classes(
    layout: Layout, labels: Sequence[int], folders: Sequence[str], rows: Sequence[int]
) -> None:
    """Raise the error for classes of a folder in which no photograph can be read."""
    every, readable = ({(folders[row], labels[row]) for row in part} for part in (range(len(labels)), rows))
    texts = [
        str(layout.folders[split] / layout.class_names[label]) for split, label in sorted(every - readable)
    ]
    if texts:
        raise UserError(f"No photograph can be read in {', '.join(texts)}; replace the files.")
