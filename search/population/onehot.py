"""`OneHot`: networks as rows of 0 and 1, so that matrix products count and weigh their genes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace


class OneHot:
    """One column per choice of every gene, those of inactive genes and depths included.

    Attributes:
        offsets: the first column of each gene.
        width: number of columns.
        num_genes: of the space.
    """

    def __init__(self, space: SearchSpace) -> None:
        """Compile the choices into arrays."""
        counts = np.array([len(gene.choices) for gene in space.genes])
        self.offsets: NDArray[np.intp] = np.cumsum(counts) - counts
        self.width, self.num_genes = int(counts.sum()), len(counts)
        self._genes = np.repeat(np.arange(len(counts)), counts)
        self._choices = np.concatenate([np.arange(count, dtype=np.int8) for count in counts])

    def __call__(self, networks: Genomes) -> NDArray[np.float32]:
        """Return shape (n, width) of canonical rows (n, num_genes)."""
        return np.asarray(np.equal(networks[:, self._genes], self._choices), np.float32)
