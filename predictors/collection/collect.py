"""Measuring sub-networks that have no record yet, in the order of a strategy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ofa.architecture.cost import space_costs
from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.common.errors import unknown_name
from ofa.common.progress import ProgressCallback, silent
from ofa.space.config import AnyConfig
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from predictors.collection.active import next_batch
from predictors.collection.records import RecordFile
from predictors.collection.sampling import check_count, plan_subnets, random_subnets

SEED_RECORDS = 25
BATCH_SIZE = 25

Strategy = Callable[[SearchSpace, int, int, RecordFile], tuple[int, list[AnyConfig]]]
"""Takes the space, the count, the seed and the records; returns how many of the count are done, and what
to measure next: nothing if all are. The same arguments give the same answer, however often it is asked."""


def size_estimator(space: SearchSpace) -> Estimator:
    """Return the MACs of networks or, in a space without known costs, how large their choices are."""

    def size_of_choices(genomes: Genomes, /) -> NDArray[np.float64]:
        return np.asarray(1.0 + np.where(space.active(genomes), genomes, 0).sum(axis=1), np.float64)

    return space_costs(space).get("macs", size_of_choices)


def stratified(space: SearchSpace, count: int, seed: int, records: RecordFile) -> tuple[int, list[AnyConfig]]:
    """Spread the networks evenly over the logarithm of their size; see `plan_subnets`."""
    plan = plan_subnets(space, count, seed, size_estimator(space))
    missing = [config for config in map(space.config, plan) if config not in records]
    return count - len(missing), missing


def randomly(space: SearchSpace, count: int, seed: int, records: RecordFile) -> tuple[int, list[AnyConfig]]:
    """Draw every choice uniformly; see `random_subnets`."""
    plan = random_subnets(space, count, seed)
    missing = [config for config in map(space.config, plan) if config not in records]
    return count - len(missing), missing


def actively(space: SearchSpace, count: int, seed: int, records: RecordFile) -> tuple[int, list[AnyConfig]]:
    """Choose batches that a predictor fitted on the records so far would learn most from.

    The first records are stratified. `count` is the number of records in the file, whatever chose them.
    A batch only depends on the records before it, so that a batch begun is finished after a restart.
    """
    check_count(space, count, min(2, space.size))
    done = min(len(records), count)
    seeds = min(SEED_RECORDS, count)
    cost = size_estimator(space)
    if done < seeds:
        batch, end = plan_subnets(space, seeds, seed, cost), seeds
    else:
        start = done - (done - SEED_RECORDS) % BATCH_SIZE
        end = min(start + BATCH_SIZE, count)
        if done == end:
            return done, []
        genomes = space.unrestricted.genomes(records.configs[:start])
        batch = next_batch(space, genomes, records.values[:start], BATCH_SIZE, seed, cost)
    missing = [config for config in map(space.config, batch) if config not in records]
    return done, missing[: end - done]


STRATEGIES: dict[str, Strategy] = {"stratified": stratified, "random": randomly, "active": actively}


def collect(
    space: SearchSpace,
    count: int,
    seed: int,
    evaluate: Callable[[AnyConfig], float],
    records: RecordFile,
    progress: ProgressCallback = silent,
    world: World = SINGLE_PROCESS,
    strategy: str = "stratified",
) -> None:
    """Measure what a strategy chooses and append each record as soon as it is measured.

    It may be interrupted anywhere and called again: only what is missing is measured. A larger count
    with the same seed extends an earlier collection.

    Args:
        space: where to draw from.
        count: number of sub-networks.
        seed: of the strategy.
        evaluate: returns the records' metric of a sub-network; its errors pass through.
        records: an open record file of this space.
        progress: called with the number of sub-networks that are done.
        world: the processes among which the measuring is shared out; all hold equal `records`.
        strategy: one of `STRATEGIES`.

    Raises:
        UserError: if the strategy is unknown or cannot give so many, and as `RecordFile.append`.
    """
    if strategy not in STRATEGIES:
        raise unknown_name("strategy", strategy, STRATEGIES)
    metric = records.header.metric
    done, missing = STRATEGIES[strategy](space, count, seed, records)
    progress(done, count, f"{done} were already measured" if done else "")
    while missing:
        for start in range(0, len(missing), world.size):
            group = missing[start : start + world.size]
            own = group[world.rank : world.rank + 1]
            found = world.gather({config.id: evaluate(config) for config in own})
            for config in group:
                records.append(config, found[config.id])
                done += 1
                progress(done, count, f"{config.id} {metric.title} {metric.show(found[config.id])}")
        done, missing = STRATEGIES[strategy](space, count, seed, records)
