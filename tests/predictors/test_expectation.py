"""What a predictor adds to the value that a search predicted, and where it adds nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ofa.common.expectation import PREDICTED, MetricValue
from ofa.common.metric import Metric
from ofa.space.staged import StagedSpace
from predictors.expectation import predicted_value
from predictors.fitting import fit_mlp
from predictors.model.predictor import AccuracyPredictor, PredictorInfo
from predictors.settings import FitSettings


@pytest.fixture
def predictor(micro_space: StagedSpace, tmp_path: Path) -> AccuracyPredictor:
    """A predictor of 0.31, 0.32, … that is saved as predictor.pt."""
    genomes = micro_space.all_genomes()[:12]
    values = 0.3 + 0.01 * (1 + genomes.sum(axis=1))
    info = PredictorInfo({}, {}, 0, 12, 3, {"validation": "90 images of toy"}, best_value=0.55)
    fitted = fit_mlp(micro_space, genomes, values, FitSettings(hidden_units=8, members=2), 0, info)
    fitted.save(tmp_path / "predictor.pt")
    return fitted


def test_the_errors_of_the_predictor_are_added(
    predictor: AccuracyPredictor, micro_space: StagedSpace, tmp_path: Path
) -> None:
    config = micro_space.middle
    genomes = micro_space.genomes([config])
    value = float(predictor(genomes)[0])
    known = predicted_value(value, config, tmp_path / "predictor.pt", micro_space, num_candidates=77)
    assert known.deviation == pytest.approx(float(predictor.uncertainty(genomes)[0]))
    assert known == MetricValue(
        "top1",
        value,
        known.deviation,
        PREDICTED,
        "validation",
        "90 images of toy",
        best_record=0.55,
        num_records=12,
        num_candidates=77,
    )
    # Of a restricted space, too.
    narrow = micro_space.restrict({"resolution": [micro_space.smallest.resolution]})
    assert predicted_value(value, config, tmp_path / "predictor.pt", narrow).deviation is not None


def test_nothing_is_added_by_a_predictor_that_did_not_make_the_value(
    predictor: AccuracyPredictor, micro_space: StagedSpace, tmp_path: Path
) -> None:
    config, path = micro_space.middle, tmp_path / "predictor.pt"
    value = float(predictor(micro_space.genomes([config]))[0])
    alone = MetricValue("top1", value, source=PREDICTED, split="validation")
    # It is missing; it was fitted again; it is of another metric.
    assert predicted_value(value, config, tmp_path / "none.pt", micro_space) == alone
    later = value + 0.01
    assert predicted_value(later, config, path, micro_space) == dataclasses.replace(alone, value=later)
    error = Metric("mm", "error", higher_is_better=False, is_fraction=False)
    assert predicted_value(value, config, path, micro_space, error).deviation is None
