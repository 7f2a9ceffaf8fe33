"""`measure`: time every layer of a space on a device, calibrate and validate, resumably."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from latency_tables.engines.base import Engine
from latency_tables.engines.registry import create_engine
from latency_tables.measuring.fresh_process import of_process, process_seed, time_in_fresh_process
from latency_tables.measuring.journal import Identity, MeasurementJournal, refuse_other
from latency_tables.measuring.methods import METHODS
from latency_tables.measuring.plan import (
    NUM_CALIBRATION,
    NUM_VALIDATION,
    TablePlan,
    assemble_table,
    plan_table,
)
from latency_tables.measuring.rounds import time_workloads
from latency_tables.table.device import DeviceSpec
from latency_tables.table.estimate import layers_by_resolution
from latency_tables.table.table import LatencyTable, table_identity
from latency_tables.table.timing import Timing
from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
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
) -> LatencyTable:
    """Measure what is missing of the table of `space` on `device`, and save it at `path`.

    Layers, calibration networks and validation networks are timed together in shuffled rounds, in
    `device.processes` processes one after the other. Every visit is appended to `journal_path(path)`, so an
    interrupted build continues where it was; the file goes when the table is saved. Entries of a table that
    lies at `path` already are kept, if they belong to the space; if none is missing, that table is returned
    as it is. A table of other resolutions of the space is extended: its networks are then of all of them.

    Args:
        space: its restriction, if any, limits what is measured.
        device: where and how thoroughly.
        path: the table, a JSON file.
        seed: of the networks, orders, weights and inputs.
        progress: steps of all processes together.
        num_calibration: networks that the affine map is fitted on, at least 2.
        num_validation: other networks that the table's error is measured on, at least 2.
        engine: what times, in this process; by default the engine that `device` names, in fresh processes.

    Raises:
        UserError: if the engine is unknown, not installed or fails, a table or an unfinished one at `path`
            was measured differently, the space is too small, or a file cannot be written.
    """
    path = Path(path)
    description = (engine or create_engine(device)).describe()
    identity = table_identity(device, description, METHODS[device.method].name)
    existing = _existing(path, identity)
    if existing and existing.space_fingerprint == space.fingerprint:
        if not existing.missing_entries(space):
            return existing
        space = _with_resolutions_of(existing, space)
    plan = plan_table(space, device, seed, num_calibration, num_validation)
    entries = existing.entries if existing else {}
    known_entries = {s.key: timing for s in plan.specs if isinstance(timing := entries.get(s.key), Timing)}
    plan = replace(plan, specs=tuple(spec for spec in plan.specs if spec.key not in known_entries))
    with MeasurementJournal(journal_path(path), identity) as measurements:
        _measure(plan, measurements, engine, progress)
        table = assemble_table(plan, description, measurements.runs, known_entries)
    table.save(path)
    measurements.path.unlink()
    return table


def journal_path(path: Path) -> Path:
    """Return where the measurements of the unfinished table `path` lie."""
    return path.with_name(f"{path.stem}.partial.jsonl")


def _existing(path: Path, identity: Identity) -> LatencyTable | None:
    """Return the table at `path` if there is one; it must have been measured in the same way."""
    if not path.exists():
        return None
    try:
        table = LatencyTable.load(path)
    except UserError as error:
        raise UserError(f"{path} already exists; delete it to measure anew. {error}") from error
    refuse_other(path, "latency table", table.identity, identity)
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
    plan: TablePlan, measurements: MeasurementJournal, engine: Engine | None, progress: ProgressCallback
) -> None:
    """Measure what is missing, in one process after the other; with an `engine` all in this process.

    A process that had finished goes on if the plan has workloads that it did not know.
    """
    device = plan.device
    keys = [workload.key for workload in plan.programs]
    for process in range(device.processes):
        visits = measurements.visits(process)
        earlier = {key: visits[key] for key in keys if key in visits}
        if measurements.is_finished(process) and len(earlier) == len(keys):
            continue
        seed = process_seed(plan.seed, process)
        record = partial(measurements.append, process)
        report = of_process(progress, process, device.processes)
        budget_s = max(60 * device.minutes / device.processes - _spent_s(earlier, device), 0.0)
        if engine is None:
            time_in_fresh_process(plan, device, seed, record, earlier, report, budget_s)
        else:
            time_workloads(engine, plan.programs, device, seed, record, earlier, report, budget_s)
        measurements.finish(process)


def _spent_s(visits: Mapping[str, Sequence[Sequence[float]]], device: DeviceSpec) -> float:
    """Return about how long it took to make these visits: the timed runs (ms), and those before them."""
    timed_ms = sum(sum(runs) for visit_runs in visits.values() for runs in visit_runs)
    return timed_ms / 1e3 * (1 + device.warmup_runs / device.runs_per_visit)
