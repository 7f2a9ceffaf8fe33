"""`GraphTable`: measured pieces of a user's network on one device, as a file and as an estimator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import override

from latency_tables.table.measured import MeasuredTable, check_version, shortened_list
from latency_tables.table.piece_sum import PieceSum, PieceTerm
from latency_tables.table.timing import ImportedTiming, Timing
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
        cold_entries: statistics of each piece where its weights come from further away than in `entries`.
        cold_share: share of the difference that networks pay, from 0 to 1.
        kind: tells the file from that of a `LatencyTable`.
    """

    choices: dict[str, tuple[float, ...]]
    terms: tuple[PieceTerm, ...]
    cold_entries: dict[str, Timing | ImportedTiming]
    cold_share: float
    kind: str = KIND
    schema_version: int = field(default=SCHEMA_VERSION, kw_only=True)

    def __post_init__(self) -> None:
        """Check that there is an entry for each key, and choices for each gene."""
        keys = {key for term in self.terms for key in term.keys}
        if missing_keys := sorted(keys - (set(self.entries) & set(self.cold_entries))):
            raise UserError(f"The entries lack {shortened_list(missing_keys, ', ')}.")
        if self.calibration.ms_per_million:
            raise UserError("The calibration adds milliseconds for the work of layers; pieces have none.")
        if not 0 <= self.cold_share <= 1:
            raise UserError(f"cold_share is {self.cold_share}; expected a number from 0 to 1.")
        genes = {gene for term in self.terms for gene in term.genes}
        if unknown_names := sorted(genes - set(self.choices)):
            raise UserError(f"choices lack the genes {shortened_list(unknown_names, ', ')}.")

    @classmethod
    @override
    def check_values(cls, values: Mapping[str, Any], path: Path) -> None:
        if values.get("kind") != KIND:
            raise UserError(f"The latency table {path} is not of a user's model; expected kind {KIND!r}.")
        check_version(values, SCHEMA_VERSION, path)

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
        latencies_ms = mixed_ms(self.entries, self.cold_entries, self.cold_share)
        return PieceSum(space, self.terms, latencies_ms, self.choices)


def mixed_ms(
    entries: Mapping[str, Timing | ImportedTiming],
    cold_entries: Mapping[str, Timing | ImportedTiming],
    cold_share: float,
) -> dict[str, float]:
    """Return the latency of each piece in milliseconds, between the warm and the cold one."""
    return {
        key: (1 - cold_share) * timing.latency_ms + cold_share * cold_entries[key].latency_ms
        for key, timing in entries.items()
    }


def choices_of(space: SearchSpace) -> dict[str, tuple[float, ...]]:
    """Return the allowed choices of each gene of the (restricted) `space`."""
    pairs = zip(space.genes, space.allowed, strict=True)
    return {gene.name: tuple(gene.choices[i] for i in indices) for gene, indices in pairs}
