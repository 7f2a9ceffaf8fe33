"""Evolutionary search under limits, on whole populations of genomes.

The method is the one of Cai et al. 2020 (sec. 3.4; Real et al. 2019): the best candidates breed by
mutation and crossover. Here no candidate is looked at twice, the inactive genes of a row are inherited
(`search.variation`), candidates that are like many better ones do not breed (clearing; the radius shrinks
while the search goes on), and a generation that mostly repeats itself mutates harder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ofa.config import below_minimum
from ofa.cost import Estimator
from ofa.errors import UserError
from ofa.progress import ProgressCallback, silent
from ofa.space import SearchSpace
from search.archive import Archive
from search.constraints import Limit, check_bounded
from search.initial import first_candidates
from search.population import Population
from search.result import SearchResult, summarise
from search.variation import Variation

CLEARED_SHARE = 0.7
"""Share of a search during which the population is cleared."""

CLEARED_FROM = 2
"""Clearing looks at so many times the number of parents."""


@dataclass(frozen=True)
class EvolutionSettings:
    """Settings of `evolve`.

    Attributes:
        population_size: candidates considered per generation.
        generations: times `population_size` is the number of candidates that the whole search considers.
        parent_ratio: parents per generation as a share of `population_size`: the best candidates seen.
        mutation_ratio: share of the children that come from mutation, the others come from crossover.
        mutated_genes: the largest number of genes that a mutation changes.
        niche_radius: networks that differ in no more than this share of all genes are of one kind, at
            first; it falls to 0 in the course of the search.
        niche_size: a candidate with so many better ones of its kind does not breed.
        max_retries: generations without any new candidate, one after the other, before the search ends.
        ranked: length of the result's ranked list.
    """

    population_size: int = 800
    generations: int = 150
    parent_ratio: float = 0.25
    mutation_ratio: float = 0.5
    mutated_genes: int = 2
    niche_radius: float = 0.3
    niche_size: int = 20
    max_retries: int = 4
    ranked: int = 10

    def __post_init__(self) -> None:
        """Check all ranges and report every value that is outside."""
        minimums = {"population_size": 2, "max_retries": 0}
        ones = ("generations", "mutated_genes", "niche_size", "ranked")
        problems = below_minimum(self, minimums | dict.fromkeys(ones, 1))
        if not 0 < self.parent_ratio < np.inf:
            problems.append(f"parent_ratio is {self.parent_ratio}; expected a positive number.")
        if not 0 <= self.mutation_ratio <= 1:
            problems.append(f"mutation_ratio is {self.mutation_ratio}; expected 0 to 1.")
        if not 0 <= self.niche_radius <= 1:
            problems.append(f"niche_radius is {self.niche_radius}; expected 0 to 1.")
        if problems:
            raise UserError(" ".join(problems))

    @property
    def num_parents(self) -> int:
        """Number of candidates that breed."""
        return max(1, round(self.parent_ratio * self.population_size))


def evolve(
    space: SearchSpace,
    accuracy: Estimator,
    limits: Sequence[Limit],
    settings: EvolutionSettings,
    rng: np.random.Generator,
    progress: ProgressCallback = silent,
) -> SearchResult:
    """Search the most accurate sub-network that keeps all limits.

    population_size * generations candidates are considered; each counts once, whether it keeps the limits
    or not, and only those that do have their accuracy estimated. The search ends early when generations
    find no new candidate, as in a space smaller than that. Where no drawn candidate keeps the limits, the
    search starts from one that descent finds; the descent looks at limits only and is not counted.

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
    started = time.perf_counter()
    archive, vary = Archive(space, accuracy, limits), Variation(space)
    budget = settings.population_size * settings.generations
    rows, _, accuracies = first_candidates(
        space, archive, vary, limits, settings.population_size, budget, rng
    )
    population = Population(rows, accuracies)
    history: list[float] = []
    repeats = fruitless = 0
    while True:
        history.append(archive.best)
        progress(archive.considered, budget, f"best {archive.best:.4f}")
        if archive.considered >= budget or fruitless > settings.max_retries:
            break
        population = _parents(space, population, settings, archive.considered / budget)
        most = min(settings.mutated_genes * 2**repeats, len(space.genes))
        size = settings.population_size
        children = population.breed(vary, size, settings.mutation_ratio, most, rng)
        found = archive.consider(space.canonical(children), budget - archive.considered)
        population = population.join(children[found.feasible], found.accuracies)
        repeats = 0 if 2 * len(found.rows) >= size else repeats + 1
        fruitless = 0 if len(found.rows) else fruitless + 1
    seconds = time.perf_counter() - started
    return summarise(space, archive, limits, "evolution", settings, settings.ranked, history, seconds)


def _parents(
    space: SearchSpace, population: Population, settings: EvolutionSettings, done: float
) -> Population:
    """Return who breeds when the share `done` of all candidates was considered."""
    if done < CLEARED_SHARE:
        radius = settings.niche_radius * len(space.genes) * (1 - done / CLEARED_SHARE)
        population = population.best(CLEARED_FROM * settings.num_parents)
        population = population.clear(space, radius, settings.niche_size)
    return population.best(settings.num_parents)
