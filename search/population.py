"""`Population`: the candidates that breed, and which of them stay, as array operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.space import Genomes, SearchSpace


@dataclass(frozen=True)
class Population:
    """Candidates in one row each.

    Attributes:
        genomes: full rows (see `search.variation`), shape (n, num_genes).
        accuracies: shape (n,).
        excess: by which share a limit is exceeded, the worst one if there are several, shape (n,); 0 inside.
    """

    genomes: Genomes
    accuracies: NDArray[np.float64]
    excess: NDArray[np.float64]

    def join(self, other: Population) -> Population:
        """Return the candidates of both populations."""
        return Population(
            np.concatenate([self.genomes, other.genomes]),
            np.concatenate([self.accuracies, other.accuracies]),
            np.concatenate([self.excess, other.excess]),
        )

    def take(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> Population:
        """Return the candidates at the given places."""
        return Population(self.genomes[which], self.accuracies[which], self.excess[which])

    def best(self, count: int) -> Population:
        """Return the `count` most accurate candidates, best first."""
        return self.take(np.argsort(-self.accuracies, kind="stable")[:count])

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
        np.greater_equal(close, len(space.genes) - radius, out=close)
        better_and_close = (close * np.tri(len(close), k=-1, dtype=np.float32)).sum(axis=1)
        return self.take(better_and_close < crowd)


def similarities(space: SearchSpace, genomes: Genomes) -> NDArray[np.float32]:
    """Return the number of genes in which any two networks are equal, shape (n, n).

    Genes of inactive blocks are equal. A product of one-hot rows counts, so it is one matrix product.
    """
    rows = space.canonical(genomes)
    widths = np.array([len(gene.choices) for gene in space.genes])
    one_hot = np.zeros((len(rows), int(widths.sum())), np.float32)
    one_hot[np.arange(len(rows))[:, None], np.cumsum(widths) - widths + rows] = 1.0
    return np.asarray(one_hot @ one_hot.T)
