"""Evolutionary search under limits, on whole populations of genomes.

The method is the one of Cai et al. 2020 (sec. 3.4; Real et al. 2019): the best candidates breed by
mutation and crossover. Added to it are
- diversity: candidates that are like many better ones do not breed (clearing), and some parents are
  networks slightly outside the limits: what lies between two good networks inside is often outside. Radius
  and width of that margin shrink to 0 while the search goes on;
- economy: every candidate is evaluated at most once, and only the most promising children reach the
  accuracy predictor, by a linear model of the candidates seen (`search.population.surrogate`).
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
"""Share of a search after which radius and margin are 0."""

OUTSIDE_SHARE = 0.4
"""Share of the parents, and of the estimates, for networks in the margin outside the limits."""

CLEARING_POOL = 2
"""Clearing considers this many times `num_parents` candidates."""


@dataclass(frozen=True)
class EvolutionSettings(GenerationSettings):
    """Settings of `evolve`: those of `GenerationSettings`, and its own.

    Attributes:
        estimated_ratio: the largest share of the candidates of a generation whose accuracy is estimated.
        niche_radius: networks that differ in no more than this share of all genes are of one kind, at
            first; it falls to 0 in the course of the search.
        niche_size: a candidate with so many better ones of its kind does not breed.
        margin: by which share parents may exceed limits, at first; it falls to 0 likewise.
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
    """Search the most accurate sub-network that keeps all limits.

    population_size * generations candidates are considered; each counts once, whether its accuracy is
    estimated or not. The search ends early when generations find no new candidate, as in a space smaller
    than that. Where no drawn candidate keeps the limits, the search starts from one that descent finds; the
    descent looks at limits only and is not counted.

    Args:
        space: the (restricted) space to search.
        accuracy: what to maximise.
        limits: at least one; the first is the cost axis of the result's front.
        settings: sizes and rates.
        rng: source of all randomness.
        progress: told the candidates considered, their planned number and the best accuracy so far.

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
    """The population of a search, and a generation of it."""

    def __init__(
        self,
        space: SearchSpace,
        limits: Sequence[Limit],
        settings: EvolutionSettings,
        rng: np.random.Generator,
    ) -> None:
        self.vary = Variation(space)
        if space.size <= settings.budget:
            # Nothing is left out where every candidate can be considered.
            settings = dataclasses.replace(settings, estimated_ratio=1.0, margin=0.0)
        self._space, self._limits, self._settings, self._rng = space, limits, settings, rng
        self._one_hot = OneHot(space)
        self._guess = LinearSurrogate(self._one_hot)
        no_rows, nothing = np.zeros((0, len(space.genes)), np.int8), np.zeros(0)
        self._population = Population(no_rows, no_rows, nothing, nothing)

    def add(self, candidates: Population) -> None:
        """Take candidates into the population, and learn from them."""
        self._population = self._population.join(candidates)
        self._guess.learn(candidates.networks, candidates.accuracies)

    def generation(self, archive: Archive, max_genes: int) -> int:
        """Breed and consider a generation; return how many new candidates it found."""
        settings, size = self._settings, self._settings.population_size
        remaining_share = max(0.0, 1 - archive.considered / settings.budget / DIVERSE_SHARE)
        margin = settings.margin * remaining_share
        parents = self._parents(settings.niche_radius * remaining_share, margin)
        first_indices, second_indices = self._rng.integers(len(parents.genomes), size=(2, size))
        mates = (parents.genomes[first_indices], parents.genomes[second_indices])
        children = self.vary.offspring(*mates, settings.mutation_ratio, max_genes, self._rng)
        networks = self._space.canonical(children)
        mutants = round(settings.mutation_ratio * size)
        second_indices[:mutants] = first_indices[:mutants]
        # What the linear model misses of the parents' accuracies, their children inherit.
        residuals = parents.accuracies - self._guess(parents.networks)
        guesses = self._guess(networks) + (residuals[first_indices] + residuals[second_indices]) / 2

        def choose(rows: NDArray[np.intp], values: NDArray[np.float64]) -> NDArray[np.intp]:
            return self._most_promising(guesses[rows], self._excess(values), margin)

        outcome = archive.consider(networks, settings.budget - archive.considered, choose)
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
        """Return the indices inside the limits and in the margin, and the part of `count` that each gets."""
        num_outside = round(OUTSIDE_SHARE * count) if margin > 0 else 0
        margin_indices = np.flatnonzero((excess > 0) & (excess <= margin))
        return [(np.flatnonzero(excess == 0), count - num_outside), (margin_indices, num_outside)]

    def _parents(self, radius: float, margin: float) -> Population:
        """Return who breeds; the population keeps the best inside the limits and in the margin."""
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
        self, guesses: NDArray[np.float64], excess: NDArray[np.float64], margin: float
    ) -> NDArray[np.intp]:
        """Return the indices of those that have their accuracy estimated, the most promising first."""
        count = math.ceil(self._settings.estimated_ratio * len(guesses))
        selections = [
            indices[np.argsort(-guesses[indices], kind="stable")[:num_selected]]
            for indices, num_selected in self._split(excess, margin, count)
        ]
        return np.concatenate(selections)


ALGORITHM = Algorithm(name="evolution", settings=EvolutionSettings, search=evolve)
