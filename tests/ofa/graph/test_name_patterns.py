"""Lines of many similar names: equal answers are one line, and no name is lost."""

from __future__ import annotations

import pytest

from ofa.graph.name_patterns import joined_names


@pytest.mark.parametrize(
    ("names", "patterns"),
    [
        (["stem"], ["stem"]),
        (["layer1.0.conv1", "layer1.1.conv1"], ["layer1.*.conv1"]),
        (["a.0", "a.1", "b.0"], ["a.*", "b.0"]),
        (["mixed_4b.c", "mixed_4c.c", "mixed_5a.c"], ["mixed_*.c"]),
        (["x.9", "x.10", "x"], ["x.*", "x"]),
    ],
)
def test_names_that_differ_in_numbers_are_one_pattern(names: list[str], patterns: list[str]) -> None:
    assert [pattern for pattern, _, _ in joined_names([(name, "yes") for name in names])] == patterns


def test_other_answers_are_lines_of_their_own_with_their_numbers() -> None:
    answers = [(f"block.{i}.conv", "no" if i in (2, 3, 4, 8) else "yes") for i in range(10)]
    assert joined_names(answers) == [
        ("block.{0-1,5-7,9}.conv", 6, "yes"),
        ("block.{2-4,8}.conv", 4, "no"),
    ]


def test_long_lists_of_numbers_are_shortened() -> None:
    answers = [(f"a.{i}", "odd" if i % 2 else "even") for i in range(40)]
    assert [pattern for pattern, _, _ in joined_names(answers)] == ["a.{0,…,38}", "a.{1,…,39}"]


def test_numbers_of_letters_are_listed_in_order() -> None:
    answers = [(f"cell{n}", "yes" if n != "3b" else "no") for n in ("10a", "3c", "3b")]
    assert joined_names(answers) == [("cell{3c,10a}", 2, "yes"), ("cell3b", 1, "no")]
