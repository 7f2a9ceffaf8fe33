"""Evolutionary search under limits, on whole populations of genomes.

The method is the one of Cai et al. 2020 (sec. 3.4; Real et al. 2019): the best candidates breed by
mutation and crossover. Here parents are the best of *all* candidates seen, no candidate is looked at
twice, and a generation that mostly repeats itself mutates harder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.config import below_minimum
from ofa.cost import Estimator
from ofa.errors import UserError
from ofa.progress import ProgressCallback, silent
from ofa.space import Genomes, SearchSpace
from search.archive import Archive
from search.constraints import Limit, reachable_genome
from search.result import SearchResult, summarise


@dataclass(frozen=True)
class EvolutionSettings:
    """Settings of `evolve`.

    Attributes:
        population_size: new candidates per generation.
        generations: number of generations, the random first one and the last one counted.
        parent_ratio: parents per generation as a share of `population_size`: the best candidates seen.
        mutation_ratio: share of the children that come from mutation, the others come from crossover.
        mutation_rate: probability with which a mutation redraws each gene.
        max_retries: further attempts of a generation to find candidates that are new (and, in the
            first one, feasible).
        ranked: length of the result's ranked list.
    """

    population_size: int = 100
    generations: int = 500
    parent_ratio: float = 1.0
    mutation_ratio: float = 0.5
    mutation_rate: float = 0.1
    max_retries: int = 4
    ranked: int = 10

    def __post_init__(self) -> None:
        """Check all ranges and report every value that is outside."""
        problems = below_minimum(
            self, {"population_size": 2, "generations": 1, "max_retries": 0, "ranked": 1}
        )
        if not 0 < self.parent_ratio < np.inf:
            problems.append(f"parent_ratio is {self.parent_ratio}; expected a positive number.")
        if not 0 <= self.mutation_ratio <= 1:
            problems.append(f"mutation_ratio is {self.mutation_ratio}; expected 0 to 1.")
        if not 0 < self.mutation_rate <= 1:
            problems.append(f"mutation_rate is {self.mutation_rate}; expected above 0 and at most 1.")
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
    or not, and only those that do have their accuracy estimated. The search ends early when a generation
    finds no new candidate, as in a space smaller than that. Where no drawn candidate keeps the limits, the
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
    started = time.perf_counter()
    archive = Archive(space, accuracy, limits)
    budget = settings.population_size * settings.generations
    _first_generation(space, archive, limits, settings, rng)
    genomes, _, accuracies = archive.feasible()
    history = [archive.best]
    progress(archive.considered, budget, f"best {archive.best:.4f}")
    while len(history) < settings.generations and archive.considered < budget:
        genomes, accuracies = _best(genomes, accuracies, settings.num_parents)
        size = min(settings.population_size, budget - archive.considered)
        new = _new_children(space, archive, genomes, settings, size, rng)
        if len(new) == 0:
            break
        found, found_accuracies = archive.evaluate(new)
        genomes = np.concatenate([genomes, found])
        accuracies = np.concatenate([accuracies, found_accuracies])
        history.append(archive.best)
        progress(archive.considered, budget, f"best {archive.best:.4f}")
    return summarise(
        space, archive, limits, "evolution", settings, settings.ranked, history, time.perf_counter() - started
    )


def _first_generation(
    space: SearchSpace,
    archive: Archive,
    limits: Sequence[Limit],
    settings: EvolutionSettings,
    rng: np.random.Generator,
) -> None:
    """Consider random candidates, and the smallest one, until `population_size` of them are feasible."""
    size = settings.population_size
    budget = size * settings.generations
    drawn = np.concatenate([space.genomes([space.smallest]), space.sample(size - 1, rng)])
    for _ in range(settings.max_retries + 1):
        archive.evaluate(archive.take_new(drawn, budget - archive.considered))
        if archive.num_feasible >= size:
            return
        drawn = space.sample(size, rng)
    if archive.num_feasible == 0:
        archive.evaluate(archive.take_new(reachable_genome(space, limits, rng)[None], 1))


def _new_children(
    space: SearchSpace,
    archive: Archive,
    parents: Genomes,
    settings: EvolutionSettings,
    size: int,
    rng: np.random.Generator,
) -> Genomes:
    """Return up to `size` children that were never considered; each retry doubles the mutation rate."""
    picks = parents[rng.integers(len(parents), size=(2, size))]
    mutants = round(settings.mutation_ratio * size)
    mutated = space.mutate(picks[0, :mutants], settings.mutation_rate, rng)
    crossed = space.crossover(picks[0, mutants:], picks[1, mutants:], rng)
    new = archive.take_new(np.concatenate([mutated, crossed]), size)
    for retry in range(settings.max_retries):
        if len(new) == size:
            break
        rate = min(1.0, settings.mutation_rate * 2**retry)
        missing = size - len(new)
        picked = parents[rng.integers(len(parents), size=2 * missing)]
        more = archive.take_new(space.mutate(picked, rate, rng), missing)
        new = np.concatenate([new, more])
    return new


def _best(
    genomes: Genomes, accuracies: NDArray[np.float64], count: int
) -> tuple[Genomes, NDArray[np.float64]]:
    order = np.argsort(-accuracies, kind="stable")[:count]
    return genomes[order], accuracies[order]
