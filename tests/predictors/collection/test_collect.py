"""Planning which sub-networks to measure, and collecting that survives interruptions."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ofa.architecture.cost import compile_cost, macs
from ofa.common.errors import UserError
from ofa.space.genes import Genomes
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec
from ofa.space.subnet import SubnetConfig
from predictors.collection.collect import BATCH_SIZE, SEED_RECORDS, CollectionPlan, collect_records
from predictors.collection.sampling import plan_subnets, random_subnets
from predictors.records import RecordFile


def make_space(num_stages: int = 3, resolutions: tuple[int, ...] = (16, 24, 32)) -> StagedSpace:
    stage = StageSpec(8, 2, (1, 2, 3), (3, 5, 7), (2, 3, 4), "relu", False)
    return StagedSpace("small", "mobilenet_v3", resolutions, 8, 1, (stage,) * num_stages, (16, 16))


def nano_space() -> StagedSpace:
    stage = StageSpec(8, 2, (1, 2), (3, 5), (2, 3), "relu", False)
    return StagedSpace("nano", "mobilenet_v3", (8, 16), 8, 1, (stage,), (16, 16), num_classes=4)


def plan(space: StagedSpace, count: int, seed: int = 0) -> Genomes:
    return plan_subnets(space, count, seed, compile_cost(space, macs))


def rows(genomes: Genomes) -> set[tuple[int, ...]]:
    return {tuple(row) for row in genomes.tolist()}


def test_a_plan_has_distinct_valid_networks_and_both_ends() -> None:
    space = make_space()
    genomes = plan(space, 300)
    assert genomes.dtype == np.int8
    assert len(rows(genomes)) == len(genomes) == 300
    assert space.config(genomes[0]) == space.smallest
    assert space.config(genomes[1]) == space.largest
    np.testing.assert_array_equal(space.genomes([space.config(g) for g in genomes]), genomes)


def test_a_plan_depends_on_the_seed_and_a_larger_one_extends_it() -> None:
    space = make_space()
    np.testing.assert_array_equal(plan(space, 100), plan(space, 400)[:100])
    assert len(rows(plan(space, 100, 0)) & rows(plan(space, 100, 1))) < 50


def occupancy(costs: NDArray[np.float64], low: float, high: float) -> NDArray[np.intp]:
    return np.histogram(np.log(costs), bins=10, range=(np.log(low), np.log(high)))[0]


@pytest.mark.parametrize("seed", range(3))
def test_a_plan_spreads_over_macs_more_evenly_than_random_sampling(seed: int) -> None:
    space = make_space()
    cost = compile_cost(space, macs)
    low, high = cost(space.genomes([space.smallest, space.largest]))
    planned = occupancy(cost(plan(space, 200, seed)), low, high)
    drawn = occupancy(cost(space.sample(200, np.random.default_rng(seed))), low, high)
    assert planned.min() >= 15, planned
    assert drawn.min() <= 2, drawn
    assert planned.std() < 0.2 * drawn.std()


def test_a_restricted_space_is_planned_within_its_choices() -> None:
    space = make_space().restrict({"resolution": [24], "kernel_size": [3, 5]})
    genomes = plan(space, 150)
    assert all(space.contains(space.config(genome)) for genome in genomes)
    assert space.config(genomes[0]) == space.smallest
    assert space.config(genomes[1]) == space.largest


def brute_force_networks(space: StagedSpace) -> set[SubnetConfig]:
    """Every row of allowed choices, turned into the network it describes."""
    choices = itertools.product(*space.allowed)
    return {space.config(np.array(row, np.int8)) for row in choices}


def test_all_networks_of_a_small_space_can_be_planned() -> None:
    for space in (nano_space(), nano_space().restrict({"depth": [2], "expand_ratio": [3]})):
        genomes = plan(space, space.size)
        assert {space.config(genome) for genome in genomes} == brute_force_networks(space)


def test_a_space_of_one_network_is_planned() -> None:
    space = nano_space().keep_largest({"resolution": 1, "depth": 1, "kernel_size": 1, "expand_ratio": 1})
    assert space.size == 1
    assert [space.config(genome) for genome in plan(space, 1)] == [space.largest]


def test_impossible_counts_are_refused() -> None:
    space = nano_space()
    with pytest.raises(UserError, match=f"'nano' has only {space.size}"):
        plan(space, space.size + 1)
    for count in (1, 0, -3):
        with pytest.raises(UserError, match="at least 2"):
            plan(space, count)
    for count in (0, -3):
        with pytest.raises(UserError, match="at least 1"):
            random_subnets(space, count, 0)
    large = make_space()
    with pytest.raises(UserError, match=r"at most \d+ can be planned"):
        plan(large, 60_000)


def test_a_random_plan_has_distinct_networks_and_depends_on_the_seed() -> None:
    space = make_space()
    genomes = random_subnets(space, 300, 0)
    assert len(rows(genomes)) == 300
    np.testing.assert_array_equal(random_subnets(space, 40, 0), genomes[:40])
    assert len(rows(genomes) & rows(random_subnets(space, 300, 1))) < 30
    # Every choice is drawn uniformly, which the stratified plan's is not.
    share = np.bincount(genomes[:, 0], minlength=3) / 300
    np.testing.assert_allclose(share, 1 / 3, atol=0.1)
    nano = nano_space()
    assert rows(random_subnets(nano, nano.size, 0)) == rows(nano.all_genomes())


class Evaluator:
    """Gives each network some accuracy, remembers the calls, and fails at the call number `fail_at`."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.calls: list[SubnetConfig] = []
        self.fail_at = fail_at

    def __call__(self, config: SubnetConfig) -> float:
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append(config)
        return int(config.id, 16) / 16**10


