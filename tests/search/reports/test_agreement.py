"""The report of a run judges predictions: how many agree, and a line for each that does not."""

from __future__ import annotations

import dataclasses

from ofa.architecture.cost import compile_cost, macs
from ofa.common.expectation import PREDICTED, MetricValue
from ofa.common.metric import TOP1
from ofa.space.staged import StagedSpace
from search.algorithms.registry import plan_search
from search.limits.limit import Limit
from search.reports.agreement import agreement_lines
from search.reports.run_report import ReportedNetwork

GOOD = ReportedNetwork(
    "good", None, 0.6, 0.59, 2.0, 2.05, 1, 1, expected=MetricValue("top1", 0.6, 0.02, PREDICTED, "validation")
)
BAD = dataclasses.replace(GOOD, name="bad", measured=0.4, measured_ms=3.0)
RANDOM = dataclasses.replace(BAD, name="")


def test_each_bundle_that_disagrees_has_a_line() -> None:
    lines = agreement_lines([GOOD, BAD, RANDOM], TOP1, "test", 400, 3.0)
    assert lines == [
        "top-1: predicted and measured agree within the errors for 1 of 2 bundles",
        "bad: predicted 60.0 ± 2.0 %, measured 40.0 ± 2.4 %: the predictor is too optimistic here, "
        "because the expectation is for validation, the measurement on test images",
        "latency: predicted and measured agree within the errors for 1 of 2 bundles",
        "bad: expected 2 ms, measured 3 ms: 50 % slower, more than twice the table's mean error of 3.0 %",
    ]


def test_the_gain_of_the_searches_is_measured(micro_space: StagedSpace) -> None:
    limit = Limit("macs", compile_cost(micro_space, macs), 1e9)
    plan = plan_search({"algorithm": "random", "evaluations": 20, "batch_size": 20})
    result = plan.run(micro_space, compile_cost(micro_space, macs), [limit], 0)
    found = [dataclasses.replace(GOOD, search=result, measured=value) for value in (0.6, 0.5)]
    drawn = [dataclasses.replace(RANDOM, measured=value) for value in (0.44, 0.46)]
    line = agreement_lines([*found, *drawn], TOP1, "test", 400)[-1]
    # 55 and 45 %; sqrt(0.45 * 0.55 / 400) is 2.49 points.
    assert line == (
        "measured: mean of 2 searched 55.00 %, of 2 random 45.00 %; gain 10.0, more than twice the standard "
        "error of the images (2.5)"
    )
    line = agreement_lines([*found, *drawn], TOP1, "test", 90)[-1]
    assert line.endswith("gain 10.0, not more than twice the standard error of the images (5.2)")
    assert not any("gain" in line for line in agreement_lines(found, TOP1, "test", 400))


def test_what_is_not_known_is_not_judged() -> None:
    other = ReportedNetwork("other", None, None, 0.5, None, 2.0, 1, 1)
    assert agreement_lines([other, RANDOM], TOP1, "test", 400, 3.0) == []
    # An imported table knows no error.
    (line,) = agreement_lines([GOOD], TOP1, "test", 400, None)
    assert line == "top-1: predicted and measured agree within the errors for 1 of 1 bundles"
