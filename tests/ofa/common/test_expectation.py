"""Expected values against measured ones: the verdict, its errors, and the reasons that are known."""

from __future__ import annotations

import dataclasses

import pytest

from ofa.common.expectation import (
    MEASURED,
    PREDICTED,
    MetricValue,
    agreement_line,
    agrees,
    measured_value,
)
from ofa.common.metric import TOP1, Metric

# 42.7 % of 150 images: sqrt(0.4283 * 0.5717 / 150) is 4.04 points, by hand.
MEASUREMENT = measured_value(TOP1, 0.427, "test", 150, "photographs")
PREDICTION = MetricValue("top1", 0.557, deviation=0.042, source=PREDICTED)


def test_a_prediction_far_above_the_measurement_is_too_optimistic() -> None:
    line = agreement_line(PREDICTION, MEASUREMENT, TOP1)
    assert line == "predicted 55.7 ± 4.2 %, measured 42.7 ± 4.0 %: the predictor is too optimistic here"
    low = dataclasses.replace(PREDICTION, value=0.297)
    assert agreement_line(low, MEASUREMENT, TOP1).endswith("the predictor is too pessimistic here")


def test_the_known_reasons_are_named() -> None:
    known = dataclasses.replace(
        PREDICTION,
        split="validation",
        images="90 images of photographs",
        best_record=0.52,
        num_records=24,
        num_candidates=5000,
    )
    line = agreement_line(known, MEASUREMENT, TOP1)
    assert line.partition(", because ")[2] == (
        "the best of 5000 predictions tends to be too good, "
        "the prediction lies beyond all records (the best has 52.00 %), "
        "it knows only 24 records and the expectation is for validation, the measurement on test images"
    )
    # A prediction below the best record, of many records, for the same images: no reason is made up.
    plain = dataclasses.replace(known, best_record=0.56, num_records=400, num_candidates=0, split="test")
    assert "because" not in agreement_line(plain, MEASUREMENT, TOP1)
    other = dataclasses.replace(plain, images="90 images of digits")
    assert agreement_line(other, MEASUREMENT, TOP1).endswith(
        ", because the images are of photographs, not of digits"
    )
    # What makes a prediction too high explains none that is too low.
    low = dataclasses.replace(known, value=0.2, best_record=0.1)
    line = agreement_line(low, MEASUREMENT, TOP1)
    assert "beyond all records" not in line and "the best of" not in line


@pytest.mark.parametrize(
    ("deviation", "num_images", "within"),
    # 2 * sqrt(4.2^2 + 4.04^2) is 11.7 points, 2 * sqrt(5.5^2 + 4.04^2) is 13.6; the difference is 13.
    [(0.042, 150, False), (0.055, 150, True), (None, 150, False), (0.066, 0, True), (None, 0, None)],
)
def test_two_joint_errors_are_within(deviation: float | None, num_images: int, within: bool | None) -> None:
    expected = dataclasses.replace(PREDICTION, deviation=deviation)
    measured = dataclasses.replace(MEASUREMENT, num_images=num_images)
    assert agrees(expected, measured, TOP1) is within
    line = agreement_line(expected, measured, TOP1)
    assert line.endswith("within the errors") == bool(within)
    if within is None:
        assert line == "predicted 55.70 %, measured 42.70 %: 13.0 points worse; no error is known"


def test_measured_expectations_say_on_what_and_have_their_standard_error() -> None:
    expected = measured_value(TOP1, 0.555, "validation", 238, "")
    line = agreement_line(expected, dataclasses.replace(MEASUREMENT, value=0.593, num_images=359), TOP1)
    assert line == (
        "expected 55.5 ± 3.2 % (measured on validation: 238 images), measured 59.3 ± 2.6 %: within the errors"
    )
    line = agreement_line(expected, dataclasses.replace(MEASUREMENT, value=0.3, num_images=359), TOP1)
    assert "%: worse than expected, because the expectation is for validation" in line


def test_old_values_without_any_facts_are_judged_by_what_there_is() -> None:
    old = MetricValue("top1", 0.557)
    assert old.origin == ""
    assert (
        agreement_line(old, MEASUREMENT, TOP1)
        == "expected 55.70 %, measured 42.7 ± 4.0 %: worse than expected"
    )
    assert MetricValue("top1", 0.5, source=MEASURED).origin == "measured on unknown images"
    assert MEASUREMENT.origin == "measured on test: 150 images of photographs"


def test_lower_errors_are_better() -> None:
    error = Metric("mm", "error", higher_is_better=False, is_fraction=False)
    expected = MetricValue("mm", 0.2, deviation=0.01, source=PREDICTED, best_record=0.3)
    line = agreement_line(expected, MetricValue("mm", 0.5), error)
    assert "predicted 0.200 ± 0.010, measured 0.50: the predictor is too optimistic here" in line
    assert "beyond all records (the best has 0.30)" in line
