"""`TrainedInputs`: what the layers of a network read, and the ranges that they were trained with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ofa.compression.facts import InputRange

MAX_DIFFERENCE = 0.01
"""Largest difference of equal values in two engines, as a share of the largest value."""

Limits: TypeAlias = tuple[float, float]
"""Lowest and highest value of a range."""

Values: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class TrainedInputs:
    """What layers read in one run of a network, with the ranges that they were trained with.

    Engines order and name the tensors of a network in their own way. Their values say which is which.

    Attributes:
        images: input of the run, shape (1, channels, h, w).
        values: what each layer reads, in any shape.
        ranges: range of each layer, as many as `values`.
    """

    images: Values
    values: tuple[Values, ...]
    ranges: tuple[InputRange, ...]

    def limits(self, tensors: Mapping[str, Values]) -> dict[str, Limits]:
        """Return the ranges of an engine's tensors by their names.

        A tensor that several layers read has a range that covers theirs; one that none reads has none.

        Args:
            tensors: their values in a run of the same images by the engine, in any shape.
        """
        found: dict[str, Limits] = {}
        for name, tensor in tensors.items():
            differences = [_difference(values, tensor) for values in self.values]
            nearest = min(differences, default=math.inf)
            if nearest > MAX_DIFFERENCE:
                continue
            own = [r for r, value in zip(self.ranges, differences, strict=True) if value == nearest]
            found[name] = min(r.minimum for r in own), max(r.maximum for r in own)
        return found


def _difference(values: Values, others: Values) -> float:
    """Return the largest difference as a share of the largest value; infinite for other numbers of values."""
    if values.size != others.size:
        return math.inf
    largest = np.abs(values).max(initial=0.0)
    return float(np.abs(values.ravel() - others.ravel()).max() / largest) if largest > 0 else math.inf
