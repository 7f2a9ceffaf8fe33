"""How far a search's predictions can be trusted: their ±, and predictions beyond all records."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ofa.architecture.cost import compile_cost, macs
from ofa.common.metric import Metric
from ofa.space.staged import StagedSpace
from search.algorithms.registry import plan_search
from search.limits.limit import Limit
from search.reports.text import report
from search.reports.trust import PredictionFacts, prediction_lines
from search.result.result import SearchResult


@pytest.fixture(scope="module")
def found(micro_space: StagedSpace) -> tuple[SearchResult, Limit]:
    cost = compile_cost(micro_space, macs)
    plan = plan_search({"algorithm": "evolution", "population_size": 20, "generations": 3})
    limit = Limit("macs", cost, float(cost(micro_space.genomes([micro_space.middle]))[0]), "MACs")
    result = plan.run(micro_space, lambda genomes: np.log(cost(genomes)) / 100, [limit], 0)
    first = dataclasses.replace(result.front[0], accuracy=0.52)
    last = dataclasses.replace(result.front[-1], accuracy=0.557)
    return dataclasses.replace(result, front=(first, last), ranked=(last, first)), limit


def test_a_prediction_has_its_deviation(found: tuple[SearchResult, Limit]) -> None:
    result, limit = found
    lines = prediction_lines(result, PredictionFacts(0.021, 0.56))
    assert lines == ["predicted top-1: 55.7 ± 2.1 % (standard deviation of a measurement)"]
    # Of an imported predictor nothing is known.
    assert report(result, [limit]).splitlines()[-1] == "predicted top-1: 55.70 %"


def test_a_prediction_beyond_all_records_is_warned_of(found: tuple[SearchResult, Limit]) -> None:
    result, _ = found
    _, warning = prediction_lines(result, PredictionFacts(0.01, 0.52))
    assert "55.70 % is predicted, the best measured of the predictor's records is 52.00 %" in warning
    assert len(prediction_lines(result, PredictionFacts(0.01, 0.557))) == 1
    assert len(prediction_lines(result, PredictionFacts(None, 0.52))) == 2
    # Of an error the lower values are beyond.
    error = dataclasses.replace(result, metric=Metric("mm", "error", False, False))
    assert len(prediction_lines(error, PredictionFacts(0.01, 0.52))) == 1
    assert len(prediction_lines(error, PredictionFacts(0.01, 0.6))) == 2


def test_a_front_within_the_deviation_is_warned_of(found: tuple[SearchResult, Limit]) -> None:
    result, _ = found
    _, warning = prediction_lines(result, PredictionFacts(0.04, 0.6))
    assert warning.startswith("warning: the 2 networks of the front are predicted within 3.7 of each other")
    assert len(prediction_lines(result, PredictionFacts(0.036, 0.6))) == 1
    alone = dataclasses.replace(result, front=result.front[:1])
    assert len(prediction_lines(alone, PredictionFacts(0.04, 0.6))) == 1
