"""Timing of many programs in shuffled rounds, until the spread is small or the time is over.

A busy or throttled machine has phases in which everything takes longer. Visiting all programs in every
round, in random order, gives each the same share of every phase.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from latency_tables.engines.base import Engine, TimedRun
from latency_tables.measuring.affinity import pinned
from latency_tables.measuring.disturbance import Disturbance, assess, read_system_load
from latency_tables.measuring.drift import WINDOW_S
from latency_tables.measuring.methods import Workload
from latency_tables.table.device import DeviceSpec
from latency_tables.table.timing import check_runs, process_latency_ms, standard_error
from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent

Visit = tuple[str, list[float]]
"""A program's key and the milliseconds of the timed runs of one visit."""

STEPS = 1000
"""Total that `time_workloads` reports progress of."""
CHUNK_WORKLOADS = 2000
CHUNK_PARAMETERS = 500_000_000
"""Programs, and their parameters, that are held in memory at a time."""

_NEARLY_ALL = 0.9
_WINDOW_VISITS = 50
_PREPARING_SHARE = 0.2


def time_workloads(
    engine: Engine,
    programs: Sequence[Workload],
    device: DeviceSpec,
    seed: int,
    record: Callable[[Sequence[Visit]], None],
    earlier: Mapping[str, Sequence[Sequence[float]]] | None = None,
    progress: ProgressCallback = silent,
    budget_s: float | None = None,
) -> None:
    """Visit every program in each round and report the visits, in this process.

    Rounds end when the standard error of nearly all latencies is below `device.spread_percent`, when the
    time is over (but not before `device.min_rounds`), or after `device.rounds`. Visits that something
    disturbed are made once more at the end of their round and not reported before; see
    `latency_tables.measuring.disturbance`.

    Args:
        engine: what times the programs.
        programs: all are held in memory, or in several chunks where they are too large for that.
        device: batch size and measuring effort.
        seed: of the orders, the random weights and the inputs.
        record: takes some visits, never between the runs of one.
        earlier: runs of each visit that earlier calls have recorded, per key; they count.
        progress: counts up to `STEPS`; never called between the runs of a visit.
        budget_s: time for this call in seconds; by default `device.minutes`.

    Raises:
        MeasurementError: if a run took no time, or not a finite one.
        UserError: if the engine fails, naming the program, or the process cannot be pinned.
    """
    waiting = [programs[i] for i in np.random.default_rng(seed).permutation(len(programs))]
    visits = {p.key: [process_latency_ms(runs) for runs in (earlier or {}).get(p.key, ())] for p in waiting}
    deadline = time.monotonic() + (60 * device.minutes if budget_s is None else budget_s)
    report = _Report(progress, len(waiting))
    with pinned(device.affinity), engine.measuring():
        while waiting:
            runs = _prepare_chunk(engine, waiting, device, seed, report)
            chunk, waiting = waiting[: len(runs)], waiting[len(runs) :]
            now = time.monotonic()
            chunk_deadline = now + (deadline - now) * len(chunk) / (len(chunk) + len(waiting))
            _Rounds(chunk, runs, visits, device, seed, record, report).run(chunk_deadline)
            report.chunk_done(len(chunk))
            del runs  # before the programs of the next chunk take its memory
    report(0, "done")


def _prepare_chunk(
    engine: Engine, waiting: Sequence[Workload], device: DeviceSpec, seed: int, report: _Report
) -> dict[str, TimedRun]:
    """Return the first programs ready to be timed, as many as may be in memory at a time."""
    runs: dict[str, TimedRun] = {}
    parameters = 0
    for program in waiting[:CHUNK_WORKLOADS]:
        if runs and parameters > CHUNK_PARAMETERS:
            break
        with _failures_named(program.key), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = program.build()
            run = engine.prepare(module, torch.randn(device.batch_size, *program.image_shape))
            run()
        runs[program.key] = run
        parameters += _count_parameters(module)
        report(_PREPARING_SHARE * len(runs), f"preparing programs, {len(waiting) - len(runs)} left")
    return runs


