"""The noise guard: sees that something else kept the machine busy while workloads were timed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAX_LOST_SHARE = 0.05
"""Share of the time that a window may lose to other processes or other guests of the host."""
MAX_SLOWDOWN = 1.15
"""How much longer than before the visits of a window may take, in the median."""


@dataclass(frozen=True)
class SystemLoad:
    """Readings of the system since it started, in seconds; 0 where it does not tell.

    Attributes:
        wall_s: the clock.
        waited_s: threads of this process were ready to run and did not.
        own_s: this process ran.
        busy_s: all processes ran.
        stolen_s: the host gave the cores to other guests.
    """

    wall_s: float
    waited_s: float
    own_s: float
    busy_s: float
    stolen_s: float


@dataclass(frozen=True)
class Disturbance:
    """What a window of visits was like.

    Attributes:
        disturbed: whether its visits should be measured again.
        text: how the machine was busy; empty where it was not.
    """

    disturbed: bool
    text: str


def read_system_load() -> SystemLoad:
    """Return the readings of this moment (Linux; elsewhere the clock and the own time alone)."""
    busy_s, stolen_s = _machine_s()
    return SystemLoad(time.perf_counter(), _waited_s(), time.process_time(), busy_s, stolen_s)


def _waited_s() -> float:
    waited = 0.0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            waited += float(path.read_text().split()[1]) / 1e9
        except (OSError, IndexError):  # a thread that ended meanwhile
            continue
    return waited


def _machine_s() -> tuple[float, float]:
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0, 0.0
    user, nice, system, _, _, interrupts, soft_interrupts, steal = map(float, fields)
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + interrupts + soft_interrupts) / ticks, steal / ticks


def assess(start: SystemLoad, end: SystemLoad, slowdowns: Sequence[float]) -> Disturbance:
    """Return what the window between two readings was like.

    Visits are disturbed where this process lost time, or where they took longer than those of the same
    workloads before. Other load is reported but not treated as a disturbance.

    Args:
        start: reading at its start.
        end: reading at its end.
        slowdowns: of its visits, each divided by the usual latency of the same workload.
    """
    wall = max(end.wall_s - start.wall_s, 1e-9)
    lost_share = (end.waited_s - start.waited_s + end.stolen_s - start.stolen_s) / wall
    other_cores = (end.busy_s - start.busy_s - (end.own_s - start.own_s)) / wall
    slowdown = float(np.median(slowdowns)) if slowdowns else 1.0
    disturbed = lost_share > MAX_LOST_SHARE or slowdown > MAX_SLOWDOWN
    causes = [f"other processes use {other_cores:.1f} cores"] if other_cores > 0.2 else []
    causes += [f"{100 * lost_share:.0f} % of the time lost"] if lost_share > MAX_LOST_SHARE else []
    causes += [f"{100 * (slowdown - 1):.0f} % slower than before"] if slowdown > MAX_SLOWDOWN else []
    text = f"machine busy: {', '.join(causes)}" if causes else ""
    return Disturbance(disturbed, f"{text}; measuring again" if disturbed else text)
