"""`CostLine`: what networks were measured to take tells what to expect of the next one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CostLine:
    """The line through two networks: the sum of the costs of their layers, and their measured cost.

    Attributes:
        below: the closest network within the limit.
        above: the closest one above it.
    """

    below: tuple[float, float]
    above: tuple[float, float]

    def closer(self, point: tuple[float, float], limit: float) -> CostLine:
        """Return the line through a network that was measured, if it is closer to the limit."""
        below, above = self.below, self.above
        below, above = (max(below, point), above) if point[1] <= limit else (below, min(above, point))
        return self if below[0] == above[0] else CostLine(below, above)

    def measured(self, total: float) -> float:
        """Return the measured cost to expect for a sum, between those of the two networks."""
        (first, first_measured), (last, last_measured) = self.below, self.above
        cost = first_measured + (total - first) / (last - first) * (last_measured - first_measured)
        return min(max(cost, first_measured), last_measured)

    def total(self, measured: float) -> float:
        """Return the sum to aim at for a measured cost."""
        (first, first_measured), (last, last_measured) = self.below, self.above
        return first + (measured - first_measured) / (last_measured - first_measured) * (last - first)
