"""The search of whole fronts: two and three objectives, limits, and a network picked from a front."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rugged import every_genome, median_limit, rugged

from ofa.architecture.cost import compile_cost, macs, parameters
from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace
from search.algorithms.evolution import EvolutionSettings, evolve
from search.algorithms.nsga2 import ParetoSettings, search_front
from search.limits.limit import Limit
from search.population.fronts import fittest, non_dominated, ranks
from search.result.select import select_subnet

SETTINGS = ParetoSettings(population_size=60, generations=40)


def beaten(losses: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> list[bool]:
    return [bool(((losses <= row).all(1) & (losses < row).any(1)).any()) for row in losses]


def objectives(space: StagedSpace) -> list[Limit]:
    size = compile_cost(space, parameters)
    return [Limit("macs", compile_cost(space, macs), np.inf), Limit("parameters", size, np.inf)]


@pytest.mark.parametrize("seed", range(3))
def test_the_front_is_that_of_all_networks(micro_space: StagedSpace, seed: int) -> None:
    accuracy, limit = rugged(micro_space, seed), objectives(micro_space)[0]
    result = search_front(micro_space, accuracy, [limit], SETTINGS, np.random.default_rng(seed))
    genomes = every_genome(micro_space)
    costs = limit.estimator(genomes)
    expected = [micro_space.config(genomes[i]) for i in non_dominated(costs, accuracy(genomes))]
    found = [candidate.config for candidate in result.front]
    assert len(set(found) & set(expected)) >= 0.9 * len(expected)
    assert not any(beaten(np.array([[c.values["macs"], -c.accuracy] for c in result.front])))


def test_three_objectives_and_a_limit(micro_space: StagedSpace) -> None:
    accuracy, limits = rugged(micro_space, 3), objectives(micro_space)
    limits[0] = median_limit(micro_space)
    result = search_front(micro_space, accuracy, limits, SETTINGS, np.random.default_rng(0))
    losses = np.array([[*c.values.values(), -c.accuracy] for c in result.front])
    assert losses.shape[1] == 3 and len(losses) > 3
    assert not any(beaten(losses))
    assert (losses[:, 0] <= limits[0].maximum).all()
    assert result.front_costs == ("macs", "parameters")


def test_equal_seeds_give_equal_fronts(small_space: StagedSpace) -> None:
    accuracy, limits = rugged(small_space, 4), objectives(small_space)
    runs = [search_front(small_space, accuracy, limits, SETTINGS, np.random.default_rng(5)) for _ in "ab"]
    assert runs[0] == runs[1]


def test_a_network_is_picked_from_a_front(small_space: StagedSpace, tmp_path: Path) -> None:
    accuracy, limits = rugged(small_space, 4), objectives(small_space)
    result = search_front(small_space, accuracy, limits, SETTINGS, np.random.default_rng(0))
    result.save(tmp_path / "front.json", {})
    costs = sorted(candidate.values["macs"] for candidate in result.front)
    middle = costs[len(costs) // 2]
    chosen = select_subnet(small_space, f"front@{middle}", tmp_path)
    inside = [c for c in result.front if c.values["macs"] <= middle]
    assert chosen.config == max(inside, key=lambda c: c.accuracy).config
    with pytest.raises(UserError, match=r"No candidate of the front keeps macs <= 1.*Raise the limit"):
        select_subnet(small_space, "front@1", tmp_path)
    with pytest.raises(UserError, match="limits that are not numbers"):
        select_subnet(small_space, "front@much", tmp_path)
    with pytest.raises(UserError, match="the result has only macs, parameters"):
        select_subnet(small_space, "front@1@2@3", tmp_path)


def test_a_search_for_one_network_needs_finite_limits(small_space: StagedSpace) -> None:
    with pytest.raises(UserError, match="macs"):
        rng = np.random.default_rng(0)
        evolve(small_space, rugged(small_space, 0), objectives(small_space), EvolutionSettings(), rng)


@pytest.mark.parametrize("columns", [2, 3])
def test_ranks_are_those_of_repeated_removal(columns: int) -> None:
    losses = np.random.default_rng(columns).integers(0, 8, (60, columns)).astype(np.float64)
    losses = np.unique(losses, axis=0)
    left, expected = np.arange(len(losses)), np.zeros(len(losses), np.intp)
    front = 0
    while len(left):
        out = np.array(beaten(losses[left]))
        expected[left[~out]] = front
        left, front = left[out], front + 1
    assert ranks(losses, len(losses)).tolist() == expected.tolist()
    kept = fittest(losses, 20)
    assert expected[kept].max() <= np.sort(expected)[19]


def test_settings_of_the_front_report_all_problems() -> None:
    with pytest.raises(UserError) as caught:
        ParetoSettings(1, 0, 0.0, 2.0, 0, -1, 0, 0)
    names = ("population_size", "generations", "parent_ratio", "mutation_ratio", "mutated_genes")
    assert all(name in str(caught.value) for name in (*names, "max_retries", "ranked", "front_size"))
