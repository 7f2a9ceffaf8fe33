"""Results as files and figures, and algorithms by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from ofa.cost import compile_cost, macs, parameters
from ofa.errors import UserError
from ofa.space import SearchSpace
from search.constraints import Limit
from search.plot import plot_result
from search.registry import ALGORITHMS, plan_search
from search.result import SearchResult


@pytest.fixture(params=["evolution", "random"])
def result(small_space: SearchSpace, request: pytest.FixtureRequest) -> SearchResult:
    sizes = {
        "evolution": {"population_size": 10, "generations": 6},
        "random": {"evaluations": 60, "batch_size": 20},
    }
    plan = plan_search({"algorithm": request.param, **sizes[request.param]})
    limit = Limit("macs", compile_cost(small_space, macs), 2e6, "MACs")
    return plan.run(small_space, compile_cost(small_space, parameters), [limit], seed=5)


def test_save_and_load_round_trip(result: SearchResult, small_space: SearchSpace, tmp_path: Path) -> None:
    path = tmp_path / "run" / "search.json"
    result.save(path, {"predictor": "predictor.pt"})
    loaded = SearchResult.load(path)
    assert loaded == result
    assert loaded.seconds == result.seconds
    values = json.loads(path.read_text())
    assert values["provenance"] == {"predictor": "predictor.pt"}
    assert values["seed"] == 5
    assert values["space"] == {"name": "small", "fingerprint": small_space.fingerprint}
    assert values["best"]["id"] == result.best.config.id
    assert values["limits"] == [{"name": "macs", "maximum": 2e6, "unit": "MACs"}]


def test_damaged_files_are_user_errors(result: SearchResult, tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    with pytest.raises(UserError, match=r"No search result at .*Make one with"):
        SearchResult.load(path)
    result.save(path, {})
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match="may be truncated"):
        SearchResult.load(path)
    values = json.loads(text)
    path.write_text(json.dumps({**values, "schema_version": 99}))
    with pytest.raises(UserError, match="schema_version 99; expected 1"):
        SearchResult.load(path)
    for name in set(values) - {"schema_version", "best", "provenance"}:
        path.write_text(json.dumps({key: value for key, value in values.items() if key != name}))
        with pytest.raises(UserError, match=f"damaged .*'{name}' is missing"):
            SearchResult.load(path)
    for name, wrong in (("ranked", []), ("ranked", [3]), ("limits", [{"name": "x"}]), ("front", None)):
        path.write_text(json.dumps({**values, name: wrong}))
        with pytest.raises(UserError, match="damaged"):
            SearchResult.load(path)


def test_plot_writes_a_picture(result: SearchResult, tmp_path: Path) -> None:
    path = tmp_path / "search.png"
    plot_result(result, path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["search.png"]


def test_shipped_settings_name_every_setting_with_its_default(root: Path) -> None:
    paths = sorted((root / "conf" / "search").glob("*.yaml"))
    assert {path.stem for path in paths} >= set(ALGORITHMS)
    for path in paths:
        plan = plan_search(yaml.safe_load(path.read_text()))
        assert plan.settings == ALGORITHMS[plan.algorithm].settings()
        assert set(yaml.safe_load(path.read_text())) == {"algorithm", *dataclasses.asdict(plan.settings)}


def test_wrong_plans_are_user_errors() -> None:
    with pytest.raises(UserError, match=r"algorithm is missing; expected one of evolution, pareto, random"):
        plan_search({})
    with pytest.raises(
        UserError, match=r"Unknown search algorithm 'evolutoin'.*known: evolution, pareto, random"
    ):
        plan_search({"algorithm": "evolutoin"})
    with pytest.raises(UserError, match="Unknown search algorithm"):
        plan_search({"algorithm": ["evolution"]})
    with pytest.raises(UserError) as caught:
        plan_search({"algorithm": "evolution", "generation": 3, "mutation_ratio": "high"})
    assert "search.generation is not a setting. Did you mean 'generations'?" in str(caught.value)
    assert "search.mutation_ratio is 'high'; expected a number." in str(caught.value)


def test_samples_are_spread_over_the_search(small_space: SearchSpace) -> None:
    plan = plan_search({"algorithm": "random", "evaluations": 1500})
    limit = Limit("macs", compile_cost(small_space, macs), 1e12)
    found = plan.run(small_space, compile_cost(small_space, parameters), [limit], seed=0)
    assert len(found.samples) == 500
    assert found.accuracy_evaluations == 1500
    assert np.array(found.samples).shape == (500, 2)