def open_records(tmp_path: Path, space: StagedSpace) -> RecordFile:
    return RecordFile.open(tmp_path / "accuracy.jsonl", space, {"checkpoint": "abc"})


def test_collecting_measures_the_plan_in_order(tmp_path: Path) -> None:
    space = make_space()
    evaluate = Evaluator()
    reports: list[tuple[int, int, str]] = []
    collect_records(
        space,
        open_records(tmp_path, space),
        evaluate,
        CollectionPlan(12, seed=3),
        progress=lambda *report: reports.append(report),
    )
    read = RecordFile.read(tmp_path / "accuracy.jsonl", space)
    configs, top1 = read.configs, read.values
    assert configs == evaluate.calls == [space.config(genome) for genome in plan(space, 12, 3)]
    assert top1.tolist() == [int(config.id, 16) / 16**10 for config in configs]
    assert [report[:2] for report in reports] == [(i, 12) for i in range(13)]


def test_an_interrupted_collection_resumes_with_what_is_missing(tmp_path: Path) -> None:
    space = make_space()
    first = Evaluator(fail_at=5)
    with pytest.raises(KeyboardInterrupt):
        collect_records(space, open_records(tmp_path, space), first, CollectionPlan(12, seed=3))
    with (tmp_path / "accuracy.jsonl").open("ab") as file:
        file.write(b'{"subnet": {"resolu')
    second = Evaluator()
    reports: list[int] = []
    records = open_records(tmp_path, space)
    collect_records(
        space,
        records,
        second,
        CollectionPlan(12, seed=3),
        progress=lambda done, total, text: reports.append(done),
    )
    assert reports == list(range(5, 13))
    assert [*first.calls, *second.calls] == [space.config(genome) for genome in plan(space, 12, 3)]
    whole = tmp_path / "whole"
    collect_records(space, open_records(whole, space), Evaluator(), CollectionPlan(12, seed=3))
    assert (whole / "accuracy.jsonl").read_bytes() == (tmp_path / "accuracy.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("strategy", "stop"),
    [("random", 20), ("stratified", 20), ("active", SEED_RECORDS - 3), ("active", SEED_RECORDS + 7)],
)
def test_every_strategy_resumes_as_if_never_interrupted(tmp_path: Path, strategy: str, stop: int) -> None:
    space, count = make_space(2), SEED_RECORDS + BATCH_SIZE + 2
    reports: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        collect_records(
            space,
            open_records(tmp_path, space),
            Evaluator(stop),
            CollectionPlan(count, strategy=strategy, seed=3),
        )
    records = open_records(tmp_path, space)
    collect_records(
        space,
        records,
        Evaluator(),
        CollectionPlan(count, strategy=strategy, seed=3),
        progress=lambda done, total, text: reports.append(done),
    )
    assert reports == list(range(stop, count + 1))
    whole = tmp_path / "whole"
    collect_records(
        space, open_records(whole, space), Evaluator(), CollectionPlan(count, strategy=strategy, seed=3)
    )
    assert (whole / "accuracy.jsonl").read_bytes() == (tmp_path / "accuracy.jsonl").read_bytes()
    again = Evaluator()
    collect_records(
        space, open_records(tmp_path, space), again, CollectionPlan(count, strategy=strategy, seed=3)
    )
    assert again.calls == []


