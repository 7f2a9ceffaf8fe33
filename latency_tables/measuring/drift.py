"""The machine's changes of speed, taken out of what was measured.

Clock frequency and other guests of the host change the speed of everything for seconds to minutes, by tens of
per cent. Workloads are visited in random order, so that visits made at the same moment tell how fast the
machine was then: log latency = workload + moment, fitted by medians (Tukey's median polish).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latency_tables.table.timing import process_latency_ms

SPEED_PERCENTILE = 5.0
"""Percentile of the moments' speeds that is the common speed; each is a median of several visits. The fast
state is the one a machine returns to, so tables measured at different times agree."""

WINDOW_S = 0.25
"""The machine's speed is taken to be the same for so long."""
MIN_VISITS = 8
"""Windows of time with fewer visits are joined to the ones after them."""
_SWEEPS = 8

Window = Sequence[tuple[str, list[float]]]
"""Visits made within a short time: a workload's key and its runs (ms) each."""


def level(windows: Sequence[Window]) -> list[list[tuple[str, list[float]]]]:
    """Return the same visits as if the machine's speed had not changed.

    Args:
        windows: in the order they were measured.
    """
    visits = [visit for window in windows for visit in window]
    if not visits:
        return [list(window) for window in windows]
    keys = {key: index for index, key in enumerate(dict.fromkeys(key for key, _ in visits))}
    workload_indices = np.array([keys[key] for key, _ in visits])
    moments = _moments([len(window) for window in windows])
    logs = np.log([process_latency_ms(runs) for _, runs in visits])
    speeds = np.zeros(len(visits))
    for _ in range(_SWEEPS):
        usual_logs = _medians(logs - speeds, workload_indices)
        speeds = _medians(logs - usual_logs, moments)
    factors = iter(np.exp(speeds - np.percentile(speeds, SPEED_PERCENTILE)).tolist())
    return [[(key, _divided(runs, next(factors))) for key, runs in window] for window in windows]


def levelled_runs(windows: Sequence[tuple[int, Window]]) -> dict[str, list[list[float]]]:
    """Return all runs (ms) of each workload at a common speed of the machine, one list per process.

    Args:
        windows: in the order they were measured, each with the number of its process.
    """
    runs_by_process: dict[str, dict[int, list[float]]] = {}
    for (process, _), visits in zip(windows, level([visits for _, visits in windows]), strict=True):
        for key, runs_ms in visits:
            runs_by_process.setdefault(key, {}).setdefault(process, []).extend(runs_ms)
    return {key: list(processes.values()) for key, processes in runs_by_process.items()}


def _divided(runs: list[float], factor: float) -> list[float]:
    return [run / factor for run in runs]


def _moments(sizes: Sequence[int]) -> NDArray[np.intp]:
    """Return the number of each visit's moment: windows, small ones joined."""
    moments: list[int] = []
    moment = visits = 0
    for size in sizes:
        moments += [moment] * size
        visits += size
        if visits >= MIN_VISITS:
            moment, visits = moment + 1, 0
    if visits and moment:  # what is left at the end is too small as well
        moments[-visits:] = [moment - 1] * visits
    return np.array(moments, np.intp)


def _medians(values: NDArray[np.float64], groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return each value's median of its group."""
    order = np.argsort(groups, kind="stable")
    ends = np.flatnonzero(np.diff(groups[order])) + 1
    medians = np.empty_like(values)
    for indices in np.split(order, ends):
        medians[indices] = np.median(values[indices])
    return medians
