"""Timing of many workloads in shuffled rounds, until the spread is small or the time budget is used.

A busy or throttled machine has phases in which everything takes longer. Visiting all workloads in every
round, in random order, gives each the same share of every phase.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from latency_tables.engines.base import ConvertingEngine, Engine, TimedRun
from latency_tables.measuring.affinity import pinned
from latency_tables.measuring.disturbance import Disturbance, assess, read_system_load
from latency_tables.measuring.drift import WINDOW_S
from latency_tables.measuring.methods import COLD_VISIT_RUNS, Workload
from latency_tables.measuring.program_folder import ProgramFolder
from latency_tables.table.device import DeviceSpec
from latency_tables.table.timing import check_runs, process_latency_ms, standard_error
from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent

Visit = tuple[str, list[float]]
"""A workload's key and the milliseconds of the timed runs of one visit."""

STEPS = 1000
"""Total steps in the progress of `time_workloads`."""
CHUNK_WORKLOADS = 2000
CHUNK_PARAMETERS = 500_000_000
"""Limits on workloads, and on their parameters, in memory at a time."""

_NEARLY_ALL = 0.9
_WINDOW_VISITS = 50


def time_workloads(
    engine: Engine,
    workloads: Sequence[Workload],
    device: DeviceSpec,
    seed: int,
    record: Callable[[Sequence[Visit]], None],
    earlier: Mapping[str, Sequence[Sequence[float]]] | None = None,
    progress: ProgressCallback = silent,
    budget_s: float | None = None,
    programs: ProgramFolder | None = None,
) -> None:
    """Visit every workload in each round and report the visits, in this process.

    Rounds end when the standard error of nearly all latencies is below `device.spread_percent`, when the time
    budget is used (but not before `device.min_rounds`), or after `device.rounds`. Disturbed visits are
    repeated once at the end of their round, and only the repetition is reported; see
    `latency_tables.measuring.disturbance`.

    Args:
        engine: engine that times the workloads.
        workloads: workloads; held in memory together, or in several chunks if they are too large.
        device: batch size and measuring effort.
        seed: seed of the orders, the random weights and the inputs.
        record: takes a window of visits; never called within a visit.
        earlier: runs of each visit recorded by earlier calls, per key; they count.
        progress: called with steps up to `STEPS`; never within a visit.
        budget_s: time for this call in seconds; by default `device.minutes`.
        programs: what earlier calls have converted, and this one adds to; None: everything is converted.

    Raises:
        MeasurementError: if the time of a run is not positive and finite.
        UserError: if the engine fails, naming the workload, or the process cannot be pinned.
    """
    queue = [workloads[i] for i in np.random.default_rng(seed).permutation(len(workloads))]
    visits = {p.key: [process_latency_ms(runs) for runs in (earlier or {}).get(p.key, ())] for p in queue}
    deadline = time.monotonic() + (60 * device.minutes if budget_s is None else budget_s)
    report = _Report(progress, deadline)
    with pinned(device.affinity), engine.measuring():
        while queue:
            start = time.monotonic()
            runs = _prepare_chunk(engine, queue, device, seed, report, programs)
            chunk, queue = queue[: len(runs)], queue[len(runs) :]
            now = time.monotonic()
            report.begin_chunk(start, len(queue) / len(chunk))
            chunk_deadline = now + (deadline - now) * len(chunk) / (len(chunk) + len(queue))
            _Rounds(chunk, runs, visits, device, seed, record, report).run(chunk_deadline, now - start)
            del runs  # frees memory for the next chunk
    report.finish()


