"""Measure a latency table, e.g. `ofa measure run_name=digits device=my_cpu_onnx`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latency_tables.table.device import DeviceSpec, device_settings
from latency_tables.table.graph_table import GraphTable
from latency_tables.table.measured import MAX_TABLE_ERROR, MeasuredTable, check_max_table_error
from latency_tables.table.table import LatencyTable
from latency_tables.transfer.choice import NUM_NETWORKS
from latency_tables.transfer.sources import read_sources
from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, progress_bar
from ofa.common.shipped import preset_settings
from ofa.common.text_settings import PathText
from ofa.graph.space import ImageSpace
from ofa.launch import command
from ofa.runs.config import RunConfig, next_command
from ofa.space.staged import StagedSpace
from search.limits.reachable import example_maximum

if TYPE_CHECKING:
    from latency_tables.measuring.tables import Networks


@dataclass(frozen=True, kw_only=True)
class TableConfig(RunConfig):
    """Settings of `conf/build_latency_table.yaml`."""

    max_table_error: float
    device: DeviceSpec
    space: StagedSpace | None
    resolutions: tuple[int, ...] | None
    calibration_networks: int | None
    validation_networks: int | None
    networks: int | None
    from_table: PathText | tuple[PathText, ...] | None
    network_latencies: PathText | None
    from_kit: PathText | None
    output: PathText | None
    seed: int

    def __post_init__(self) -> None:
        """Check what can be checked before anything is measured."""
        check_max_table_error(self.max_table_error)
        if self.network_latencies and self.from_kit:
            raise UserError("network_latencies and from_kit are given; expected one of them.")
        if self.networks is not None and (self.network_latencies or self.from_kit):
            raise UserError(
                "networks counts what is measured here; leave it out, because all networks of "
                "network_latencies and from_kit are taken."
            )
        if self.is_of_networks:
            refuse_layer_settings(self.calibration_networks, self.validation_networks)

    @property
    def is_of_networks(self) -> bool:
        """Whether the settings are those of a table from whole networks."""
        return self.networks is not None or bool(self.from_table or self.network_latencies)


def refuse_layer_settings(*settings: int | None) -> None:
    """Raise if a setting is given that belongs to measured layers, beside those of whole networks."""
    if any(setting is not None for setting in settings):
        raise UserError(
            "calibration_networks and validation_networks belong to tables of measured layers; leave them "
            "out with networks, from_table and network_latencies."
        )


@command(
    "build_latency_table",
    TableConfig,
    interrupted="The rounds measured so far are kept; the same command goes on with the others.",
)
def build_latency_table(config: TableConfig) -> MeasuredTable:
    """Measure what is missing of the table and return it."""
    from latency_tables.remote.results import save_table
    from ofa.common.accelerator import threads_set

    space = (config.space or config.trained_space).restrict({"resolution": config.resolutions})
    table: MeasuredTable | None = _table_from_elsewhere(config, space)
    device = table.device if table else config.device
    tables = Path(config.runs_dir) / "tables" / space.name / f"{device.name}.json"
    path = Path(config.output or (tables if config.space else config.directory.table(device.name)))
    if isinstance(table, LatencyTable):
        save_table(table, path)
    with threads_set(config.threads), progress_bar(f"measuring on {device.name}") as progress:
        table = table or _measured(config, space, path, progress)
    engine = f"{table.engine['engine']}, {device.threads} thread(s), batch {device.batch_size}"
    parts = "pieces" if isinstance(table, GraphTable) else "layers"
    print(f"{len(table.entries)} {parts} on {engine}{_origin_text(table)}\n{table.error_text}")
    print(f"table: {path}")
    _refuse_wrong(table, config)
    covered = table.covered_space(space)
    limit_ms, range_text = example_maximum(covered, table.estimator(covered, None, config.max_table_error))
    print(f"sub-networks take {range_text} ms")
    options: dict[str, object] = {**device_settings(device)}
    options |= _space_settings(config, table) | {"table": str(path), "limits.latency_ms": limit_ms}
    if config.max_table_error != MAX_TABLE_ERROR:
        options["max_table_error"] = f"{config.max_table_error:g}"
    print(next_command(config, "search", options))
    return table


def _table_from_elsewhere(config: TableConfig, space: ImageSpace) -> LatencyTable | None:
    """Return the table of a measured kit or of a file of latencies; None without either."""
    from latency_tables.remote.manifest import measures_networks
    from latency_tables.remote.network_kit import table_from_network_kit
    from latency_tables.remote.results import table_from_kit
    from latency_tables.transfer.network_file import table_from_file

    if not (config.network_latencies or config.from_kit):
        return None
    family, sources = _family(space), read_sources(config.from_table, space)
    if config.network_latencies:
        return table_from_file(Path(config.network_latencies), family, config.device, sources)
    assert config.from_kit is not None
    kit = Path(config.from_kit)
    if measures_networks(kit):
        return table_from_network_kit(kit, family, sources)
    if config.from_table:
        raise UserError(f"The kit {kit} measured layers, which need no other table; leave out from_table.")
    return table_from_kit(kit, family)


def _measured(
    config: TableConfig, space: ImageSpace, path: Path, progress: ProgressCallback
) -> MeasuredTable:
    from latency_tables.measuring.network_tables import measure_networks_table
    from latency_tables.measuring.plan import NUM_VALIDATION
    from latency_tables.measuring.tables import measure

    if config.is_of_networks:
        return measure_networks_table(
            _family(space),
            config.device,
            path,
            NUM_NETWORKS if config.networks is None else config.networks,
            sources=read_sources(config.from_table, space),
            seed=config.seed,
            progress=progress,
            max_table_error=config.max_table_error,
        )
    return measure(
        networks_of(config, space),
        config.device,
        path,
        seed=config.seed,
        progress=progress,
        num_calibration=config.calibration_networks,
        num_validation=NUM_VALIDATION if config.validation_networks is None else config.validation_networks,
        max_table_error=config.max_table_error,
    )


def _origin_text(table: MeasuredTable) -> str:
    transfer = table.transfer if isinstance(table, LatencyTable) else None
    return f", {transfer.text} and {len(table.calibration.networks)} networks" if transfer else ""


def _family(space: ImageSpace) -> StagedSpace:
    if not isinstance(space, StagedSpace):
        raise UserError(
            "Kits and tables from whole networks are for the published families alone; the run is of the "
            f"model {space.name!r}. Leave out from_kit, from_table, networks and network_latencies to "
            "measure its pieces here."
        )
    return space


def networks_of(config: RunConfig, space: ImageSpace) -> Networks:
    """Return what is measured for a space: itself, or the user's model of the run."""
    from latency_tables.measuring.tables import networks_in
    from ofa.runs.supernet_file import load_supernet

    if isinstance(space, StagedSpace):
        return space
    return networks_in(load_supernet(config.directory.supernet)[0], space)


def _refuse_wrong(table: MeasuredTable, config: TableConfig) -> None:
    """Raise for a table that is too wrong to search with, instead of a next step that would fail."""
    try:
        table.check_error(config.max_table_error)
    except UserError as error:
        again = "The same command measures it again."
        if config.from_kit:
            again = "The kit has to be measured again on its device."
        raise UserError(f"{error} {again} What was measured is kept.") from error


def _space_settings(config: TableConfig, table: MeasuredTable) -> dict[str, object]:
    """Return what a search has to be told of the space that the table is of."""
    space = config.space or config.trained_space
    resolutions = table.covered_resolutions(space)
    settings = preset_settings("space", space) if config.space else {}
    if resolutions and len(resolutions) < len(space.unrestricted.allowed_resolutions):
        settings["resolutions"] = f"[{','.join(map(str, resolutions))}]"
    return settings


if __name__ == "__main__":
    build_latency_table()
