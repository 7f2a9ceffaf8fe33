"""Tests of ofa.common.errors."""

from __future__ import annotations

from ofa.common.errors import UserError, unknown_name


def test_unknown_name_lists_the_known_ones_and_the_closest() -> None:
    error = unknown_name("device", "my_cpuu", ["note10", "my_cpu"])
    assert isinstance(error, UserError) and isinstance(error, ValueError)
    assert str(error) == "Unknown device 'my_cpuu'; known: my_cpu, note10. Did you mean 'my_cpu'?"


def test_unknown_name_without_anything_close_or_known() -> None:
    assert str(unknown_name("space", "zzz", ["micro"])) == "Unknown space 'zzz'; known: micro."
    assert str(unknown_name("space", 3, [])) == "Unknown space 3; known: none."