def _prepare_chunk(
    engine: Engine,
    queue: Sequence[Workload],
    device: DeviceSpec,
    seed: int,
    report: _Report,
    programs: ProgramFolder | None,
) -> dict[str, TimedRun]:
    """Return the first workloads of the queue, prepared, as many as fit the memory limits."""
    runs: dict[str, TimedRun] = {}
    parameters, start = 0, time.monotonic()
    for workload in queue[:CHUNK_WORKLOADS]:
        if runs and parameters > CHUNK_PARAMETERS:
            break
        with _failures_named(workload.key), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            run, num_parameters = _prepare(engine, workload, device.batch_size, programs)
            run()
        runs[workload.key] = run
        parameters += num_parameters
        now, num_left = time.monotonic(), len(queue) - len(runs)
        # A round is taken to last as long as the preparation of its workloads, until one has been made.
        num_visits = num_left + min(device.min_rounds, device.rounds) * len(queue)
        remaining_s = max(report.deadline - now, (now - start) / len(runs) * num_visits)
        report(remaining_s, f"preparing programs, {num_left} left")
    return runs


def _prepare(
    engine: Engine, workload: Workload, batch_size: int, programs: ProgramFolder | None
) -> tuple[TimedRun, int]:
    """Return the timed run of a workload, and about how many parameters it has."""
    example = torch.randn(batch_size, *workload.image_shape)
    if programs is None or not isinstance(engine, ConvertingEngine):
        module = workload.build()
        return engine.prepare(module, example), _count_parameters(module)
    files = programs.files(workload.key)
    if files is None:
        files = engine.convert(workload.build(), example)
        programs.add(workload.key, files)
    return engine.load(files, example), sum(map(len, files.values())) // 4


