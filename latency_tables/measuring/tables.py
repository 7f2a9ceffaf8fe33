"""`measure` and `table_workloads`: the table of a published family or of a user's model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeAlias

from latency_tables.engines.base import Engine
from latency_tables.measuring.build import TableMaker, make_table
from latency_tables.measuring.graph_networks import GraphNetworks
from latency_tables.measuring.graph_plan import NUM_CALIBRATION as NUM_GRAPH_CALIBRATION
from latency_tables.measuring.graph_plan import GraphTables, plan_graph_table
from latency_tables.measuring.layer_tables import LayerTables
from latency_tables.measuring.methods import Workload
from latency_tables.measuring.plan import NUM_VALIDATION, plan_table
from latency_tables.table.device import DeviceSpec
from latency_tables.table.measured import MeasuredTable
from ofa.common.progress import ProgressCallback, silent
from ofa.graph.space import GraphSpace, ImageSpace
from ofa.graph.supernet import GraphSupernet
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet

Networks: TypeAlias = StagedSpace | GraphNetworks
"""The networks of a table: the (restricted) space of a published family, or a user's model."""


def networks_in(supernet: Supernet | GraphSupernet, space: ImageSpace) -> Networks:
    """Return the networks of a table of the (restricted) `space` of a supernet."""
    if isinstance(supernet, GraphSupernet):
        assert isinstance(space, GraphSpace)
        return GraphNetworks(supernet, space)
    assert isinstance(space, StagedSpace)
    return space


def measure(
    networks: Networks,
    device: DeviceSpec,
    path: str | Path,
    *,
    seed: int = 0,
    progress: ProgressCallback = silent,
    num_calibration: int | None = None,
    num_validation: int = NUM_VALIDATION,
    engine: Engine | None = None,
    max_table_error: float = math.inf,
) -> MeasuredTable:
    """Measure the missing entries of the table of `networks` on `device`, and save it at `path`.

    The entries are the layers of a published family, or the pieces of a user's model, whose graph is cut as
    engines fuse it. Entries, calibration networks and validation networks are timed together in shuffled
    rounds, in `device.processes` processes in sequence. Every visit is appended to `journal_path(path)`, so
    an interrupted build continues; that file is deleted when the table is saved. An existing table at `path`
    keeps its entries, if they belong to the space; a complete table is returned unchanged. A table of other
    resolutions of the space, or of other choices of a model, is extended: it then covers all of them. A
    table with an error above `max_table_error` is measured anew, with any effort, and replaced at the end.

    Args:
        networks: space to measure, whose restriction limits layers and networks, or a user's model.
        device: device, engine and measuring effort.
        path: JSON file of the table.
        seed: seed of the networks, orders, weights and inputs.
        progress: called with the steps of all processes together.
        num_calibration: number of networks for fitting the calibration, at least 2; None for the default of
            the kind: 20 for a family, fewer in a small space, and 10 for a user's model.
        num_validation: number of other networks for measuring the table's error, at least 2.
        engine: engine in this process; None: the engine of `device`, in fresh processes.
        max_table_error: largest error (MAPE in percent) of a table at `path` that is kept. The returned table
            may have a larger one; `MeasuredTable.check_error` refuses it.

    Returns:
        A `LatencyTable` of a family, a `GraphTable` of a user's model.

    Raises:
        UserError: if the engine is unknown, not installed or fails, a table or journal at `path`
            was measured differently, the space is too small, the model was captured in parts, another process
            measures the same table, or a file cannot be written.
    """
    maker = _maker(networks, device, seed, num_calibration, num_validation)
    table: MeasuredTable = make_table(
        maker, device, path, progress=progress, engine=engine, max_table_error=max_table_error
    )
    return table


def _maker(
    networks: Networks, device: DeviceSpec, seed: int, num_calibration: int | None, num_validation: int
) -> TableMaker[Any]:
    """Return how the table of the networks is made, by their kind."""
    if isinstance(networks, GraphNetworks):
        num_fitted = NUM_GRAPH_CALIBRATION if num_calibration is None else num_calibration
        return GraphTables(networks, device, seed, num_fitted, num_validation)
    return LayerTables(networks, device, seed, num_calibration, num_validation)


def table_workloads(networks: Networks, device: DeviceSpec, seed: int) -> tuple[Workload, ...]:
    """Return all programs of a table.

    Raises:
        UserError: if the space is too small for a table, or a model has no graph.
    """
    if isinstance(networks, GraphNetworks):
        return plan_graph_table(networks, device, seed).workloads
    return plan_table(networks, device, seed).workloads
