"""One figure of a search: candidates, front with its error, best network and limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.limits.limit import number_text
from search.reports.predictions import Predictions
from search.result.result import LimitRecord, SearchResult
from search.result.verification import Verification

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FAR = 1.5
"""A limit above this multiple of all shown values is named in a corner: its line would crowd them out."""


def result_figure(result: SearchResult, *, title: str = "", predictions: Predictions | None = None) -> Figure:
    """Return a figure of the predicted metric against each quantity of the front, side by side.

    It is a separate figure, without global plotting state.

    Args:
        result: the result.
        title: what the networks are for, e.g. run and device.
        predictions: estimators behind the search; where they know the ± of predictions, it is shown.
    """
    limits = [limit for limit in result.limits if limit.name in result.front_costs]
    deviations = predictions.deviations([c.config for c in result.front]) if predictions else None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 5.5 * len(limits), 4.7), layout="constrained")
    panels = figure.subplots(1, len(limits), squeeze=False, sharey=True)[0]
    scale = result.metric.scale
    costs, values = _columns(result.samples, scale)
    panels[0].scatter(costs, values, s=6, color="0.8", label="candidates seen", zorder=0)
    for axes, limit in zip(panels, limits, strict=True):
        _plot_front(axes, result, limit, limits, deviations)
        if result.verification and result.verification.quantity == limit.name:
            _plot_measured(axes, result.verification, limit, scale)
        _plot_limit(axes, limit)
        axes.set_xlabel(limit.label)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(f"predicted {result.metric.label}")
    panels[0].legend(loc="lower right", fontsize=8)
    what = f"{result.space_name}: {result.algorithm}, {result.evaluations} candidates"
    figure.suptitle(f"{title}\n{what}" if title else what, fontsize=11)
    return figure


def _plot_front(
    axes: Axes,
    result: SearchResult,
    limit: LimitRecord,
    limits: Sequence[LimitRecord],
    deviations: NDArray[np.float64] | None,
) -> None:
    """Draw a line with an error band for a front of one cost; else points coloured by the next cost."""
    scale = result.metric.scale
    costs, values = _columns([(c.values[limit.name], c.accuracy) for c in result.front], scale)
    if len(limits) == 1:
        axes.step(costs, values, where="post", color="tab:blue", label="non-dominated front")
        if deviations is not None:
            low, high = (np.array(values) + sign * scale * deviations for sign in (-1, 1))
            band = axes.fill_between(costs, low, high, step="post", alpha=0.15, linewidth=0)
            band.set(color="tab:blue", label="± of a prediction")
    else:
        colour_limit = limits[(limits.index(limit) + 1) % len(limits)]
        colours = [c.values[colour_limit.name] for c in result.front]
        points = axes.scatter(costs, values, s=9, c=colours, cmap="viridis", label="non-dominated front")
        axes.figure.colorbar(points, ax=axes, label=colour_limit.label)
        if deviations is not None:
            errors = scale * deviations
            axes.errorbar(
                costs, values, errors, fmt="none", ecolor="0.9", zorder=0, label="± of a prediction"
            )
    best = result.best
    position = ([best.values[limit.name]], [scale * best.accuracy])
    axes.scatter(*position, marker="*", s=140, color="tab:red", label="best", zorder=4)


def _plot_limit(axes: Axes, limit: LimitRecord) -> None:
    """Draw a limit as a line that is named; one that is far from all values is named alone."""
    if limit.maximum is None:
        return
    text = f"limit {number_text(limit.maximum, 4)} {limit.shown_unit}".rstrip()
    _, right = axes.get_xlim()
    if limit.maximum > _FAR * right:
        text = f"{text} (far to the right)"
        axes.text(0.98, 0.98, text, transform=axes.transAxes, ha="right", va="top", color="tab:red")
        return
    axes.axvline(limit.maximum, color="tab:red", linestyle="--", linewidth=1)
    place, box = axes.get_xaxis_transform(), {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}
    label = axes.text(limit.maximum, 0.98, f"{text} ", transform=place, rotation=90, ha="right", va="top")
    label.set(color="tab:red", bbox=box, zorder=5)


def _columns(points: Sequence[tuple[float, float]], scale: float) -> tuple[list[float], list[float]]:
    """Return costs, and values of the metric in its displayed unit."""
    return [x for x, _ in points], [scale * y for _, y in points]


def _plot_measured(axes: Axes, verification: Verification, limit: LimitRecord, scale: float) -> None:
    """Mark measured networks, each with a line from its predicted value."""
    for network in verification.networks:
        line = [network.predicted, network.measured]
        axes.plot(line, [scale * network.accuracy] * 2, color="0.6", linewidth=0.8, zorder=1)
    flags = [verification.keeps(n, limit.maximum or 0.0) for n in verification.networks]
    for is_inside, colour in ((True, "tab:green"), (False, "tab:orange")):
        points = [
            (n.measured, n.accuracy)
            for n, flag in zip(verification.networks, flags, strict=True)
            if flag == is_inside
        ]
        if points:
            costs, values = _columns(points, scale)
            label = f"measured, {'inside' if is_inside else 'outside'}"
            axes.scatter(costs, values, s=26, marker="x", color=colour, zorder=3, label=label)
