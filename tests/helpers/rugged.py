"""A made-up accuracy with many local optima, on spaces small enough to enumerate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa.architecture.cost import compile_cost, macs
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes, unique_rows
from ofa.space.staged import StagedSpace
from search.limits.limit import Limit


def every_genome(space: StagedSpace) -> Genomes:
    """All canonical genomes of a small space."""
    grids = np.meshgrid(*space.allowed, indexing="ij")
    genomes = space.canonical(np.stack([grid.ravel() for grid in grids], axis=1).astype(np.int8))
    return np.asarray(genomes[unique_rows(genomes)])


def rugged(space: StagedSpace, seed: int) -> Estimator:
    """An accuracy with random effects of each choice and of each pair of choices."""
    rng = np.random.default_rng(seed)
    single = rng.standard_normal(space.num_features)
    pairs = rng.standard_normal((space.num_features, space.num_features)) / 5

    def estimate(genomes: Genomes, /) -> NDArray[np.float64]:
        features = space.encode(genomes).astype(np.float64)
        return np.asarray(features @ single + ((features @ pairs) * features).sum(axis=1))

    return estimate


def median_limit(space: StagedSpace) -> Limit:
    estimator = compile_cost(space, macs)
    return Limit("macs", estimator, float(np.median(estimator(space.sample(500, np.random.default_rng(9))))))
