"""`Archive`: every candidate that a search considers, each exactly once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ofa.cost import Estimator
from ofa.space import Genomes, SearchSpace
from search.constraints import Limit, check_limits, limit_values, within


class Archive:
    """Candidates of one search: counted once, limits checked once, accuracy estimated once if feasible.

    Attributes:
        considered: number of distinct candidates whose limits were checked.
        best: highest accuracy of the feasible ones; -inf before the first.
    """

    def __init__(self, space: SearchSpace, accuracy: Estimator, limits: Sequence[Limit]) -> None:
        """Start with no candidates.

        Raises:
            UserError: if there is no limit or two have one name.
        """
        check_limits(limits)
        self._accuracy = accuracy
        self._limits = tuple(limits)
        self._seen: set[object] = set()
        self._genomes = [np.zeros((0, len(space.genes)), np.int8)]
        self._values = [np.zeros((0, len(limits)))]
        self._accuracies = [np.zeros(0)]
        self.considered = 0
        self.num_feasible = 0
        self.best = -np.inf

    def take_new(self, genomes: Genomes, at_most: int) -> Genomes:
        """Return the first `at_most` distinct rows that no earlier call returned; canonical rows in and out.

        Membership is exact: the set holds the rows' bytes. Rows are hashed in C, without a Python loop.
        """
        rows = np.ascontiguousarray(genomes)
        keys = rows.view(np.dtype((np.void, rows.shape[1]))).ravel().tolist()
        first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
        unseen = set(first).difference(self._seen)
        picked = sorted(map(first.__getitem__, unseen))[:at_most]
        self._seen.update(map(keys.__getitem__, picked))
        return np.asarray(rows[picked])

    def evaluate(self, new: Genomes) -> tuple[Genomes, NDArray[np.float64]]:
        """Check the limits of rows of `take_new`; return the feasible ones and their accuracies.

        Raises:
            ValueError: if the accuracy estimator gives a value that is not finite.
        """
        if len(new) == 0:
            return new, np.zeros(0)
        values = limit_values(self._limits, new)
        keep = within(self._limits, values)
        genomes = new[keep]
        self.considered += len(new)
        if len(genomes) == 0:
            return genomes, np.zeros(0)
        accuracies = np.asarray(self._accuracy(genomes), np.float64)
        if accuracies.shape != (len(genomes),) or not np.isfinite(accuracies).all():
            raise ValueError(
                f"The accuracy estimator gave shape {accuracies.shape} with "
                f"{int(np.sum(~np.isfinite(accuracies)))} values that are not finite; "
                f"expected {len(genomes)} finite numbers."
            )
        self._genomes.append(genomes)
        self._values.append(values[keep])
        self._accuracies.append(accuracies)
        self.num_feasible += len(genomes)
        self.best = max(self.best, float(accuracies.max()))
        return genomes, accuracies

    def feasible(self) -> tuple[Genomes, NDArray[np.float64], NDArray[np.float64]]:
        """Return all feasible candidates in the order seen: genomes, limit values (n, limits), accuracies."""
        return (
            np.concatenate(self._genomes),
            np.concatenate(self._values),
            np.concatenate(self._accuracies),
        )
