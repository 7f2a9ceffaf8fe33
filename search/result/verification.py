"""The measurements of a verified search: predicted and measured latency of each network."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ofa.common.plain_values import checked_number, checked_text
from ofa.space.config import AnyConfig
from ofa.space.space import SearchSpace


@dataclass(frozen=True)
class VerifiedNetwork:
    """A network with end-to-end measurements.

    Attributes:
        config: the network.
        accuracy: estimated accuracy.
        predicted: verified quantity by its uncorrected estimator, in the limit's unit.
        measurements: one tuple per measurement, with one value per fresh process.
    """

    config: AnyConfig
    accuracy: float
    predicted: float
    measurements: tuple[tuple[float, ...], ...]

    @property
    def measured(self) -> float:
        """Largest median over processes of all measurements: a limit has to hold in each."""
        return max(statistics.median(values) for values in self.measurements)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` is the inverse."""
        return {
            "id": self.config.id,
            "accuracy": self.accuracy,
            "predicted": self.predicted,
            "measured": self.measured,
            "measurements": [list(values) for values in self.measurements],
            "config": self.config.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], space: SearchSpace) -> VerifiedNetwork:
        """Build a network of `space` from `to_dict` output.

        Raises:
            ValueError: if entries are missing or wrong; also KeyError and TypeError.
        """
        measurements = tuple(
            tuple(checked_number(value, "a measurement") for value in processes)
            for processes in values["measurements"]
        )
        if not measurements or not all(measurements):
            raise ValueError("measurements of a verified network are empty")
        accuracy, predicted = (checked_number(values[name], name) for name in ("accuracy", "predicted"))
        return cls(space.read(values["config"]), accuracy, predicted, measurements)


@dataclass(frozen=True)
class Verification:
    """The measurements behind a verified search.

    Attributes:
        quantity: name of the verified limit.
        scale: measured / predicted near the limit, the factor that corrects the search.
        margin: relative safety margin: a measured value, increased by it, still has to keep the limit; covers
            the differences between measurements.
        networks: all measured networks, the most accurate first.
        best_id: id of the result's network; None as long as no measured network keeps the limit.
        pending: networks still to be measured on another device.
    """

    quantity: str
    scale: float
    margin: float
    networks: tuple[VerifiedNetwork, ...]
    best_id: str | None
    pending: tuple[AnyConfig, ...] = ()

    def keeps(self, network: VerifiedNetwork, maximum: float) -> bool:
        """Return whether the measured value, with the margin, is at most `maximum`."""
        return network.measured * (1 + self.margin) <= maximum

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` is the inverse."""
        return {
            "quantity": self.quantity,
            "scale": self.scale,
            "margin": self.margin,
            "chosen": self.best_id,
            "networks": [network.to_dict() for network in self.networks],
            "pending": [config.to_dict() for config in self.pending],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], space: SearchSpace) -> Verification:
        """Build a verification from `to_dict` output.

        Raises:
            ValueError: if entries are missing or wrong; also KeyError and TypeError.
        """
        return cls(
            quantity=checked_text(values["quantity"], "quantity"),
            scale=checked_number(values["scale"], "scale"),
            margin=checked_number(values["margin"], "margin"),
            networks=tuple(VerifiedNetwork.from_dict(entry, space) for entry in values["networks"]),
            best_id=None if values["chosen"] is None else str(values["chosen"]),
            pending=tuple(space.read(entry) for entry in values["pending"]),
        )
