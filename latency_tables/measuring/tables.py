"""`measure_table` and `table_workloads`: the table of whatever networks, by their kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

from latency_tables.engines.base import Engine
from latency_tables.measuring.build import measure
from latency_tables.measuring.graph_networks import GraphNetworks
from latency_tables.measuring.graph_plan import measure_graph, plan_graph_table
from latency_tables.measuring.methods import Workload
from latency_tables.measuring.plan import NUM_CALIBRATION, NUM_VALIDATION, plan_table
from latency_tables.table.device import DeviceSpec
from latency_tables.table.measured import MeasuredTable
from ofa.common.progress import ProgressCallback, silent
from ofa.graph.space import GraphSpace, ImageSpace
from ofa.graph.supernet import GraphSupernet
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet

Networks: TypeAlias = StagedSpace | GraphNetworks
"""What a table is of: the (restricted) space of a published family, or a user's model."""


def networks_in(supernet: Supernet | GraphSupernet, space: ImageSpace) -> Networks:
    """Return what a table of the (restricted) `space` of a supernet is of."""
    if isinstance(supernet, GraphSupernet):
        assert isinstance(space, GraphSpace)
        return GraphNetworks(supernet, space)
    assert isinstance(space, StagedSpace)
    return space


def measure_table(
    networks: Networks,
    device: DeviceSpec,
    path: str | Path,
    *,
    seed: int = 0,
    progress: ProgressCallback = silent,
    num_calibration: int = NUM_CALIBRATION,
    num_validation: int = NUM_VALIDATION,
    engine: Engine | None = None,
    max_table_error: float = math.inf,
) -> MeasuredTable:
    """Measure what is missing of a table, and save it: see `measure` and `measure_graph`."""
    make: Callable[..., MeasuredTable]
    if isinstance(networks, GraphNetworks):
        make = partial(measure_graph, networks)
    else:
        make = partial(measure, networks)
    return make(
        device,
        path,
        seed=seed,
        progress=progress,
        num_calibration=num_calibration,
        num_validation=num_validation,
        engine=engine,
        max_table_error=max_table_error,
    )


def table_workloads(networks: Networks, device: DeviceSpec, seed: int) -> tuple[Workload, ...]:
    """Return all programs of a table.

    Raises:
        UserError: if the space is too small for a table, or a model has no graph.
    """
    if isinstance(networks, GraphNetworks):
        return plan_graph_table(networks, device, seed).workloads
    return plan_table(networks, device, seed).workloads
