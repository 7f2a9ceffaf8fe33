"""Common settings and loop of searches in generations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ofa.common.config import below_minimum
from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback
from search.population.archive import Archive


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of a search in generations.

    Attributes:
        population_size: candidates per generation.
        generations: number of generations; the budget is `population_size` times this.
        parent_ratio: parents per generation as a share of `population_size`.
        mutation_ratio: share of children from mutation; the others come from crossover.
        mutated_genes: largest number of genes that a mutation changes.
        max_retries: consecutive generations without a new candidate after which the search ends.
        ranked: length of the result's ranked list.
    """

    population_size: int = 1600
    generations: int = 94
    parent_ratio: float = 0.1875
    mutation_ratio: float = 0.5
    mutated_genes: int = 2
    max_retries: int = 4
    ranked: int = 10

    def __post_init__(self) -> None:
        """Check all ranges and report every value out of range."""
        if problems := self._problems():
            raise UserError(" ".join(problems))

    def _problems(self) -> list[str]:
        ones = ("generations", "mutated_genes", "ranked")
        problems = below_minimum(self, {"population_size": 2, "max_retries": 0, **dict.fromkeys(ones, 1)})
        if not 0 < self.parent_ratio < np.inf:
            problems.append(f"parent_ratio is {self.parent_ratio}; expected a positive number.")
        if not 0 <= self.mutation_ratio <= 1:
            problems.append(f"mutation_ratio is {self.mutation_ratio}; expected 0 to 1.")
        return problems

    @property
    def budget(self) -> int:
        """Number of candidates of the whole search."""
        return self.population_size * self.generations

    @property
    def num_parents(self) -> int:
        """Number of parents."""
        return max(2, round(self.parent_ratio * self.population_size))


def run_generations(
    archive: Archive,
    settings: GenerationSettings,
    num_genes: int,
    generation: Callable[[int], int],
    progress: ProgressCallback,
) -> list[float]:
    """Run generations until the budget is used or nothing new is found; return the best accuracy after each.

    Args:
        archive: archive that counts candidates; holds the first ones already.
        settings: sizes, rates and budget.
        num_genes: number of genes of the space.
        generation: creates and considers a generation whose mutations change at most the given number of
            genes, and returns the number of new candidates. The number of genes doubles after a generation
            that mostly repeats known candidates.
        progress: called with the number of considered candidates, the budget and the best accuracy.
    """
    history: list[float] = []
    num_repeats = num_fruitless = 0
    while True:
        history.append(archive.best)
        progress(archive.num_considered, settings.budget, f"best {archive.best:.4f}")
        if archive.num_considered >= settings.budget or num_fruitless > settings.max_retries:
            return history
        num_new = generation(min(settings.mutated_genes * 2**num_repeats, num_genes))
        num_repeats = 0 if 2 * num_new >= settings.population_size else num_repeats + 1
        num_fruitless = 0 if num_new else num_fruitless + 1
