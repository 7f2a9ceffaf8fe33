"""`Timing`: statistics of the runs of one program, and the definition of its latency.

A program is visited at many times, with several runs per visit. A busy or throttled machine has phases in
which everything takes longer, so the latency is a low percentile of the runs. A very low percentile would not
work: if fast phases are rare, only some programs have runs in them. Differences between processes (addresses,
packed weights, the core) are not noise that further runs average out; the mean over processes does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ofa.common.errors import UserError

LATENCY_PERCENTILE = 25.0

MIN_MS = 1e-6
"""Latency in milliseconds of a layer that costs no more than its references."""


MAX_MS = 1e9
"""Longest time in a table, eleven days; sums of such times are finite."""


class MeasurementError(UserError):
    """An invalid measured time."""


@dataclass(frozen=True)
class Timing:
    """Statistics of the runs of one program.

    Attributes:
        latency_ms: latency on the undisturbed machine: lower quartile of each process's runs, averaged
            over the processes; for a layer in a table, minus the latency of its references.
        median_ms: median of all runs, without corrections.
        spread_ms: interquartile range of all runs.
        count: number of runs.
    """

    latency_ms: float
    median_ms: float
    spread_ms: float
    count: int

    def __post_init__(self) -> None:
        """Check that the values are finite and the latency positive."""
        if not 0 < self.latency_ms <= MAX_MS:
            raise UserError(f"latency_ms is {self.latency_ms}; expected a positive number up to {MAX_MS:g}.")
        for name in ("median_ms", "spread_ms"):
            value = getattr(self, name)
            if not 0 <= value <= MAX_MS:
                raise UserError(f"{name} is {value}; expected a number from 0 to {MAX_MS:g}.")
        if self.count < 1:
            raise UserError(f"count is {self.count}; expected at least 1.")


@dataclass(frozen=True)
class ImportedTiming:
    """The entry of one layer in an imported table.

    Attributes:
        latency_ms: mean of the runs in milliseconds; 0 for a layer that is fused with another.
        std_ms: standard deviation of the runs; None if unknown.
        count: number of runs; None if unknown.
    """

    latency_ms: float
    std_ms: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        """Check that the values are finite and not negative."""
        for name in ("latency_ms", "std_ms"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MAX_MS:
                raise UserError(f"{name} is {value}; expected a number from 0 to {MAX_MS:g}.")
        if self.count is not None and self.count < 1:
            raise UserError(f"count is {self.count}; expected at least 1.")


def check_runs(key: str, runs_ms: Sequence[float]) -> None:
    """Raise unless all runs of the program `key` took a finite time above zero.

    Raises:
        MeasurementError: naming the program and the value.
    """
    for run in runs_ms:
        if not 0 < run < math.inf:
            raise MeasurementError(
                f"A run of {key} took {run} ms by the clock; expected a number above 0. Check the device's "
                "clock and its engine, then measure again."
            )


def process_latency_ms(runs_ms: Sequence[float]) -> float:
    """Return the latency (ms) of the runs of one process."""
    return float(np.percentile(runs_ms, LATENCY_PERCENTILE))


def latency_ms(processes_ms: Sequence[Sequence[float]]) -> float:
    """Return the latency (ms) of a program from its runs in each process."""
    return float(np.mean([process_latency_ms(runs) for runs in processes_ms]))


def summarize(processes_ms: Sequence[Sequence[float]], references_ms: float = 0.0) -> Timing:
    """Return the statistics of the runs of each process (ms each).

    Args:
        processes_ms: runs in milliseconds, one list per process.
        references_ms: milliseconds subtracted from the latency. A layer cannot make a network faster: if the
            result is not positive because of noise, the latency is `MIN_MS`.
    """
    runs = np.concatenate([np.asarray(runs, float) for runs in processes_ms])
    quarter, median, three_quarters = np.percentile(runs, [25, 50, 75])
    latency = max(latency_ms(processes_ms) - references_ms, MIN_MS)
    return Timing(latency, float(median), float(three_quarters - quarter), len(runs))


def standard_error(visits_ms: Sequence[float]) -> float:
    """Return the standard error (ms) of the latency of a process's visits; inf for fewer than five.

    Args:
        visits_ms: latency of each visit in milliseconds. Runs of one visit are correlated, so visits are
            counted.

    The rank of a percentile among n values is binomial; half the distance between the values one standard
    deviation of it below and above is the error.
    """
    count, share = len(visits_ms), LATENCY_PERCENTILE / 100
    if count < 5:
        return math.inf
    sorted_ms = sorted(visits_ms)
    middle, width = share * (count - 1), math.sqrt(count * share * (1 - share))
    low, high = max(0, math.floor(middle - width)), min(count - 1, math.ceil(middle + width))
    return (sorted_ms[high] - sorted_ms[low]) / 2
