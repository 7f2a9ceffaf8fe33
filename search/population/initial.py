"""The first candidates of a search: random networks, shrunk until they keep the limits."""

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
"""Largest share of the budget for the start, if that is more than one generation."""

MAX_SHRINKS = 24
"""Rounds of shrinking candidates outside the limits; 2 % of their genes are then unchanged."""


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

    If none of them keeps the limits, coordinate descent on the limits provides one; the descent does not
    count.

    Args:
        space: space to search.
        archive: archive that counts candidates.
        vary: variation operators of the space.
        limits: limits of the archive.
        size: number of initial rows.
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
        outcomes.append(archive.consider(space.canonical(rows), budget - archive.num_considered))
        feasible_rows.append(rows[outcomes[-1].estimated])
        rows = vary.shrink(np.delete(rows, outcomes[-1].estimated, axis=0), rng)
        if len(rows) == 0 or archive.num_considered >= budget:
            break
    if archive.num_feasible == 0:
        rows = reachable_genome(space, limits, rng)[None]
        outcomes.append(archive.consider(rows, 1))
        feasible_rows.append(rows)
    values = np.concatenate([outcome.values for outcome in outcomes])
    return np.concatenate(feasible_rows), values, np.concatenate([outcome.accuracies for outcome in outcomes])
