"""Which sub-networks to measure, and measuring those that have no record yet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ofa.cost import Estimator, compile_cost, macs
from ofa.distributed import ALONE, World
from ofa.errors import UserError
from ofa.progress import ProgressCallback, silent
from ofa.space import Genomes, SearchSpace, unique_rows
from ofa.subnet import SubnetConfig
from predictors.records import RecordFile

MAX_CANDIDATES = 50_000
NUM_STRATA = 20


def plan_subnets(space: SearchSpace, count: int, seed: int, cost: Estimator) -> Genomes:
    """Return `count` distinct sub-networks spread evenly over the logarithm of their cost.

    First come the smallest and the largest network of the (restricted) space, then one network of each
    cost stratum in turn, for as long as a stratum has any: independent draws of all genes would crowd
    around the middle cost. The plan of a larger count begins with the plan of a smaller one.

    Args:
        space: where to draw from.
        count: number of sub-networks, at least 2 unless the space has just one.
        seed: the same seed gives the same plan.
        cost: positive cost that is stratified, e.g. MACs.

    Returns:
        Canonical genomes of shape (count, num_genes).

    Raises:
        UserError: if the space has fewer than `count` networks, or `count` is too small or too large.
    """
    least = min(2, space.size)
    if count < least:
        raise UserError(f"count is {count}; expected at least {least}: the smallest and the largest network.")
    if count > space.size:
        raise UserError(
            f"{count} sub-networks were asked for, but space {space.name!r} has only {space.size} with the "
            f"allowed choices; ask for at most {space.size}."
        )
    rng = np.random.default_rng(seed)
    candidates = space.everything() if space.size <= MAX_CANDIDATES else _candidates(space, rng)
    candidates = candidates[rng.permutation(len(candidates))]
    order = _round_robin(_strata(cost(candidates)))
    ends = space.genomes([space.smallest, space.largest])
    plan = np.concatenate([ends, candidates[order]])
    plan = plan[unique_rows(plan)]
    if count > len(plan):
        raise UserError(f"{count} sub-networks were asked for; at most {len(plan)} can be planned at once.")
    return plan[:count]


def collect(
    space: SearchSpace,
    count: int,
    seed: int,
    evaluate: Callable[[SubnetConfig], float],
    records: RecordFile,
    progress: ProgressCallback = silent,
    world: World = ALONE,
) -> None:
    """Measure the planned sub-networks that `records` lacks and append each as soon as it is measured.

    It may be interrupted anywhere and called again: only what is missing is measured. A larger count
    with the same seed extends an earlier collection.

    Args:
        space: where to draw from; see `plan_subnets`, the cost is MACs.
        count: number of planned sub-networks.
        seed: of the plan.
        evaluate: returns the top-1 fraction of a sub-network; its errors pass through.
        records: an open record file of this space.
        progress: called with the number of planned sub-networks that are done.
        world: the processes among which the measuring is shared out; all hold equal `records`.

    Raises:
        UserError: as `plan_subnets` and `RecordFile.append`.
    """
    plan = plan_subnets(space, count, seed, compile_cost(space, macs))
    configs = [space.config(genome) for genome in plan]
    missing = [config for config in configs if config not in records]
    done = count - len(missing)
    progress(done, count, f"{done} were already measured" if done else "")
    for start in range(0, len(missing), world.size):
        group = missing[start : start + world.size]
        found = world.share({config.id: evaluate(config) for config in group[world.rank : world.rank + 1]})
        for config in group:
            records.append(config, found[config.id])
            done += 1
            progress(done, count, f"{config.id} top-1 {100 * found[config.id]:.2f} %")


def _candidates(space: SearchSpace, rng: np.random.Generator) -> Genomes:
    """Return distinct networks of all costs: relatives, near and far, of both ends of the space."""
    rates = np.linspace(0.1, 1.0, 10)
    per_group = MAX_CANDIDATES // (2 * len(rates))
    groups = []
    for end in (space.smallest, space.largest):
        parents = np.repeat(space.genome(end)[None], per_group, axis=0)
        groups += [space.mutate(parents, float(rate), rng) for rate in rates]
    candidates = np.concatenate(groups)
    return candidates[unique_rows(candidates)]


def _strata(costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the stratum of each cost: `NUM_STRATA` equal ratios between the smallest and the largest."""
    logs = np.log(costs)
    inner_bounds = logs.min() + np.arange(1, NUM_STRATA) / NUM_STRATA * np.ptp(logs)
    return np.searchsorted(inner_bounds, logs, side="right")


def _round_robin(strata: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return indices that visit each stratum's first member, then each one's second, and so on."""
    by_stratum = np.argsort(strata, kind="stable")
    _, starts, sizes = np.unique(strata[by_stratum], return_index=True, return_counts=True)
    turn = np.empty(len(strata), np.intp)
    turn[by_stratum] = np.arange(len(strata)) - np.repeat(starts, sizes)
    return np.argsort(turn, kind="stable")
