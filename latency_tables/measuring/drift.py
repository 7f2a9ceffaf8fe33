"""Removal of the machine's speed changes from measurements.

Clock frequency and other guests of the host change the speed of everything for seconds to minutes, by tens of
per cent. Workloads are visited in random order, so visits made at the same time determine the machine's speed
at that time: log latency = workload + time slot, fitted by medians (Tukey's median polish).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latency_tables.table.timing import process_latency_ms

SPEED_PERCENTILE = 5.0
"""Percentile of the time slots' speeds that defines the common speed; each is a median of several visits.
The fast state is the one a machine returns to, so tables measured at different times agree."""

WINDOW_S = 0.25
"""Length of a window in which the machine's speed is taken as constant."""
MIN_VISITS = 8
"""Windows with fewer visits are merged with the following ones."""
_SWEEPS = 8

Window = Sequence[tuple[str, list[float]]]
"""Visits made within a short time: a workload's key and its runs (ms) each."""


def remove_drift(windows: Sequence[Window]) -> list[list[tuple[str, list[float]]]]:
    """Return the same visits, scaled to a constant speed of the machine.

    Args:
        windows: windows of visits in the order of measurement.
    """
    visits = [visit for window in windows for visit in window]
    if not visits:
        return [list(window) for window in windows]
    keys = {key: index for index, key in enumerate(dict.fromkeys(key for key, _ in visits))}
    workload_indices = np.array([keys[key] for key, _ in visits])
    slots = _time_slots([len(window) for window in windows])
    logs = np.log([process_latency_ms(runs) for _, runs in visits])
    speeds = np.zeros(len(visits))
    for _ in range(_SWEEPS):
        usual_logs = _medians(logs - speeds, workload_indices)
        speeds = _medians(logs - usual_logs, slots)
    factors = iter(np.exp(speeds - np.percentile(speeds, SPEED_PERCENTILE)).tolist())
    return [[(key, _divided(runs, next(factors))) for key, runs in window] for window in windows]


def runs_without_drift(windows: Sequence[tuple[int, Window]]) -> dict[str, list[list[float]]]:
    """Return all runs (ms) of each workload at a common speed of the machine, one list per process.

    Args:
        windows: pairs of process number and window, in the order of measurement.
    """
    runs_by_process: dict[str, dict[int, list[float]]] = {}
    for (process, _), visits in zip(windows, remove_drift([visits for _, visits in windows]), strict=True):
        for key, runs_ms in visits:
            runs_by_process.setdefault(key, {}).setdefault(process, []).extend(runs_ms)
    return {key: list(processes.values()) for key, processes in runs_by_process.items()}


def _divided(runs: list[float], factor: float) -> list[float]:
    return [run / factor for run in runs]


def _time_slots(sizes: Sequence[int]) -> NDArray[np.intp]:
    """Return the time slot of each visit: windows, with small ones merged."""
    slots: list[int] = []
    slot = visits = 0
    for size in sizes:
        slots += [slot] * size
        visits += size
        if visits >= MIN_VISITS:
            slot, visits = slot + 1, 0
    if visits and slot:  # the remainder is too small as well
        slots[-visits:] = [slot - 1] * visits
    return np.array(slots, np.intp)


def _medians(values: NDArray[np.float64], groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return each value's median of its group."""
    order = np.argsort(groups, kind="stable")
    ends = np.flatnonzero(np.diff(groups[order])) + 1
    medians = np.empty_like(values)
    for indices in np.split(order, ends):
        medians[indices] = np.median(values[indices])
    return medians
