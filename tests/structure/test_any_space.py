"""Collection, predictor and search need genes and nothing else: a made-up space, network and metric."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.common.metric import Metric
from ofa.space.genes import Condition, Gene, Genomes
from ofa.space.plain import GeneConfig, GeneSpace
from predictors.collection.collect import STRATEGIES, CollectionPlan, collect_records
from predictors.fitting import fit_predictor
from predictors.load import load_predictor
from predictors.quality import format_metrics
from predictors.records import RecordFile
from predictors.settings import FitSettings
from search.algorithms.registry import ALGORITHMS, plan_search
from search.find import find
from search.limits.limit import Limit
from search.limits.named import LimitSettings, build_limits
from search.reports.files import save_all
from search.reports.text import report
from search.result.result import SearchResult
from search.result.select import select_subnet

SPACE = GeneSpace(
    "toy",
    (
        Gene("resolution", (8, 12, 16), "resolution"),
        Gene("hidden", (0, 4, 8, 16), "hidden"),
        Gene("power", (0.5, 1.0, 2.0), "power", "hidden", Condition("hidden", (4, 8, 16))),
    ),
)
ERROR = Metric("mae_mm", "error", higher_is_better=False, is_fraction=False)
SIZES = {"population_size": 8, "generations": 6, "evaluations": 60, "batch_size": 20}
"""Settings that make searches short, of those algorithms that have them."""


class ToySupernet(nn.Module):
    """One network that computes all sub-networks of `SPACE`."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 16 * 16).view(16, 16))

    def forward(self, images: Tensor, config: GeneConfig) -> Tensor:
        values = dict(config.values)
        rows = self.weight[: int(values["hidden"])]
        return images.mean((1, 2, 3)) + (rows.abs() ** values.get("power", 1.0)).sum() / 100


def error_mm(config: GeneConfig) -> float:
    """Return the distance of the toy's output from 0.7 plus a share of the resolution."""
    with torch.no_grad():
        images = torch.full((1, 1, config.resolution, config.resolution), 0.05)
        return abs(0.7 - float(ToySupernet()(images, config))) + 0.1 / config.resolution


def milliseconds(genomes: Genomes) -> NDArray[np.float64]:
    return np.asarray(1.0 + genomes.astype(float) @ np.array([1.0, 2.0, 0.25]))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "records.jsonl"
    file = RecordFile.open(path, SPACE, {"toy": "yes"}, metric=ERROR)
    collect_records(SPACE, file, error_mm, CollectionPlan(24))
    return path


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_collects(tmp_path: Path, strategy: str) -> None:
    file = RecordFile.open(tmp_path / "r.jsonl", SPACE, {}, metric=ERROR)
    collect_records(SPACE, file, error_mm, CollectionPlan(20, strategy=strategy))
    assert len(file) == 20 and file.values.tolist() == [error_mm(config) for config in file.configs]


def test_records_name_their_metric(records: Path) -> None:
    header, line = map(json.loads, records.read_text().splitlines()[:2])
    assert header["metric"]["name"] == "mae_mm" and "mae_mm" in line and "top1" not in line
    with pytest.raises(UserError, match="are of the metric mae_mm; expected top1"):
        RecordFile.open(records, SPACE, {"toy": "yes"})
    with pytest.raises(UserError, match="mae_mm is nan; expected a finite number"):
        RecordFile.open(records, SPACE, {"toy": "yes"}, metric=ERROR).append(SPACE.middle, float("nan"))


def test_a_predictor_is_fitted_saved_and_loaded(records: Path, tmp_path: Path) -> None:
    read = RecordFile.read(records, SPACE)
    configs, values = read.configs, read.values
    genomes, metric = SPACE.genomes(configs), read.header.metric
    settings = FitSettings(hidden_units=64, members=8, max_iterations=10)
    fitted = fit_predictor(SPACE, genomes, values, settings, 0, {}, metric=metric)
    assert "RMSE of error" in {column.header for column in format_metrics(fitted.predictor.info).columns}
    fitted.predictor.save(tmp_path / "predictor.pt")
    loaded = load_predictor(tmp_path / "predictor.pt", SPACE)
    assert loaded.metric == ERROR
    assert np.array_equal(loaded(genomes), fitted.predictor(genomes))
    assert np.corrcoef(loaded(genomes), values)[0, 1] > 0.9


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_algorithm_finds_the_lowest_error(tmp_path: Path, algorithm: str) -> None:
    def errors(genomes: Genomes) -> NDArray[np.float64]:
        return np.array([error_mm(SPACE.config(genome)) for genome in genomes])

    limits = [Limit("latency_ms", milliseconds, 7.0, "ms")]
    fields = {field.name for field in dataclasses.fields(ALGORITHMS[algorithm].settings)}
    sizes = {name: size for name, size in SIZES.items() if name in fields}
    plan = plan_search({"algorithm": algorithm, **sizes})
    result = find(SPACE, errors, limits, plan=plan, metric=ERROR)
    everything = SPACE.all_genomes()
    inside = everything[milliseconds(everything) <= 7.0]
    assert result.best.accuracy == pytest.approx(errors(inside).min())
    assert result.algorithm == algorithm
    assert result.metric == ERROR and min(c.accuracy for c in result.front) == result.best.accuracy
    assert list(result.history) == sorted(result.history, reverse=True)
    text = report(result, limits)
    assert "predicted error: " in text and "top-1" not in text
    save_all(result, tmp_path / "toy.json", {})
    assert SearchResult.load(tmp_path / "toy.json", SPACE) == result
    selected = select_subnet(SPACE, "toy", tmp_path)
    assert (selected.config, selected.expected_value) == (result.best.config, result.best.accuracy)


def test_costs_that_are_not_known_are_named() -> None:
    with pytest.raises(UserError, match="The macs in space 'toy' are unknown; leave macs_m out"):
        build_limits(SPACE, LimitSettings(macs_m=1.0), None)
