"""Search of the whole front of accuracy against one or more costs in one run (NSGA-II, Deb et al. 2002).

Parents are the best fronts of all candidates seen, thinned where they crowd. Mates are neighbours in one of
the quantities: networks of similar cost have more to give each other than the two ends of a front.
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
from search.constraints import Limit
from search.initial import first_candidates
from search.pareto import fittest
from search.result import SearchResult, summarise
from search.variation import Variation

NEIGHBOURHOOD = 0.02
"""Standard deviation of the distance between mates, as a share of all parents in order of one quantity."""


@dataclass(frozen=True)
class ParetoSettings:
    """Settings of `search_front`.

    Attributes:
        population_size: candidates considered per generation.
        generations: times `population_size` is the number of candidates that the whole search considers.
        parent_ratio: parents per generation as a share of `population_size`.
        mutation_ratio: share of the children that come from mutation, the others come from crossover.
        mutated_genes: the largest number of genes that a mutation changes.
        max_retries: generations without any new candidate, one after the other, before the search ends.
        ranked: length of the result's ranked list.
        front_size: the largest number of candidates on the result's front, the least crowded ones.
    """

    population_size: int = 2000
    generations: int = 200
    parent_ratio: float = 0.5
    mutation_ratio: float = 0.5
    mutated_genes: int = 2
    max_retries: int = 4
    ranked: int = 10
    front_size: int = 1000

    def __post_init__(self) -> None:
        """Check all ranges and report every value that is outside."""
        ones = ("generations", "mutated_genes", "ranked", "front_size")
        problems = below_minimum(self, {"population_size": 2, "max_retries": 0, **dict.fromkeys(ones, 1)})
        if not 0 < self.parent_ratio < np.inf:
            problems.append(f"parent_ratio is {self.parent_ratio}; expected a positive number.")
        if not 0 <= self.mutation_ratio <= 1:
            problems.append(f"mutation_ratio is {self.mutation_ratio}; expected 0 to 1.")
        if problems:
            raise UserError(" ".join(problems))

    @property
    def num_parents(self) -> int:
        """Number of candidates that breed."""
        return max(2, round(self.parent_ratio * self.population_size))


def search_front(
    space: SearchSpace,
    accuracy: Estimator,
    limits: Sequence[Limit],
    settings: ParetoSettings,
    rng: np.random.Generator,
    progress: ProgressCallback = silent,
) -> SearchResult:
    """Search the front of accuracy against all limited quantities, inside the limits.

    Arguments, counting and ends are those of `evolve`; a limit may be infinite. Every limited quantity is
    an objective.

    Raises:
        UserError: if no sub-network keeps the limits; see `reachable_genome`.
    """
    started = time.perf_counter()
    archive, vary = Archive(space, accuracy, limits), Variation(space)
    budget = settings.population_size * settings.generations
    genomes, values, accuracies = first_candidates(
        space, archive, vary, limits, settings.population_size, budget, rng
    )
    losses = np.column_stack([values, -accuracies])
    history: list[float] = []
    repeats = fruitless = 0
    while True:
        best = fittest(losses, settings.num_parents)
        genomes, losses = genomes[best], losses[best]
        history.append(archive.best)
        progress(archive.considered, budget, f"{len(best)} parents, best {archive.best:.4f}")
        if archive.considered >= budget or fruitless > settings.max_retries:
            break
        most = min(settings.mutated_genes * 2**repeats, len(space.genes))
        size = settings.population_size
        children = _breed(genomes, losses, vary, size, settings.mutation_ratio, most, rng)
        new = archive.consider(space.canonical(children), budget - archive.considered)
        genomes = np.concatenate([genomes, children[new.feasible]])
        losses = np.concatenate([losses, np.column_stack([new.values, -new.accuracies])])
        repeats = 0 if 2 * len(new.rows) >= size else repeats + 1
        fruitless = 0 if len(new.rows) else fruitless + 1
    seconds = time.perf_counter() - started
    return summarise(
        space,
        archive,
        limits,
        "pareto",
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
    count: int,
    mutation_ratio: float,
    most: int,
    rng: np.random.Generator,
) -> Genomes:
    """Return `count` children, full rows, of parents picked with equal chance and of mates beside them."""
    ordered = genomes[np.argsort(losses[:, rng.integers(losses.shape[1])], kind="stable")]
    picked = rng.integers(len(ordered), size=count)
    mutants = round(mutation_ratio * count)
    mutated = vary.change(ordered[picked[:mutants]], most, rng)
    reach = max(1.0, NEIGHBOURHOOD * len(ordered))
    steps = np.rint(rng.normal(0.0, reach, count - mutants)).astype(np.intp)
    mates = np.clip(picked[mutants:] + steps, 0, len(ordered) - 1)
    crossed = vary.cross(ordered[picked[mutants:]], ordered[mates], rng)
    return np.concatenate([mutated, crossed])
