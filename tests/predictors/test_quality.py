"""How a predictor is judged: cross-validation of few records, the better linear model, warnings."""

from __future__ import annotations

import dataclasses
import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from ofa.common.errors import UserError
from ofa.common.metric import Metric
from ofa.common.metrics import kendall_tau, rmse
from ofa.space.genes import Genomes
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec
from predictors.baselines import BASELINES, as_predictor, fit_baseline, fit_ridge, is_clearly_better
from predictors.fitting import FitReport, fit_mlp, fit_predictor
from predictors.holdout import fold_records, record_splits
from predictors.load import load_predictor
from predictors.model.predictor import AccuracyPredictor, PredictorInfo
from predictors.quality import format_metrics, warnings
from predictors.settings import FitSettings

SMALL = FitSettings(hidden_units=32, members=10, max_iterations=8)
STAGE = StageSpec(8, 2, (1, 2, 3), (3, 5, 7), (2, 3, 4), "relu", False)
SPACE = StagedSpace("small", "mobilenet_v3", (16, 24, 32), 8, 1, (STAGE, STAGE), (16, 16))


def make_records(count: int, noise: float = 0.001, seed: int = 0) -> tuple[Genomes, NDArray[np.float64]]:
    """Return networks and accuracies that are linear in the features, with noise."""
    rng = np.random.default_rng(seed)
    genomes = SPACE.sample(count, rng)
    slopes = np.random.default_rng(5).normal(0, 0.01, SPACE.num_features)
    return genomes, 0.6 + SPACE.encode(genomes) @ slopes + rng.normal(0, noise, count)


@cache
def few() -> FitReport:
    return fit_predictor(SPACE, *make_records(37), SMALL, 0, {})


def test_every_record_is_held_out_once() -> None:
    for count in (10, 37, 99):
        folds = record_splits(count, SMALL, 3)
        assert len(folds) == 5
        assert sorted(np.concatenate([fold.holdout_indices for fold in folds])) == list(range(count))
        for fold in folds:
            assert sorted([*fold.fit_indices, *fold.holdout_indices]) == list(range(count))
    assert len(record_splits(100, SMALL, 3)) == 1
    first, second, other = (fold_records(37, seed)[0].holdout_indices for seed in (3, 3, 4))
    assert np.array_equal(first, second) and not np.array_equal(first, other)
    with pytest.raises(UserError, match="9 accuracy records split into 7 for fitting and 2 held out"):
        record_splits(9, SMALL, 0)


def test_the_metrics_of_few_records_come_from_all_of_them() -> None:
    report, (genomes, top1) = few(), make_records(37)
    predicted, known = np.full(37, np.nan), np.full(37, np.nan)
    for fold in fold_records(37, 0):
        rows, held = fold.fit_indices, fold.holdout_indices
        predicted[held] = fit_mlp(SPACE, genomes[rows], top1[rows], SMALL, 0)(genomes[held])
        ridge = fit_baseline(BASELINES["ridge"], SPACE.encode(genomes[rows]), top1[rows], 0)
        known[held] = ridge(SPACE.encode(genomes[held]))
    for name, values in (("mlp", predicted), ("ridge", known)):
        assert report.metrics[name]["rmse_points"] == pytest.approx(100 * rmse(values, top1), rel=1e-6)
        assert report.metrics[name]["kendall_tau"] == pytest.approx(kendall_tau(values, top1))
    info = report.predictor.info
    assert (info.num_folds, info.num_holdout, info.num_records) == (5, 37, 37)
    assert info.best_value == top1.max()
    console = Console(file=io.StringIO(), width=100)
    console.print(format_metrics(info))
    assert "By 5-fold cross-validation of 37 sub-networks" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_best_value_of_a_metric_to_be_small_is_the_smallest() -> None:
    error = Metric("error", "error", higher_is_better=False, is_fraction=False)
    genomes, values = make_records(20)
    report = fit_predictor(SPACE, genomes, values, SMALL, 0, {}, metric=error)
    assert report.predictor.info.best_value == values.min()


def test_clearly_better_is_an_error_a_tenth_lower_and_a_higher_tau() -> None:
    base = {"rmse_points": 1.0, "kendall_tau": 0.5}
    assert is_clearly_better({"rmse_points": 0.9, "kendall_tau": 0.51}, base)
    assert not is_clearly_better({"rmse_points": 0.91, "kendall_tau": 0.9}, base)
    assert not is_clearly_better({"rmse_points": 0.5, "kendall_tau": 0.5}, base)


