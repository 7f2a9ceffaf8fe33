"""Evolutionary search under limits, on whole populations of genomes.

The method is that of Cai et al. 2020 (sec. 3.4; Real et al. 2019): the best candidates produce children by
mutation and crossover. Two additions:
- diversity: candidates that resemble many better ones do not become parents (clearing), and some parents
  are slightly outside the limits, because the networks between two good feasible ones are often infeasible.
  Niche radius and margin shrink to 0 during the search;
- economy: every candidate is evaluated at most once, and only the most promising children reach the
  accuracy predictor, as ranked by a linear model of earlier candidates (`search.population.surrogate`).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.common.config import below_minimum
from ofa.common.progress import ProgressCallback, silent
from ofa.common.threads import blas_threads
from ofa.space.estimator import Estimator
from ofa.space.onehot import OneHot
from ofa.space.space import SearchSpace
from search.algorithms.base import Algorithm
from search.algorithms.generations import GenerationSettings, run_generations
from search.limits.limit import Limit, check_bounded, violations
from search.population.archive import Archive
from search.population.initial import first_candidates
from search.population.population import Population
from search.population.surrogate import LinearSurrogate
from search.population.variation import Variation
from search.result.result import SearchResult
from search.result.summary import summarise

DIVERSE_SHARE = 0.7
"""Share of the search after which niche radius and margin are 0."""

OUTSIDE_SHARE = 0.4
"""Share of parents and accuracy estimates for networks in the margin outside the limits."""

CLEARING_POOL = 2
"""Clearing considers this many times `num_parents` candidates."""


@dataclass(frozen=True)
class EvolutionSettings(GenerationSettings):
    """Settings of `evolve`, in addition to those of `GenerationSettings`.

    Attributes:
        estimated_ratio: largest share of a generation's candidates whose accuracy is estimated.
        niche_radius: initial niche radius: networks that differ in at most this share of all genes are in one
            niche; it decreases to 0 during the search.
        niche_size: number of better candidates in its niche that excludes a candidate from the parents.
        margin: initial share by which parents may exceed limits; it decreases to 0 during the search.
    """

    estimated_ratio: float = 0.4
    niche_radius: float = 0.3
    niche_size: int = 20
    margin: float = 0.1

    def _problems(self) -> list[str]:
        problems = [*super()._problems(), *below_minimum(self, {"niche_size": 1, "margin": 0})]
        if not 0 < self.estimated_ratio <= 1:
            problems.append(f"estimated_ratio is {self.estimated_ratio}; expected above 0, at most 1.")
        if not 0 <= self.niche_radius <= 1:
            problems.append(f"niche_radius is {self.niche_radius}; expected 0 to 1.")
        return problems


@blas_threads(1)
def evolve(
    space: SearchSpace,
    accuracy: Estimator,
    limits: Sequence[Limit],
    settings: EvolutionSettings,
    rng: np.random.Generator,
    progress: ProgressCallback = silent,
) -> SearchResult:
    """Search for the most accurate sub-network that keeps all limits.

    The search considers population_size * generations distinct candidates, whether their accuracy is
    estimated or not. It ends early when generations find no new candidate, e.g. in a space that is smaller.
    If no random candidate keeps the limits, the search starts from a network found by coordinate descent on
    the limits; the descent does not count.

    Args:
        space: the (restricted) space to search.
        accuracy: estimator that is maximised.
        limits: limits to keep, at least one; the first is the cost axis of the result's front.
        settings: settings of the evolution.
        rng: source of all randomness.
        progress: called with the number of considered candidates, the budget and the best accuracy.

    Raises:
        UserError: if no sub-network keeps the limits; see `reachable_genome`.
    """
    check_bounded(limits)
    start_s = time.perf_counter()
    archive = Archive(space, accuracy, limits)
    breeder = _Breeder(space, limits, settings, rng)
    rows, _, accuracies = first_candidates(
        space, archive, breeder.vary, limits, settings.population_size, settings.budget, rng
    )
    breeder.add(Population(rows, space.canonical(rows), accuracies, np.zeros(len(rows))))

    def generation(max_genes: int) -> int:
        return breeder.generation(archive, max_genes)

    history = run_generations(archive, settings, len(space.genes), generation, progress)
    seconds = time.perf_counter() - start_s
    return summarise(space, archive, limits, ALGORITHM.name, settings, settings.ranked, history, seconds)


class _Breeder:
    """The population of a search, and the step from one generation to the next."""

    def __init__(
        self,
        space: SearchSpace,
        limits: Sequence[Limit],
        settings: EvolutionSettings,
        rng: np.random.Generator,
    ) -> None:
        self.vary = Variation(space)
        if space.size <= settings.budget:
            # A budget that covers the whole space excludes nothing.
            settings = dataclasses.replace(settings, estimated_ratio=1.0, margin=0.0)
        self._space, self._limits, self._settings, self._rng = space, limits, settings, rng
        self._one_hot = OneHot(space)
        self._surrogate = LinearSurrogate(self._one_hot)
        no_rows, no_values = np.zeros((0, len(space.genes)), np.int8), np.zeros(0)
        self._population = Population(no_rows, no_rows, no_values, no_values)

    def add(self, candidates: Population) -> None:
        """Add candidates to the population, and fit the surrogate to them."""
        self._population = self._population.join(candidates)
        self._surrogate.learn(candidates.networks, candidates.accuracies)

    def generation(self, archive: Archive, max_genes: int) -> int:
        """Create and consider a generation; return the number of new candidates."""
        settings, size = self._settings, self._settings.population_size
        remaining_share = max(0.0, 1 - archive.num_considered / settings.budget / DIVERSE_SHARE)
        margin = settings.margin * remaining_share
        parents = self._parents(settings.niche_radius * remaining_share, margin)
        first_indices, second_indices = self._rng.integers(len(parents.genomes), size=(2, size))
        mates = (parents.genomes[first_indices], parents.genomes[second_indices])
        children = self.vary.offspring(*mates, settings.mutation_ratio, max_genes, self._rng)
        networks = self._space.canonical(children)
        mutants = round(settings.mutation_ratio * size)
        second_indices[:mutants] = first_indices[:mutants]
        # The residuals of the linear model at the parents are added to their children's predictions.
        residuals = parents.accuracies - self._surrogate(parents.networks)
        predictions = self._surrogate(networks) + (residuals[first_indices] + residuals[second_indices]) / 2

        def choose(rows: NDArray[np.intp], values: NDArray[np.float64]) -> NDArray[np.intp]:
            return self._most_promising(predictions[rows], self._excess(values), margin)

        outcome = archive.consider(networks, settings.budget - archive.num_considered, choose)
        estimated_indices = outcome.estimated
        excess = self._excess(outcome.values)
        self.add(
            Population(children[estimated_indices], networks[estimated_indices], outcome.accuracies, excess)
        )
        return len(outcome.rows)

    def _excess(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(violations(self._limits, values).max(axis=1))

    def _split(
        self, excess: NDArray[np.float64], margin: float, count: int
    ) -> list[tuple[NDArray[np.intp], int]]:
        """Return the indices inside the limits and those in the margin, each with its share of `count`."""
        num_outside = round(OUTSIDE_SHARE * count) if margin > 0 else 0
        margin_indices = np.flatnonzero((excess > 0) & (excess <= margin))
        return [(np.flatnonzero(excess == 0), count - num_outside), (margin_indices, num_outside)]

    def _parents(self, radius: float, margin: float) -> Population:
        """Return the parents; reduces the population to the best inside the limits and in the margin."""
        pools, parents = [], []
        for indices, count in self._split(self._population.excess, margin, self._settings.num_parents):
            pool = self._population.take(indices).best(CLEARING_POOL * count)
            pools.append(pool)
            if radius > 0:
                pool = pool.clear(self._one_hot, radius * self._one_hot.num_genes, self._settings.niche_size)
            parents.append(pool.best(count))
        self._population = pools[0].join(pools[1])
        return parents[0].join(parents[1])

    def _most_promising(
        self, predictions: NDArray[np.float64], excess: NDArray[np.float64], margin: float
    ) -> NDArray[np.intp]:
        """Return the indices of the candidates to estimate, the most promising first."""
        count = math.ceil(self._settings.estimated_ratio * len(predictions))
        selections = [
            indices[np.argsort(-predictions[indices], kind="stable")[:num_selected]]
            for indices, num_selected in self._split(excess, margin, count)
        ]
        return np.concatenate(selections)


ALGORITHM = Algorithm(name="evolution", settings=EvolutionSettings, search=evolve)
