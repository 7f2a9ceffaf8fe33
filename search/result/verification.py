"""What a verified search measured: predicted and measured latency of each network, as values and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ofa.space.config import AnyConfig
from ofa.space.space import SearchSpace


@dataclass(frozen=True)
class VerifiedNetwork:
    """A network that was measured end to end.

    Attributes:
        config: the network.
        accuracy: as estimated.
        predicted: the verified quantity by its estimator as it was given, in the limit's unit.
        measurements: a tuple per time that it was measured, of one value per fresh process.
    """

    config: AnyConfig
    accuracy: float
    predicted: float
    measurements: tuple[tuple[float, ...], ...]

    @property
    def measured(self) -> float:
        """Median over processes; of several measurements the largest, as a limit has to hold in all."""
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
        """Build a network of `space` from `to_dict` output; raises what missing or wrong entries raise."""
        measurements = tuple(tuple(map(float, processes)) for processes in values["measurements"])
        if not measurements or not all(measurements):
            raise ValueError("measurements of a verified network are empty")
        config = space.read(values["config"])
        return cls(config, float(values["accuracy"]), float(values["predicted"]), measurements)


@dataclass(frozen=True)
class Verification:
    """The measurements behind a verified search.

    Attributes:
        quantity: name of the limit that was verified.
        scale: measured / predicted near the limit, by which the search was corrected.
        margin: share by which a measured value, increased, must still keep the limit; it stands for what
            one measurement differs from the next.
        networks: all that were measured, the most accurate first.
        chosen: id of the result's network; None as long as no measured network keeps the limit.
        pending: networks that wait to be measured on another device.
    """

    quantity: str
    scale: float
    margin: float
    networks: tuple[VerifiedNetwork, ...]
    chosen: str | None
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
            "chosen": self.chosen,
            "networks": [network.to_dict() for network in self.networks],
            "pending": [config.to_dict() for config in self.pending],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], space: SearchSpace) -> Verification:
        """Build a verification from `to_dict` output; raises what missing or wrong entries raise."""
        return cls(
            quantity=str(values["quantity"]),
            scale=float(values["scale"]),
            margin=float(values["margin"]),
            networks=tuple(VerifiedNetwork.from_dict(entry, space) for entry in values["networks"]),
            chosen=None if values["chosen"] is None else str(values["chosen"]),
            pending=tuple(space.read(entry) for entry in values["pending"]),
        )
