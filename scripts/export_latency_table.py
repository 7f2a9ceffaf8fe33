"""Write a latency table as published YAML files, e.g. `ofa export-table run_name=x device=my_cpu`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latency_tables.published.export import export_table
from latency_tables.published.keys import key_style_named
from latency_tables.table.device import DeviceSpec
from latency_tables.table.table import LatencyTable
from ofa.common.text_settings import PathText
from ofa.launch import command
from ofa.runs.config import RunConfig
from ofa.space.staged import StagedSpace


@dataclass(frozen=True, kw_only=True)
class ExportTableConfig(RunConfig):
    """Settings of `conf/export_latency_table.yaml`."""

    device: DeviceSpec
    table: PathText | None
    style: str
    space: StagedSpace | None
    output: PathText | None


@command("export_latency_table", ExportTableConfig)
def export_latency_table(config: ExportTableConfig) -> list[Path]:
    """Write a file per resolution and return their paths."""
    space, style = config.space or config.trained_family, key_style_named(config.style)
    path = Path(config.table or config.directory.table(config.device.name))
    folder = Path(config.output or path.with_suffix(""))
    files = export_table(LatencyTable.load(path), space, style, folder)
    print(f"tables: {folder}: {', '.join(file.name for file in files)}")
    return files


if __name__ == "__main__":
    export_latency_table()
