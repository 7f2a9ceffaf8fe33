"""Non-dominated fronts: least cost, highest accuracy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def non_dominated(costs: NDArray[np.float64], accuracies: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the indices of the candidates that no other one beats, cheapest first.

    A candidate is beaten by another that costs no more and is at least as accurate, and better in one of
    the two. Of candidates equal in both, the first is returned. Sorting dominates: O(n log n).

    Args:
        costs: shape (n,), smaller is better.
        accuracies: shape (n,), larger is better.
    """
    order = np.lexsort((-accuracies, costs))
    ranked = accuracies[order]
    best_of_cheaper = np.maximum.accumulate(np.concatenate([[-np.inf], ranked]))[:-1]
    return np.asarray(order[ranked > best_of_cheaper], np.intp)
