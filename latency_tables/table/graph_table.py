"""`GraphTable`: measured pieces of a user's network on one device, as a file and as an estimator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from latency_tables.table.measured import (
    MeasuredTable,
    check_version,
    read_table_values,
    shortened_list,
    table_from_values,
    table_identity,
)
from latency_tables.table.piece_sum import PieceSum, PieceTerm
from ofa.common.errors import UserError
from ofa.space.estimator import Estimator
from ofa.space.space import SearchSpace

KIND = "graph"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class GraphTable(MeasuredTable[SearchSpace]):
    """Latencies of the pieces of a user's network on a device; see `MeasuredTable`.

    Attributes:
        choices: choices of each gene that the measured sizes span, by its name.
        terms: the places of the network, with keys of entries.
        kind: tells the file from that of a `LatencyTable`.
        schema_version: schema version of the file.
    """

    choices: dict[str, tuple[float, ...]]
    terms: tuple[PieceTerm, ...]
    kind: str = KIND
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Check that there is an entry for each key, and choices for each gene."""
        keys = {key for term in self.terms for key in term.keys}
        if missing_keys := sorted(keys - set(self.entries)):
            raise UserError(f"The entries lack {shortened_list(missing_keys, ', ')}.")
        genes = {gene for term in self.terms for gene in term.genes}
        if unknown_names := sorted(genes - set(self.choices)):
            raise UserError(f"choices lack the genes {shortened_list(unknown_names, ', ')}.")

    @property
    @override
    def identity(self) -> dict[str, Any]:
        return table_identity(SCHEMA_VERSION, self.device, self.engine, self.method)

    @classmethod
    def load(cls, path: Path) -> GraphTable:
        """Read a table.

        Raises:
            UserError: if the file is missing, truncated, of another schema version or kind, or contains
                invalid values.
        """
        values = read_table_values(path)
        if values.get("kind") != KIND:
            raise UserError(f"The latency table {path} is not of a user's model; expected kind {KIND!r}.")
        check_version(values, SCHEMA_VERSION, path)
        return table_from_values(cls, values, path)

    @override
    def covered_resolutions(self, space: SearchSpace) -> tuple[int, ...]:
        covered = self.choices.get("resolution", ())
        return tuple(side for side in space.allowed_resolutions if side in covered)

    @override
    def missing_text(self, space: SearchSpace) -> str:
        pairs = choices_of(space).items()
        names = [name for name, values in pairs if not set(values) <= set(self.choices.get(name, ()))]
        if not names:
            return ""
        resolutions = ", ".join(map(str, self.covered_resolutions(space))) or "none of its resolutions"
        return (
            f"The latency table of device {self.device.name!r} lacks choices of space {space.name!r}, of "
            f"{shortened_list(names, ', ')}; it covers the resolutions {resolutions}. Make a complete table."
        )

    @override
    def total(self, space: SearchSpace) -> Estimator:
        latencies_ms = {key: timing.latency_ms for key, timing in self.entries.items()}
        return PieceSum(space, self.terms, latencies_ms, self.choices)


def choices_of(space: SearchSpace) -> dict[str, tuple[float, ...]]:
    """Return the allowed choices of each gene of the (restricted) `space`."""
    pairs = zip(space.genes, space.allowed, strict=True)
    return {gene.name: tuple(gene.choices[i] for i in indices) for gene, indices in pairs}
