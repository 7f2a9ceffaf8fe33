"""`Archive`: all candidates of a search, each considered once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from search.limits.limit import Limit, check_limits, feasible_rows, limit_values

Choose = Callable[[NDArray[np.intp], NDArray[np.float64]], NDArray[np.intp]]
"""Takes indices of new rows and their limited quantities; returns the indices to estimate."""


@dataclass(frozen=True)
class ConsideredRows:
    """Result of `Archive.consider`.

    Attributes:
        rows: indices of the new rows, shape (new,), ascending.
        estimated: indices of the new rows whose accuracy was estimated, shape (estimated,); by default the
            rows that keep the limits.
        values: limited quantities of the estimated rows, shape (estimated, number of limits).
        accuracies: accuracies of the estimated rows, shape (estimated,).
    """

    rows: NDArray[np.intp]
    estimated: NDArray[np.intp]
    values: NDArray[np.float64]
    accuracies: NDArray[np.float64]


class Archive:
    """Candidates of one search: counted once, limits checked once, accuracy estimated at most once.

    Attributes:
        num_considered: number of distinct candidates whose limits were checked.
        num_estimated: number of these whose accuracy was estimated.
        num_feasible: number of estimated candidates that keep the limits.
        best: highest accuracy of the feasible candidates; -inf before the first.
    """

    def __init__(self, space: SearchSpace, accuracy: Estimator, limits: Sequence[Limit]) -> None:
        """Start with no candidates.

        Raises:
            UserError: if there is no limit, or a name occurs twice.
        """
        check_limits(limits)
        self._accuracy = accuracy
        self._limits = tuple(limits)
        self._factors = np.random.default_rng(0).integers(2**64 - 1, size=len(space.genes), dtype=np.uint64)
        # Ascending hashes of all considered rows; the last one is a sentinel.
        self._seen = np.array([2**64 - 1], np.uint64)
        self._genomes = [np.zeros((0, len(space.genes)), np.int8)]
        self._values = [np.zeros((0, len(limits)))]
        self._accuracies = [np.zeros(0)]
        self.num_considered = 0
        self.num_estimated = 0
        self.num_feasible = 0
        self.best = -np.inf

    def consider(self, genomes: Genomes, max_rows: int, choose: Choose | None = None) -> ConsideredRows:
        """Check the limits of the first `max_rows` distinct rows that are new to the archive.

        Args:
            genomes: canonical rows, shape (n, num_genes); may include rows that were considered before.
            max_rows: largest number of rows to consider.
            choose: selects the new rows whose accuracy is estimated; None: the rows that keep the limits.

        Raises:
            ValueError: if the accuracy estimator gives a value that is not finite.
        """
        rows = self._take_new(genomes, max_rows)
        new_genomes = genomes[rows]
        values = limit_values(self._limits, new_genomes) if len(rows) else np.zeros((0, len(self._limits)))
        estimated_indices = (
            np.flatnonzero(feasible_rows(self._limits, values)) if choose is None else choose(rows, values)
        )
        new_genomes, values = new_genomes[estimated_indices], values[estimated_indices]
        accuracies = self._estimate(new_genomes)
        is_feasible = feasible_rows(self._limits, values)
        self._genomes.append(new_genomes[is_feasible])
        self._values.append(values[is_feasible])
        self._accuracies.append(accuracies[is_feasible])
        self.num_considered += len(rows)
        self.num_estimated += len(new_genomes)
        self.num_feasible += int(is_feasible.sum())
        self.best = max(self.best, float(accuracies[is_feasible].max(initial=-np.inf)))
        return ConsideredRows(rows, rows[estimated_indices], values, accuracies)

    def _take_new(self, genomes: Genomes, max_rows: int) -> NDArray[np.intp]:
        """Return the indices of the first `max_rows` distinct new rows, and store their hashes.

        Rows are compared by a 64-bit linear hash; a collision among a million rows has probability 3e-8.
        """
        hashes = genomes.astype(np.uint64) @ self._factors
        distinct_hashes, first_indices = np.unique(hashes, return_index=True)
        positions = np.searchsorted(self._seen, distinct_hashes)
        is_known = self._seen[positions] == distinct_hashes
        new_indices = np.sort(first_indices[~is_known])[:max_rows]
        new_hashes = np.sort(hashes[new_indices])
        self._seen = np.insert(self._seen, np.searchsorted(self._seen, new_hashes), new_hashes)
        return np.asarray(new_indices, np.intp)

    def _estimate(self, genomes: Genomes) -> NDArray[np.float64]:
        if len(genomes) == 0:
            return np.zeros(0)
        accuracies = np.asarray(self._accuracy(genomes), np.float64)
        if accuracies.shape != (len(genomes),) or not np.isfinite(accuracies).all():
            raise ValueError(
                f"The accuracy estimator gave shape {accuracies.shape} with "
                f"{int(np.sum(~np.isfinite(accuracies)))} values that are not finite; "
                f"expected {len(genomes)} finite numbers."
            )
        return accuracies

    def feasible(self) -> tuple[Genomes, NDArray[np.float64], NDArray[np.float64]]:
        """Return all feasible candidates in the order considered: genomes, limit values, accuracies."""
        return (
            np.concatenate(self._genomes),
            np.concatenate(self._values),
            np.concatenate(self._accuracies),
        )