def test_active_collection_starts_stratified_and_extends_other_records(tmp_path: Path) -> None:
    space = make_space(2)
    evaluate = Evaluator()
    records = open_records(tmp_path, space)
    collect_records(space, records, evaluate, CollectionPlan(10, strategy="active", seed=3))
    assert rows(space.genomes(evaluate.calls)) <= rows(plan(space, SEED_RECORDS, 3))
    collect_records(space, records, evaluate, CollectionPlan(40, strategy="random", seed=9))
    before = len(records)
    collect_records(space, records, evaluate, CollectionPlan(before + 6, strategy="active", seed=3))
    assert len(records) == before + 6


def test_active_collection_can_measure_a_whole_small_space(tmp_path: Path) -> None:
    space = nano_space()
    assert space.size > SEED_RECORDS
    evaluate = Evaluator()
    collect_records(
        space, open_records(tmp_path, space), evaluate, CollectionPlan(space.size, strategy="active")
    )
    assert set(evaluate.calls) == brute_force_networks(space)
    with pytest.raises(UserError, match=f"'nano' has only {space.size}"):
        collect_records(
            space, open_records(tmp_path, space), evaluate, CollectionPlan(space.size + 1, strategy="active")
        )


def test_an_unknown_strategy_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"'activ'; known: active, random, stratified\. Did you mean 'active'"
    ):
        collect_records(
            nano_space(),
            open_records(tmp_path, nano_space()),
            Evaluator(),
            CollectionPlan(5, strategy="activ"),
        )


def test_nothing_is_measured_twice(tmp_path: Path) -> None:
    space = make_space()
    collect_records(space, open_records(tmp_path, space), Evaluator(), CollectionPlan(10, seed=3))
    again = Evaluator()
    collect_records(space, open_records(tmp_path, space), again, CollectionPlan(10, seed=3))
    assert again.calls == []
    collect_records(space, open_records(tmp_path, space), again, CollectionPlan(25, seed=3))
    assert len(again.calls) == 15
    collect_records(space, open_records(tmp_path, space), Evaluator(), CollectionPlan(25, seed=4))
    configs = RecordFile.read(tmp_path / "accuracy.jsonl", space).configs
    assert len(set(configs)) == len(configs)


def test_an_accuracy_that_is_no_fraction_stops_the_collection(tmp_path: Path) -> None:
    space = make_space()
    with pytest.raises(UserError, match=r"97.* expected a fraction"):
        collect_records(space, open_records(tmp_path, space), lambda config: 97.0, CollectionPlan(5))
    assert RecordFile.read(tmp_path / "accuracy.jsonl", space).configs == []
