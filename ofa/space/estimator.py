"""`Estimator`: a number for every genome of a population."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ofa.space.genes import Genomes


class Estimator(Protocol):
    """One number per genome, e.g. accuracy, latency, MACs, memory, or a real evaluation."""

    def __call__(self, genomes: Genomes, /) -> NDArray[np.float64]:
        """Return float64 values of shape (n,) for genomes of shape (n, num_genes)."""
        ...


@dataclass(frozen=True)
class Affine:
    """Another estimator's values as `scale * (value / unit) + offset`.

    Attributes:
        estimator: the other estimator.
        scale: factor, e.g. the slope of a calibration.
        offset: constant that is added.
        unit: divisor of the values, e.g. 1e6 for millions.
    """

    estimator: Estimator
    scale: float = 1.0
    offset: float = 0.0
    unit: float = 1.0

    def __call__(self, genomes: Genomes, /) -> NDArray[np.float64]:
        """Return values of shape (n,)."""
        values = self.estimator(genomes)
        if self.unit != 1.0:
            values = values / self.unit
        return self.scale * values + self.offset
