"""`read_sources`: the tables of other devices or engines that a table is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from latency_tables.table.shipped import shipped_table
from latency_tables.table.table import LatencyTable
from latency_tables.table.transfer import SourceTable
from ofa.common.errors import UserError
from ofa.common.files import sha256
from ofa.common.reading import read_bytes
from ofa.space.space import SearchSpace
from ofa.space.staged import StagedSpace


@dataclass(frozen=True)
class Sources:
    """Tables of one space.

    Attributes:
        tables: the tables.
        records: what is kept of each in a table that is made from them.
    """

    tables: tuple[LatencyTable, ...] = ()
    records: tuple[SourceTable, ...] = ()

    def covered_space(self, space: StagedSpace) -> StagedSpace:
        """Return the (restricted) `space` with the resolutions that all tables cover.

        Raises:
            UserError: if a table is of another space, or they share no resolution.
        """
        for table in self.tables:
            if table.space_fingerprint != space.fingerprint or not table.covered_resolutions(space):
                table.check(space)
        covered = [set(table.covered_resolutions(space)) for table in self.tables]
        resolutions = reduce(set.intersection, covered, set(space.allowed_resolutions))
        if not resolutions:
            texts = [
                f"{table.device.name}: {', '.join(map(str, sorted(sides)))} px"
                for table, sides in zip(self.tables, covered, strict=True)
            ]
            raise UserError(f"The tables share no resolution ({'; '.join(texts)}). Give one of them alone.")
        return space.restrict({"resolution": sorted(resolutions)})


NO_SOURCES = Sources()


def read_sources(names: str | Sequence[str] | None, space: SearchSpace) -> Sources:
    """Read tables of a published family.

    Args:
        names: paths, or names of devices whose tables of the space come with the project.
        space: the space.

    Raises:
        UserError: if a file is missing or damaged, is of a user's model, or two have the same content.
    """
    paths = [_path(name, space) for name in ([names] if isinstance(names, str) else names or ())]
    tables = tuple(LatencyTable.load(path) for path in paths)
    records = tuple(_record(table, path) for table, path in zip(tables, paths, strict=True))
    if len({record.sha256 for record in records}) < len(records):
        raise UserError("from_table names the same table twice; give each once.")
    return Sources(tables, records)


def _path(name: str, space: SearchSpace) -> Path:
    path, shipped_path = Path(name), shipped_table(name, space)
    return shipped_path if not path.exists() and shipped_path.is_file() else path


def _record(table: LatencyTable, path: Path) -> SourceTable:
    return SourceTable(
        table.device.name,
        table.engine["engine"],
        table.device.precision,
        table.engine.get("processor", ""),
        table.date,
        sha256(read_bytes(path, "latency table")),
    )
