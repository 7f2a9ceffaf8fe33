"""One figure of a search: candidates seen, their front, the best one, the limit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

import ofa.files
from search.result import SearchResult


def plot_result(result: SearchResult, path: Path) -> None:
    """Write a PNG of accuracy against the first limit's quantity.

    Draws on a figure of its own, so no global plotting state is touched.

    Raises:
        UserError: if the file cannot be written.
    """
    limit = result.limits[0]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    costs, accuracies = _columns(result.samples)
    axes.scatter(costs, accuracies, s=6, color="0.7", label="candidates seen")
    front = [(candidate.values[limit.name], candidate.accuracy) for candidate in result.front]
    costs, accuracies = _columns(front)
    axes.step(costs, accuracies, where="post", color="tab:blue", label="non-dominated front")
    axes.axvline(limit.maximum, color="tab:red", linestyle="--", linewidth=1, label="limit")
    best = result.best
    axes.scatter([best.values[limit.name]], [best.accuracy], marker="*", s=140, color="tab:red", label="best")
    axes.set_xlabel(f"{limit.name} [{limit.unit}]" if limit.unit else limit.name)
    axes.set_ylabel("estimated accuracy")
    axes.set_title(f"{result.space_name}: {result.algorithm}, {result.evaluations} candidates")
    axes.legend(loc="lower right")
    ofa.files.write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
