"""Measure a latency table, e.g. `build_latency_table.py run_name=digits device=my_cpu_onnx`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latency_tables.device import DeviceSpec
from latency_tables.measure import build_table
from latency_tables.table import LatencyTable
from ofa.launch import command
from ofa.progress import progress_bar
from ofa.run import RunConfig
from ofa.space import SearchSpace


@dataclass(frozen=True, kw_only=True)
class TableConfig(RunConfig):
    """Settings of `conf/build_latency_table.yaml`."""

    device: DeviceSpec
    space: SearchSpace | None
    output: str | None
    seed: int


@command("build_latency_table", TableConfig)
def build_latency_table(config: TableConfig) -> LatencyTable:
    """Measure what is missing of the table and return it."""
    device = config.device
    space = config.space or config.trained_space
    tables = Path(config.runs_dir) / "tables" / space.name / f"{device.name}.json"
    path = Path(config.output or (tables if config.space else config.directory.table(device.name)))
    with progress_bar(f"measuring on {device.name}") as progress:
        table = build_table(space, device, path, config.seed, progress)
    engine = f"{table.engine['engine']}, {device.threads} thread(s), batch {device.batch_size}"
    print(f"{len(table.entries)} layers on {engine}\n{table.error_text}")
    print(
        f"table: {path}\nnext: python scripts/search_for_device.py run_name={config.run_name} "
        f"device={device.name} table={path} limits.latency_ms=VALUE"
    )
    return table


if __name__ == "__main__":
    build_latency_table()
