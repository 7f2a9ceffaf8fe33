"""What a table knows of whole networks: its calibration on some of them, and its error on others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ofa.errors import UserError


@dataclass(frozen=True)
class MeasuredNetwork:
    """A whole network: its id and config, end-to-end measurement and the table's prediction (ms)."""

    id: str
    config: dict[str, Any]
    measured_ms: float
    predicted_ms: float
    spread_ms: float

    def __post_init__(self) -> None:
        """Check that the values are finite."""
        for name in ("measured_ms", "predicted_ms", "spread_ms"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name} is {getattr(self, name)}; expected a number.")


@dataclass(frozen=True)
class Calibration:
    """Network latency = scale * (sum of its layers) + offset_ms, fitted on `networks`."""

    scale: float
    offset_ms: float
    networks: tuple[MeasuredNetwork, ...]

    def __post_init__(self) -> None:
        """Check that a longer sum gives a longer latency."""
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.offset_ms)):
            raise UserError(
                f"scale and offset_ms are {self.scale} and {self.offset_ms}; "
                "expected a positive and any number."
            )


@dataclass(frozen=True)
class Validation:
    """The table's error on random networks that had no part in the calibration.

    Attributes:
        mape_percent: mean absolute error of the predictions.
        max_error_percent: largest error.
        kendall_tau: rank correlation of predictions and measurements.
        networks: what was predicted and measured.
        repeatability_percent: median difference of a network's latency between two processes, at a common
            speed of the machine: the floor under any error. None if the table was measured in one process.
    """

    mape_percent: float
    max_error_percent: float
    kendall_tau: float
    networks: tuple[MeasuredNetwork, ...]
    repeatability_percent: float | None = None

    @property
    def text(self) -> str:
        """One line about the error."""
        floor = self.repeatability_percent
        repeated = "" if floor is None else f" (the same networks differ by {floor:.2f} % between processes)"
        return (
            f"error on {len(self.networks)} other whole networks: MAPE {self.mape_percent:.2f} %, "
            f"max {self.max_error_percent:.2f} %, tau {self.kendall_tau:.3f}{repeated}"
        )
