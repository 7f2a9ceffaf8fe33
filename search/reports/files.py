"""The files of a search: its result as JSON, a figure and a table beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ofa.common.figures import save_png
from ofa.common.files import json_writer, write_together
from search.reports.figure import result_figure
from search.reports.predictions import Predictions
from search.reports.text import front_rows, save_csv
from search.result.result import SearchResult


def save_all(
    result: SearchResult,
    path: Path,
    provenance: Mapping[str, str],
    *,
    title: str = "",
    predictions: Predictions | None = None,
) -> None:
    """Write `path` (JSON) and, with the same name, a .png and a .csv; all three are replaced together.

    Args:
        result: the result.
        path: file of the result.
        provenance: origin of the search; see `SearchResult.save`.
        title: title of the figure, e.g. run and device.
        predictions: estimators behind the search, for the error band of the figure.

    Raises:
        UserError: if a file cannot be written.
    """
    figure, rows = result_figure(result, title=title, predictions=predictions), front_rows(result)
    write_together(
        {
            path: json_writer(result.saved_values(provenance)),
            path.with_suffix(".png"): lambda temporary: save_png(figure, temporary),
            path.with_suffix(".csv"): lambda temporary: save_csv(rows, temporary),
        }
    )
