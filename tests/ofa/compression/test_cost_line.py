"""The line through two measured networks: what to aim at, and what to expect of a plan."""

from __future__ import annotations

import pytest

from ofa.compression.cost_line import CostLine


def test_the_line_goes_through_both_networks() -> None:
    line = CostLine((2.0, 3.0), (6.0, 9.0))
    assert (line.measured(2.0), line.measured(4.0), line.total(6.0)) == (3.0, 6.0, 4.0)
    # Nothing is expected beyond what was measured.
    assert (line.measured(1.0), line.measured(10.0)) == (3.0, 9.0)


def test_measured_networks_move_the_ends_towards_the_limit() -> None:
    line = CostLine((1.0, 1.0), (10.0, 10.0))
    above = line.closer((5.0, 7.0), limit=6.0)
    assert above == CostLine((1.0, 1.0), (5.0, 7.0))
    below = above.closer((4.0, 5.0), limit=6.0)
    assert below == CostLine((4.0, 5.0), (5.0, 7.0))
    assert below.closer((3.0, 3.5), limit=6.0) == below
    assert below.total(6.0) == pytest.approx(4.5)


def test_noise_that_gives_one_sum_two_costs_leaves_the_line() -> None:
    line = CostLine((1.0, 1.0), (5.0, 7.0))
    assert line.closer((5.0, 5.5), limit=6.0) == line
