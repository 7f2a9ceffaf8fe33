"""`measure_graph`: time the pieces of a user's network on a device, calibrate and validate, resumably."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from latency_tables.engines.base import Description, Engine
from latency_tables.measuring.build import make_table
from latency_tables.measuring.graph_networks import GraphNetworks
from latency_tables.measuring.methods import Workload
from latency_tables.measuring.piece_grid import MAX_PROGRAMS, piece_grid
from latency_tables.measuring.piece_workloads import (
    METHOD,
    network_program_workload,
    piece_workload,
    slice_workloads,
)
from latency_tables.measuring.plan import (
    NUM_CALIBRATION,
    NUM_VALIDATION,
    check_measured,
    entry_of,
    network_key,
    now_text,
    table_networks,
)
from latency_tables.table.calibration import Runs, calibrate, validate
from latency_tables.table.device import DeviceSpec
from latency_tables.table.graph_table import SCHEMA_VERSION, GraphTable, choices_of
from latency_tables.table.measured import table_identity
from latency_tables.table.piece_sum import PieceSum, PieceTerm
from latency_tables.table.timing import ImportedTiming, Timing
from ofa.common.progress import ProgressCallback, silent
from ofa.graph.programs import GraphProgram
from ofa.graph.space import GraphSpace
from ofa.space.plain import GeneConfig


@dataclass(frozen=True)
class GraphPlan:
    """The measurements that the table of a user's model needs.

    Attributes:
        space: the (restricted) space.
        device: device, engine and measuring effort.
        seed: seed of the networks.
        terms: the places of the network.
        programs: the pieces to measure, by key.
        networks: whole networks to measure, by the key of their workload.
        calibration: networks for fitting the affine map.
        validation: other networks for measuring the table's error.
        known_entries: entries of further pieces, which were measured before.
    """

    space: GraphSpace
    device: DeviceSpec
    seed: int
    terms: tuple[PieceTerm, ...]
    programs: Mapping[str, GraphProgram]
    networks: Mapping[str, GraphProgram]
    calibration: tuple[GeneConfig, ...]
    validation: tuple[GeneConfig, ...]
    known_entries: Mapping[str, Timing | ImportedTiming]

    @cached_property
    def workloads(self) -> tuple[Workload, ...]:
        """All workloads, each key once: slices, pieces, networks."""
        slices = [workload for program in self.programs.values() for workload, _ in slice_workloads(program)]
        pieces = [piece_workload(program) for program in self.programs.values()]
        networks = [network_program_workload(key, program) for key, program in self.networks.items()]
        return tuple({workload.key: workload for workload in (*slices, *pieces, *networks)}.values())

    def with_known(self, entries: Mapping[str, Timing | ImportedTiming]) -> GraphPlan:
        """Return the plan without the pieces that were measured before."""
        keys = {key for term in self.terms for key in term.keys}
        known = {key: timing for key, timing in entries.items() if key in keys}
        programs = {key: program for key, program in self.programs.items() if key not in known}
        return replace(self, programs=programs, known_entries=known)

    def assemble(self, engine: Description, runs: Mapping[str, Sequence[Sequence[float]]]) -> GraphTable:
        """Return the table of these measurements.

        Args:
            engine: facts about the engine.
            runs: milliseconds of all runs of each workload, one list per process.

        Raises:
            MeasurementError: if the time of a run is not positive and finite.
            UserError: if workloads of the plan were not measured.
        """
        check_measured(self.workloads, runs, self.space.name)
        measured = {
            key: entry_of(runs, key, slice_workloads(program)) for key, program in self.programs.items()
        }
        entries = {**self.known_entries, **measured}
        latencies_ms = {key: timing.latency_ms for key, timing in entries.items()}
        total = PieceSum(self.space, self.terms, latencies_ms, choices_of(self.space))

        def fitted(configs: Sequence[GeneConfig]) -> tuple[list[float], list[Runs]]:
            keys = [network_key(self.space, config) for config in configs]
            return total(self.space.genomes(configs)).tolist(), [runs[key] for key in keys]

        calibration = calibrate(self.calibration, *fitted(self.calibration))
        return GraphTable(
            device=self.device,
            engine=engine,
            method=METHOD,
            date=now_text(),
            seed=self.seed,
            space_name=self.space.name,
            space_fingerprint=self.space.fingerprint,
            calibration=calibration,
            validation=validate(self.validation, *fitted(self.validation), calibration),
            entries={key: entries[key] for term in self.terms for key in term.keys},
            choices=choices_of(self.space),
            terms=self.terms,
        )


def plan_graph_table(
    networks: GraphNetworks,
    device: DeviceSpec,
    seed: int,
    num_calibration: int = NUM_CALIBRATION,
    num_validation: int = NUM_VALIDATION,
    max_programs: int = MAX_PROGRAMS,
) -> GraphPlan:
    """Return the plan of a complete table of a user's model; equal arguments give equal plans.

    Pieces are measured between slices, whatever `device.method` says, which is for the layers of families.

    Raises:
        UserError: if the model was captured in parts or does not run at a resolution, or the space is too
            small for the networks.
    """
    space = replace(networks.space, compound=False)
    tracer = networks.tracer(device.batch_size)
    grid = piece_grid(tracer, space, max_programs)
    chosen = table_networks(space, seed, num_calibration, num_validation)
    programs = {network_key(space, c): tracer.network(c) for configs in chosen for c in configs}
    return GraphPlan(space, device, seed, grid.terms, grid.programs, programs, *chosen, {})


def measure_graph(
    networks: GraphNetworks,
    device: DeviceSpec,
    path: str | Path,
    *,
    seed: int = 0,
    progress: ProgressCallback = silent,
    num_calibration: int = NUM_CALIBRATION,
    num_validation: int = NUM_VALIDATION,
    engine: Engine | None = None,
    max_table_error: float = math.inf,
    max_programs: int = MAX_PROGRAMS,
) -> GraphTable:
    """Measure the missing entries of the table of a user's model on `device`, and save it at `path`.

    The graph is cut into pieces as engines fuse them. All sizes of a piece are measured where these are few,
    else some, and the latency of others is interpolated. An interrupted build continues, and tables at `path`
    are used and extended as by `latency_tables.measuring.measure`.

    Args:
        networks: the model, and the space to measure.
        device: device, engine and measuring effort.
        path: JSON file of the table.
        seed: seed of the networks, orders, weights and inputs.
        progress: called with the steps of all processes together.
        num_calibration: number of networks for fitting the affine map, at least 2.
        num_validation: number of other networks for measuring the table's error, at least 2.
        engine: engine in this process; None: the engine of `device`, in fresh processes.
        max_table_error: largest error (MAPE in percent) of a table at `path` that is kept.
        max_programs: about how many pieces are measured at most.

    Raises:
        UserError: as `measure` does, and if the model was captured in parts.
    """
    counts = (num_calibration, num_validation, max_programs)
    maker = _PieceTables(networks, device, seed, counts)
    return make_table(maker, device, path, progress=progress, engine=engine, max_table_error=max_table_error)


@dataclass(frozen=True)
class _PieceTables:
    """Tables of the pieces of a user's model."""

    networks: GraphNetworks
    device: DeviceSpec
    seed: int
    counts: tuple[int, int, int]

    @property
    def space(self) -> GraphSpace:
        return self.networks.space

    def identity(self, engine: Description) -> dict[str, Any]:
        return table_identity(SCHEMA_VERSION, self.device, engine, METHOD)

    def load(self, path: Path) -> GraphTable:
        return GraphTable.load(path)

    def plan(self, existing: GraphTable | None) -> GraphPlan:
        networks = self.networks
        if existing is not None:
            networks = replace(networks, space=_with_choices(networks.space, existing.choices))
        return plan_graph_table(networks, self.device, self.seed, *self.counts)


def _with_choices(space: GraphSpace, choices: Mapping[str, Sequence[float]]) -> GraphSpace:
    """Return `space` with further choices allowed."""
    restriction = tuple(
        tuple(i for i in range(len(gene.choices)) if i in allowed or gene.choices[i] in choices[gene.name])
        for gene, allowed in zip(space.genes, space.allowed, strict=True)
    )
    return replace(space, restriction=restriction)
