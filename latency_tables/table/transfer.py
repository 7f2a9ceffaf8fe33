"""`Transfer`: how a table was made of a few whole networks, with other tables or without any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ofa.common.errors import UserError

METHOD = "few whole networks"


@dataclass(frozen=True)
class SourceTable:
    """A table that others are made from.

    Attributes:
        device: name of its device.
        engine: name of the engine there.
        precision: number format there.
        processor: model name of the processor; empty if unknown.
        date: end of its measurement, ISO 8601.
        sha256: checksum of its file.
    """

    device: str
    engine: str
    precision: str
    processor: str
    date: str
    sha256: str

    def __str__(self) -> str:
        """Return device and checksum."""
        return f"{self.device} ({self.sha256[:12]})"


@dataclass(frozen=True)
class Transfer:
    """How a table was made of a few whole networks.

    Attributes:
        sources: the tables that say how layers differ; empty without any.
        weights: milliseconds per unit of each column of the fit, by its name; see
            `latency_tables.transfer.columns`.
        strength: strength of the fit's penalty; None for no other columns than the sums of the tables.
        measurements: SHA-256 of the file with the latencies of the networks; empty if they were measured
            here or by a kit.
    """

    sources: tuple[SourceTable, ...]
    weights: dict[str, float]
    strength: float | None
    measurements: str = ""

    def __post_init__(self) -> None:
        """Check the weights."""
        if wrong_names := [name for name, weight in self.weights.items() if not 0 <= weight < float("inf")]:
            raise UserError(f"The weights of {', '.join(wrong_names)} are not numbers of at least 0.")

    @property
    def text(self) -> str:
        """One line about the sources."""
        return f"from the table of {', '.join(map(str, self.sources))}" if self.sources else "from no table"


def transfer_identity(sources: tuple[SourceTable, ...], num_networks: int) -> dict[str, Any]:
    """Return what measurements of one table share: its sources, and the number of its networks."""
    return {"sources": [str(source) for source in sources], "networks": num_networks}
