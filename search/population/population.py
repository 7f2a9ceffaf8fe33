"""`Population`: candidates as arrays, and selection among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.space.genes import Genomes
from ofa.space.onehot import OneHot


@dataclass(frozen=True)
class Population:
    """Candidates, one per row.

    Attributes:
        genomes: full rows (see `search.population.variation`), shape (n, num_genes).
        networks: canonical rows of `genomes`, shape (n, num_genes).
        accuracies: accuracies, shape (n,).
        excess: largest share by which a limit is exceeded, shape (n,); 0 inside all limits.
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

    def clear(self, one_hot: OneHot, radius: float, max_better: int) -> Population:
        """Return the candidates that have fewer than `max_better` better ones nearby.

        One kind of network can thus not fill the population with near copies, and other kinds remain
        (clearing; Petrowski 1996).

        Args:
            one_hot: one-hot encoding of the space.
            radius: largest number of differing genes of nearby networks.
            max_better: number of nearby better candidates that removes a candidate.
        """
        close = similarities(one_hot, self.networks)
        np.greater_equal(close, one_hot.num_genes - radius, out=close)
        better_and_close = (close * np.tri(len(close), k=-1, dtype=np.float32)).sum(axis=1)
        return self.take(better_and_close < max_better)


def similarities(one_hot: OneHot, networks: Genomes) -> NDArray[np.float32]:
    """Return the number of genes in which each pair of networks (canonical rows) agrees, shape (n, n).

    Inactive genes agree.
    """
    rows = one_hot(networks)
    return np.asarray(rows @ rows.T)
