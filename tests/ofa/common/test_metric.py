"""What networks are judged by."""

from __future__ import annotations

import pytest

from ofa.common.metric import TOP1, Metric

ERROR = Metric("mae_mm", "error", higher_is_better=False, is_fraction=False)


def test_values_are_shown_with_their_unit() -> None:
    assert TOP1.show(0.98765) == "98.77 %" and TOP1.label == "top-1 [%]" and TOP1.heading == "top-1 %"
    assert ERROR.show(0.98765) == "0.99" and ERROR.label == ERROR.heading == "error"
    assert (TOP1.sign, ERROR.sign) == (1.0, -1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", None])
def test_what_is_no_number_is_no_value(value: object) -> None:
    assert TOP1.problem(value) and ERROR.problem(value)


def test_only_fractions_are_bounded() -> None:
    assert TOP1.problem(1.5) == "top1 is 1.5; expected a fraction from 0 to 1."
    assert ERROR.problem(1.5) is None and TOP1.problem(0) is None
