"""`measure_networks_table`: a latency table from a few whole networks that are measured here, resumably."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency_tables.engines.base import Description, Engine
from latency_tables.measuring.build import make_table
from latency_tables.measuring.layer_tables import with_resolutions_of
from latency_tables.measuring.methods import Workload
from latency_tables.measuring.plan import check_measured, network_workload
from latency_tables.table.calibration import Runs, repeatability_percent
from latency_tables.table.device import DeviceSpec
from latency_tables.table.measured import table_identity
from latency_tables.table.regression import check_number
from latency_tables.table.table import SCHEMA_VERSION, LatencyTable
from latency_tables.table.timing import summarize
from latency_tables.table.transfer import METHOD, transfer_identity
from latency_tables.transfer.choice import choose_networks
from latency_tables.transfer.columns import Columns, columns_of
from latency_tables.transfer.fitted_table import NetworkLatency, Origin, table_of_networks
from latency_tables.transfer.sources import NO_SOURCES, Sources
from ofa.common.progress import ProgressCallback, silent
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig


@dataclass(frozen=True)
class NetworkPlan:
    """The measurements of a table from whole networks.

    Attributes:
        columns: the (restricted) space, and what its latencies are composed of.
        device: device, engine and measuring effort.
        seed: seed of the choice of the networks.
        configs: the networks to measure.
    """

    columns: Columns
    device: DeviceSpec
    seed: int
    configs: tuple[SubnetConfig, ...]

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """One workload per network."""
        return tuple(network_workload(self.columns.space, config) for config in self.configs)

    def with_known(self, table: LatencyTable) -> NetworkPlan:
        """Return the plan itself: all networks are measured together, in the same phases of the machine."""
        return self

    def assemble(self, engine: Description, runs: Mapping[str, Sequence[Sequence[float]]]) -> LatencyTable:
        """Return the table of these measurements.

        Args:
            engine: facts about the engine.
            runs: milliseconds of all runs of each workload, one list per process.

        Raises:
            MeasurementError: if the time of a run is not positive and finite.
            UserError: if workloads of the plan were not measured.
        """
        check_measured(self.workloads, runs, self.columns.space.name)
        measured = {
            config: runs[workload.key] for config, workload in zip(self.configs, self.workloads, strict=True)
        }
        return table_of_runs(self.columns, measured, self.device, engine, self.seed)


def table_of_runs(
    columns: Columns,
    runs: Mapping[SubnetConfig, Runs],
    device: DeviceSpec,
    engine: Description,
    seed: int,
) -> LatencyTable:
    """Return the table that follows from the runs (ms) of a few networks; see `table_of_networks`."""
    timings = {config: summarize(processes) for config, processes in runs.items()}
    networks = [NetworkLatency(c, timing.latency_ms, timing.spread_ms) for c, timing in timings.items()]
    repeatability = repeatability_percent(list(runs.values()))
    origin = Origin(device, engine, seed, repeatability_percent=repeatability)
    return table_of_networks(columns, networks, origin)


@dataclass(frozen=True)
class NetworkTables:
    """How tables from whole networks are made; see `TableMaker`."""

    space: StagedSpace
    device: DeviceSpec
    seed: int
    num_networks: int
    sources: Sources

    def identity(self, engine: Description) -> dict[str, Any]:
        """Return what further measurements must share with the table."""
        identity = table_identity(SCHEMA_VERSION, self.device, engine, METHOD)
        return identity | transfer_identity(self.sources.records, self.num_networks)

    def load(self, path: Path) -> LatencyTable:
        """Read a table of a family."""
        return LatencyTable.load(path)

    def plan(self, existing: LatencyTable | None) -> NetworkPlan:
        """Return the plan of a table that covers the resolutions of `existing` as well."""
        space = self.space if existing is None else with_resolutions_of(existing, self.space)
        columns = columns_of(space, self.sources)
        configs = choose_networks(columns, self.num_networks, self.seed)
        return NetworkPlan(columns, self.device, self.seed, configs)


def measure_networks_table(
    space: StagedSpace,
    device: DeviceSpec,
    path: str | Path,
    num_networks: int,
    *,
    sources: Sources = NO_SOURCES,
    seed: int = 0,
    progress: ProgressCallback = silent,
    engine: Engine | None = None,
    max_table_error: float = math.inf,
) -> LatencyTable:
    """Make a table of `space` on `device` from a few whole networks measured there, and save it at `path`.

    No layer is measured: entries are a fitted combination of the entries of `sources` and of amounts of work
    (`latency_tables.transfer`). An interrupted measurement continues, and a finished table is returned
    unchanged, as by `measure`.

    Args:
        space: space of the table; of its resolutions those that all sources cover are taken.
        device: device, engine and measuring effort.
        path: JSON file of the table.
        num_networks: number of networks to measure.
        sources: tables of other devices or engines; none: amounts of work alone.
        seed: seed of the choice of the networks, orders, weights and inputs.
        progress: called with the steps of all processes together.
        engine: engine in this process; None: the engine of `device`, in fresh processes.
        max_table_error: largest error (MAPE in percent) of a table at `path` that is kept.

    Raises:
        UserError: if there are too few or too many networks for the fit, the sources are of another space or
            lack all of its resolutions, a table at `path` was made differently, or for the reasons of
            `measure`.
    """
    columns = columns_of(space, sources)
    check_number(num_networks, columns.num_free)
    maker = NetworkTables(columns.space, device, seed, num_networks, sources)
    return make_table(maker, device, path, progress=progress, engine=engine, max_table_error=max_table_error)
