"""Random search: the baseline for other searches of the same budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ofa.common.config import below_minimum
from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.common.threads import blas_threads
from ofa.space.estimator import Estimator
from ofa.space.space import SearchSpace
from search.algorithms.base import Algorithm
from search.limits.limit import Limit, check_bounded
from search.limits.reachable import reachable_genome
from search.population.archive import Archive
from search.result.result import SearchResult
from search.result.summary import summarise


@dataclass(frozen=True)
class RandomSettings:
    """Settings of `search_randomly`.

    Attributes:
        evaluations: number of distinct candidates.
        batch_size: candidates drawn at once.
        max_retries: consecutive batches without a new candidate after which the search ends.
        ranked: length of the result's ranked list.
    """

    evaluations: int = 150_400
    batch_size: int = 1000
    max_retries: int = 4
    ranked: int = 10

    def __post_init__(self) -> None:
        """Check all ranges and report every value out of range."""
        problems = below_minimum(self, {"evaluations": 1, "batch_size": 1, "max_retries": 0, "ranked": 1})
        if problems:
            raise UserError(" ".join(problems))


@blas_threads(1)
def search_randomly(
    space: SearchSpace,
    accuracy: Estimator,
    limits: Sequence[Limit],
    settings: RandomSettings,
    rng: np.random.Generator,
    progress: ProgressCallback = silent,
) -> SearchResult:
    """Return the best of uniformly drawn distinct candidates; arguments and counting as in `evolve`.

    If no random candidate keeps the limits, coordinate descent provides the result.

    Raises:
        UserError: if no sub-network keeps the limits; see `reachable_genome`.
    """
    check_bounded(limits)
    start_s = time.perf_counter()
    archive = Archive(space, accuracy, limits)
    history: list[float] = []
    empty_draws = 0
    while archive.num_considered < settings.evaluations and empty_draws <= settings.max_retries:
        genomes = space.sample(settings.batch_size, rng)
        outcome = archive.consider(genomes, settings.evaluations - archive.num_considered)
        empty_draws = 0 if len(outcome.rows) else empty_draws + 1
        if archive.num_feasible:
            history.append(archive.best)
        progress(archive.num_considered, settings.evaluations, f"best {archive.best:.4f}")
    if archive.num_feasible == 0:
        archive.consider(reachable_genome(space, limits, rng)[None], 1)
        history.append(archive.best)
    return summarise(
        space,
        archive,
        limits,
        ALGORITHM.name,
        settings,
        settings.ranked,
        history,
        time.perf_counter() - start_s,
    )


ALGORITHM = Algorithm(name="random", settings=RandomSettings, search=search_randomly)