def test_a_linear_model_becomes_a_predictor_of_the_same_function(micro_resnet: StagedSpace) -> None:
    for space in (SPACE, micro_resnet):
        genomes = space.sample(60, np.random.default_rng(1))
        values = np.random.default_rng(2).normal(0.7, 0.1, 60)
        regressor = fit_baseline(fit_ridge, space.encode(genomes), values, 0)
        predictor = as_predictor(space, regressor, 0.02, PredictorInfo({}, {}, 0, 60, 0, {}, model="ridge"))
        fresh = space.sample(200, np.random.default_rng(3))
        np.testing.assert_allclose(predictor(fresh), regressor(space.encode(fresh)), atol=1e-6)
        np.testing.assert_allclose(predictor.uncertainty(fresh), 0.02)


@pytest.mark.parametrize("count", [60, 120])
def test_a_clearly_better_linear_model_is_fitted_saved_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    # An MLP that predicts the mean of its records, whatever the network.
    mean = fit_predictor(SPACE, make_records(60)[0], np.linspace(0.5, 0.5001, 60), SMALL, 0, {}).predictor
    calls: list[int] = []

    def poor_mlp(space: StagedSpace, genomes: Genomes, *given: object, **named: object) -> AccuracyPredictor:
        calls.append(len(genomes))
        return mean

    monkeypatch.setattr("predictors.fitting.fit_mlp", poor_mlp)
    genomes, top1 = make_records(count)
    predictor = fit_predictor(SPACE, genomes, top1, SMALL, 0, {"supernet": "x"}).predictor
    assert predictor.info.model == "ridge"
    # With many records a hold-out comes first; cross-validation of all decides.
    assert calls == ([48] * 5 if count == 60 else [96] * 6)
    fresh, actual = make_records(300, seed=9)
    regressor = fit_baseline(fit_ridge, SPACE.encode(genomes), top1, 0)
    np.testing.assert_allclose(predictor(fresh), regressor(SPACE.encode(fresh)), atol=1e-6)
    assert kendall_tau(predictor(fresh), actual) > 0.9
    deviation = predictor.info.metrics["ridge"]["rmse_points"] / 100
    np.testing.assert_allclose(predictor.uncertainty(fresh), deviation)
    predictor.save(tmp_path / "predictor.pt")
    loaded = load_predictor(tmp_path / "predictor.pt", SPACE)
    assert isinstance(loaded, AccuracyPredictor) and loaded.info == predictor.info
    np.testing.assert_array_equal(loaded(fresh), predictor(fresh))
    console = Console(file=io.StringIO(), width=120)
    console.print(format_metrics(predictor.info))
    assert "ridge is clearly better and used instead" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_linear_model_that_fails_cross_validation_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = iter([True, False])
    monkeypatch.setattr("predictors.fitting.is_clearly_better", lambda first, second: next(verdicts))
    predictor = fit_predictor(SPACE, *make_records(120), SMALL, 0, {}).predictor
    assert predictor.info.model == "mlp" and next(verdicts, None) is None


def info_of(tau: float, num_holdout: int, **others: dict[str, float]) -> PredictorInfo:
    metrics = {"mlp": {"rmse_points": 1.0, "kendall_tau": tau, "spearman": tau, "coverage": 0.9}, **others}
    return PredictorInfo(metrics, {}, 0, 200, num_holdout, {})


def test_poor_and_hardly_judged_predictors_are_warned_of() -> None:
    assert warnings(info_of(0.5, 20)) == []
    (poor,) = warnings(info_of(0.31, 40))
    assert poor.startswith("warning: Kendall tau of held-out sub-networks is 0.31, below 0.5")
    (unsure,) = warnings(info_of(0.9, 7))
    assert unsure.startswith("warning: the predictor is judged on 7 held-out sub-networks; fewer than 20")
    assert len(warnings(info_of(-0.2, 7))) == 2
    assert warnings(PredictorInfo({}, {}, 0, 20, 0, {})) == []
    linear = dataclasses.replace(
        info_of(0.9, 40, ridge={"rmse_points": 1, "kendall_tau": 0.2, "spearman": 0.2}), model="ridge"
    )
    assert "is 0.20, below 0.5" in warnings(linear)[0]


def test_a_better_model_that_cannot_be_stored_is_named() -> None:
    forest = {"rmse_points": 0.5, "kendall_tau": 0.95, "spearman": 0.95}
    (line,) = warnings(info_of(0.9, 40, **{"random forest": forest}))
    assert line.startswith("note: random forest would be clearly better, but of the baselines only ridge")
