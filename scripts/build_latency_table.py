"""Measure a latency table, e.g. `ofa measure run_name=digits device=my_cpu_onnx`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latency_tables.table.device import DeviceSpec, device_settings
from latency_tables.table.graph_table import GraphTable
from latency_tables.table.measured import MAX_TABLE_ERROR, MeasuredTable, check_max_table_error
from ofa.common.errors import UserError
from ofa.common.progress import progress_bar
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
    validation_networks: int
    from_kit: PathText | None
    output: PathText | None
    seed: int

    def __post_init__(self) -> None:
        """Check the largest accepted error before anything is measured."""
        check_max_table_error(self.max_table_error)


@command(
    "build_latency_table",
    TableConfig,
    interrupted="The rounds measured so far are kept; the same command goes on with the others.",
)
def build_latency_table(config: TableConfig) -> MeasuredTable:
    """Measure what is missing of the table and return it."""
    from latency_tables.measuring.tables import measure
    from latency_tables.remote.results import save_table, table_from_kit
    from ofa.common.accelerator import threads_set

    kit = Path(config.from_kit) if config.from_kit else None
    space = (config.space or config.trained_space).restrict({"resolution": config.resolutions})
    kit_table = table_from_kit(kit, _family(space)) if kit else None
    device = kit_table.device if kit_table else config.device
    tables = Path(config.runs_dir) / "tables" / space.name / f"{device.name}.json"
    path = Path(config.output or (tables if config.space else config.directory.table(device.name)))
    if kit_table:
        save_table(kit_table, path)
    with threads_set(config.threads), progress_bar(f"measuring on {device.name}") as progress:
        table: MeasuredTable = kit_table or measure(
            networks_of(config, space),
            device,
            path,
            seed=config.seed,
            progress=progress,
            num_calibration=config.calibration_networks,
            num_validation=config.validation_networks,
            max_table_error=config.max_table_error,
        )
    engine = f"{table.engine['engine']}, {device.threads} thread(s), batch {device.batch_size}"
    parts = "pieces" if isinstance(table, GraphTable) else "layers"
    print(f"{len(table.entries)} {parts} on {engine}\n{table.error_text}")
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


def _family(space: ImageSpace) -> StagedSpace:
    if not isinstance(space, StagedSpace):
        raise UserError(
            f"Kits measure the published families alone; the run is of the model {space.name!r}. Leave out "
            "from_kit to measure it here."
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
