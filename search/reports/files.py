"""The files of a search: its result as JSON, a figure and a table beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from search.reports.figure import plot_result
from search.reports.predictions import Predictions
from search.reports.text import write_table
from search.result.result import SearchResult


def save_all(
    result: SearchResult,
    path: Path,
    provenance: Mapping[str, str],
    *,
    title: str = "",
    predictions: Predictions | None = None,
) -> None:
    """Write `path` (JSON) and, with the same name, a .png and a .csv.

    Args:
        result: the result.
        path: file of the result.
        provenance: origin of the search; see `SearchResult.save`.
        title: title of the figure, e.g. run and device.
        predictions: estimators behind the search, for the error band of the figure.

    Raises:
        UserError: if a file cannot be written.
    """
    result.save(path, provenance)
    plot_result(result, path.with_suffix(".png"), title=title, predictions=predictions)
    write_table(result, path.with_suffix(".csv"))
