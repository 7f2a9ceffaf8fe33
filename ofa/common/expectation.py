"""What was expected of a network before it was measured, and whether the measurement agrees."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ofa.common.metric import Metric

PREDICTED, MEASURED = "predicted", "measured"
NUM_ERRORS = 2.0
"""A difference of more than this many joint standard errors is not put down to chance."""

FEW_RECORDS = 50
"""A predictor of fewer records is named as a reason."""


@dataclass(frozen=True)
class MetricValue:
    """The value of a metric, a share from 0 to 1 or any number. Beside name and value all may be unknown.

    Attributes:
        name: name of the metric.
        value: the value.
        deviation: standard deviation of a measured value around a prediction.
        source: "predicted" or "measured".
        split: split of the images, e.g. "validation".
        images: number and set of the images, e.g. "238 images of digits".
        num_images: number of the images of a measured value; 0 if it is not known.
        best_record: best measured value among the records of the predictor.
        num_records: number of records of the predictor; 0 if it is not known.
        num_candidates: number of predictions of which this is the best; 0 if it was not chosen like that.
    """

    name: str
    value: float
    deviation: float | None = None
    source: str = ""
    split: str = ""
    images: str = ""
    num_images: int = 0
    best_record: float | None = None
    num_records: int = 0
    num_candidates: int = 0

    def error(self, metric: Metric) -> float | None:
        """Return the standard deviation of a prediction or the standard error of a measurement, if known."""
        if self.deviation is not None or self.source != MEASURED:
            return self.deviation
        return metric.standard_error(self.value, self.num_images)

    def text(self, metric: Metric) -> str:
        """Return the value with its ± and unit, e.g. "55.7 ± 4.2 %"."""
        error = self.error(metric)
        return metric.show(self.value) if error is None else metric.show_range(self.value, error)

    @property
    def origin(self) -> str:
        """Where the value is from, e.g. "predicted for validation: 238 images of digits"; may be empty."""
        if not self.source:
            return ""
        where = ": ".join(part for part in (self.split, self.images) if part)
        return f"{self.source} {'for' if self.source == PREDICTED else 'on'} {where or 'unknown images'}"


def measured_value(metric: Metric, value: float, split: str, num_images: int, set_name: str) -> MetricValue:
    """Return a value that was measured on images of a split; `set_name` may be empty."""
    images = f"{num_images} images of {set_name}" if set_name else f"{num_images} images"
    return MetricValue(metric.name, value, None, MEASURED, split, images, num_images)


def agreement_line(expected: MetricValue, measured: MetricValue, metric: Metric) -> str:
    """Return a line that judges an expected value by a measured one.

    Args:
        expected: value that was expected, of the same metric.
        measured: value that was measured.
        metric: the metric.
    """
    first = f"{expected.source or 'expected'} {expected.text(metric)}"
    if expected.source == MEASURED:
        first = f"expected {expected.text(metric)} ({expected.origin})"
    return f"{first}, measured {measured.text(metric)}: {_judgement(expected, measured, metric)}"


def agrees(expected: MetricValue, measured: MetricValue, metric: Metric) -> bool | None:
    """Return whether two values are within `NUM_ERRORS` joint errors; None if no error is known."""
    errors = [error for value in (expected, measured) if (error := value.error(metric)) is not None]
    if not errors:
        return None
    return abs(expected.value - measured.value) <= NUM_ERRORS * math.hypot(*errors)


def _judgement(expected: MetricValue, measured: MetricValue, metric: Metric) -> str:
    gain = metric.gain(measured.value, expected.value)
    direction = "better" if gain > 0 else "worse"
    is_within = agrees(expected, measured, metric)
    if is_within:
        return "within the errors"
    if is_within is None:
        unit = "points" if metric.is_fraction else metric.title
        return f"{abs(gain):.{metric.digits}f} {unit} {direction}; no error is known"
    text = f"{direction} than expected"
    if expected.source == PREDICTED:
        text = f"the predictor is too {'pessimistic' if gain > 0 else 'optimistic'} here"
    facts = _reasons(expected, measured, metric, gain)
    if not facts:
        return text
    *first_facts, last = facts
    return f"{text}, because {', '.join(first_facts)}{' and ' if first_facts else ''}{last}"


def _reasons(expected: MetricValue, measured: MetricValue, metric: Metric, gain: float) -> list[str]:
    """Return the known facts that make a difference plausible."""
    reasons, best = [], expected.best_record
    if gain < 0 and expected.num_candidates > 1:
        reasons.append(f"the best of {expected.num_candidates} predictions tends to be too good")
    if gain < 0 and best is not None and metric.sign * expected.value > metric.sign * best:
        reasons.append(f"the prediction lies beyond all records (the best has {metric.show(best)})")
    if 0 < expected.num_records < FEW_RECORDS:
        reasons.append(f"it knows only {expected.num_records} records")
    if expected.split and measured.split and expected.split != measured.split:
        reasons.append(f"the expectation is for {expected.split}, the measurement on {measured.split} images")
    sets = [value.images.partition(" of ")[2] for value in (expected, measured)]
    if all(sets) and sets[0] != sets[1]:
        reasons.append(f"the images are of {sets[1]}, not of {sets[0]}")
    return reasons
