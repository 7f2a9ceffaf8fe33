"""`Population`: the candidates that breed, and which of them stay, as array operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.space.genes import Genomes
from ofa.space.onehot import OneHot


@dataclass(frozen=True)
class Population:
    """Candidates in one row each.

    Attributes:
        genomes: full rows (see `search.population.variation`), shape (n, num_genes).
        networks: the canonical rows of the same, shape (n, num_genes).
        accuracies: shape (n,).
        excess: by which share a limit is exceeded, the worst one if there are several, shape (n,); 0 inside.
    """

    genomes: Genomes
    networks: Genomes
    accuracies: NDArray[np.float64]
    excess: NDArray[np.float64]

    def join(self, other: Population) -> Population:
        """Return the candidates of both populations."""
        return Population(
            np.concatenate([self.genomes, other.genomes]),
            np.concatenate([self.networks, other.networks]),
            np.concatenate([self.accuracies, other.accuracies]),
            np.concatenate([self.excess, other.excess]),
        )

    def take(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> Population:
        """Return the candidates at the given indices."""
        return Population(
            self.genomes[which], self.networks[which], self.accuracies[which], self.excess[which]
        )

    def best(self, count: int) -> Population:
        """Return the `count` most accurate candidates, best first."""
        return self.take(np.argsort(-self.accuracies, kind="stable")[:count])

    def clear(self, one_hot: OneHot, radius: float, crowd: int) -> Population:
        """Return the candidates without those that have `crowd` or more better ones close by.

        So a good kind of network cannot fill the population with its likes and other kinds stay in it
        (clearing; Petrowski 1996).

        Args:
            one_hot: of the space.
            radius: networks that differ in no more genes than this are close to each other.
            crowd: see above.
        """
        close = similarities(one_hot, self.networks)
        np.greater_equal(close, one_hot.num_genes - radius, out=close)
        better_and_close = (close * np.tri(len(close), k=-1, dtype=np.float32)).sum(axis=1)
        return self.take(better_and_close < crowd)


def similarities(one_hot: OneHot, networks: Genomes) -> NDArray[np.float32]:
    """Return the number of genes in which any two networks (canonical rows) are equal, shape (n, n).

    Genes of inactive blocks are equal.
    """
    rows = one_hot(networks)
    return np.asarray(rows @ rows.T)
