"""`measure`: time every layer of a space on a device, calibrate and validate, resumably."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from latency_tables.measuring.methods import METHODS
from latency_tables.measuring.plan import NUM_CALIBRATION, NUM_VALIDATION, plan_table
from latency_tables.measuring.rounds import time_workloads
from latency_tables.table.device import DEVICE_FIELDS, DeviceSpec, device_values
from latency_tables.table.estimate import layers_by_resolution
from latency_tables.table.measured import MeasuredTable, table_identity
from latency_tables.table.table import SCHEMA_VERSION, LatencyTable
from ofa.common.errors import UserError
from ofa.common.locks import sole_writer
from ofa.common.progress import ProgressCallback, silent
from ofa.space.space import SearchSpace
from ofa.space.staged import StagedSpace


def measure(
    space: StagedSpace,
    device: DeviceSpec,
    path: str | Path,
    *,
    seed: int = 0,
    progress: ProgressCallback = silent,
    num_calibration: int = NUM_CALIBRATION,
    num_validation: int = NUM_VALIDATION,
    engine: Engine | None = None,
    max_table_error: float = math.inf,
) -> LatencyTable:
    """Measure the missing entries of the table of `space` on `device`, and save it at `path`.

    Layers, calibration networks and validation networks are timed together in shuffled rounds, in
    `device.processes` processes in sequence. Every visit is appended to `journal_path(path)`, so an
    interrupted build continues; that file is deleted when the table is saved. An existing table at `path`
    keeps its entries, if they belong to the space; a complete table is returned unchanged. A table of other
    resolutions of the space is extended: its networks then cover all resolutions. A table with an error above
    `max_table_error` is measured anew, with any effort, and replaced at the end.

    Args:
        space: space to measure; its restriction limits the layers and networks.
        device: device, engine and measuring effort.
        path: JSON file of the table.
        seed: seed of the networks, orders, weights and inputs.
        progress: called with the steps of all processes together.
        num_calibration: number of networks for fitting the affine map, at least 2.
        num_validation: number of other networks for measuring the table's error, at least 2.
        engine: engine in this process; None: the engine of `device`, in fresh processes.
        max_table_error: largest error (MAPE in percent) of a table at `path` that is kept. The returned table
            may have a larger one; `LatencyTable.check_error` refuses it.

    Raises:
        UserError: if the engine is unknown, not installed or fails, a table or journal at `path`
            was measured differently, the space is too small, another process measures the same table, or a
            file cannot be written.
    """
    maker = _LayerTables(space, device, seed, num_calibration, num_validation)
    return make_table(maker, device, path, progress=progress, engine=engine, max_table_error=max_table_error)


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
    """Measure what is missing of a table, and save it; see `measure`."""
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


@dataclass(frozen=True)
class _LayerTables:
    """Tables of the layers of a published family."""

    space: StagedSpace
    device: DeviceSpec
    seed: int
    num_calibration: int
    num_validation: int

    def identity(self, engine: Description) -> dict[str, Any]:
        return table_identity(SCHEMA_VERSION, self.device, engine, METHODS[self.device.method].name)

    def load(self, path: Path) -> LatencyTable:
        return LatencyTable.load(path)

    def plan(self, existing: LatencyTable | None) -> Plan[LatencyTable]:
        space = self.space if existing is None else _with_resolutions_of(existing, self.space)
        return plan_table(space, self.device, self.seed, self.num_calibration, self.num_validation)


def _remove_saved_journal(path: Path) -> None:
    """Remove the journal of the table at `path` if the table was saved after its last measurement."""
    journal = journal_path(path)
    if path.exists() and journal.exists() and journal.stat().st_mtime_ns <= path.stat().st_mtime_ns:
        journal.unlink()


def journal_path(path: Path) -> Path:
    """Return the path of the journal of the unfinished table `path`."""
    return path.with_name(f"{path.stem}.partial.jsonl")


def _existing(path: Path, load: Callable[[Path], P], identity: Identity, max_table_error: float) -> P | None:
    """Return the table at `path`, if any; its identity must match, but for the effort if it is too wrong."""
    if not path.exists():
        return None
    try:
        table = load(path)
    except UserError as error:
        raise UserError(f"{path} already exists; delete it to measure anew. {error}") from error
    expected = identity
    if not table.has_error_within(max_table_error):
        device = {**device_values(table.device), **{name: identity["device"][name] for name in DEVICE_FIELDS}}
        expected = {**identity, "device": device, "method": table.method}
    refuse_other(path, "latency table", table.identity, expected)
    return table


def _with_resolutions_of(table: LatencyTable, space: StagedSpace) -> StagedSpace:
    """Return `space` with the resolutions that the table covers allowed as well."""
    choices = zip(space.genes, space.allowed, space.unrestricted.allowed, strict=True)
    restriction = tuple(
        all_choices if gene.kind == "resolution" else allowed_choices
        for gene, allowed_choices, all_choices in choices
    )
    wide_space = replace(space, restriction=restriction)
    resolutions = {*layers_by_resolution(space), *table.covered_resolutions(wide_space)}
    return wide_space.restrict({"resolution": sorted(resolutions)})


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
    for process in range(device.processes):
        visits = measurements.visits(process)
        earlier = {key: visits[key] for key in keys if key in visits}
        if measurements.is_finished(process) and len(earlier) == len(keys):
            continue
        seed = process_seed(table_seed, process)
        record = partial(measurements.append, process)
        report = process_progress(progress, process, device.processes)
        budget_s = max(60 * device.minutes / device.processes - _spent_s(earlier, device), 0.0)
        if engine is None:
            time_in_fresh_process(plan, device, seed, record, earlier, report, budget_s)
        else:
            time_workloads(engine, workloads, device, seed, record, earlier, report, budget_s)
        measurements.finish(process)


def _spent_s(visits: Mapping[str, Sequence[Sequence[float]]], device: DeviceSpec) -> float:
    """Return the approximate duration of these visits in seconds: timed runs and warm-up runs."""
    timed_ms = sum(sum(runs) for visit_runs in visits.values() for runs in visit_runs)
    return timed_ms / 1e3 * (1 + device.warmup_runs / device.runs_per_visit)
