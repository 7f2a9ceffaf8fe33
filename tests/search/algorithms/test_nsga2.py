"""Fronts, ranks and crowding against their definitions, checked pair by pair; the search for a front."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rugged import rugged

from ofa.architecture.cost import compile_cost, macs, parameters, peak_activation_bytes
from ofa.common.errors import UserError
from ofa.common.figures import save_png
from ofa.space.staged import StagedSpace
from search.algorithms.nsga2 import ParetoSettings, search_front
from search.limits.limit import Limit
from search.population.fronts import crowding, fittest, non_dominated, ranks
from search.reports.figure import result_figure

SMALL = ParetoSettings(population_size=60, generations=20)


def beats(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    return bool((first <= second).all() and (first < second).any())


def front_by_pairs(losses: NDArray[np.float64], among: set[int]) -> set[int]:
    return {i for i in among if not any(beats(losses[j], losses[i]) for j in among)}


def limits_of(space: StagedSpace, count: int, maximum: float = float("inf")) -> list[Limit]:
    memory = compile_cost(space, peak_activation_bytes, np.maximum)
    costs = {
        "macs": compile_cost(space, macs),
        "memory": memory,
        "parameters": compile_cost(space, parameters),
    }
    return [Limit(name, cost, maximum) for name, cost in list(costs.items())[:count]]


@pytest.mark.parametrize("num_costs", [1, 2, 3])
@pytest.mark.parametrize("levels", [3, 10, 1_000_000])
def test_front_equals_pairwise_comparison(levels: int, num_costs: int) -> None:
    rng = np.random.default_rng(levels)
    for count in (1, 2, 5, 60):
        costs = rng.integers(levels, size=(count, num_costs)).astype(float)
        accuracies = rng.integers(levels, size=count).astype(float)
        losses = np.column_stack([costs, -accuracies])
        expected = {tuple(losses[i]) for i in front_by_pairs(losses, set(range(count)))}
        found = non_dominated(costs, accuracies)
        assert {tuple(losses[i]) for i in found} == expected
        assert len(found) == len(expected)
        assert all(not (losses[:i] == losses[i]).all(axis=1).any() for i in found), "not the first of equals"
        assert (np.diff(costs[found, 0]) >= 0).all()
        if num_costs == 1:
            assert non_dominated(costs[:, 0], accuracies).tolist() == found.tolist()
            assert (np.diff(accuracies[found]) > 0).all()


@pytest.mark.parametrize("num_costs", [1, 2])
def test_front_of_nothing_is_empty(num_costs: int) -> None:
    assert non_dominated(np.zeros((0, num_costs)), np.zeros(0)).tolist() == []


@pytest.mark.parametrize("objectives", [2, 3, 4])
@pytest.mark.parametrize("enough", [1, 20, 50, 90])
def test_ranks_peel_one_front_after_another(objectives: int, enough: int) -> None:
    losses = np.random.default_rng(objectives).random((50, objectives))
    found = ranks(losses, enough)
    left, front = set(range(50)), 0
    while left and 50 - len(left) < enough:
        members = front_by_pairs(losses, left)
        assert {i for i in range(50) if found[i] == front} == members
        left -= members
        front += 1
    assert (found[sorted(left)] == 50).all()
    assert sorted(set(found.tolist()) - {50}) == list(range(front))


def test_equal_rows_are_ranked_and_end() -> None:
    for objectives in (2, 3):
        assert ranks(np.ones((5, objectives)), 5).max() < 5


def test_crowding_of_a_front_by_hand() -> None:
    losses = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 5.0], [10.0, 0.0]])
    expected = [np.inf, 4 / 10 + 5 / 10, 9 / 10 + 6 / 10, np.inf]
    order = np.array([2, 0, 3, 1])
    found = crowding(losses[order], np.zeros(4, np.intp))
    assert found.tolist() == pytest.approx([expected[i] for i in order])
    two_fronts = crowding(losses, np.array([0, 0, 0, 1]))
    assert np.isinf(two_fronts).tolist() == [True, False, True, True]


def test_the_fittest_are_of_the_first_fronts_and_spread() -> None:
    line = np.array([0.0, 0.01, 0.02, 0.5, 1.0])
    losses = np.concatenate([np.column_stack([line, 1 - line]), [[0.5, 0.9], [0.9, 0.9]]])
    assert set(fittest(losses, 3).tolist()) == {0, 3, 4}
    assert set(fittest(losses, 5).tolist()) == {0, 1, 2, 3, 4}
    assert set(fittest(losses, 6).tolist()) == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("num_costs", [1, 2])
def test_the_whole_front_of_a_small_space_is_found(micro_space: StagedSpace, num_costs: int) -> None:
    accuracy, limits = rugged(micro_space, num_costs), limits_of(micro_space, num_costs)
    genomes = micro_space.all_genomes()
    costs = np.stack([limit.estimator(genomes) for limit in limits], axis=1)
    expected = non_dominated(costs, accuracy(genomes))
    settings = ParetoSettings(population_size=60, generations=25)
    assert settings.population_size * settings.generations < micro_space.size
    result = search_front(micro_space, accuracy, limits, settings, np.random.default_rng(0))
    found = {candidate.config for candidate in result.front}
    assert found == {micro_space.config(genomes[i]) for i in expected}
    assert result.front_costs == tuple(limit.name for limit in limits)
    assert [limit.maximum for limit in result.limits] == [None] * num_costs
    assert result.best.accuracy == pytest.approx(accuracy(genomes).max())


def test_limits_bound_the_front_and_every_candidate_counts_once(small_space: StagedSpace) -> None:
    limits = limits_of(small_space, 2)
    limits[0] = Limit("macs", limits[0].estimator, 1.5e6)
    result = search_front(small_space, rugged(small_space, 1), limits, SMALL, np.random.default_rng(0))
    assert all(candidate.values["macs"] <= 1.5e6 for candidate in (*result.front, *result.ranked))
    assert result.evaluations == 1200
    assert result.accuracy_evaluations <= 1200
    again = search_front(small_space, rugged(small_space, 1), limits, SMALL, np.random.default_rng(0))
    assert again == result


def test_a_long_front_is_thinned_but_keeps_its_ends(small_space: StagedSpace) -> None:
    accuracy, limits = rugged(small_space, 2), limits_of(small_space, 3)
    whole = search_front(small_space, accuracy, limits, SMALL, np.random.default_rng(0))
    settings = ParetoSettings(population_size=60, generations=20, front_size=12)
    thinned = search_front(small_space, accuracy, limits, settings, np.random.default_rng(0))
    assert len(thinned.front) == 12 < len(whole.front)
    assert all(candidate in whole.front for candidate in thinned.front)
    assert thinned.front[0] == whole.front[0]
    assert thinned.best == whole.best
    assert thinned.best in thinned.front


def test_unreachable_limits_are_an_error(small_space: StagedSpace) -> None:
    with pytest.raises(UserError, match="sub-networks have"):
        search_front(
            small_space,
            rugged(small_space, 0),
            limits_of(small_space, 1, 10.0),
            SMALL,
            np.random.default_rng(0),
        )


def test_small_spaces_end_and_progress_is_told(micro_space: StagedSpace) -> None:
    space = micro_space.restrict({"depth": [1], "kernel_size": [3]})
    calls: list[tuple[int, int]] = []
    result = search_front(
        space,
        rugged(space, 0),
        limits_of(space, 1),
        ParetoSettings(),
        np.random.default_rng(0),
        lambda done, total, text: calls.append((done, total)),
    )
    assert result.evaluations == space.size
    assert calls[-1] == (space.size, 400_000)


def test_fronts_of_three_objectives_are_drawn(small_space: StagedSpace, tmp_path: Path) -> None:
    result = search_front(
        small_space, rugged(small_space, 0), limits_of(small_space, 2), SMALL, np.random.default_rng(0)
    )
    path = tmp_path / "pareto.png"
    save_png(result_figure(result), path)
    assert path.read_bytes()[:4] == b"\x89PNG"
