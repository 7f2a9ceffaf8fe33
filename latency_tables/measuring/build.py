"""`make_table`: time the parts of networks on a device, calibrate and validate, resumably."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from latency_tables.engines.base import Description, Engine
from latency_tables.engines.registry import create_engine
from latency_tables.measuring.fresh_process import (
    WorkloadList,
    process_progress,
    process_seed,
    time_in_fresh_process,
)
from latency_tables.measuring.journal import Identity, MeasurementJournal, refuse_other
from latency_tables.measuring.program_folder import shared_programs
from latency_tables.measuring.rounds import time_workloads
from latency_tables.table.device import DEVICE_FIELDS, DeviceSpec, device_values
from latency_tables.table.measured import MeasuredTable
from ofa.common.errors import UserError
from ofa.common.locks import sole_writer
from ofa.common.progress import ProgressCallback
from ofa.space.space import SearchSpace

P = TypeVar("P", bound=MeasuredTable)


class Plan(WorkloadList, Protocol[P]):
    """The measurements that a table needs."""

    def with_known(self, table: P, /) -> Plan[P]:
        """Return the plan without what an earlier table holds."""
        ...

    def assemble(self, engine: Description, runs: Mapping[str, Sequence[Sequence[float]]], /) -> P:
        """Return the table of the measurements: milliseconds by workload, one list per process."""
        ...


class TableMaker(Protocol[P]):
    """One kind of tables: what is measured, and how its files are read."""

    @property
    def seed(self) -> int:
        """Seed of the networks, orders, weights and inputs."""
        ...

    @property
    def space(self) -> SearchSpace:
        """The (restricted) space of the table."""
        ...

    def identity(self, engine: Description) -> dict[str, Any]:
        """Return what further measurements must share with the table."""
        ...

    def load(self, path: Path) -> P:
        """Read a table of this kind."""
        ...

    def plan(self, existing: P | None) -> Plan[P]:
        """Return the plan of a complete table, which covers what `existing`, of this space, does as well."""
        ...


def make_table(
    maker: TableMaker[P],
    device: DeviceSpec,
    path: str | Path,
    *,
    progress: ProgressCallback,
    engine: Engine | None,
    max_table_error: float,
) -> P:
    """Measure what is missing of a table, and save it; see `latency_tables.measuring.measure`."""
    path, space = Path(path), maker.space
    description = (engine or create_engine(device)).describe()
    identity = maker.identity(description)
    with sole_writer(path, "latency table", setting="device, or another output"):
        _remove_saved_journal(path)
        existing = _existing(path, maker.load, identity, max_table_error)
        is_of_space = existing is not None and existing.space_fingerprint == space.fingerprint
        is_right = existing is not None and existing.has_error_within(max_table_error)
        if existing and is_of_space and is_right and not existing.missing_text(space):
            return existing
        plan = maker.plan(existing if is_of_space else None)
        if existing is not None and is_right:
            plan = plan.with_known(existing)
        with MeasurementJournal(journal_path(path), identity) as measurements:
            _measure(plan, device, maker.seed, measurements, engine, progress)
            table = plan.assemble(description, measurements.runs)
        table.save(path)
        measurements.path.unlink()
    return table


def _remove_saved_journal(path: Path) -> None:
    """Remove the journal of the table at `path` if the table was saved after its last measurement."""
    journal = journal_path(path)
    if path.exists() and journal.exists() and journal.stat().st_mtime_ns <= path.stat().st_mtime_ns:
        journal.unlink()


def journal_path(path: Path) -> Path:
    """Return the path of the journal of the unfinished table `path`."""
    return path.with_name(f"{path.stem}.partial.jsonl")


def _existing(path: Path, load: Callable[[Path], P], identity: Identity, max_table_error: float) -> P | None:
    """Return the table at `path`, if any; its identity must match; if it is too wrong, engine and device."""
    if not path.exists():
        return None
    try:
        table = load(path)
    except UserError as error:
        raise UserError(f"{path} already exists; delete it to measure anew. {error}") from error
    expected = identity
    if not table.has_error_within(max_table_error):
        device = {**device_values(table.device), **{name: identity["device"][name] for name in DEVICE_FIELDS}}
        expected = {**table.identity, "engine": identity["engine"], "device": device}
    refuse_other(path, "latency table", table.identity, expected)
    return table


def _measure(
    plan: WorkloadList,
    device: DeviceSpec,
    table_seed: int,
    measurements: MeasurementJournal,
    engine: Engine | None,
    progress: ProgressCallback,
) -> None:
    """Measure the missing workloads in processes in sequence; with `engine`, all in this process.

    A finished process continues if the plan has new workloads.
    """
    workloads = plan.workloads
    keys = [workload.key for workload in workloads]
    with shared_programs() as programs:
        for process in range(device.processes):
            visits = measurements.visits(process)
            earlier = {key: visits[key] for key in keys if key in visits}
            if measurements.is_finished(process) and len(earlier) == len(keys):
                continue
            seed = process_seed(table_seed, process)
            record = partial(measurements.append, process)
            report = process_progress(progress, process, device.processes)
            budget_s = max(60 * device.minutes / device.processes - _spent_s(earlier, device), 0.0)
            arguments = (device, seed, record, earlier, report, budget_s)
            if engine is None:
                time_in_fresh_process(plan, *arguments, programs if device.processes > 1 else None)
            else:
                time_workloads(engine, workloads, *arguments)
            measurements.finish(process)


def _spent_s(visits: Mapping[str, Sequence[Sequence[float]]], device: DeviceSpec) -> float:
    """Return the approximate duration of these visits in seconds: timed runs and warm-up runs."""
    timed_ms = sum(sum(runs) for visit_runs in visits.values() for runs in visit_runs)
    return timed_ms / 1e3 * (1 + device.warmup_runs / device.runs_per_visit)
