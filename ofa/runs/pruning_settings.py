"""`PruningSettings`: how a trained network of one's own is made smaller, and within what."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ofa.common.config import below_minimum
from ofa.common.errors import UserError, unknown_name
from ofa.graph.settings import MIN_FITTED_IMAGES, CostLimits
from ofa.training.settings import IMPORTANCES, FinetuneSettings

METHODS = ("one_step", "iterative")
LATENCY = "latency_ms"
PRUNED = "pruned"
"""Name of the bundle of a pruned network."""


@dataclass(frozen=True)
class PruningLimits(CostLimits):
    """Upper bounds of the pruned network's costs; None for none.

    Attributes:
        latency_ms: milliseconds of a run on the device.
    """

    latency_ms: float | None = None

    @property
    def by_cost(self) -> Mapping[str, float]:
        """The bounds by the name of the cost, in single operations, parameters, bytes and milliseconds."""
        latency = {} if self.latency_ms is None else {LATENCY: self.latency_ms}
        return {**super().by_cost, **latency}


@dataclass(frozen=True, kw_only=True)
class PruningSettings:
    """How a trained network is made smaller, and within what.

    Attributes:
        method: "one_step" evaluates networks within the limits and takes the best; "iterative" makes groups
            narrower in steps.
        macs_share: limit of the multiply-accumulates as a share of those of the network; None for none. Of
            several shares each gives a network, the largest first, and each is made from the one before.
        limits: further limits.
        importance: "l1" or "taylor"; which units of a group stay.
        candidates: number of networks that one-step pruning evaluates.
        steps: number of steps of iterative pruning.
        points: smaller counts per group that the sensitivity analysis of each step evaluates.
        calibration_images: training images that recalibrate batch norm, and that Taylor importance reads.
        reconstruction_images: training images to which the weights of layers that lost inputs are fitted; 0
            keeps the sliced weights.
        validation_images: validation images that networks are compared on; None for all.
        seed: seed of the candidates, and of new weights.
        finetuning: training of the pruned network; `epochs` are those of all steps together.
    """

    method: str
    macs_share: float | tuple[float, ...] | None = None
    limits: PruningLimits = field(default_factory=PruningLimits)
    importance: str = "l1"
    candidates: int = 50
    steps: int = 4
    points: int = 4
    calibration_images: int = 1000
    reconstruction_images: int = 256
    validation_images: int | None = None
    seed: int = 0
    finetuning: FinetuneSettings

    def __post_init__(self) -> None:
        """Check names and ranges, and that there is a limit; all errors are reported at once."""
        if self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)
        if self.importance not in IMPORTANCES:
            raise unknown_name("importance", self.importance, IMPORTANCES)
        names = ("candidates", "steps", "points", "calibration_images")
        problems = below_minimum(self, dict.fromkeys(names, 1) | {"seed": 0})
        if self.reconstruction_images:
            problems += below_minimum(self, {"reconstruction_images": MIN_FITTED_IMAGES})
        if self.validation_images is not None:
            problems += below_minimum(self, {"validation_images": 1})
        problems += [
            f"macs_share is {share:g}; expected a share between 0 and 1."
            for share in self.macs_shares
            if not 0 < share < 1
        ]
        if isinstance(self.macs_share, tuple) and len(self.names) < max(len(self.macs_share), 1):
            problems.append(
                f"macs_share is {list(self.macs_share)}; expected shares that differ by a percent or more."
            )
        if self.macs_share is not None and self.limits.macs_m is not None:
            problems.append("macs_share and limits.macs_m both limit the MACs; expected one of them.")
        if self.macs_share is None and not self.limits.by_cost:
            problems.append("There is no limit; give macs_share, or one of limits, e.g. macs_share=0.5.")
        if problems:
            raise UserError(" ".join(problems))

    @property
    def macs_shares(self) -> tuple[float, ...]:
        """The shares, the largest first; empty for none."""
        if self.macs_share is None:
            return ()
        shares = self.macs_share if isinstance(self.macs_share, tuple) else (self.macs_share,)
        return tuple(sorted(shares, reverse=True))

    @property
    def names(self) -> dict[str, PruningSettings]:
        """Settings of each pruning by the name of its network, in their order; several are named by share."""
        if not isinstance(self.macs_share, tuple):
            return {PRUNED: self}
        return {
            f"{PRUNED}-{round(100 * share)}": dataclasses.replace(self, macs_share=share)
            for share in self.macs_shares
        }

    def limits_of(self, full_macs: float) -> dict[str, float]:
        """Return the limits by the name of the cost, for a network of so many multiply-accumulates.

        Of several shares it is the smallest.
        """
        share = {"macs": self.macs_shares[-1] * full_macs} if self.macs_shares else {}
        return {**share, **self.limits.by_cost}

    def finetuning_of(self, number: int) -> FinetuneSettings:
        """Return the training of step `number`, from 1: the length is spread evenly over the steps."""
        steps = self.steps if self.method == "iterative" else 1
        length = self.finetuning.length
        share = length * number // steps - length * (number - 1) // steps
        return self.finetuning.with_length(share)

    def record(self) -> dict[str, Any]:
        """Return the plain values that decide the result."""
        names = [entry.name for entry in dataclasses.fields(PruningSettings)]
        values = dataclasses.asdict(self)
        return {name: values[name] for name in names}
