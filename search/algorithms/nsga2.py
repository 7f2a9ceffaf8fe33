"""Search of the whole front of accuracy against one or more costs in one run (NSGA-II, Deb et al. 2002).

Parents are the best fronts of all candidates, thinned where they are crowded. Mates are neighbours in one of
the quantities: crossover of networks of similar cost works better than of the two ends of a front.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.common.config import below_minimum
from ofa.common.progress import ProgressCallback, silent
from ofa.common.threads import blas_threads
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from search.algorithms.base import Algorithm
from search.algorithms.generations import GenerationSettings, run_generations
from search.limits.limit import Limit
from search.population.archive import Archive
from search.population.fronts import fittest
from search.population.initial import first_candidates
from search.population.variation import Variation
from search.result.result import SearchResult
from search.result.summary import summarise

NEIGHBOURHOOD = 0.02
"""Standard deviation of the distance between mates, as a share of all parents in order of one quantity."""


@dataclass(frozen=True)
class ParetoSettings(GenerationSettings):
    """Settings of `search_front`: those of `GenerationSettings` with other defaults, and `front_size`.

    Attributes:
        front_size: largest number of candidates on the result's front; the least crowded ones stay.
    """

    population_size: int = 2000
    generations: int = 200
    parent_ratio: float = 0.5
    front_size: int = 1000

    def _problems(self) -> list[str]:
        return [*super()._problems(), *below_minimum(self, {"front_size": 1})]


@blas_threads(1)
def search_front(
    space: SearchSpace,
    accuracy: Estimator,
    limits: Sequence[Limit],
    settings: ParetoSettings,
    rng: np.random.Generator,
    progress: ProgressCallback = silent,
) -> SearchResult:
    """Search for the front of accuracy against all limited quantities, inside the limits.

    Arguments, counting and stopping are those of `evolve`; a limit may be infinite. Every limited quantity is
    an objective.

    Raises:
        UserError: if no sub-network keeps the limits; see `reachable_genome`.
    """
    start_s = time.perf_counter()
    archive, vary = Archive(space, accuracy, limits), Variation(space)
    genomes, values, accuracies = first_candidates(
        space, archive, vary, limits, settings.population_size, settings.budget, rng
    )
    losses = np.column_stack([values, -accuracies])

    def generation(max_genes: int) -> int:
        nonlocal genomes, losses
        parent_indices = fittest(losses, settings.num_parents)
        genomes, losses = genomes[parent_indices], losses[parent_indices]
        children = _breed(genomes, losses, vary, settings, max_genes, rng)
        outcome = archive.consider(space.canonical(children), settings.budget - archive.num_considered)
        genomes = np.concatenate([genomes, children[outcome.estimated]])
        losses = np.concatenate([losses, np.column_stack([outcome.values, -outcome.accuracies])])
        return len(outcome.rows)

    history = run_generations(archive, settings, len(space.genes), generation, progress)
    seconds = time.perf_counter() - start_s
    return summarise(
        space,
        archive,
        limits,
        ALGORITHM.name,
        settings,
        settings.ranked,
        history,
        seconds,
        front_costs=len(limits),
        front_size=settings.front_size,
    )


def _breed(
    genomes: Genomes,
    losses: NDArray[np.float64],
    vary: Variation,
    settings: ParetoSettings,
    max_genes: int,
    rng: np.random.Generator,
) -> Genomes:
    """Return children (full rows) of uniformly drawn parents and neighbouring mates."""
    parents = genomes[np.argsort(losses[:, rng.integers(losses.shape[1])], kind="stable")]
    parent_indices = rng.integers(len(parents), size=settings.population_size)
    reach = max(1.0, NEIGHBOURHOOD * len(parents))
    steps = np.rint(rng.normal(0.0, reach, len(parent_indices))).astype(np.intp)
    mate_indices = np.clip(parent_indices + steps, 0, len(parents) - 1)
    return vary.offspring(
        parents[parent_indices], parents[mate_indices], settings.mutation_ratio, max_genes, rng
    )


ALGORITHM = Algorithm(name="pareto", settings=ParetoSettings, search=search_front, finds_front=True)
