"""The first candidates of a search: random ones, made smaller until they keep the limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from search.limits.limit import Limit
from search.limits.reachable import reachable_genome
from search.population.archive import Archive
from search.population.variation import Variation

START_SHARE = 0.2
"""Largest share of all candidates that a start may take, if that is more than one generation."""

MAX_SHRINKS = 24
"""Rounds in which candidates outside the limits are made smaller; 2 % of their genes are then left."""


def first_candidates(
    space: SearchSpace,
    archive: Archive,
    vary: Variation,
    limits: Sequence[Limit],
    size: int,
    budget: int,
    rng: np.random.Generator,
) -> tuple[Genomes, NDArray[np.float64], NDArray[np.float64]]:
    """Consider the smallest, the largest and random candidates; shrink those outside the limits.

    Where none of them keeps the limits, one that descent finds is taken; the descent looks at limits only
    and is not counted.

    Args:
        space: the space.
        archive: where candidates are considered.
        vary: operators of the space.
        limits: those of the archive.
        size: number of rows to begin with.
        budget: number of candidates of the whole search.
        rng: source of all randomness.

    Returns:
        Feasible candidates: full rows (n, num_genes), limited quantities (n, limits), accuracies (n,).

    Raises:
        UserError: if no sub-network keeps the limits; see `reachable_genome`.
    """
    rows = np.concatenate([vary.lowest[None], vary.highest[None], vary.draw(max(0, size - 2), rng)])
    budget = min(budget, max(size, round(START_SHARE * budget)))
    feasible_rows, outcomes = [], []
    for _ in range(MAX_SHRINKS):
        outcomes.append(archive.consider(space.canonical(rows), budget - archive.considered))
        feasible_rows.append(rows[outcomes[-1].estimated])
        rows = vary.shrink(np.delete(rows, outcomes[-1].estimated, axis=0), rng)
        if len(rows) == 0 or archive.considered >= budget:
            break
    if archive.num_feasible == 0:
        rows = reachable_genome(space, limits, rng)[None]
        outcomes.append(archive.consider(rows, 1))
        feasible_rows.append(rows)
    values = np.concatenate([outcome.values for outcome in outcomes])
    return np.concatenate(feasible_rows), values, np.concatenate([outcome.accuracies for outcome in outcomes])
