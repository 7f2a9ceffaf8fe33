"""`DecidedChanges`: the changes that a compression makes, with what they cost, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ofa.common.errors import UserError, unknown_name
from ofa.compression.changes import LayerChange
from ofa.compression.plan import UNITS


@dataclass(frozen=True)
class DecidedChanges:
    """The changes of a network's convolutions, and what they cost.

    Attributes:
        changes: the changes.
        cost: name of the bounded cost; a key of `UNITS`.
        before: cost of the network.
        predicted: predicted cost of the changed network.
        after: its measured cost.
        plan: all options, as plain JSON values.
        lines: a table of the plan for the user.
        full_cost: cost of the network that shares refer to; None for `before`.
    """

    changes: tuple[LayerChange, ...]
    cost: str
    before: float
    predicted: float
    after: float
    plan: dict[str, Any]
    lines: tuple[str, ...]
    full_cost: float | None = None

    def __post_init__(self) -> None:
        """Check that the cost is known, and that all costs are above 0."""
        if self.cost not in UNITS:
            raise unknown_name("cost", self.cost, UNITS)
        full_cost = self.before if self.full_cost is None else self.full_cost
        costs = (self.before, self.predicted, self.after, full_cost)
        if not all(0 < cost < math.inf for cost in costs):
            text = ", ".join(f"{cost:g}" for cost in costs)
            raise UserError(f"The costs of a plan are {text}; expected numbers above 0.")

    @property
    def text(self) -> str:
        """A line for the user: the cost before, predicted and measured."""
        divisor, unit = UNITS[self.cost]
        before, predicted, after = (value / divisor for value in (self.before, self.predicted, self.after))
        error = 100 * (self.predicted / self.after - 1)
        text = f"{len(self.changes)} convolutions changed: {before:.4g} {unit} before, "
        if self.cost == "macs":
            return f"{text}{after:.4g} {unit} after ({100 * after / before:.0f} %)"
        return (
            f"{text}{predicted:.4g} {unit} predicted ({error:+.1f} %), {after:.4g} {unit} measured "
            f"({100 * after / before:.0f} % of before)"
        )
