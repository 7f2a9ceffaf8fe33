"""What networks are judged by."""

from __future__ import annotations

import pytest

from ofa.common.metric import TOP1, Metric, indistinct

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


def test_a_share_has_the_standard_error_of_its_number_of_images() -> None:
    # By hand: sqrt(0.812 * 0.188 / 600) is 1.595 points.
    assert TOP1.standard_error(0.812, 600) == pytest.approx(0.01595, rel=1e-2)
    assert TOP1.show_with_error(0.812, 600) == "81.2 ± 1.6 %"
    for share in (0.1, 0.5, 0.9):
        plain = (share * (1 - share) / 10_000) ** 0.5
        assert TOP1.standard_error(share, 10_000) == pytest.approx(plain, rel=1e-2)
    # Thirty right answers of thirty are not certain, and 0 and 1 are equally uncertain.
    error = TOP1.standard_error(1.0, 30)
    assert error == pytest.approx((31 / 32 * 1 / 32 / 30) ** 0.5) == TOP1.standard_error(0.0, 30)
    assert TOP1.show_with_error(1.0, 30) == "100.0 ± 3.2 %"
    assert ERROR.standard_error(0.5, 100) is None and ERROR.show_with_error(0.5, 100) == "0.50"
    assert TOP1.standard_error(0.5, 0) is None


def test_networks_closer_than_the_standard_error_are_named_so() -> None:
    # sqrt(0.25 / 100) is 5 points.
    text = indistinct(TOP1, (0.47, 0.49, 0.5), 100)
    assert text is not None and text.startswith("differ by 3.0 points, less than the standard error of 100")
    assert "(5.0)" in text
    assert indistinct(TOP1, (0.42, 0.49, 0.5), 100) is None
    assert indistinct(TOP1, (0.5,), 100) is None
    assert indistinct(ERROR, (0.5, 0.5), 100) is None
