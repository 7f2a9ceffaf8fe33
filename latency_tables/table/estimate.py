"""Sums of layers for whole populations: calibrated, and with entries that depend on the resolution."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ofa.architecture.layer import LayerSpec
from ofa.architecture.lowering import distinct_layers
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace


class Affine:
    """scale * sum + offset."""

    def __init__(self, total: Estimator, scale: float, offset: float) -> None:
        """Take the sum and the two numbers."""
        self._total, self._scale, self._offset = total, scale, offset

    def __call__(self, genomes: Genomes, /) -> NDArray[np.float64]:
        """Return values of shape (n,)."""
        return self._scale * self._total(genomes) + self._offset


class _PerResolution:
    """A sum for each choice of the first gene, the resolution; NaN for choices without one."""

    def __init__(self, totals: Mapping[int, Estimator]) -> None:
        """Take the estimators by choice; each is of the space with that resolution alone."""
        self._totals = totals

    def __call__(self, genomes: Genomes, /) -> NDArray[np.float64]:
        values = np.full(len(genomes), np.nan)
        for choice, total in self._totals.items():
            rows = np.flatnonzero(genomes[:, 0] == choice)
            if len(rows):
                alone = genomes[rows]
                alone[:, 0] = 0
                values[rows] = total(alone)
        return values


def sum_by_resolution(space: SearchSpace, build: Callable[[SearchSpace, int], Estimator]) -> Estimator:
    """Return an estimator of `space` made of one per allowed resolution; NaN at the others.

    Args:
        space: a (restricted) space.
        build: takes the space with a single resolution, and that resolution.
    """
    totals = {}
    for choice in space.allowed[0]:
        resolution = space.resolutions[choice]
        alone = dataclasses.replace(space.unrestricted, resolutions=(resolution,))
        totals[choice] = build(alone, resolution)
    return _PerResolution(totals)


def resolution_key(spec: LayerSpec, resolution: int) -> str:
    """Return the key of an entry that holds in networks of `resolution` pixels alone."""
    return f"{spec.key}@{resolution}"


def layers_by_resolution(space: SearchSpace) -> dict[int, tuple[LayerSpec, ...]]:
    """Return the distinct layers of the (restricted) `space` at each of its resolutions."""
    resolutions = (space.resolutions[index] for index in space.allowed[0])
    return {r: distinct_layers(space.restrict(resolutions=[r])) for r in resolutions}
