"""Kits for tables from a few whole networks: made, and read."""

from __future__ import annotations

from pathlib import Path

from latency_tables.measuring.network_tables import table_of_runs
from latency_tables.remote.kit import NETWORKS, KitInfo, make_network_kit
from latency_tables.remote.results import measured_space, read_kit, runs_of_networks
from latency_tables.table.device import DeviceSpec
from latency_tables.table.regression import check_number
from latency_tables.table.table import LatencyTable
from latency_tables.transfer.choice import choose_networks
from latency_tables.transfer.columns import columns_of
from latency_tables.transfer.sources import NO_SOURCES, Sources
from ofa.common.progress import ProgressCallback, silent
from ofa.space.staged import StagedSpace


def make_few_networks_kit(
    space: StagedSpace,
    device: DeviceSpec,
    folder: Path,
    num_networks: int,
    *,
    sources: Sources = NO_SOURCES,
    seed: int = 0,
    progress: ProgressCallback = silent,
) -> KitInfo:
    """Write the kit that measures the networks which `measure_networks_table` would.

    Raises:
        UserError: for the reasons of `measure_networks_table` and of `make_table_kit`.
    """
    columns = columns_of(space, sources)
    check_number(num_networks, columns.num_free)
    configs = choose_networks(columns, num_networks, seed)
    return make_network_kit(columns.space, configs, device, seed, folder, progress)


def table_from_network_kit(folder: Path, space: StagedSpace, sources: Sources = NO_SOURCES) -> LatencyTable:
    """Return the latency table of a measured kit of networks; the file is not written.

    Args:
        folder: folder of the kit, with its measurements.json.
        space: space of the table; its restriction must be the kit's.
        sources: tables of other devices or engines; need not be those that the networks were chosen by.

    Raises:
        UserError: for the reasons of `table_from_kit` and of `table_of_networks`.
    """
    results = read_kit(folder, NETWORKS, space)
    columns = columns_of(measured_space(folder, results.manifest, space), sources)
    runs = runs_of_networks(folder, results, space)
    return table_of_runs(columns, runs, results.device, results.engine, results.manifest.seed)
