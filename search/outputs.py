"""The files of a search: its result as JSON, a figure and a table beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from search.plot import plot_result
from search.result import SearchResult
from search.table import write_table


def save_all(result: SearchResult, path: Path, provenance: Mapping[str, str]) -> None:
    """Write `path` (JSON) and, of the same name, a .png and a .csv.

    Raises:
        UserError: if a file cannot be written.
    """
    result.save(path, provenance)
    plot_result(result, path.with_suffix(".png"))
    write_table(result, path.with_suffix(".csv"))
