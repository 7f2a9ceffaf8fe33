"""Limits on any estimated quantity, and checks of values against them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.common.errors import UserError
from ofa.common.latency_target import LatencyTarget
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes

LATENCY = "latency"
"""The kind of all latency limits, on any device."""

_TITLES = {
    "latency_ms": ("latency", "ms"),
    "macs_m": ("MACs", "M"),
    "parameters_m": ("parameters", "M"),
    "memory_mb": ("activations", "MB"),
}
"""Title and unit of the quantities that users limit by name."""


def quantity_title(name: str, unit: str) -> tuple[str, str]:
    """Return title and unit of a limited quantity for tables and figures, e.g. "latency on phone", "ms"."""
    quantity, *place = name.split(" on ", 1)
    title, shown_unit = _TITLES.get(quantity, (quantity, unit))
    return " on ".join([title, *place]), shown_unit


@dataclass(frozen=True)
class Limit:
    """An upper bound on one estimated quantity.

    Attributes:
        name: name of the bounded quantity, e.g. "latency_ms".
        estimator: estimator of the quantity.
        maximum: the largest accepted value, in the estimator's unit; infinite if the quantity is only an
            objective (see `search.algorithms.nsga2`).
        unit: unit for texts and plots, e.g. "ms"; may be empty.
        kind: type of the quantity, e.g. `LATENCY`; may be empty.
        target: what a latency is for; None for other quantities, or if it is not known.
    """

    name: str
    estimator: Estimator
    maximum: float
    unit: str = ""
    kind: str = ""
    target: LatencyTarget | None = None

    def __post_init__(self) -> None:
        """Check that the limit has a name and that its maximum is positive."""
        if not self.name:
            raise UserError("A limit has no name; expected one such as latency_ms.")
        if not self.maximum > 0:
            raise UserError(f"Limit {self.name} is {self.maximum}; expected a positive number.")

    @property
    def bounded(self) -> bool:
        """Whether the maximum is finite."""
        return math.isfinite(self.maximum)

    @property
    def short(self) -> str:
        """The bound and its unit without spaces, for names of results; unbounded: the quantity's name."""
        text = f"{number_text(self.maximum)}{self.unit.replace(' ', '')}" if self.bounded else self.name
        return text.replace(" ", "_")

    def show(self, value: float, digits: int = 6) -> str:
        """Return `value` with the unit, rounded up to some digits, so that a limit of that text keeps it."""
        return f"{rounded_up(value, digits)} {self.unit}".rstrip()

    def show_range(self, low: float, high: float) -> str:
        """Return a range of values, e.g. "0.204 to 3.01 ms"; `low` as a limit that keeps it."""
        return f"{self.show(low, 3).removesuffix(self.unit).rstrip()} to {self.show(high, 3)}"


def number_text(value: float, digits: int = 6) -> str:
    """Return a number with at most so many digits and without an exponent, e.g. "5000000"."""
    return np.format_float_positional(float(f"{value:.{digits}g}"), trim="-")


def rounded_up(value: float, digits: int = 6) -> str:
    """Return a number with at most so many digits that is not smaller, without an exponent."""
    rounded = float(f"{value:.{digits}g}")
    if value > 0 and rounded < value:
        rounded = value + 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return number_text(rounded, digits)


def number_texts(values: Sequence[float], digits: int = 3) -> list[str]:
    """Return numbers for a column, all with so many decimals that the smallest has `digits` digits.

    Where the values span more than two powers of ten, the small ones have fewer.
    """
    orders = [math.floor(math.log10(abs(value))) for value in values if value] or [0]
    decimals = max(0, min(digits - 1 - min(orders), digits + 1 - max(orders)))
    return [f"{value:.{decimals}f}" for value in values]


def check_limits(limits: Sequence[Limit]) -> None:
    """Check that there is a limit, and that names are unique.

    Raises:
        UserError: if there is no limit, or a name occurs twice.
    """
    if not limits:
        raise UserError("A search needs at least one limit, e.g. limits.latency_ms=3.5.")
    twice = sorted(name for name, count in Counter(limit.name for limit in limits).items() if count > 1)
    if twice:
        raise UserError(f"More than one limit is named {', '.join(twice)}; expected distinct names.")


def check_bounded(limits: Sequence[Limit]) -> None:
    """Check that all limits are finite, for an algorithm that finds one network and not a front.

    Raises:
        UserError: if a limit is infinite.
    """
    if unbounded := [limit.name for limit in limits if not limit.bounded]:
        raise UserError(
            f"{', '.join(unbounded)} is infinite; expected a finite limit. For the whole front of accuracy "
            "against that quantity use search=pareto."
        )


def limit_values(limits: Sequence[Limit], genomes: Genomes) -> NDArray[np.float64]:
    """Return the limited quantities, shape (n, number of limits)."""
    return np.stack([limit.estimator(genomes) for limit in limits], axis=1)


def violations(limits: Sequence[Limit], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the excess of each value as a share of its maximum (0: within), same shape as `values`."""
    maxima = np.array([limit.maximum for limit in limits])
    return np.asarray(np.maximum(values / maxima - 1.0, 0.0))


def feasible_rows(limits: Sequence[Limit], values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return a mask of the rows of `values`, shape (n, num_limits), that keep every limit; NaN fails."""
    return np.asarray((values <= np.array([limit.maximum for limit in limits])).all(axis=1))


def feasible(limits: Sequence[Limit], genomes: Genomes) -> NDArray[np.bool_]:
    """Return a mask of the genomes that keep every limit, shape (n,)."""
    return feasible_rows(limits, limit_values(limits, genomes))
