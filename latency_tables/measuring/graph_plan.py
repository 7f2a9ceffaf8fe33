"""`GraphPlan` and `GraphTables`: what the table of a user's model needs, and how it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from latency_tables.engines.base import Description
from latency_tables.measuring.graph_networks import GraphNetworks
from latency_tables.measuring.methods import Workload
from latency_tables.measuring.piece_grid import MAX_PROGRAMS, piece_grid
from latency_tables.measuring.piece_workloads import (
    METHOD,
    cold_runs,
    network_program_workload,
    piece_workload,
    slice_workloads,
    without_cold_runs,
)
from latency_tables.measuring.plan import (
    NUM_VALIDATION,
    check_measured,
    entry_of,
    network_key,
    table_networks,
)
from latency_tables.table.affine_fit import fit_cold_share
from latency_tables.table.calibration import (
    Runs,
    calibrate,
    smallest_sum,
    validate,
)
from latency_tables.table.device import DeviceSpec
from latency_tables.table.graph_table import SCHEMA_VERSION, GraphTable, choices_of, mixed_ms
from latency_tables.table.measured import now_text, table_identity
from latency_tables.table.piece_sum import PieceSum, PieceTerm
from latency_tables.table.timing import ImportedTiming, Timing, summarize
from ofa.graph.programs import GraphProgram
from ofa.graph.space import GraphSpace
from ofa.space.plain import GeneConfig

NUM_CALIBRATION = 10
"""More networks than for a family: three numbers are fitted, the scale, the offset and the cold share."""

Entries = Mapping[str, Timing | ImportedTiming]
"""Entries of pieces by key."""


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
        known_entries: warm and cold entries of further pieces, which were measured before.
    """

    space: GraphSpace
    device: DeviceSpec
    seed: int
    terms: tuple[PieceTerm, ...]
    programs: Mapping[str, GraphProgram]
    networks: Mapping[str, GraphProgram]
    calibration: tuple[GeneConfig, ...]
    validation: tuple[GeneConfig, ...]
    known_entries: tuple[Entries, Entries] = ({}, {})

    @cached_property
    def workloads(self) -> tuple[Workload, ...]:
        """All workloads, each key once: slices, pieces, networks."""
        slices = [workload for program in self.programs.values() for workload, _ in slice_workloads(program)]
        pieces = [piece_workload(program) for program in self.programs.values()]
        networks = [network_program_workload(key, program) for key, program in self.networks.items()]
        return tuple({workload.key: workload for workload in (*slices, *pieces, *networks)}.values())

    def with_known(self, table: GraphTable) -> GraphPlan:
        """Return the plan without the pieces of an earlier table."""
        keys = {key for term in self.terms for key in term.keys} & set(table.entries)
        programs = {key: program for key, program in self.programs.items() if key not in keys}
        known = tuple({key: part[key] for key in keys} for part in (table.entries, table.cold_entries))
        return replace(self, programs=programs, known_entries=(known[0], known[1]))

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
        entries, cold_entries = (
            {**known, **self._entries({key: part(values) for key, values in runs.items()})}
            for known, part in zip(self.known_entries, (without_cold_runs, cold_runs), strict=True)
        )
        share = self._cold_share(entries, cold_entries, runs)
        total = self._total(mixed_ms(entries, cold_entries, share))

        def fitted(configs: Sequence[GeneConfig]) -> tuple[list[float], list[Runs]]:
            keys = [network_key(self.space, config) for config in configs]
            return total(self.space.genomes(configs)).tolist(), [runs[key] for key in keys]

        smallest_ms = smallest_sum(self.space, total, np.random.default_rng(self.seed))
        calibration = calibrate(self.calibration, *fitted(self.calibration), smallest_ms)
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
            cold_entries={key: cold_entries[key] for term in self.terms for key in term.keys},
            cold_share=share,
        )

    def _entries(self, runs: Mapping[str, Runs]) -> dict[str, Timing]:
        """Return the entries of the pieces that were measured."""
        return {key: entry_of(runs, key, slice_workloads(program)) for key, program in self.programs.items()}

    def _total(self, latencies_ms: Mapping[str, float]) -> PieceSum:
        return PieceSum(self.space, self.terms, latencies_ms, choices_of(self.space))

    def _cold_share(self, entries: Entries, cold_entries: Entries, runs: Mapping[str, Runs]) -> float:
        """Return the share of cold entries by the calibration networks."""
        genomes = self.space.genomes(self.calibration)
        warm, cold = (self._total(mixed_ms(entries, cold_entries, share))(genomes) for share in (0.0, 1.0))
        measured = [
            summarize(runs[network_key(self.space, config)]).latency_ms for config in self.calibration
        ]
        return fit_cold_share(warm.tolist(), cold.tolist(), measured)


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
    All sizes of a piece are measured where these are few, else some, and the table interpolates.

    Args:
        networks: the model, and the space to measure.
        device: device, engine and measuring effort.
        seed: seed of the networks.
        num_calibration: number of networks for the calibration, at least 2.
        num_validation: number of other networks for measuring the table's error, at least 2.
        max_programs: about how many pieces are measured at most.

    Raises:
        UserError: if the model was captured in parts or does not run at a resolution, or the space is too
            small for the networks.
    """
    space = replace(networks.space, compound=False)
    tracer = networks.tracer(device.batch_size)
    grid = piece_grid(tracer, space, max_programs)
    chosen = table_networks(space, seed, num_calibration, num_validation)
    programs = {network_key(space, c): tracer.network(c) for configs in chosen for c in configs}
    return GraphPlan(space, device, seed, grid.terms, grid.programs, programs, *chosen)


@dataclass(frozen=True)
class GraphTables:
    """How tables of the pieces of a user's model are made; see `TableMaker` and `plan_graph_table`."""

    networks: GraphNetworks
    device: DeviceSpec
    seed: int
    num_calibration: int = NUM_CALIBRATION
    num_validation: int = NUM_VALIDATION
    max_programs: int = MAX_PROGRAMS

    @property
    def space(self) -> GraphSpace:
        """The (restricted) space of the model."""
        return self.networks.space

    def identity(self, engine: Description) -> dict[str, Any]:
        """Return what further measurements must share with the table."""
        return table_identity(SCHEMA_VERSION, self.device, engine, METHOD)

    def load(self, path: Path) -> GraphTable:
        """Read a table of a user's model."""
        return GraphTable.load(path)

    def plan(self, existing: GraphTable | None) -> GraphPlan:
        """Return the plan of a table that covers the choices of `existing` as well."""
        networks = self.networks
        if existing is not None:
            networks = replace(networks, space=_with_choices(networks.space, existing.choices))
        return plan_graph_table(
            networks,
            self.device,
            self.seed,
            self.num_calibration,
            self.num_validation,
            self.max_programs,
        )


def _with_choices(space: GraphSpace, choices: Mapping[str, Sequence[float]]) -> GraphSpace:
    """Return `space` with further choices allowed."""
    restriction = tuple(
        tuple(i for i in range(len(gene.choices)) if i in allowed or gene.choices[i] in choices[gene.name])
        for gene, allowed in zip(space.genes, space.allowed, strict=True)
    )
    return replace(space, restriction=restriction)
