"""Results as files and figures, and algorithms by name."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from ofa.architecture.cost import compile_cost, macs, parameters
from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig
from search.algorithms.registry import ALGORITHMS, plan_search
from search.limits.limit import Limit
from search.limits.named import LimitSettings
from search.reports.files import save_all
from search.reports.text import report
from search.result.result import SearchResult
from search.result.select import select_subnet


@pytest.fixture(params=["evolution", "pareto", "random"])
def result(small_space: StagedSpace, request: pytest.FixtureRequest) -> SearchResult:
    sizes = {
        "evolution": {"population_size": 10, "generations": 6},
        "pareto": {"population_size": 10, "generations": 6},
        "random": {"evaluations": 60, "batch_size": 20},
    }
    plan = plan_search({"algorithm": request.param, **sizes[request.param]})
    limit = Limit("macs", compile_cost(small_space, macs), 2e6, "MACs")
    return plan.run(small_space, compile_cost(small_space, parameters), [limit], seed=5)


def test_save_and_load_round_trip(result: SearchResult, small_space: StagedSpace, tmp_path: Path) -> None:
    path = tmp_path / "run" / "search.json"
    result.save(path, {"predictor": "predictor.pt"})
    loaded = SearchResult.load(path, small_space)
    assert loaded == result
    assert loaded.seconds == result.seconds
    values = json.loads(path.read_text())
    assert values["provenance"] == {"predictor": "predictor.pt"}
    assert values["seed"] == 5
    assert values["space"] == {"name": "small", "fingerprint": small_space.fingerprint}
    assert values["best"]["id"] == result.best.config.id
    assert values["limits"] == [{"name": "macs", "maximum": 2e6, "unit": "MACs", "kind": ""}]
    assert values["metric"]["name"] == "top1" and values["metric"]["higher_is_better"]


def test_damaged_files_are_user_errors(
    result: SearchResult, small_space: StagedSpace, tmp_path: Path
) -> None:
    path = tmp_path / "search.json"
    with pytest.raises(UserError, match="No search result at") as caught:
        SearchResult.load(path, small_space)
    assert caught.value.stage == "search"
    result.save(path, {})
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match="is truncated"):
        SearchResult.load(path, small_space)
    values = json.loads(text)
    path.write_text(json.dumps({**values, "schema_version": 99}))
    with pytest.raises(UserError, match="schema_version 99; expected 1"):
        SearchResult.load(path, small_space)
    for name in set(values) - {"schema_version", "best", "provenance", "metric"}:
        path.write_text(json.dumps({key: value for key, value in values.items() if key != name}))
        with pytest.raises(UserError, match=f"damaged .*'{name}' is missing"):
            SearchResult.load(path, small_space)
    for name, wrong in (("ranked", []), ("ranked", [3]), ("limits", [{"name": "x"}]), ("front", None)):
        path.write_text(json.dumps({**values, name: wrong}))
        with pytest.raises(UserError, match="damaged"):
            SearchResult.load(path, small_space)


def test_all_files_of_a_result_are_written(result: SearchResult, tmp_path: Path) -> None:
    save_all(result, tmp_path / "search.json", {})
    names = {"search.json", "search.png", "search.csv"}
    assert {entry.name for entry in tmp_path.iterdir()} == names
    assert (tmp_path / "search.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with (tmp_path / "search.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [candidate.config.id for candidate in result.front]
    for row, candidate in zip(rows, result.front, strict=True):
        assert SubnetConfig.from_dict(json.loads(row["subnet"])) == candidate.config
        assert float(row["accuracy"]) == pytest.approx(candidate.accuracy, rel=1e-8)
        assert float(row["macs"]) == pytest.approx(candidate.values["macs"], rel=1e-8)


def test_the_report_shows_the_ends_of_the_front_and_the_best(
    result: SearchResult, small_space: StagedSpace
) -> None:
    limit = Limit("macs", compile_cost(small_space, macs), 2e6, "MACs")
    text = report(result, [limit])
    assert f"best of {result.evaluations} candidates, found in {result.seconds:.1f} s: " in text
    share = round(100 * result.best.values["macs"] / 2e6)
    value = limit.show(result.best.values["macs"], 4)
    assert f"macs: {value}, {share} % of the limit 2000000 MACs" in text
    assert all(result.front[end].config.id in text for end in (0, -1))
    assert max(map(len, text.splitlines())) <= 80
    # The best network in words, each of its numbers.
    assert f"  input: {result.best.config.resolution} x {result.best.config.resolution} px" in text
    for number, stage in enumerate(result.best.config.stages, 1):
        (line,) = (line for line in text.splitlines() if line.startswith(f"  stage {number}: "))
        kernels = " ".join(str(block.kernel_size) for block in stage)
        ratios = " ".join(f"{block.expand_ratio:g}" for block in stage)
        assert line.partition(";")[2] == f" kernels {kernels}, expand {ratios}"
        assert f"{len(stage)} block" in line


def test_the_best_of_a_front_within_tighter_limits(result: SearchResult) -> None:
    for candidate in result.front:
        assert result.best_within([candidate.values["macs"]]) == candidate
    cheapest = result.front[0].values["macs"]
    with pytest.raises(UserError, match=r"keeps macs <= 1; the front has macs from [\d.e+]+ to [\d.e+]+\."):
        result.best_within([1.0])
    with pytest.raises(UserError, match="2 limits are given; the result has only macs"):
        result.best_within([cheapest, 1.0])


def test_shipped_settings_name_every_setting_with_its_default(root: Path) -> None:
    paths = sorted((root / "conf" / "search").glob("*.yaml"))
    assert {path.stem for path in paths} >= set(ALGORITHMS)
    for path in paths:
        plan = plan_search(yaml.safe_load(path.read_text()))
        assert plan.settings == ALGORITHMS[plan.algorithm].settings()
        assert set(yaml.safe_load(path.read_text())) == {"algorithm", *dataclasses.asdict(plan.settings)}


def test_wrong_plans_are_user_errors() -> None:
    known = ", ".join(sorted(ALGORITHMS))
    with pytest.raises(UserError, match=rf"search\.algorithm is missing; expected one of {known}\."):
        plan_search({})
    with pytest.raises(UserError, match=rf"Unknown search algorithm 'evolutoin'.*known: {known}"):
        plan_search({"algorithm": "evolutoin"})
    with pytest.raises(UserError, match="Unknown search algorithm"):
        plan_search({"algorithm": ["evolution"]})
    with pytest.raises(UserError) as caught:
        plan_search({"algorithm": "evolution", "generation": 3, "mutation_ratio": "high"})
    assert "search.generation is not a setting. Did you mean 'generations'?" in str(caught.value)
    assert "search.mutation_ratio is 'high'; expected a number." in str(caught.value)


def test_samples_are_spread_over_the_search(small_space: StagedSpace) -> None:
    plan = plan_search({"algorithm": "random", "evaluations": 1500})
    limit = Limit("macs", compile_cost(small_space, macs), 1e12)
    found = plan.run(small_space, compile_cost(small_space, parameters), [limit], seed=0)
    assert len(found.samples) == 500
    assert found.accuracy_evaluations == 1500
    assert np.array(found.samples).shape == (500, 2)


def test_plans_name_their_results(small_space: StagedSpace) -> None:
    bounded = Limit("latency_ms", compile_cost(small_space, macs), 3.5, "ms")
    unbounded = Limit("memory_mb", compile_cost(small_space, macs), float("inf"), "MB")
    assert plan_search({"algorithm": "evolution"}).result_name("phone", [bounded]) == "phone-3.5ms"
    names = plan_search({"algorithm": "pareto"}).result_name("phone", [bounded, unbounded])
    assert names == "phone-pareto-3.5ms-memory_mb"


def test_a_search_without_limits_has_the_latency_as_objective() -> None:
    assert LimitSettings().or_latency() == LimitSettings(latency_ms=float("inf"))
    assert LimitSettings(macs_m=3.0).or_latency() == LimitSettings(macs_m=3.0)


def test_networks_are_chosen_by_name_and_limit(
    result: SearchResult, small_space: StagedSpace, tmp_path: Path
) -> None:
    result.save(tmp_path / "phone.json", {})
    middle = result.front[len(result.front) // 2]
    assert select_subnet(small_space, "smallest", tmp_path).config == small_space.smallest
    assert select_subnet(small_space, "phone", tmp_path).config == result.best.config
    for name in (f"phone@{middle.values['macs']}", f"{tmp_path / 'phone.json'}@{middle.values['macs']}"):
        assert select_subnet(small_space, name, tmp_path).config == middle.config
    with pytest.raises(
        UserError, match="No search result 'tablet@3'; known: smallest, middle, largest, phone"
    ):
        select_subnet(small_space, "tablet@3", tmp_path)
    with pytest.raises(UserError, match="'phone@fast' has limits that are not numbers"):
        select_subnet(small_space, "phone@fast", tmp_path)
    with pytest.raises(UserError, match="No candidate of the front keeps macs <= 2"):
        select_subnet(small_space, "phone@2", tmp_path)
