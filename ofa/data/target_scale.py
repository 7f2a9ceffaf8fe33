"""`TargetScale`: how numbers about images are standardised for a network."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ofa.common.errors import UserError


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of each column of numbers: a network tells `(number - mean) / std`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check that there is a finite mean and a positive standard deviation for each column."""
        if not self.mean or len(self.mean) != len(self.std):
            raise UserError(
                f"target_scale has {len(self.mean)} means and {len(self.std)} standard deviations; expected "
                "one each per column."
            )
        if not all(map(math.isfinite, self.mean)) or not all(0 < value < math.inf for value in self.std):
            raise UserError(f"target_scale is {self.mean}, {self.std}; expected numbers, std above 0.")
