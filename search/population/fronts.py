"""Non-dominated fronts: least cost, highest accuracy; ranks and crowding of NSGA-II (Deb et al. 2002)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def non_dominated(costs: NDArray[np.float64], accuracies: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the indices of the non-dominated candidates, cheapest first.

    A candidate dominates another if it costs no more, is at least as accurate, and is better in one of the
    quantities. Of candidates equal in all quantities, the first is returned. With one cost, sorting takes the
    time: O(n log n); with more, O(n times the length of the front) at worst.

    Args:
        costs: shape (n,), or (n, number of costs) with the first defining the order; smaller is better.
        accuracies: shape (n,), larger is better.
    """
    if costs.ndim == 1 or costs.shape[1] == 1:
        column = costs.reshape(-1)
        order = np.lexsort((-accuracies, column))
        sorted_accuracies = accuracies[order]
        best_of_cheaper = np.maximum.accumulate(np.concatenate([[-np.inf], sorted_accuracies]))[:-1]
        return np.asarray(order[sorted_accuracies > best_of_cheaper], np.intp)
    front_indices = _sweep(np.column_stack([costs, -accuracies]))
    return np.asarray(
        front_indices[np.lexsort((-accuracies[front_indices], costs[front_indices, 0]))], np.intp
    )


def _sweep(losses: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the indices of the non-dominated rows: each member removes the rows that it dominates.

    Rows that are good in all columns come first, so few rows remain after few members.
    """
    spread = np.ptp(losses, axis=0) if len(losses) else np.ones(losses.shape[1])
    remaining_indices = np.argsort((losses / np.where(spread > 0, spread, 1.0)).sum(axis=1), kind="stable")
    num_members = 0
    while num_members < len(remaining_indices):
        beats_or_equals = (losses[remaining_indices] >= losses[remaining_indices[num_members]]).all(axis=1)
        beats_or_equals[num_members] = False
        remaining_indices = remaining_indices[~beats_or_equals]
        num_members += 1
    return np.sort(remaining_indices)


def ranks(losses: NDArray[np.float64], min_ranked: int) -> NDArray[np.intp]:
    """Return the number of each row's front, shape (n,): 0 for non-dominated rows, 1 for the next.

    Rows beyond the first `min_ranked` share one last number.

    Args:
        losses: shape (n, number of objectives), smaller is better.
        min_ranked: minimum number of rows to rank.
    """
    return _ranks_of_two(losses, min_ranked) if losses.shape[1] == 2 else _ranks_of_many(losses, min_ranked)


def _ranks_of_two(losses: NDArray[np.float64], min_ranked: int) -> NDArray[np.intp]:
    """Sort by the first objective: a front consists of the new minima in the second."""
    remaining_indices = np.lexsort((losses[:, 1], losses[:, 0]))
    row_ranks = np.full(len(losses), len(losses), np.intp)
    front = 0
    while len(remaining_indices) > max(0, len(losses) - min_ranked):
        second_losses = losses[remaining_indices, 1]
        running_minima = np.minimum.accumulate(second_losses)
        is_member = np.concatenate([[True], second_losses[1:] < running_minima[:-1]])
        row_ranks[remaining_indices[is_member]] = front
        remaining_indices = remaining_indices[~is_member]
        front += 1
    return row_ranks


def _ranks_of_many(losses: NDArray[np.float64], min_ranked: int) -> NDArray[np.intp]:
    """Compare all pairs once; remove rows that no remaining row dominates, front by front."""
    no_worse = np.ones((len(losses), len(losses)), np.bool_)
    for column in losses.T:
        no_worse &= column[:, None] <= column
    beats = no_worse & ~no_worse.T
    beaten_by = beats.sum(axis=0)
    row_ranks = np.full(len(losses), len(losses), np.intp)
    front = 0
    while (row_ranks < len(losses)).sum() < min(min_ranked, len(losses)):
        members = np.flatnonzero((beaten_by == 0) & (row_ranks == len(losses)))
        row_ranks[members] = front
        beaten_by -= beats[members].sum(axis=0)
        front += 1
    return row_ranks


def crowding(losses: NDArray[np.float64], fronts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the distance between each row's neighbours on its front, summed over objectives, shape (n,).

    Gaps are shares of the objective's range over all rows; the ends of a front get infinity.
    """
    distance = np.zeros(len(losses))
    for column in losses.T:
        order = np.lexsort((column, fronts))
        sorted_losses, groups = column[order], fronts[order]
        gaps = np.full(len(order), np.inf)
        is_inner = (groups[2:] == groups[1:-1]) & (groups[1:-1] == groups[:-2])
        gaps[1:-1][is_inner] = (sorted_losses[2:] - sorted_losses[:-2])[is_inner] / max(
            np.ptp(column), 1e-300
        )
        distance[order] += gaps
    return distance


def fittest(losses: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Return the indices of the `count` rows of the best fronts, least crowded first within a front."""
    fronts = ranks(losses, count)
    return np.asarray(np.lexsort((-crowding(losses, fronts), fronts))[:count], np.intp)
