"""`collect`: measuring sub-networks without a record, in the order of a strategy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ofa.architecture.cost import space_costs
from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.common.errors import unknown_name
from ofa.common.progress import Note, ProgressCallback, silent, unnoted
from ofa.data.base import ImageData
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.evaluation.task import Task
from ofa.space.config import AnyConfig
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from ofa.supernet.protocol import AbstractSupernet
from predictors.collection.active import next_batch
from predictors.collection.pace import CollectionPace
from predictors.collection.sampling import check_count, plan_subnets, random_subnets
from predictors.records import RecordFile

SEED_RECORDS = 25
BATCH_SIZE = 25

Strategy = Callable[[SearchSpace, int, int, RecordFile], tuple[int, list[AnyConfig]]]
"""Takes the space, the count, the seed and the records; returns the number of finished ones, and the
next configs to measure. Deterministic, so an interrupted collection continues."""


def size_estimator(space: SearchSpace) -> Estimator:
    """Return the MACs of networks or, in a space without known costs, 1 + the sum of their choice indices."""

    def size_of_choices(genomes: Genomes, /) -> NDArray[np.float64]:
        return np.asarray(1.0 + np.where(space.active(genomes), genomes, 0).sum(axis=1), np.float64)

    return space_costs(space).get("macs", size_of_choices)


def stratified_strategy(
    space: SearchSpace, count: int, seed: int, records: RecordFile
) -> tuple[int, list[AnyConfig]]:
    """Spread the networks evenly over the logarithm of their size; see `plan_subnets`."""
    plan = plan_subnets(space, count, seed, size_estimator(space))
    missing_configs = [config for config in map(space.config, plan) if config not in records]
    return count - len(missing_configs), missing_configs


def random_strategy(
    space: SearchSpace, count: int, seed: int, records: RecordFile
) -> tuple[int, list[AnyConfig]]:
    """Draw every choice uniformly; see `random_subnets`."""
    plan = random_subnets(space, count, seed)
    missing_configs = [config for config in map(space.config, plan) if config not in records]
    return count - len(missing_configs), missing_configs


def active_strategy(
    space: SearchSpace, count: int, seed: int, records: RecordFile
) -> tuple[int, list[AnyConfig]]:
    """Choose batches that reduce the uncertainty of a predictor of the existing records most.

    The first records are stratified. `count` is the number of records in the file, regardless of their
    origin. A batch only depends on the records before it, so a restart continues an unfinished batch.
    """
    check_count(space, count, min(2, space.size))
    num_done = min(len(records), count)
    num_seeds = min(SEED_RECORDS, count)
    cost = size_estimator(space)
    if num_done < num_seeds:
        batch, end = plan_subnets(space, num_seeds, seed, cost), num_seeds
    else:
        start = num_done - (num_done - SEED_RECORDS) % BATCH_SIZE
        end = min(start + BATCH_SIZE, count)
        if num_done == end:
            return num_done, []
        genomes = space.unrestricted.genomes(records.configs[:start])
        batch = next_batch(space, genomes, records.values[:start], BATCH_SIZE, seed, cost)
    missing_configs = [config for config in map(space.config, batch) if config not in records]
    return num_done, missing_configs[: end - num_done]


@dataclass(frozen=True)
class CollectionPlan:
    """The sub-networks to measure: their number, one of `STRATEGIES`, and its seed."""

    count: int
    strategy: str = "stratified"
    seed: int = 0


STRATEGIES: dict[str, Strategy] = {
    "stratified": stratified_strategy,
    "random": random_strategy,
    "active": active_strategy,
}


def collect(
    supernet: AbstractSupernet[nn.Module],
    data: ImageData,
    *,
    count: int,
    file: str | Path | None = None,
    space: SearchSpace | None = None,
    strategy: str = "stratified",
    seed: int = 0,
    calibration_images: int = 2000,
    validation_images: int | None = None,
    task: Task | None = None,
    provenance: Mapping[str, str] | None = None,
    progress: ProgressCallback = silent,
    note: Note = unnoted,
    world: World = SINGLE_PROCESS,
) -> RecordFile:
    """Evaluate sub-networks of a supernet on validation images, and return their records.

    With a `file`, a repeated call after an interruption measures only what is missing. A larger count with
    the same seed extends an earlier collection.

    Args:
        supernet: supernet in eval mode, evaluated on its device; not changed.
        data: image set.
        count: number of sub-networks.
        file: JSON lines of the records; None keeps them in memory.
        space: space to sample from; None for the supernet's.
        strategy: one of `STRATEGIES`.
        seed: seed of the strategy.
        calibration_images: number of training images that recalibrate each sub-network.
        validation_images: number of validation images; None for all.
        task: task that defines the metric; None for classification.
        provenance: origin of the supernet, stored with the records.
        progress: called with the number of sub-networks measured so far.
        note: called with a line for the user: how long a collection of many minutes takes.
        world: processes that share the measurements.

    Raises:
        UserError: if the strategy is unknown or `count` too large, or the file holds records of another
            space, origin or metric, or cannot be written.
    """
    evaluator = SubnetEvaluator(
        supernet,
        data,
        calibration_images=calibration_images,
        limit=validation_images,
        task=task,
    )
    metric = evaluator.task.metric
    origin = {"validation": f"{evaluator.num_images} images of {data.info.name}"}
    origin |= {"calibration": f"{calibration_images} images", **(provenance or {})}
    if file is None:
        records = RecordFile.in_memory(supernet.space, origin, metric=metric)
    else:
        records = RecordFile.open(Path(file), supernet.space, origin, world, metric=metric)
    plan = CollectionPlan(count, strategy, seed)
    collect_records(space or supernet.space, records, evaluator.score, plan, progress, world, note=note)
    return records


def collect_records(
    space: SearchSpace,
    records: RecordFile,
    evaluate: Callable[[AnyConfig], float],
    plan: CollectionPlan,
    progress: ProgressCallback = silent,
    world: World = SINGLE_PROCESS,
    *,
    note: Note = unnoted,
) -> None:
    """Measure the sub-networks that a plan chooses, and append each record immediately; see `collect`.

    Args:
        space: space to sample from.
        records: open records of this space; equal in all processes.
        evaluate: returns the records' metric of a sub-network; errors are not caught.
        plan: choice of the sub-networks.
        progress: called with the number of sub-networks measured so far.
        world: processes that share the measurements.
        note: called with a line for the user; see `collect`.

    Raises:
        UserError: if the plan's strategy is unknown or its count too large, or `RecordFile.append` fails.
    """
    count, strategy, seed = plan.count, plan.strategy, plan.seed
    if strategy not in STRATEGIES:
        raise unknown_name("strategy", strategy, STRATEGIES)
    metric, pace = records.header.metric, CollectionPace(note)
    num_done, missing_configs = STRATEGIES[strategy](space, count, seed, records)
    progress(num_done, count, f"{num_done} were already measured" if num_done else "")
    while missing_configs:
        for start in range(0, len(missing_configs), world.size):
            group = missing_configs[start : start + world.size]
            local_configs = group[world.rank : world.rank + 1]
            start_s = time.perf_counter()
            values = world.gather({config.id: evaluate(config) for config in local_configs})
            for config in group:
                records.append(config, values[config.id])
                num_done += 1
                progress(num_done, count, f"{config.id} {metric.title} {metric.show(values[config.id])}")
            pace.add(time.perf_counter() - start_s, num_done, count, world.size)
        num_done, missing_configs = STRATEGIES[strategy](space, count, seed, records)
