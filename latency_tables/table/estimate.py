"""Sums of layers for whole populations: calibrated, and with entries that depend on the resolution."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from latency_tables.table.timing import ImportedTiming, Timing
from ofa.architecture.layer import LayerSpec
from ofa.architecture.lowering import distinct_layers
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.staged import StagedSpace


class _PerResolution:
    """A sum for each choice of the resolution; NaN for choices without one."""

    def __init__(self, column: int, totals: Mapping[int, Estimator]) -> None:
        """Take the resolution's column, and an estimator per choice, for the space with it alone."""
        self._column, self._totals = column, totals

    def __call__(self, genomes: Genomes, /) -> NDArray[np.float64]:
        values = np.full(len(genomes), np.nan)
        for choice, total in self._totals.items():
            rows = np.flatnonzero(genomes[:, self._column] == choice)
            if len(rows):
                other_genes = genomes[rows]
                other_genes[:, self._column] = 0
                values[rows] = total(other_genes)
        return values


def sum_by_resolution(space: StagedSpace, build: Callable[[StagedSpace, int], Estimator]) -> Estimator:
    """Return an estimator of `space` from one estimator per allowed resolution; NaN at other resolutions.

    Args:
        space: a (restricted) space.
        build: takes the space with a single resolution, and that resolution.
    """
    column, totals = space.gene_index["resolution"], {}
    for choice in space.allowed[column]:
        resolution = space.resolutions[choice]
        single_space = dataclasses.replace(space.unrestricted, resolutions=(resolution,))
        totals[choice] = build(single_space, resolution)
    return _PerResolution(column, totals)


def resolution_key(spec: LayerSpec, resolution: int) -> str:
    """Return the key of an entry that is valid only in networks of `resolution` pixels."""
    return f"{spec.key}@{resolution}"


def layers_by_resolution(space: StagedSpace) -> dict[int, tuple[LayerSpec, ...]]:
    """Return the distinct layers of the (restricted) `space` at each of its resolutions."""
    return {r: distinct_layers(space.restrict({"resolution": [r]})) for r in space.allowed_resolutions}


def merged_entries(
    timings_by_key: Mapping[str, Mapping[int, ImportedTiming]], layers: Mapping[int, Sequence[LayerSpec]]
) -> dict[str, Timing | ImportedTiming]:
    """Return the entries of a table: one per layer, or one per layer and resolution where these differ.

    Args:
        timings_by_key: entry of each layer at each resolution in pixels that has it.
        layers: layers at each resolution, in the order of the table.
    """
    entries: dict[str, Timing | ImportedTiming] = {}
    for spec in {spec.key: spec for specs in layers.values() for spec in specs}.values():
        timings = timings_by_key.get(spec.key, {})
        if len(set(timings.values())) == 1:
            entries[spec.key] = next(iter(timings.values()))
        else:
            entries |= {resolution_key(spec, r): timing for r, timing in timings.items()}
    return entries
