"""`FitSettings`: settings of the accuracy predictor's fit."""

from __future__ import annotations

from dataclasses import dataclass

from ofa.common.config import below_minimum
from ofa.common.errors import UserError

MIN_FITTED = 8


@dataclass(frozen=True)
class FitSettings:
    """Settings of the MLP's fit; none needs tuning to the number of records or their noise.

    Attributes:
        hidden_units: width of the hidden layer; more are slower and a little better.
        members: number of sampled output layers; their spread is the uncertainty.
        evidence_records: largest number of records for fitting the weight scales.
        max_iterations: largest number of iterations of that fit; it usually ends after 20 to 50.
        holdout_fraction: share of the records for the reported metrics.
    """

    hidden_units: int = 1024
    members: int = 100
    evidence_records: int = 500
    max_iterations: int = 60
    holdout_fraction: float = 0.2

    def __post_init__(self) -> None:
        """Check all ranges and report every value out of range."""
        minima = {"hidden_units": 1, "members": 2, "evidence_records": MIN_FITTED, "max_iterations": 1}
        errors = below_minimum(self, minima)
        if not 0 < self.holdout_fraction < 1:
            errors.append(f"holdout_fraction is {self.holdout_fraction}; expected a number between 0 and 1.")
        if errors:
            raise UserError("\n".join(errors))