def _count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def _failures_named(key: str) -> Iterator[None]:
    """Turn an engine's failure into a user's error that names the program."""
    try:
        yield
    except (UserError, AssertionError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise UserError(
            f"The engine failed at {key}: {type(error).__name__}: {text[:500]}. What was measured before is "
            "kept; when the cause is removed, start again to go on."
        ) from error


class _Rounds:
    """Prepared programs that are visited in rounds."""

    def __init__(
        self,
        programs: Sequence[Workload],
        runs: Mapping[str, TimedRun],
        visits: Mapping[str, list[float]],
        device: DeviceSpec,
        seed: int,
        record: Callable[[Sequence[Visit]], None],
        report: _Report,
    ) -> None:
        """Take the programs with their runs, and the latency of each visit so far, which is added to."""
        self._programs, self._runs, self._visits = programs, runs, visits
        self._device, self._seed, self._record, self._report = device, seed, record, report

    def run(self, deadline: float) -> None:
        """Make rounds until one of the reasons to end holds; `deadline` is a time of the monotonic clock."""
        device, start = self._device, time.monotonic()
        least = min(device.min_rounds, device.rounds)
        first = number = min(len(self._visits[p.key]) // p.visits_per_round for p in self._programs)
        while number < device.rounds:
            settled, now = self._settled() if number else 0.0, time.monotonic()
            if number >= least and (settled >= _NEARLY_ALL or now > deadline):
                return
            share = number / device.rounds
            if made := number - first:
                least_s = (least - number) * (now - start) / made
                share = max(share, (now - start) / (now - start + max(deadline - now, least_s, 0.0)))
            rounds = f"at most {device.rounds}" if now <= deadline else f"at least {least}"
            text = f"round {number + 1} of {rounds}, {100 * settled:.0f} % settled"
            done = len(self._programs) * (_PREPARING_SHARE + (1 - _PREPARING_SHARE) * share)
            self._round(number, deadline, done, text)
            number += 1

    def _settled(self) -> float:
        """Return the share of the programs of which the spread is small."""
        small = self._device.spread_percent / 100
        visits = [self._visits[p.key] for p in self._programs]
        return float(np.mean([standard_error(v) <= small * process_latency_ms(v) for v in visits]))

    def _round(self, number: int, deadline: float, done: float, text: str) -> None:
        """Make the visits that complete the round, those that were disturbed once more.

        A round beyond those that must be made stops where the time is over.
        """
        rng = np.random.default_rng([self._seed, number])
        wanted = {p.key: (number + 1) * p.visits_per_round - len(self._visits[p.key]) for p in self._programs}
        due = [key for key, count in wanted.items() for _ in range(count)]
        due = [due[i] for i in rng.permutation(len(due))]
        disturbed = []
        self._report(done, text)
        for window, verdict in self._windows(due):
            if verdict.disturbed:
                disturbed += [key for key, _ in window]
            else:
                self._keep(window)
            if verdict.text:
                self._report(done, f"{text}; {verdict.text}")
            if number >= self._device.min_rounds and time.monotonic() > deadline:
                return
        for window, _ in self._windows(disturbed):
            self._keep(window)

    def _windows(self, due: Sequence[str]) -> Iterator[tuple[list[Visit], Disturbance]]:
        """Yield the visits to these programs by short stretches of time, and what each was like."""
        window: list[Visit] = []
        before = read_system_load()
        for place, key in enumerate(due):
            with _failures_named(key):
                window.append((key, self._visit(self._runs[key])))
            check_runs(*window[-1])
            elapsed = time.perf_counter() - before.wall_s
            if elapsed > WINDOW_S or len(window) == _WINDOW_VISITS or place == len(due) - 1:
                yield window, assess(before, read_system_load(), self._slowdowns(window))
                window, before = [], read_system_load()

    def _visit(self, run: TimedRun) -> list[float]:
        for _ in range(self._device.warmup_runs):
            run()
        return [run() for _ in range(self._device.runs_per_visit)]

    def _slowdowns(self, window: Sequence[Visit]) -> list[float]:
        """Return each visit's latency divided by the latency that its program has had so far."""
        known = ((runs, visits) for key, runs in window if (visits := self._visits[key]))
        return [process_latency_ms(runs) / process_latency_ms(visits) for runs, visits in known]

    def _keep(self, window: Sequence[Visit]) -> None:
        for key, runs in window:
            self._visits[key].append(process_latency_ms(runs))
        self._record(window)


class _Report:
    """Counts up to `STEPS` for a progress callback."""

    def __init__(self, progress: ProgressCallback, num_programs: int) -> None:
        self._progress, self._num_programs = progress, max(num_programs, 1)
        self._programs_done, self._steps = 0, 0

    def __call__(self, done: float, text: str) -> None:
        """Report that work worth `done` whole programs of the present chunk is done."""
        share = (self._programs_done + done) / self._num_programs
        # All steps are done when all programs are, not when the time is over.
        finished = self._programs_done >= self._num_programs
        self._steps = max(self._steps, STEPS if finished else min(round(STEPS * share), STEPS - 1))
        self._progress(self._steps, STEPS, text)

    def chunk_done(self, num_programs: int) -> None:
        """Count the programs of a chunk as done."""
        self._programs_done += num_programs
