"""`Estimator`: a number for every genome of a population."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ofa.space.genes import Genomes


class Estimator(Protocol):
    """Anything that gives one number per genome: accuracy, latency, MACs, memory, real evaluation."""

    def __call__(self, genomes: Genomes, /) -> NDArray[np.float64]:
        """Return float64 values of shape (n,) for genomes of shape (n, num_genes)."""
        ...
