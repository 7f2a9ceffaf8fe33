"""`steps_figure`: the metric after each step of a compression, against what the network costs then."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class StepPoint:
    """A step: its name, the cost and the metric after it, both as they are shown."""

    name: str
    cost: float
    value: float


def steps_figure(
    points: Sequence[StepPoint], controls: Sequence[StepPoint] = (), *, title: str, cost: str, value: str
) -> Figure:
    """Return a figure with a point for each step, joined by arrows in their order.

    It is a separate figure, without global plotting state.

    Args:
        points: the steps in their order, the uncompressed network first.
        controls: networks to compare with, which are no steps.
        title: title of the figure.
        cost: label of the costs, with their unit.
        value: label of the metric, with its unit.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for start, end in itertools.pairwise(points):
        axes.annotate(
            "",
            (end.cost, end.value),
            (start.cost, start.value),
            arrowprops={"arrowstyle": "->", "color": "0.6", "shrinkA": 4, "shrinkB": 4},
        )
    for group, colour in ((points, "tab:blue"), (controls, "tab:grey")):
        for place, names in _names_by_place(group).items():
            axes.plot(*place, "o", color=colour)
            axes.annotate(
                ", ".join(names),
                place,
                (0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
    axes.margins(x=0.35, y=0.15)
    axes.set_xlabel(cost)
    axes.set_ylabel(value)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    return figure


def _names_by_place(points: Sequence[StepPoint]) -> dict[tuple[float, float], list[str]]:
    """Return the names of the points at each place; steps that change nothing that is drawn share one."""
    names: dict[tuple[float, float], list[str]] = {}
    for point in points:
        names.setdefault((point.cost, point.value), []).append(point.name)
    return names
