"""`Form`: a size of a sub-network as a linear form of the numbers of units of its groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Form:
    """A constant and a coefficient of each group whose units the size counts.

    Attributes:
        constant: part that stays.
        terms: pairs (index of a group, indices per unit).
    """

    constant: int
    terms: tuple[tuple[int, int], ...] = ()

    def size(self, counts: Sequence[int]) -> int:
        """Return the size with these numbers of units, one per group."""
        return self.constant + sum(factor * counts[group] for group, factor in self.terms)

    def sizes(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sizes, shape (n,), with numbers of units of shape (n, num_groups)."""
        result = np.full(len(counts), float(self.constant))
        for group, factor in self.terms:
            result += factor * counts[:, group]
        return result

    def scaled(self, numerator: int, denominator: int) -> Form:
        """Return the form times a fraction, all of whose coefficients stay whole numbers."""
        values = (self.constant, *(factor for _, factor in self.terms))
        assert all(value * numerator % denominator == 0 for value in values)
        constant, *factors = (value * numerator // denominator for value in values)
        return Form(constant, tuple((group, f) for (group, _), f in zip(self.terms, factors, strict=True)))
