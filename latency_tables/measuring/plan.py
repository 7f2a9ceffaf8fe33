"""`TablePlan`: the workloads of a table, and assembling it from measurements.

The measurements come from this machine (`latency_tables.measuring.build`) or another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from latency_tables.engines.base import Description
from latency_tables.measuring.methods import METHODS, NETWORK_VISITS_PER_ROUND, LayerMethod, Workload
from latency_tables.table.amounts import amounts_of
from latency_tables.table.calibration import (
    C,
    Runs,
    calibrate,
    choose_networks,
    smallest_sum,
    validate,
)
from latency_tables.table.device import DeviceSpec
from latency_tables.table.measured import now_text
from latency_tables.table.table import LatencyTable
from latency_tables.table.timing import ImportedTiming, Timing, check_runs, latency_ms, summarize
from ofa.architecture.cost import compile_cost
from ofa.architecture.layer import LayerSpec
from ofa.architecture.lowering import distinct_layers, lower
from ofa.common.errors import UserError
from ofa.modules.static import StaticNetwork
from ofa.space.config import Config
from ofa.space.estimator import Estimator
from ofa.space.space import SearchSpace
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig

NUM_CALIBRATION, NUM_VALIDATION = 20, 16
FEWEST_CALIBRATION = 6
"""Calibration networks of a space that has few more than are needed for the validation."""
_SHOWN = 8


@dataclass(frozen=True)
class TablePlan:
    """The measurements that a table needs.

    Attributes:
        space: space to measure; its restriction limits layers and networks.
        device: device, engine and measuring effort.
        method: method for the entries of layers.
        seed: seed of the networks.
        specs: layers to measure.
        calibration: networks for fitting the affine map.
        validation: other networks for measuring the table's error.
        known_entries: entries by key that need no measuring; `specs` are the other layers.
    """

    space: StagedSpace
    device: DeviceSpec
    method: LayerMethod
    seed: int
    specs: tuple[LayerSpec, ...]
    calibration: tuple[SubnetConfig, ...]
    validation: tuple[SubnetConfig, ...]
    known_entries: Mapping[str, Timing] = field(default_factory=dict)

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """All workloads, each key once: references of layers, layers, networks."""
        references = [workload for spec in self.specs for workload, _ in self.method.references(spec)]
        layers = [self.method.workload(spec) for spec in self.specs]
        networks = [network_workload(self.space, config) for config in (*self.calibration, *self.validation)]
        return tuple({workload.key: workload for workload in (*references, *layers, *networks)}.values())

    def with_known(self, table: LatencyTable) -> TablePlan:
        """Return the plan without the layers of an earlier table."""
        entries = table.entries
        known = {s.key: timing for s in self.specs if isinstance(timing := entries.get(s.key), Timing)}
        specs = tuple(spec for spec in self.specs if spec.key not in known)
        return replace(self, specs=specs, known_entries=known)

    def assemble(self, engine: Description, runs: Mapping[str, Sequence[Sequence[float]]]) -> LatencyTable:
        """Return the table of these measurements; see `assemble_table`."""
        return assemble_table(self, engine, runs)


def plan_table(
    space: StagedSpace,
    device: DeviceSpec,
    seed: int,
    num_calibration: int | None = None,
    num_validation: int = NUM_VALIDATION,
) -> TablePlan:
    """Return the plan of a complete table of the (restricted) `space`; equal arguments give equal plans.

    The table of a compound space covers all networks with its choices.

    Args:
        space: the space.
        device: device, engine and measuring effort.
        seed: seed of the networks.
        num_calibration: number of networks for the calibration; None: `NUM_CALIBRATION`, or fewer where the
            space has no more.
        num_validation: number of other networks.

    Raises:
        UserError: if there are fewer than 2 networks of either kind, or the space is too small for them.
    """
    space = replace(space, compound=False)
    if num_calibration is None:
        num_left = space.size - num_validation
        num_calibration = max(min(NUM_CALIBRATION, num_left), FEWEST_CALIBRATION)
    networks = table_networks(space, seed, num_calibration, num_validation)
    return TablePlan(space, device, METHODS[device.method], seed, distinct_layers(space), *networks)


def table_networks(
    space: SearchSpace[C], seed: int, num_calibration: int, num_validation: int
) -> tuple[tuple[C, ...], tuple[C, ...]]:
    """Return the networks of a table, for calibration and for validation; see `choose_networks`.

    Raises:
        UserError: if there are fewer than 2 networks of either kind, or the space is too small for them.
    """
    if num_calibration < 2 or num_validation < 2:
        raise UserError(
            f"num_calibration and num_validation are {num_calibration} and {num_validation}; "
            "expected at least 2 of each."
        )
    return choose_networks(space, num_calibration, num_validation, np.random.default_rng(seed))


def network_key(space: SearchSpace, config: Config) -> str:
    """Return the key of a network's workload; it names the space, because ids of two spaces can be equal."""
    return f"network-{space.fingerprint}-{config.id}"


