"""The choice of each layer: the best of all within the limit, and never above it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ofa.compression import knapsack
from ofa.compression.knapsack import choose_least_harm


def best_of_all(costs: list[list[float]], harms: list[list[float]], limit: float) -> float | None:
    """Return the least sum of harms by trying everything."""
    sums = [
        sum(harms[layer][index] for layer, index in enumerate(chosen))
        for chosen in itertools.product(*(range(len(layer)) for layer in costs))
        if sum(costs[layer][index] for layer, index in enumerate(chosen)) <= limit + 1e-9
    ]
    return min(sums, default=None)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = [rng.random(5).tolist() for _ in range(5)]
    harms = [rng.random(5).tolist() for _ in range(5)]
    for spare in (0.1, 0.5, 1.5):
        limit = sum(map(min, costs)) + spare
        chosen = choose_least_harm(costs, harms, limit)
        assert chosen is not None
        assert sum(costs[layer][index] for layer, index in enumerate(chosen)) <= limit
        total = sum(harms[layer][index] for layer, index in enumerate(chosen))
        assert total == pytest.approx(best_of_all(costs, harms, limit))


def test_many_layers_keep_the_limit_with_few_states(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    costs = [rng.random(7).tolist() for _ in range(40)]
    harms = [rng.random(7).tolist() for _ in range(40)]
    limit = sum(map(min, costs)) + 5

    def harm() -> float:
        chosen = choose_least_harm(costs, harms, limit)
        assert chosen is not None
        assert sum(costs[layer][index] for layer, index in enumerate(chosen)) <= limit
        return float(sum(harms[layer][index] for layer, index in enumerate(chosen)))

    exact = harm()
    monkeypatch.setattr(knapsack, "MAX_STATES", 500)
    assert exact <= harm() < 1.01 * exact


def test_an_unreachable_limit_has_no_choice() -> None:
    assert choose_least_harm([[2.0, 1.0], [3.0]], [[0.0, 1.0], [0.0]], 3.9) is None
    assert choose_least_harm([[2.0, 1.0], [3.0]], [[0.0, 1.0], [0.0]], 4.0) == (1, 0)
    assert choose_least_harm([[2.0, 1.0], [3.0]], [[0.0, 1.0], [0.0]], 5.0) == (0, 0)
    assert choose_least_harm([], [], 1.0) == ()
