"""Limits by name: MACs, parameters and memory from the cost model, latency from any estimator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ofa.architecture.cost import space_costs
from ofa.common.errors import UserError
from ofa.common.latency_target import LatencyTarget
from ofa.space.estimator import Affine, Estimator
from ofa.space.space import SearchSpace
from search.limits.limit import LATENCY, Limit


@dataclass(frozen=True)
class LimitSettings:
    """Upper bounds from a user; None for quantities without a bound.

    An infinite bound makes a quantity an objective in a search for a front.

    Attributes:
        latency_ms: latency in milliseconds on the target device.
        macs_m: multiply-accumulates of one image, in millions.
        parameters_m: number of parameters, in millions.
        memory_mb: peak activation memory of one image in float32, in 10^6 bytes.
    """

    latency_ms: float | None = None
    macs_m: float | None = None
    parameters_m: float | None = None
    memory_mb: float | None = None

    def or_latency(self) -> LimitSettings:
        """Return these bounds; without any, the latency as an objective."""
        return self if self != LimitSettings() else LimitSettings(latency_ms=math.inf)


_COSTS_IN_MILLIONS = (
    ("macs_m", "macs", "M MACs"),
    ("parameters_m", "parameters", "M parameters"),
    ("memory_mb", "peak_activation_bytes", "MB"),
)


def build_limits(
    space: SearchSpace,
    settings: LimitSettings,
    latency: Estimator | None,
    more_latencies: Mapping[str, tuple[Estimator, float]] | None = None,
    targets: Mapping[str, LatencyTarget] | None = None,
) -> tuple[Limit, ...]:
    """Return the limits that are set, latency first.

    Args:
        space: space to search.
        settings: upper bounds.
        latency: estimator of milliseconds on the device; required if `settings.latency_ms` is set.
        more_latencies: estimator and bound in milliseconds of further devices, by name.
        targets: what the latencies are for, by the names of the limits.
    """
    limits, targets = [], targets or {}
    if settings.latency_ms is not None:
        assert latency is not None
        target = targets.get("latency_ms")
        limits.append(Limit("latency_ms", latency, settings.latency_ms, "ms", LATENCY, target))
    for name, (estimator, maximum) in (more_latencies or {}).items():
        name = f"latency_ms on {name}"
        limits.append(Limit(name, estimator, maximum, "ms", LATENCY, targets.get(name)))
    costs = space_costs(space)
    for name, cost, unit in _COSTS_IN_MILLIONS:
        bound = getattr(settings, name)
        if bound is None:
            continue
        if cost not in costs:
            raise UserError(f"The {cost} in space {space.name!r} are unknown; leave {name} out.")
        limits.append(Limit(name, Affine(costs[cost], unit=1e6), bound, unit))
    return tuple(limits)
