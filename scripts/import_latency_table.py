"""Import published latency tables, e.g. `ofa import-table files=[DIR] device.name=note10`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latency_tables.published.table import import_table, read_published_tables
from latency_tables.table.device import DeviceSpec
from latency_tables.table.table import LatencyTable
from ofa.common.locks import sole_writer
from ofa.common.shipped import preset_settings
from ofa.common.text_settings import PathText
from ofa.launch import command
from ofa.runs.config import RunConfig, next_command
from ofa.space.staged import StagedSpace
from search.limits.reachable import example_maximum


@dataclass(frozen=True, kw_only=True)
class ImportTableConfig(RunConfig):
    """Settings of `conf/import_latency_table.yaml`."""

    files: tuple[PathText, ...]
    device: DeviceSpec
    description: str
    missing_ms: dict[str, float | None]
    space: StagedSpace | None
    output: PathText | None


@command("import_latency_table", ImportTableConfig)
def import_latency_table(config: ImportTableConfig) -> LatencyTable:
    """Write the table of ours and return it."""
    space = config.space or config.trained_family
    published = read_published_tables([Path(file) for file in config.files])
    missing_ms = {kind: value for kind, value in config.missing_ms.items() if value is not None}
    table = import_table(space, published, config.device, missing_ms, config.description)
    name = config.device.name
    path = Path(config.output or config.directory.table(name))
    with sole_writer(path, "latency table", setting="output"):
        table.save(path)
    resolutions_text = ",".join(map(str, table.covered_resolutions(space)))
    print(f"{len(table.entries)} layers of space {space.name}; {table.error_text}")
    covered = table.covered_space(space)
    limit_ms, range_text = example_maximum(covered, table.estimator(covered))
    settings: dict[str, object] = {
        **(preset_settings("space", space) if config.space else {}),
        "device": "imported",
        "device.name": name,
        "resolutions": f"[{resolutions_text}]",
        "limits.latency_ms": limit_ms,
    }
    print(f"sub-networks take {range_text} ms")
    print(f"table: {path}\n{next_command(config, 'search', settings)}")
    return table


if __name__ == "__main__":
    import_latency_table()
