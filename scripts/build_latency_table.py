"""Measure a latency table, e.g. `build_latency_table.py run_name=digits device=my_cpu_onnx`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latency_tables.device import DeviceSpec
from latency_tables.measure import build_table
from latency_tables.table import LatencyTable
from ofa.checkpoint import load_supernet
from ofa.launch import command
from ofa.progress import progress_bar
from ofa.run import RunDirectory
from ofa.space import SearchSpace


@dataclass(frozen=True)
class TableConfig:
    """Settings of `conf/build_latency_table.yaml`."""

    run_name: str
    runs_dir: str
    device: DeviceSpec
    space: SearchSpace | None
    output: str | None
    seed: int


@command("build_latency_table", TableConfig)
def build_latency_table(config: TableConfig) -> LatencyTable:
    """Measure what is missing of the table and return it."""
    run = RunDirectory(config.runs_dir, config.run_name)
    space = config.space or load_supernet(run.supernet)[1].space
    folder = run.path if config.space is None else Path(config.runs_dir) / "tables" / space.name
    path = Path(config.output or folder / "latency" / f"{config.device.name}.json")
    with progress_bar(f"measuring on {config.device.name}") as progress:
        table = build_table(space, config.device, path, config.seed, progress)
    error = table.validation
    print(
        f"{len(table.entries)} layers on {table.engine['engine']}, {config.device.threads} thread(s), batch "
        f"{config.device.batch_size}\nerror on {len(error.networks)} other whole networks: MAPE "
        f"{error.mape_percent:.2f} %, max {error.max_error_percent:.2f} %, tau {error.kendall_tau:.3f}"
    )
    print(
        f"table: {path}\nnext: python scripts/search_for_device.py run_name={config.run_name} "
        f"device={config.device.name} limits.latency_ms=VALUE"
    )
    return table


if __name__ == "__main__":
    build_latency_table()
