"""`OneHot`: genomes as rows of 0 and 1, so that matrix products count and weigh choices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ofa.space.genes import GeneOperators, Genomes


class OneHot:
    """One column per choice of every encoded gene.

    Attributes:
        offsets: the first column of each encoded gene.
        width: number of columns.
        num_genes: number of encoded genes.
    """

    def __init__(
        self, space: GeneOperators, columns: Sequence[int] | None = None, *, only_active: bool = False
    ) -> None:
        """Compile the choices into arrays.

        Args:
            space: space that declares the genes.
            columns: columns of the encoded genes; None for all.
            only_active: whether inactive genes stay zero; otherwise they are encoded as their first choice.
        """
        self._space, self._only_active = space, only_active
        self._columns = np.arange(len(space.genes)) if columns is None else np.array(columns, np.intp)
        counts = np.array([len(space.genes[column].choices) for column in self._columns], np.int64)
        self.offsets: NDArray[np.int64] = np.cumsum(counts) - counts
        self.width, self.num_genes = int(counts.sum()), len(counts)

    def __call__(self, genomes: Genomes) -> NDArray[np.float32]:
        """Return the encoding, shape (n, width), of canonical genomes, shape (n, num_genes)."""
        rows = np.zeros((len(genomes), self.width), np.float32)
        starts = self.width * np.arange(len(genomes))[:, None]
        positions = genomes[:, self._columns] + (starts + self.offsets)
        if self._only_active:
            positions = positions[self._space.active(genomes)[:, self._columns]]
        rows.reshape(-1)[positions] = 1.0
        return rows
