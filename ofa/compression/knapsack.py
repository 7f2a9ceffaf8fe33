"""`choose_least_harm`: a choice for each layer with the least harm within a limit of their cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_STATES = 50_000
"""Partial choices that are kept; beyond, only the best in each of so many steps of the cost."""


def choose_least_harm(
    costs: Sequence[Sequence[float]], harms: Sequence[Sequence[float]], limit: float
) -> tuple[int, ...] | None:
    """Return the position of each layer's choice with the least sum of harms within a limit of the costs.

    A multiple-choice knapsack, solved by dynamic programming over the choices of the first layers of which
    none is better in both sums. It is exact unless these are more than `MAX_STATES`.

    Args:
        costs: cost of each choice, for each layer.
        harms: harm of each choice, in the same order.
        limit: largest sum of the costs.

    Returns:
        Positions, one for each layer; None if no choice keeps the limit.
    """
    smallest = [min(layer) for layer in costs]
    # The sums of the smallest costs alone decide what is reachable; their rounding must not.
    spare = limit - sum(smallest) + 1e-9 * abs(limit)
    if spare < 0:
        return None
    cost_sums, harm_sums = np.zeros(1), np.zeros(1)
    history = []
    for layer_costs, layer_harms, least in zip(costs, harms, smallest, strict=True):
        above = np.array(layer_costs) - least
        cost_sums = (cost_sums[:, None] + above).ravel()
        harm_sums = (harm_sums[:, None] + np.array(layer_harms)).ravel()
        kept = _undominated(cost_sums, harm_sums, spare)
        cost_sums, harm_sums = cost_sums[kept], harm_sums[kept]
        history.append((kept, len(layer_costs)))
    state = int(harm_sums.argmin())
    chosen = []
    for kept, num_choices in reversed(history):
        state, position = divmod(int(kept[state]), num_choices)
        chosen.append(position)
    return tuple(reversed(chosen))


def _undominated(costs: NDArray[np.float64], harms: NDArray[np.float64], limit: float) -> NDArray[np.int64]:
    """Return the indices of states within the limit that no other one beats, by rising cost."""
    order: NDArray[np.int64] = np.lexsort((harms, costs))
    order = order[costs[order] <= limit]
    lowest = np.minimum.accumulate(harms[order])
    is_better = np.append(True, lowest[1:] < lowest[:-1])
    order = order[is_better]
    if len(order) > MAX_STATES:
        steps = (costs[order] / limit * MAX_STATES).astype(np.int64)
        # Harms fall with rising cost: the last of a step is its best.
        order = order[np.append(steps[1:] != steps[:-1], True)]
    return order
