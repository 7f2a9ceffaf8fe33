"""Detection of disturbances: other load on the machine while workloads are timed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAX_LOST_SHARE = 0.05
"""Largest share of a window's time lost to other processes or other guests of the host."""
MAX_SLOWDOWN = 1.15
"""Largest median ratio of a window's latencies to earlier ones."""


@dataclass(frozen=True)
class SystemLoad:
    """Readings of system counters in seconds; 0 where unavailable.

    Attributes:
        wall_s: wall-clock time.
        runnable_wait_s: time that threads of this process were runnable but not running.
        process_s: CPU time of this process.
        busy_s: CPU time of all processes.
        stolen_s: time that the host gave to other guests.
    """

    wall_s: float
    runnable_wait_s: float
    process_s: float
    busy_s: float
    stolen_s: float


@dataclass(frozen=True)
class Disturbance:
    """Assessment of a window of visits.

    Attributes:
        disturbed: whether the visits have to be repeated.
        text: description of the other load; empty without any.
    """

    disturbed: bool
    text: str


def read_system_load() -> SystemLoad:
    """Return the current readings (complete on Linux; elsewhere wall-clock and process time only)."""
    busy_s, stolen_s = _machine_s()
    return SystemLoad(time.perf_counter(), _runnable_wait_s(), time.process_time(), busy_s, stolen_s)


def _runnable_wait_s() -> float:
    wait_s = 0.0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            wait_s += float(path.read_text(encoding="utf-8").split()[1]) / 1e9
        except (OSError, IndexError):  # a thread that ended meanwhile
            continue
    return wait_s


def _machine_s() -> tuple[float, float]:
    try:
        fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0, 0.0
    user, nice, system, _, _, interrupts, soft_interrupts, steal = map(float, fields)
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + interrupts + soft_interrupts) / ticks, steal / ticks


def assess(start: SystemLoad, end: SystemLoad, slowdowns: Sequence[float]) -> Disturbance:
    """Return the assessment of the window between two readings.

    Visits are disturbed if this process lost time, or if they took longer than earlier visits of the same
    workloads. Other load is reported but not treated as a disturbance.

    Args:
        start: reading at the start of the window.
        end: reading at the end of the window.
        slowdowns: latency of each visit, divided by the usual latency of the same workload.
    """
    wall = max(end.wall_s - start.wall_s, 1e-9)
    lost_share = (end.runnable_wait_s - start.runnable_wait_s + end.stolen_s - start.stolen_s) / wall
    other_cores = (end.busy_s - start.busy_s - (end.process_s - start.process_s)) / wall
    slowdown = float(np.median(slowdowns)) if slowdowns else 1.0
    disturbed = lost_share > MAX_LOST_SHARE or slowdown > MAX_SLOWDOWN
    causes = [f"other processes use {other_cores:.1f} cores"] if other_cores > 0.2 else []
    causes += [f"{100 * lost_share:.0f} % of the time lost"] if lost_share > MAX_LOST_SHARE else []
    causes += [f"{100 * (slowdown - 1):.0f} % slower than before"] if slowdown > MAX_SLOWDOWN else []
    text = f"machine busy: {', '.join(causes)}" if causes else ""
    return Disturbance(disturbed, f"{text}; measuring again" if disturbed else text)
