"""`FitSettings`: how the accuracy predictor is fitted."""

from __future__ import annotations

from dataclasses import dataclass

from ofa.common.config import below_minimum
from ofa.common.errors import UserError

MIN_FITTED = 8


@dataclass(frozen=True)
class FitSettings:
    """How the MLP is fitted; nothing here needs tuning to the number of records or their noise.

    Attributes:
        hidden_units: width of the hidden layer; more are slower and a little better.
        members: sampled output layers, whose spread is the uncertainty.
        evidence_records: the scales of the weights are fitted on at most so many records.
        max_iterations: of that fit; it usually ends after 20 to 50.
        holdout_fraction: part of the records that the reported metrics come from.
    """

    hidden_units: int = 1024
    members: int = 100
    evidence_records: int = 500
    max_iterations: int = 60
    holdout_fraction: float = 0.2

    def __post_init__(self) -> None:
        """Report everything that is out of range."""
        minima = {"hidden_units": 1, "members": 2, "evidence_records": MIN_FITTED, "max_iterations": 1}
        errors = below_minimum(self, minima)
        if not 0 < self.holdout_fraction < 1:
            errors.append(f"holdout_fraction is {self.holdout_fraction}; expected a number between 0 and 1.")
        if errors:
            raise UserError("\n".join(errors))
