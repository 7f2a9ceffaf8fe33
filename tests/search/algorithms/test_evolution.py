"""Evolution and random search: optimum, limits, counting, reproducibility, termination."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from rugged import every_genome, median_limit, rugged

from ofa.architecture.cost import compile_cost, macs, parameters
from ofa.common.errors import UserError
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.staged import StagedSpace
from search.algorithms.evolution import EvolutionSettings, evolve
from search.algorithms.nsga2 import ParetoSettings
from search.algorithms.random_search import RandomSettings, search_randomly
from search.limits.limit import Limit
from search.result.result import SearchResult

SMALL = EvolutionSettings(population_size=20, generations=30, parent_ratio=0.25)


class Recorder:
    """An estimator that keeps every row it was asked for."""

    def __init__(self, estimator: Estimator) -> None:
        self.estimator = estimator
        self.rows: list[bytes] = []

    def __call__(self, genomes: Genomes, /) -> NDArray[np.float64]:
        self.rows += [row.tobytes() for row in genomes]
        return self.estimator(genomes)


def run(space: StagedSpace, accuracy: Estimator, *limits: Limit, seed: int = 0) -> SearchResult:
    return evolve(space, accuracy, limits, SMALL, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(5))
def test_evolution_finds_the_enumerated_optimum(micro_space: StagedSpace, seed: int) -> None:
    accuracy, limit = rugged(micro_space, seed), median_limit(micro_space)
    genomes = every_genome(micro_space)
    assert len(genomes) == micro_space.size
    allowed = genomes[limit.estimator(genomes) <= limit.maximum]
    expected = allowed[accuracy(allowed).argmax()]
    result = run(micro_space, accuracy, limit, seed=seed)
    assert result.best.config == micro_space.config(expected)
    assert result.evaluations <= 600 < micro_space.size


def test_limits_are_respected_and_values_belong_to_the_network(small_space: StagedSpace) -> None:
    size = compile_cost(small_space, parameters)
    limits = [median_limit(small_space), Limit("parameters", size, 60_000.0)]
    accuracy = rugged(small_space, 1)
    result = run(small_space, accuracy, *limits)
    for candidate in (*result.ranked, *result.front):
        genome = small_space.genome(candidate.config)[None]
        assert candidate.accuracy == pytest.approx(accuracy(genome)[0], rel=1e-12)
        for limit in limits:
            assert candidate.values[limit.name] == limit.estimator(genome)[0] <= limit.maximum


def test_ranked_and_front_come_from_all_candidates_seen(small_space: StagedSpace) -> None:
    accuracy, limit = Recorder(rugged(small_space, 2)), median_limit(small_space)
    result = run(small_space, accuracy, limit)
    seen = np.stack([np.frombuffer(row, np.int8) for row in accuracy.rows])
    outside = limit.estimator(seen) > limit.maximum
    assert 0 < outside.sum() < 0.5 * len(seen)
    seen = seen[~outside]
    values, costs = accuracy.estimator(seen), limit.estimator(seen)
    assert [c.accuracy for c in result.ranked] == pytest.approx(sorted(values, reverse=True)[:10], rel=1e-9)
    beaten = [
        any((costs <= costs[i]) & (values >= values[i]) & ((costs < costs[i]) | (values > values[i])))
        for i in range(len(seen))
    ]
    expected = sorted(costs[i] for i in range(len(seen)) if not beaten[i])
    assert [candidate.values["macs"] for candidate in result.front] == expected


@pytest.mark.parametrize("algorithm", ["evolution", "random"])
def test_every_candidate_counts_once(small_space: StagedSpace, algorithm: str) -> None:
    estimator = Recorder(median_limit(small_space).estimator)
    limit = Limit("macs", estimator, median_limit(small_space).maximum)
    accuracy = Recorder(rugged(small_space, 3))
    if algorithm == "evolution":
        result = run(small_space, accuracy, limit)
    else:
        settings = RandomSettings(evaluations=600, batch_size=130)
        result = search_randomly(small_space, accuracy, [limit], settings, np.random.default_rng(0))
    assert result.evaluations == len(estimator.rows) == len(set(estimator.rows)) == 600
    assert result.accuracy_evaluations == len(accuracy.rows) == len(set(accuracy.rows))
    assert set(accuracy.rows) < set(estimator.rows)


def test_the_last_generation_counts(small_space: StagedSpace) -> None:
    """Whatever the last generation finds is in the result."""
    limit, accuracy = median_limit(small_space), rugged(small_space, 4)
    bests = []
    for generations in range(1, 12):
        settings = EvolutionSettings(population_size=20, generations=generations)
        recorder = Recorder(accuracy)
        result = evolve(small_space, recorder, [limit], settings, np.random.default_rng(0))
        seen = np.stack([np.frombuffer(row, np.int8) for row in recorder.rows])
        seen = seen[limit.estimator(seen) <= limit.maximum]
        assert result.best.accuracy == pytest.approx(accuracy(seen).max(), rel=1e-12)
        assert result.evaluations == 20 * generations
        assert result.history[-1] == result.best.accuracy
        assert list(result.history) == sorted(result.history)
        bests.append(result.best.accuracy)
    assert bests[-1] > bests[0]


def test_equal_seeds_give_equal_results(small_space: StagedSpace) -> None:
    accuracy, limit = rugged(small_space, 5), median_limit(small_space)
    assert run(small_space, accuracy, limit, seed=3) == run(small_space, accuracy, limit, seed=3)
    assert (
        run(small_space, accuracy, limit, seed=3).samples != run(small_space, accuracy, limit, seed=4).samples
    )


@pytest.mark.parametrize("seed", range(5))
def test_evolution_beats_random_search_of_equal_budget(small_space: StagedSpace, seed: int) -> None:
    accuracy, limit = rugged(small_space, 6), median_limit(small_space)
    settings = RandomSettings(evaluations=600)
    baseline = search_randomly(small_space, accuracy, [limit], settings, np.random.default_rng(seed))
    result = run(small_space, accuracy, limit, seed=seed)
    assert result.evaluations == baseline.evaluations
    assert result.best.accuracy > baseline.best.accuracy


def test_restricted_space_is_not_left(small_space: StagedSpace) -> None:
    restricted = small_space.restrict({"resolution": [20, 28], "depth": [2, 3], "kernel_size": [5, 7]})
    accuracy = Recorder(rugged(small_space, 7))
    result = run(restricted, accuracy, median_limit(restricted))
    configs = [restricted.config(np.frombuffer(row, np.int8)) for row in accuracy.rows]
    assert all(restricted.contains(config) for config in configs)
    assert result.space_fingerprint == small_space.fingerprint


def test_limit_that_only_the_smallest_network_keeps(small_space: StagedSpace) -> None:
    estimator = compile_cost(small_space, macs)
    smallest = float(estimator(small_space.genomes([small_space.smallest]))[0])
    result = run(small_space, rugged(small_space, 8), Limit("macs", estimator, smallest))
    assert [candidate.config for candidate in result.ranked] == [small_space.smallest]


def hidden_optimum(space: StagedSpace) -> Estimator:
    """A quantity that is 1 for one network, neither the smallest nor likely to be drawn, else larger."""
    target = space.sample(1, np.random.default_rng(11))
    return lambda genomes: 1.0 + (genomes != target).sum(axis=1)


@pytest.mark.parametrize("search", ["evolution", "random"])
def test_descent_helps_where_no_drawn_candidate_is_feasible(small_space: StagedSpace, search: str) -> None:
    space = small_space.restrict({"depth": [3]})
    accuracy, limit = rugged(space, 9), Limit("distance", hidden_optimum(space), 1.0)
    rng = np.random.default_rng(0)
    if search == "evolution":
        result = evolve(space, accuracy, [limit], EvolutionSettings(10, 5), rng)
    else:
        result = search_randomly(space, accuracy, [limit], RandomSettings(evaluations=50), rng)
    assert result.best.values == {"distance": 1.0}
    assert result.history[0] == result.best.accuracy
    # Random search spends its budget first; evolution starts with what descent finds.
    assert result.evaluations == {"evolution": 50, "random": 51}[search]


def test_unreachable_limit_is_an_error(small_space: StagedSpace) -> None:
    limit = Limit("latency_ms", compile_cost(small_space, macs), 10.0, "ms")
    with pytest.raises(UserError, match=r"reaches latency_ms = 10 ms; sub-networks have"):
        run(small_space, rugged(small_space, 0), limit)
    with pytest.raises(UserError, match="sub-networks have"):
        settings = RandomSettings(evaluations=50)
        search_randomly(small_space, rugged(small_space, 0), [limit], settings, np.random.default_rng(0))


@pytest.mark.parametrize("search", ["evolution", "random"])
def test_an_infinite_limit_is_refused(small_space: StagedSpace, search: str) -> None:
    limit = Limit("macs", compile_cost(small_space, macs), float("inf"))
    with pytest.raises(UserError, match="macs is infinite; expected a finite limit.*search=pareto"):
        if search == "evolution":
            run(small_space, rugged(small_space, 0), limit)
        else:
            rng = np.random.default_rng(0)
            search_randomly(small_space, rugged(small_space, 0), [limit], RandomSettings(evaluations=50), rng)


def one_network(space: StagedSpace) -> StagedSpace:
    return space.keep_largest({"resolution": 1, "depth": 1, "kernel_size": 1, "expand_ratio": 1})


def few_networks(space: StagedSpace) -> StagedSpace:
    return space.restrict({"depth": [1], "kernel_size": [3]})


@pytest.mark.parametrize("restrict", [one_network, few_networks])
def test_spaces_smaller_than_the_population_end(
    micro_space: StagedSpace, restrict: Callable[[StagedSpace], StagedSpace]
) -> None:
    space = restrict(micro_space)
    assert space.size < 20
    limit = Limit("macs", compile_cost(space, macs), 1e12)
    result = evolve(space, rugged(space, 0), [limit], EvolutionSettings(), np.random.default_rng(0))
    assert result.evaluations == space.size
    baseline = search_randomly(space, rugged(space, 0), [limit], RandomSettings(), np.random.default_rng(0))
    assert baseline.evaluations == space.size
    assert baseline.best == result.best


def test_progress_is_reported(small_space: StagedSpace) -> None:
    calls = []
    limit = median_limit(small_space)
    evolve(
        small_space,
        rugged(small_space, 0),
        [limit],
        EvolutionSettings(20, 4),
        np.random.default_rng(0),
        lambda done, total, text: calls.append((done, total)),
    )
    assert len(calls) >= 2
    assert calls == sorted(set(calls))
    assert calls[-1] == (80, 80)


def test_accuracy_that_is_not_finite_is_refused(small_space: StagedSpace) -> None:
    with pytest.raises(ValueError, match="not finite"):
        run(small_space, lambda genomes: np.full(len(genomes), np.nan), median_limit(small_space))


def test_settings_report_all_problems() -> None:
    with pytest.raises(UserError) as caught:
        EvolutionSettings(
            population_size=1,
            generations=0,
            parent_ratio=0,
            mutation_ratio=1.5,
            mutated_genes=0,
            niche_radius=2.0,
            niche_size=0,
            margin=-0.1,
            estimated_ratio=1.1,
            max_retries=-1,
            ranked=0,
        )
    names = ["population_size", "generations", "parent_ratio", "mutation_ratio", "mutated_genes"]
    names += ["niche_radius", "niche_size", "margin", "estimated_ratio", "max_retries", "ranked"]
    assert all(name in str(caught.value) for name in names)
    with pytest.raises(UserError, match=r"population_size is 1.*parent_ratio is inf.*mutation_ratio is -1"):
        ParetoSettings(population_size=1, parent_ratio=float("inf"), mutation_ratio=-1, front_size=1)
    with pytest.raises(UserError, match=r"evaluations is 0.*batch_size is 0"):
        RandomSettings(evaluations=0, batch_size=0)
