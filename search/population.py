"""`Population`: the candidates that breed, and which of them stay, as array operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.space import Genomes, SearchSpace
from search.variation import Variation

STRUCTURE_WEIGHT = 4.0
"""How many genes of a block a difference in resolution, depth or width stands for."""


@dataclass(frozen=True)
class Population:
    """Candidates in one row each.

    Attributes:
        genomes: full rows (see `search.variation`), shape (n, num_genes).
        accuracies: shape (n,).
    """

    genomes: Genomes
    accuracies: NDArray[np.float64]

    def join(self, genomes: Genomes, accuracies: NDArray[np.float64]) -> Population:
        """Return the candidates of this population and the given ones."""
        return Population(
            np.concatenate([self.genomes, genomes]), np.concatenate([self.accuracies, accuracies])
        )

    def best(self, count: int) -> Population:
        """Return the `count` most accurate candidates, best first."""
        order = np.argsort(-self.accuracies, kind="stable")[:count]
        return Population(self.genomes[order], self.accuracies[order])

    def clear(self, space: SearchSpace, radius: float, crowd: int) -> Population:
        """Return the candidates without those that have `crowd` or more better ones close by.

        So a good kind of network cannot fill the population with its likes and other kinds stay in it
        (clearing; Petrowski 1996).

        Args:
            space: the space.
            radius: networks that differ in no more genes than this are close to each other.
            crowd: see above.
        """
        close = similarities(space, self.genomes)
        np.greater_equal(close, similarity_of_equals(space) - radius, out=close)
        better_and_close = (close * np.tri(len(close), k=-1, dtype=np.float32)).sum(axis=1)
        keep = better_and_close < crowd
        return Population(self.genomes[keep], self.accuracies[keep])

    def breed(
        self, vary: Variation, count: int, mutation_ratio: float, most: int, rng: np.random.Generator
    ) -> Genomes:
        """Return `count` children, full rows; all candidates are parents with equal chance.

        Args:
            vary: operators of the space.
            count: number of children.
            mutation_ratio: share of children by mutation; the others come from crossover.
            most: largest number of genes that a mutation changes.
            rng: source of all randomness.
        """
        first, second = self.genomes[rng.integers(len(self.genomes), size=(2, count))]
        mutants = round(mutation_ratio * count)
        mutated = vary.change(first[:mutants], most, rng)
        return np.concatenate([mutated, vary.cross(first[mutants:], second[mutants:], rng)])


def similarity_of_equals(space: SearchSpace) -> float:
    """Return the similarity of a network to itself: the weights of all genes."""
    return float(_weights(space).sum())


def similarities(space: SearchSpace, genomes: Genomes) -> NDArray[np.float32]:
    """Return the sum of the weights of the genes in which any two networks are equal, shape (n, n).

    Genes of inactive blocks are equal. A product of one-hot rows counts, so it is one matrix product.
    """
    rows = space.canonical(genomes)
    widths = np.array([len(gene.choices) for gene in space.genes])
    one_hot = np.zeros((len(rows), int(widths.sum())), np.float32)
    offsets = np.cumsum(widths) - widths
    one_hot[np.arange(len(rows))[:, None], offsets + rows] = np.sqrt(_weights(space))
    return np.asarray(one_hot @ one_hot.T)


def _weights(space: SearchSpace) -> NDArray[np.float32]:
    """Return the weight of each gene: 1 if it acts on a single block, more if on many."""
    return np.array([1.0 if gene.block >= 0 else STRUCTURE_WEIGHT for gene in space.genes], np.float32)
