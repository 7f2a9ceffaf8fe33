"""The files of a search: its result as JSON, a figure and a table beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from search.reports.figure import plot_result
from search.reports.text import write_table
from search.result.result import SearchResult


def save_all(result: SearchResult, path: Path, provenance: Mapping[str, str]) -> None:
    """Write `path` (JSON) and, with the same name, a .png and a .csv.

    Raises:
        UserError: if a file cannot be written.
    """
    result.save(path, provenance)
    plot_result(result, path.with_suffix(".png"))
    write_table(result, path.with_suffix(".csv"))
