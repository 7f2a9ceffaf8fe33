"""`Metric`: what a network is judged by, and in which direction."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number per network; files name it, so that values of different metrics never mix.

    Attributes:
        name: in files.
        title: for people.
        higher_is_better: the direction.
        is_fraction: whether it lies in 0..1 and is shown in percent.
    """

    name: str
    title: str
    higher_is_better: bool = True
    is_fraction: bool = True

    @property
    def unit(self) -> str:
        """Unit of shown values; empty if there is none."""
        return "%" if self.is_fraction else ""

    @property
    def scale(self) -> float:
        """Factor from values to what is shown."""
        return 100.0 if self.is_fraction else 1.0

    @property
    def sign(self) -> float:
        """1 where higher is better, else -1: `sign * value` is to be maximised."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def label(self) -> str:
        """Title and unit, for axes."""
        return f"{self.title} [{self.unit}]" if self.unit else self.title

    @property
    def heading(self) -> str:
        """Title and unit, for columns."""
        return f"{self.title} {self.unit}".rstrip()

    def show(self, value: float) -> str:
        """Return a value with its unit."""
        return f"{self.scale * value:.2f} {self.unit}".rstrip()

    def problem(self, value: object) -> str | None:
        """Say what is wrong with a value of the metric; None if nothing is."""
        bounds = (0.0, 1.0) if self.is_fraction else (-math.inf, math.inf)
        if isinstance(value, int | float) and math.isfinite(value) and bounds[0] <= value <= bounds[1]:
            return None
        expected = "a fraction from 0 to 1" if self.is_fraction else "a finite number"
        return f"{self.name} is {value!r}; expected {expected}."


TOP1 = Metric("top1", "top-1")
"""Share of images whose most probable class is the label."""
