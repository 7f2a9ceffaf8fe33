"""`Metric`: a number that networks are compared by, and its direction."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number per network; files name it, so that values of different metrics never mix.

    Attributes:
        name: identifier in files and settings.
        title: text in tables and figures.
        higher_is_better: whether larger values are better.
        is_fraction: whether values lie in 0..1 and are shown in percent.
    """

    name: str
    title: str
    higher_is_better: bool = True
    is_fraction: bool = True

    @property
    def unit(self) -> str:
        """Unit of displayed values; empty without one."""
        return "%" if self.is_fraction else ""

    @property
    def scale(self) -> float:
        """Factor from stored to displayed values."""
        return 100.0 if self.is_fraction else 1.0

    @property
    def sign(self) -> float:
        """1 where higher is better, else -1: `sign * value` is to be maximised."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def label(self) -> str:
        """Title and unit, for the axis of a figure."""
        return f"{self.title} [{self.unit}]" if self.unit else self.title

    @property
    def heading(self) -> str:
        """Title and unit, for the heading of a column."""
        return f"{self.title} {self.unit}".rstrip()

    def show(self, value: float) -> str:
        """Return `value` as text with its unit."""
        return f"{self.scale * value:.2f} {self.unit}".rstrip()

    def problem(self, value: object) -> str | None:
        """Return why `value` is not a value of this metric; None if it is valid."""
        bounds = (0.0, 1.0) if self.is_fraction else (-math.inf, math.inf)
        if isinstance(value, int | float) and math.isfinite(value) and bounds[0] <= value <= bounds[1]:
            return None
        expected = "a fraction from 0 to 1" if self.is_fraction else "a finite number"
        return f"{self.name} is {value!r}; expected {expected}."


TOP1 = Metric("top1", "top-1")
"""Share of images whose most probable class is the label."""
