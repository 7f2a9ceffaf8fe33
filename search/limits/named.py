"""Limits by name: MACs, parameters and memory from the cost model, latency from any estimator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.architecture.cost import compile_cost, macs, parameters, peak_activation_bytes
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from search.limits.limit import Limit


@dataclass(frozen=True)
class LimitSettings:
    """Upper bounds that a user gives; None where a quantity does not matter.

    An infinite bound makes a quantity an objective of a search for a front, without limiting it.

    Attributes:
        latency_ms: milliseconds on the device searched for.
        macs_m: multiply-accumulates of one image, in millions.
        parameters_m: parameters, in millions.
        memory_mb: peak activation memory of one image in float32, in 10^6 bytes.
    """

    latency_ms: float | None = None
    macs_m: float | None = None
    parameters_m: float | None = None
    memory_mb: float | None = None

    def or_latency(self) -> LimitSettings:
        """Return these bounds, or the latency as an objective if there are none."""
        return self if self != LimitSettings() else LimitSettings(latency_ms=math.inf)


@dataclass(frozen=True)
class _InMillions:
    """An estimator divided by 10^6."""

    estimator: Estimator

    def __call__(self, genomes: Genomes, /) -> NDArray[np.float64]:
        return self.estimator(genomes) / 1e6


def build_limits(
    space: SearchSpace,
    settings: LimitSettings,
    latency: Estimator | None,
    more_latencies: Mapping[str, tuple[Estimator, float]] | None = None,
) -> tuple[Limit, ...]:
    """Return the limits that are set, latency first.

    Args:
        space: what is searched.
        settings: the bounds.
        latency: milliseconds on the device; needed if `settings.latency_ms` is set.
        more_latencies: estimator and bound in milliseconds of further devices, by name.
    """
    limits = []
    if settings.latency_ms is not None:
        assert latency is not None
        limits.append(Limit("latency_ms", latency, settings.latency_ms, "ms"))
    for name, (estimator, maximum) in (more_latencies or {}).items():
        limits.append(Limit(f"latency_ms on {name}", estimator, maximum, "ms"))
    costs = (
        ("macs_m", settings.macs_m, compile_cost(space, macs), "M MACs"),
        ("parameters_m", settings.parameters_m, compile_cost(space, parameters), "M parameters"),
        ("memory_mb", settings.memory_mb, compile_cost(space, peak_activation_bytes, np.maximum), "MB"),
    )
    for name, bound, estimator, unit in costs:
        if bound is not None:
            limits.append(Limit(name, _InMillions(estimator), bound, unit))
    return tuple(limits)
