"""The time of a collection and a quicker count, said after two networks."""

from __future__ import annotations

import pytest

from predictors.collection.pace import CollectionPace


def lines_of(seconds: list[float], count: int, first: int = 0, at_once: int = 1) -> list[str]:
    lines: list[str] = []
    pace = CollectionPace(lines.append)
    for number, value in enumerate(seconds, 1):
        pace.add(value, first + number * at_once, count, at_once)
    return lines


@pytest.mark.parametrize(
    ("seconds", "count", "at_once", "lines"),
    [
        # The mean of 1 to e s, evenly spread in the logarithm, is e - 1 = 1.72 s.
        ([1.0, 2.718281828], 302, 1, ["about 9 min for 300 more sub-networks; count=172 takes about 5 min"]),
        (
            [2.718281828, 1.0, 99.0],
            302,
            1,
            ["about 9 min for 300 more sub-networks; count=172 takes about 5 min"],
        ),
        ([1.0, 2.718281828], 600, 2, ["about 9 min for 596 more sub-networks; count=344 takes about 5 min"]),
        ([3.0, 3.0], 90, 1, []),
        # So slow that no useful count takes five minutes.
        ([60.0, 60.0], 62, 1, ["about 60 min for 60 more sub-networks"]),
        ([1.0], 1000, 1, []),
    ],
)
def test_the_time_and_a_quicker_count_are_said_once(
    seconds: list[float], count: int, at_once: int, lines: list[str]
) -> None:
    assert lines_of(seconds, count, at_once=at_once) == lines
