"""Measure a latency table, e.g. `build_latency_table.py run_name=digits device=my_cpu_onnx`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latency_tables.table.device import DeviceSpec
from latency_tables.table.table import LatencyTable
from ofa.common.progress import progress_bar
from ofa.launch import command
from ofa.runs.config import RunConfig
from ofa.space.staged import StagedSpace


@dataclass(frozen=True, kw_only=True)
class TableConfig(RunConfig):
    """Settings of `conf/build_latency_table.yaml`."""

    device: DeviceSpec
    space: StagedSpace | None
    resolutions: tuple[int, ...] | None
    calibration_networks: int
    validation_networks: int
    from_kit: str | None
    output: str | None
    seed: int


@command("build_latency_table", TableConfig)
def build_latency_table(config: TableConfig) -> LatencyTable:
    """Measure what is missing of the table and return it."""
    from latency_tables.measuring.build import build_table
    from latency_tables.remote.results import save_table, search_options, table_from_kit
    from ofa.common.accelerator import threads_set

    kit = Path(config.from_kit) if config.from_kit else None
    space = (config.space or config.trained_space).restrict({"resolution": config.resolutions})
    kit_table = table_from_kit(kit, space) if kit else None
    device = kit_table.device if kit_table else config.device
    networks = config.calibration_networks, config.validation_networks
    tables = Path(config.runs_dir) / "tables" / space.name / f"{device.name}.json"
    path = Path(config.output or (tables if config.space else config.directory.table(device.name)))
    if kit_table:
        save_table(kit_table, path)
    with threads_set(config.threads), progress_bar(f"measuring on {device.name}") as progress:
        table = kit_table or build_table(space, device, path, config.seed, progress, *networks)
    engine = f"{table.engine['engine']}, {device.threads} thread(s), batch {device.batch_size}"
    print(f"{len(table.entries)} layers on {engine}\n{table.error_text}")
    print(
        f"table: {path}\nnext: python scripts/search_for_device.py run_name={config.run_name} "
        f"{search_options(device) if kit_table else f'device={device.name}'}{_space_options(config, table)} "
        f"table={path} limits.latency_ms=VALUE"
    )
    return table


def _space_options(config: TableConfig, table: LatencyTable) -> str:
    """Return what a search has to be told of the space that the table is of."""
    space = config.space or config.trained_space
    resolutions = table.covered_resolutions(space)
    options = f" space={space.name}" if config.space else ""
    if resolutions and len(resolutions) < len(space.resolutions):
        options += f" resolutions=[{','.join(map(str, resolutions))}]"
    return options


if __name__ == "__main__":
    build_latency_table()
