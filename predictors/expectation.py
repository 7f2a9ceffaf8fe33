"""What a predictor lets expect of a network: the value with its ± and with what stands behind it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from ofa.common.errors import UserError
from ofa.common.expectation import PREDICTED, MetricValue
from ofa.common.metric import DEFAULT_METRIC, Metric
from ofa.space.config import AnyConfig
from ofa.space.space import SearchSpace
from predictors.load import load_predictor
from predictors.model.predictor import AccuracyPredictor

_SAME = 1e-4
"""Values of the metric that differ by less are of the same predictor, on another machine perhaps."""


def predicted_value(
    value: float,
    config: AnyConfig,
    predictor: Path,
    space: SearchSpace,
    metric: Metric = DEFAULT_METRIC,
    *,
    num_candidates: int = 0,
) -> MetricValue:
    """Return a value that a search predicted for a network, with what its predictor knows of it.

    Args:
        value: predicted value of `metric`, clipped to its range.
        config: the network.
        predictor: file of the predictor of the run. Where it is missing, knows no errors, or predicts another
            value, because it was fitted again since, nothing is added.
        space: space of the network.
        metric: the predicted metric.
        num_candidates: number of predictions of which the search chose this one.
    """
    alone = MetricValue(
        metric.name, value, source=PREDICTED, split="validation", num_candidates=num_candidates
    )
    try:
        fitted = load_predictor(predictor, space)
    except UserError:
        return alone
    genomes = space.unrestricted.genomes([config])
    if not isinstance(fitted, AccuracyPredictor) or fitted.metric != metric:
        return alone
    known = float(fitted(genomes)[0])
    if metric.is_fraction:
        known = float(np.clip(known, 0.0, 1.0))
    if abs(known - value) > _SAME:
        return alone
    info = fitted.info
    return dataclasses.replace(
        alone,
        deviation=float(fitted.uncertainty(genomes)[0]),
        images=info.provenance.get("validation", ""),
        best_record=info.best_value,
        num_records=info.num_records,
    )
