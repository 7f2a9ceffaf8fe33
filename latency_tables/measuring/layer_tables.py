"""`LayerTables`: how tables of the layers of a published family are made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latency_tables.engines.base import Description
from latency_tables.measuring.methods import METHODS
from latency_tables.measuring.plan import TablePlan, plan_table
from latency_tables.table.device import DeviceSpec
from latency_tables.table.estimate import layers_by_resolution
from latency_tables.table.measured import table_identity
from latency_tables.table.table import SCHEMA_VERSION, LatencyTable
from ofa.space.staged import StagedSpace


@dataclass(frozen=True)
class LayerTables:
    """How tables of the layers of a published family are made; see `TableMaker`."""

    space: StagedSpace
    device: DeviceSpec
    seed: int
    num_calibration: int | None
    num_validation: int

    def identity(self, engine: Description) -> dict[str, Any]:
        """Return what further measurements must share with the table."""
        return table_identity(SCHEMA_VERSION, self.device, engine, METHODS[self.device.method].name)

    def load(self, path: Path) -> LatencyTable:
        """Read a table of a family."""
        return LatencyTable.load(path)

    def plan(self, existing: LatencyTable | None) -> TablePlan:
        """Return the plan of a table that covers the resolutions of `existing` as well."""
        space = self.space if existing is None else with_resolutions_of(existing, self.space)
        return plan_table(space, self.device, self.seed, self.num_calibration, self.num_validation)


def with_resolutions_of(table: LatencyTable, space: StagedSpace) -> StagedSpace:
    """Return `space` with the resolutions that the table covers allowed as well."""
    choices = zip(space.genes, space.allowed, space.unrestricted.allowed, strict=True)
    restriction = tuple(
        all_choices if gene.kind == "resolution" else allowed_choices
        for gene, allowed_choices, all_choices in choices
    )
    wide_space = replace(space, restriction=restriction)
    resolutions = {*layers_by_resolution(space), *table.covered_resolutions(wide_space)}
    return wide_space.restrict({"resolution": sorted(resolutions)})
