"""Sub-networks to measure, independent of results: evenly spread over their cost, or at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ofa.common.errors import UserError
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes, unique_rows
from ofa.space.space import SearchSpace

MAX_CANDIDATES = 50_000
NUM_STRATA = 20


def plan_subnets(space: SearchSpace, count: int, seed: int | Sequence[int], cost: Estimator) -> Genomes:
    """Return `count` distinct sub-networks spread evenly over the logarithm of their cost.

    The order is: smallest and largest network of the (restricted) space, then one network of each cost
    stratum in turn while the strata last. Independent draws of all genes would crowd around the middle cost.
    The plan of a larger count begins with the plan of a smaller one.

    Args:
        space: space to sample from; may be restricted.
        count: number of sub-networks, at least 2 unless the space has just one.
        seed: the same seed gives the same plan.
        cost: positive cost that defines the strata, e.g. MACs.

    Returns:
        Canonical genomes of shape (count, num_genes).

    Raises:
        UserError: if the space has fewer than `count` networks, or `count` is too small or too large.
    """
    check_count(space, count, min(2, space.size))
    rng = np.random.default_rng(seed)
    candidates = space.all_genomes() if space.size <= MAX_CANDIDATES else _candidates(space, rng)
    candidates = candidates[rng.permutation(len(candidates))]
    order = stratified_order(cost(candidates))
    ends = space.genomes([space.smallest, space.largest])
    return _first(np.concatenate([ends, candidates[order]]), count)


def random_subnets(space: SearchSpace, count: int, seed: int) -> Genomes:
    """Return `count` distinct sub-networks whose genes are drawn uniformly; canonical genomes.

    The plan of a larger count begins with the plan of a smaller one.

    Raises:
        UserError: if the space has fewer than `count` networks, or `count` is below 1 or too large.
    """
    check_count(space, count, 1)
    rng = np.random.default_rng(seed)
    plan = space.sample(MAX_CANDIDATES, rng)
    if space.size <= MAX_CANDIDATES:
        genomes = space.all_genomes()
        plan = np.concatenate([plan, genomes[rng.permutation(len(genomes))]])
    return _first(plan, count)


def check_count(space: SearchSpace, count: int, min_count: int) -> None:
    """Raise a UserError unless a space has `count` sub-networks and that is at least `min_count`."""
    if count < min_count:
        raise UserError(f"count is {count}; expected at least {min_count} of space {space.name!r}.")
    if count > space.size:
        raise UserError(
            f"{count} sub-networks were requested, but space {space.name!r} has only {space.size} with the "
            f"allowed choices; request at most {space.size}."
        )


def _first(plan: Genomes, count: int) -> Genomes:
    """Return the first `count` distinct rows."""
    plan = plan[unique_rows(plan)]
    if count > len(plan):
        raise UserError(f"{count} sub-networks were requested; at most {len(plan)} can be planned at once.")
    return plan[:count]


def _candidates(space: SearchSpace, rng: np.random.Generator) -> Genomes:
    """Return distinct networks of all costs: mutations, of different rates, of both extremes of the space."""
    rates = np.linspace(0.1, 1.0, 10)
    per_group = MAX_CANDIDATES // (2 * len(rates))
    groups = []
    for end in (space.smallest, space.largest):
        parents = np.repeat(space.genome(end)[None], per_group, axis=0)
        groups += [space.mutate(parents, float(rate), rng) for rate in rates]
    candidates = np.concatenate(groups)
    return candidates[unique_rows(candidates)]


def stratified_order(costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return indices that visit the first member of each cost stratum, then the second of each, and so on.

    The strata are `NUM_STRATA` equal ratios between the smallest and the largest of the costs (n,).
    """
    logs = np.log(costs)
    inner_bounds = logs.min() + np.arange(1, NUM_STRATA) / NUM_STRATA * np.ptp(logs)
    return _round_robin(np.searchsorted(inner_bounds, logs, side="right"))


def _round_robin(strata: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return indices that visit the first member of each stratum, then the second of each, and so on."""
    by_stratum = np.argsort(strata, kind="stable")
    _, starts, sizes = np.unique(strata[by_stratum], return_index=True, return_counts=True)
    turn = np.empty(len(strata), np.intp)
    turn[by_stratum] = np.arange(len(strata)) - np.repeat(starts, sizes)
    return np.argsort(turn, kind="stable")
