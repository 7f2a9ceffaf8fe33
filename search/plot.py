"""One figure of a search: candidates seen, their front, the best one, the limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def plot_tradeoff(
    predicted: Sequence[tuple[float, float]],
    measured: Mapping[str, Sequence[tuple[float, float]]],
    path: Path,
    labels: Mapping[tuple[float, float], str] | None = None,
) -> None:
    """Write a PNG of top-1 (%) against latency (ms): a predicted front and groups of measured networks.

    Args:
        predicted: (latency, top-1) of the predicted front, cheapest first.
        measured: (latency, top-1) points per group; each group has its own marker.
        path: the file.
        labels: text beside some of the measured points.

    Raises:
        UserError: if the file cannot be written.
    """
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.step(*_columns(predicted), where="post", color="tab:blue", label="predicted front")
    for marker, (name, points) in zip("*sox^D", measured.items(), strict=False):
        size = 150 if marker == "*" else 40
        axes.scatter(*_columns(points), marker=marker, s=size, zorder=3, label=f"{name}, measured")
    for point, text in (labels or {}).items():
        axes.annotate(text, point, xytext=(6, -12), textcoords="offset points", fontsize=8)
    axes.set_xlabel("latency [ms]")
    axes.set_ylabel("top-1 [%]")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    ofa.files.write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
