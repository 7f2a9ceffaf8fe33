"""`sensitivity_figure`: what each group of a network loses with fewer channels, a row of a heat map each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ofa.graph.sensitivity import GroupSensitivity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_ROWS_WITH_NUMBERS = 30


def sensitivity_figure(
    sensitivity: Sequence[GroupSensitivity], *, title: str, label: str, scale: float = 1.0
) -> Figure:
    """Return a heat map: a row per group, the share of its units that stay across, the loss as colour.

    It is a separate figure, without global plotting state.

    Args:
        sensitivity: groups, in the order of the network.
        title: title of the figure.
        label: what is lost, with its unit.
        scale: factor from losses to what is shown, e.g. 100 for percent.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    num_rows = len(sensitivity)
    has_numbers = num_rows <= _MAX_ROWS_WITH_NUMBERS
    height = 0.26 if has_numbers else 0.17
    figure = Figure(figsize=(8, max(2.8, 1.6 + height * num_rows)), layout="constrained")
    axes = figure.subplots()
    largest = max((scale * loss for group in sensitivity for loss in group.losses), default=0.0)
    # Small losses decide between groups: they get more of the colours.
    norm = PowerNorm(0.5, vmin=0.0, vmax=max(largest, 1e-9))
    for row, group in enumerate(sensitivity):
        shares = np.array(group.counts) / group.counts[-1]
        middles = (shares[1:] + shares[:-1]) / 2
        edges = np.array([max(0.0, shares[0] - (shares[1] - shares[0]) / 2), *middles, 1.0])
        losses = scale * np.array(group.losses)
        mesh = axes.pcolormesh(edges, [row - 0.42, row + 0.42], losses[None], cmap="YlOrRd", norm=norm)
        for left, right, loss in zip(edges, edges[1:], losses, strict=False):
            if has_numbers and right - left > 0.05:
                colour = "white" if loss > 0.5 * largest else "black"
                axes.text(
                    (left + right) / 2, row, f"{loss:.1f}", color=colour, size=7, ha="center", va="center"
                )
    axes.set_yticks(range(num_rows), [f"{group.name} ({group.counts[-1]})" for group in sensitivity])
    axes.tick_params(axis="y", labelsize=8 if has_numbers else 6)
    axes.set_ylim(num_rows - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the group's units that stay")
    axes.set_title(title, fontsize=10)
    if num_rows:
        figure.colorbar(mesh, ax=axes, label=label, aspect=max(10, 2 * num_rows))
    return figure