def network_workload(space: StagedSpace, config: SubnetConfig) -> Workload:
    """Return the workload of a network."""
    shape = (space.in_channels, config.resolution, config.resolution)
    return Workload(
        network_key(space, config),
        partial(StaticNetwork, lower(space, config)),
        shape,
        NETWORK_VISITS_PER_ROUND,
    )


def assemble_table(
    plan: TablePlan, engine: Description, runs: Mapping[str, Sequence[Sequence[float]]]
) -> LatencyTable:
    """Assemble the table from the measurements of the plan.

    Args:
        plan: plan that was measured.
        engine: facts about the engine.
        runs: milliseconds of all runs of each workload, one list per process.

    Raises:
        MeasurementError: if the time of a run is not positive and finite.
        UserError: if workloads of the plan were not measured.
    """
    check_measured(plan.workloads, runs, plan.space.name)
    entries = {
        **plan.known_entries,
        **{spec.key: entry_of(runs, spec.key, plan.method.references(spec)) for spec in plan.specs},
    }

    def entry_ms(spec: LayerSpec) -> float:
        return entries[spec.key].latency_ms if spec.key in entries else math.nan

    def measured(configs: Sequence[SubnetConfig], total: Estimator) -> tuple[list[float], list[Runs]]:
        network_runs = [runs[network_workload(plan.space, config).key] for config in configs]
        return total(plan.space.genomes(configs)).tolist(), network_runs

    total = compile_cost(plan.space, entry_ms)
    smallest_ms = smallest_sum(plan.space, total, np.random.default_rng(plan.seed))
    amounts = amounts_of(plan.space, plan.space.genomes(plan.calibration))
    calibration = calibrate(plan.calibration, *measured(plan.calibration, total), smallest_ms, amounts)
    with_work = compile_cost(plan.space, lambda spec: entry_ms(spec) + calibration.work_ms(spec))
    sorted_entries: dict[str, Timing | ImportedTiming] = {
        s.key: entries[s.key] for s in distinct_layers(plan.space)
    }
    return LatencyTable(
        device=plan.device,
        engine=engine,
        method=plan.method.name,
        date=now_text(),
        seed=plan.seed,
        space_name=plan.space.name,
        space_fingerprint=plan.space.fingerprint,
        calibration=calibration,
        validation=validate(plan.validation, *measured(plan.validation, with_work), calibration),
        entries=sorted_entries,
    )


def entry_of(
    runs: Mapping[str, Sequence[Sequence[float]]], key: str, references: Iterable[tuple[Workload, float]]
) -> Timing:
    """Return an entry: the latency of its workload minus those of its references, each with its weight."""
    references_ms = sum(weight * latency_ms(runs[workload.key]) for workload, weight in references)
    return summarize(runs[key], references_ms)


def check_measured(
    workloads: Sequence[Workload], runs: Mapping[str, Sequence[Sequence[float]]], space_name: str
) -> None:
    """Refuse measurements that lack workloads, or hold impossible times.

    Raises:
        MeasurementError: if the time of a run is not positive and finite.
        UserError: naming the first workloads that were not measured.
    """
    keys = [workload.key for workload in workloads]
    missing_keys = [key for key in keys if not runs.get(key) or not all(runs[key])]
    if missing_keys:
        more = f" and {len(missing_keys) - _SHOWN} more" if len(missing_keys) > _SHOWN else ""
        raise UserError(
            f"The measurements lack {len(missing_keys)} of the {len(keys)} programs of space "
            f"{space_name!r}: {', '.join(missing_keys[:_SHOWN])}{more}. "
            "Continue measuring until none is missing."
        )
    for key in keys:
        for process_runs in runs[key]:
            check_runs(key, process_runs)
