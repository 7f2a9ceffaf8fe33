"""`joined_names`: many names with equal answers as few lines, such as "layer*.*.conv1 (8)"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_lowercase

# A number, with a letter behind it as in "inception4a".
_NUMBER = re.compile(r"(\d+[a-z]?(?![a-zA-Z]))")
# Longest list of numbers inside of a pattern.
_MAX_CHARS = 24


def joined_names(answers: Sequence[tuple[str, str]]) -> list[tuple[str, int, str]]:
    """Return patterns of the names that differ only in numbers and have equal answers.

    A number stands where all have the same, * where they have all numbers that occur there, and a list such
    as {2-5,7} otherwise.

    Args:
        answers: pairs of a distinct name and its answer.

    Returns:
        the pattern, the number of names and the answer, in the order of the first name.
    """
    occurring: dict[str, list[set[str]]] = {}
    members: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for name, answer in answers:
        frame, numbers = _NUMBER.sub("#", name), tuple(_NUMBER.findall(name))
        members.setdefault((frame, answer), []).append(numbers)
        everywhere = occurring.setdefault(frame, [set() for _ in numbers])
        for values, number in zip(everywhere, numbers, strict=True):
            values.add(number)
    return [
        (_pattern(frame, rows, occurring[frame]), len(rows), answer)
        for (frame, answer), rows in members.items()
    ]


def _pattern(frame: str, rows: Sequence[tuple[str, ...]], occurring: Sequence[set[str]]) -> str:
    first, *others = frame.split("#")
    columns = zip(*rows, strict=True)
    texts = [_numbers(set(column), values) for column, values in zip(columns, occurring, strict=True)]
    return first + "".join(text + other for text, other in zip(texts, others, strict=True))


def _numbers(values: set[str], occurring: set[str]) -> str:
    if len(values) == 1:
        return min(values)
    if values == occurring:
        return "*"
    ordered = sorted(values, key=lambda value: (int(value.rstrip(ascii_lowercase)), value))
    text = ",".join(_runs(ordered))
    return f"{{{text if len(text) <= _MAX_CHARS else f'{ordered[0]},…,{ordered[-1]}'}}}"


def _runs(values: Sequence[str]) -> list[str]:
    """Return ascending numbers, consecutive ones without letters as "first-last"."""
    runs: list[list[str]] = []
    for value in values:
        last = runs[-1][-1] if runs else ""
        if value.isdecimal() and last.isdecimal() and int(value) == int(last) + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
