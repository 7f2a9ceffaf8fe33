"""One figure of a search: candidates, front, best network and limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ofa.common.files
from ofa.common.metric import TOP1
from search.result.result import LimitRecord, SearchResult
from search.result.verification import Verification


def plot_result(result: SearchResult, path: Path) -> None:
    """Write a PNG of accuracy against each quantity of the front, side by side.

    Uses a separate figure and no global plotting state.

    Raises:
        UserError: if the file cannot be written.
    """
    limits = [limit for limit in result.limits if limit.name in result.front_costs]
    figure = Figure(figsize=(1.5 + 5.5 * len(limits), 4.5), layout="constrained")
    panels = figure.subplots(1, len(limits), squeeze=False, sharey=True)[0]
    for axes, limit in zip(panels, limits, strict=True):
        _plot_front(axes, result, limit, limits)
        if result.verification and result.verification.quantity == limit.name:
            _plot_measured(axes, result.verification, limit)
    costs, accuracies = _columns(result.samples)
    panels[0].scatter(costs, accuracies, s=6, color="0.8", label="candidates seen", zorder=0)
    panels[0].set_ylabel("estimated accuracy" if result.metric == TOP1 else result.metric.title)
    panels[-1].legend(loc="lower right")
    if len(limits) == 1:
        panels[0].legend(loc="lower right")
    figure.suptitle(f"{result.space_name}: {result.algorithm}, {result.evaluations} candidates")
    ofa.common.files.write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))


def _plot_front(axes: Axes, result: SearchResult, limit: LimitRecord, limits: Sequence[LimitRecord]) -> None:
    """Draw a line for a front of one cost; for more costs, points coloured by the next cost."""
    costs, accuracies = _columns([(c.values[limit.name], c.accuracy) for c in result.front])
    if len(limits) == 1:
        axes.step(costs, accuracies, where="post", color="tab:blue", label="non-dominated front")
    else:
        colour_limit = limits[(limits.index(limit) + 1) % len(limits)]
        colours = [c.values[colour_limit.name] for c in result.front]
        points = axes.scatter(costs, accuracies, s=9, c=colours, cmap="viridis", label="non-dominated front")
        axes.figure.colorbar(points, ax=axes, label=colour_limit.label)
    if limit.maximum is not None:
        axes.axvline(limit.maximum, color="tab:red", linestyle="--", linewidth=1, label="limit")
    best = result.best
    axes.scatter([best.values[limit.name]], [best.accuracy], marker="*", s=140, color="tab:red", label="best")
    axes.set_xlabel(limit.label)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _plot_measured(axes: Axes, verification: Verification, limit: LimitRecord) -> None:
    """Mark measured networks, each with a line from its predicted value."""
    for network in verification.networks:
        line = [network.predicted, network.measured]
        axes.plot(line, [network.accuracy] * 2, color="0.6", linewidth=0.8, zorder=1)
    flags = [verification.keeps(n, limit.maximum or 0.0) for n in verification.networks]
    for is_inside, colour in ((True, "tab:green"), (False, "tab:orange")):
        points = [
            (n.measured, n.accuracy)
            for n, flag in zip(verification.networks, flags, strict=True)
            if flag == is_inside
        ]
        if points:
            costs, accuracies = _columns(points)
            label = f"measured, {'inside' if is_inside else 'outside'}"
            axes.scatter(costs, accuracies, s=26, marker="x", color=colour, zorder=3, label=label)
