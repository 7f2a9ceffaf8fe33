"""The front against the definition, checked pair by pair."""

from __future__ import annotations

import numpy as np
import pytest

from search.pareto import non_dominated


@pytest.mark.parametrize("levels", [3, 10, 1_000_000])
def test_front_equals_pairwise_comparison(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for count in (1, 2, 5, 60):
        costs = rng.integers(levels, size=count).astype(float)
        accuracies = rng.integers(levels, size=count).astype(float)
        expected = set()
        for i in range(count):
            others = [(costs[j], accuracies[j]) for j in range(count)]
            point = (costs[i], accuracies[i])
            if not any(c <= point[0] and a >= point[1] and (c, a) != point for c, a in others):
                expected.add(others.index(point))
        found = non_dominated(costs, accuracies)
        assert set(found.tolist()) == expected
        assert len(found) == len(expected)
        assert (np.diff(costs[found]) > 0).all()
        assert (np.diff(accuracies[found]) > 0).all()


def test_front_of_nothing_is_empty() -> None:
    assert non_dominated(np.zeros(0), np.zeros(0)).tolist() == []