def _count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def _failures_named(key: str) -> Iterator[None]:
    """Turn an engine's failure into a user's error that names the workload."""
    try:
        yield
    except (UserError, AssertionError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise UserError(
            f"The engine failed at {key}: {type(error).__name__}: {text[:500]}. Earlier measurements are "
            "saved; after removing the cause, start again to continue."
        ) from error


class _Rounds:
    """Prepared workloads that are visited in rounds."""

    def __init__(
        self,
        workloads: Sequence[Workload],
        runs: Mapping[str, TimedRun],
        visits: Mapping[str, list[float]],
        device: DeviceSpec,
        seed: int,
        record: Callable[[Sequence[Visit]], None],
        report: _Report,
    ) -> None:
        """Take the workloads with their runs, and the latencies of earlier visits, which are extended."""
        self._workloads, self._runs, self._visits = workloads, runs, visits
        self._cold_keys = {workload.key for workload in workloads if workload.starts_cold}
        self._device, self._seed, self._record, self._report = device, seed, record, report

    def run(self, deadline: float, round_s: float) -> None:
        """Run rounds until a stopping condition holds.

        Args:
            deadline: time of the monotonic clock at which the time budget is used.
            round_s: about how many seconds a round takes, until one has been made.
        """
        device, start = self._device, time.monotonic()
        min_rounds = min(device.min_rounds, device.rounds)
        first_number = number = min(len(self._visits[p.key]) // p.visits_per_round for p in self._workloads)
        while number < device.rounds:
            small_share, now = self._small_spread_share() if number else 0.0, time.monotonic()
            if number >= min_rounds and (small_share >= _NEARLY_ALL or now > deadline):
                return
            remaining_s = deadline - now
            if num_made := number - first_number:
                round_s = (now - start) / num_made
                remaining_s = min(remaining_s, (device.rounds - number) * round_s)
            remaining_s = max(remaining_s, (min_rounds - number) * round_s)
            rounds = f"at most {device.rounds}" if now <= deadline else f"at least {min_rounds}"
            text = f"round {number + 1} of {rounds}, {100 * small_share:.0f} % with a small spread"
            self._round(number, deadline, remaining_s, text)
            number += 1

    def _small_spread_share(self) -> float:
        """Return the share of the workloads with a small spread."""
        max_spread = self._device.spread_percent / 100
        visits = [self._visits[p.key] for p in self._workloads]
        return float(np.mean([standard_error(v) <= max_spread * process_latency_ms(v) for v in visits]))

    def _round(self, number: int, deadline: float, remaining_s: float, text: str) -> None:
        """Make the remaining visits of the round, and repeat disturbed visits once.

        A round beyond the required minimum stops at the deadline.
        """
        rng = np.random.default_rng([self._seed, number])
        counts = {
            p.key: (number + 1) * p.visits_per_round - len(self._visits[p.key]) for p in self._workloads
        }
        keys = [key for key, count in counts.items() for _ in range(count)]
        keys = [keys[i] for i in rng.permutation(len(keys))]
        disturbed_keys = []
        start = time.monotonic()
        self._report.in_chunk(remaining_s, text)
        for window, disturbance in self._windows(keys):
            if disturbance.disturbed:
                disturbed_keys += [key for key, _ in window]
            else:
                self._record_window(window)
            if disturbance.text:
                rest_s = remaining_s - (time.monotonic() - start)
                self._report.in_chunk(rest_s, f"{text}; {disturbance.text}")
            if number >= self._device.min_rounds and time.monotonic() > deadline:
                return
        for window, _ in self._windows(disturbed_keys):
            self._record_window(window)

    def _windows(self, keys: Sequence[str]) -> Iterator[tuple[list[Visit], Disturbance]]:
        """Yield windows of visits to these workloads, each with its assessment."""
        window: list[Visit] = []
        start = read_system_load()
        for index, key in enumerate(keys):
            with _failures_named(key):
                window.append((key, self._visit(key)))
            check_runs(*window[-1])
            elapsed = time.perf_counter() - start.wall_s
            if elapsed > WINDOW_S or len(window) == _WINDOW_VISITS or index == len(keys) - 1:
                yield window, assess(start, read_system_load(), self._slowdowns(window))
                window, start = [], read_system_load()

    def _visit(self, key: str) -> list[float]:
        run = self._runs[key]
        if key in self._cold_keys:
            return [run() for _ in range(COLD_VISIT_RUNS)]
        for _ in range(self._device.warmup_runs):
            run()
        return [run() for _ in range(self._device.runs_per_visit)]

    def _slowdowns(self, window: Sequence[Visit]) -> list[float]:
        """Return each visit's latency divided by the median latency of its workload so far."""
        pairs = ((runs, visits) for key, runs in window if (visits := self._visits[key]))
        return [process_latency_ms(runs) / process_latency_ms(visits) for runs, visits in pairs]

    def _record_window(self, window: Sequence[Visit]) -> None:
        for key, runs in window:
            self._visits[key].append(process_latency_ms(runs))
        self._record(window)


class _Report:
    """Counts up to `STEPS` in proportion to time for a progress callback.

    Attributes:
        deadline: time of the monotonic clock at which the time budget is used.
    """

    def __init__(self, progress: ProgressCallback, deadline: float) -> None:
        self._progress, self.deadline = progress, deadline
        self._start_s, self._steps = time.monotonic(), 0
        self._chunk_start_s, self._later_chunks = self._start_s, 0.0

    def begin_chunk(self, start_s: float, later_chunks: float) -> None:
        """Begin the rounds of a chunk whose preparation began then; so many of its size follow."""
        self._chunk_start_s, self._later_chunks = start_s, later_chunks

    def in_chunk(self, remaining_s: float, text: str) -> None:
        """Report progress, with an estimate of the seconds that are left of this chunk."""
        remaining_s = max(remaining_s, 0.0)
        chunk_s = time.monotonic() - self._chunk_start_s + remaining_s
        self(remaining_s + self._later_chunks * chunk_s, text)

    def __call__(self, remaining_s: float, text: str) -> None:
        """Report progress, with an estimate of the seconds that are left."""
        elapsed_s = time.monotonic() - self._start_s
        share = elapsed_s / max(elapsed_s + max(remaining_s, 0.0), 1e-9)
        self._steps = max(self._steps, min(round(STEPS * share), STEPS - 1))
        self._progress(self._steps, STEPS, text)

    def finish(self) -> None:
        """Report the end."""
        self._progress(STEPS, STEPS, "done")
