"""Timing of many programs in shuffled rounds, and the statistics of their runs.

A busy or throttled machine has phases in which everything takes longer. Visiting all programs in every
round, in random order, gives each the same share of every phase; a low percentile of the runs then is the
latency of the undisturbed machine. On a shared two-core machine the 2nd percentile ordered whole networks
like their quiet-time latencies when mean, median and lower quartile did not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from latency_tables.device import DeviceSpec
from latency_tables.engines.base import Engine, TimedRun
from latency_tables.entry import Program
from ofa.errors import UserError
from ofa.progress import ProgressCallback, silent

LATENCY_PERCENTILE = 2.0
CHUNK_SIZE = 320
"""Programs held in memory at a time."""


@dataclass(frozen=True)
class Timing:
    """Statistics of the runs of one program.

    Attributes:
        latency_ms: latency on the undisturbed machine (2nd percentile of all runs; for a layer in a
            table less the call overhead).
        median_ms: median of all runs as they were.
        spread_ms: interquartile range of all runs.
        count: number of runs.
    """

    latency_ms: float
    median_ms: float
    spread_ms: float
    count: int

    def __post_init__(self) -> None:
        """Check that the values are finite and the latency positive."""
        if not (math.isfinite(self.latency_ms) and self.latency_ms > 0):
            raise UserError(f"latency_ms is {self.latency_ms}; expected a positive number.")
        for name in ("median_ms", "spread_ms"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"{name} is {value}; expected a number of at least 0.")
        if self.count < 1:
            raise UserError(f"count is {self.count}; expected at least 1.")


@dataclass(frozen=True)
class ImportedTiming:
    """What somebody else's table says of one layer.

    Attributes:
        latency_ms: mean of its runs, in ms; 0 for a layer that costs nothing because it is fused.
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
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(f"{name} is {value}; expected a number of at least 0.")
        if self.count is not None and self.count < 1:
            raise UserError(f"count is {self.count}; expected at least 1.")


def summarize(runs_ms: Sequence[float], overhead_ms: float = 0.0) -> Timing:
    """Return the statistics of runs (ms each); `overhead_ms` is subtracted from the latency alone.

    A latency is at least a nanosecond, so that layers cheaper than the clock's noise stay valid.
    """
    low, quarter, median, three_quarters = np.percentile(runs_ms, [LATENCY_PERCENTILE, 25, 50, 75])
    latency = max(float(low) - overhead_ms, 1e-6)
    return Timing(latency, float(median), float(three_quarters - quarter), len(runs_ms))


def time_programs(
    engine: Engine,
    programs: Sequence[Program],
    device: DeviceSpec,
    seed: int,
    record: Callable[[str, list[float]], None],
    visits_done: Mapping[str, int] | None = None,
    progress: ProgressCallback = silent,
) -> None:
    """Visit every program in each of `device.rounds` rounds and report each visit.

    Args:
        engine: what times the programs.
        programs: prepared in chunks of `CHUNK_SIZE`, in random order.
        device: batch size and measuring effort.
        seed: of the orders, the random weights and the inputs.
        record: takes a program's key and the milliseconds of each timed run of one visit.
        visits_done: visits that earlier calls have recorded, per key; only the rest is made.
        progress: called per prepared program and per round, never between the runs of a round.
    """
    done = visits_done or {}
    wanted = {program.key: device.rounds * program.visits_per_round for program in programs}
    left = {key: max(0, visits - done.get(key, 0)) for key, visits in wanted.items()}
    rng = np.random.default_rng([seed, sum(left.values())])
    pending = [programs[i] for i in rng.permutation(len(programs)) if left[programs[i].key]]
    report = _Steps(len(pending) + sum(left.values()), progress)
    with engine.measuring():
        for start in range(0, len(pending), CHUNK_SIZE):
            runs = {}
            chunk = pending[start : start + CHUNK_SIZE]
            for program in chunk:
                runs[program.key] = _prepare(engine, program, device, seed)
                report.add(1, "preparing")
            _visit_all(chunk, runs, left, device, rng, record, report)


def _prepare(engine: Engine, program: Program, device: DeviceSpec, seed: int) -> TimedRun:
    """Return the program ready to be timed, run once; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        example = torch.randn(device.batch_size, *program.image_shape)
        run = engine.prepare(program.build(), example)
    run()
    return run


def _visit_all(
    programs: Sequence[Program],
    runs: Mapping[str, TimedRun],
    left: dict[str, int],
    device: DeviceSpec,
    rng: np.random.Generator,
    record: Callable[[str, list[float]], None],
    report: _Steps,
) -> None:
    """Make the visits that are left, and count them down in `left`."""
    rounds = 0
    while due := [p.key for p in programs for _ in range(min(p.visits_per_round, left[p.key]))]:
        for key in (due[i] for i in rng.permutation(len(due))):
            run = runs[key]
            for _ in range(device.warmup_runs):
                run()
            record(key, [run() for _ in range(device.runs_per_visit)])
            left[key] -= 1
        rounds += 1
        report.add(len(due), f"round {rounds}")


class _Steps:
    """Counts steps for a progress callback."""

    def __init__(self, total: int, progress: ProgressCallback) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, steps: int, text: str) -> None:
        self._done += steps
        self._progress(self._done, self._total, text)
