"""Values from files: plain and within bounds, with texts that can be printed; and checks of their types."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ofa.common.display import printable_text, short_repr, short_text

MAX_DEPTH = 64
"""Deepest nesting of lists and objects; the files of this project have 8."""

MAX_INTEGER = 2**63 - 1

MAX_CONTAINERS = 2_000_000
"""Most lists and objects of a text; the measurements of a kit, which have the most, have some 100,000."""

MAX_CHARS = 100_000
"""Longest text or name; those of this project are names and sentences."""


def parse_json(content: str | bytes) -> Any:
    """Return the plain values of a JSON text in UTF-8; see `plain_values`.

    Raises:
        ValueError: for a text that is no JSON, with the number NaN or an infinite one, an entry that is there
            twice, or values that are not plain; `json_damage` puts it into words.
    """
    text = content.decode() if isinstance(content, bytes) else content
    # Memory and time of reading are those of lists and objects, whatever their number of bytes.
    if text.count("[") + text.count("{") > MAX_CONTAINERS:
        raise ValueError(f"it holds more than {MAX_CONTAINERS:,} lists and objects")
    try:
        values = _DECODER.decode(text)
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        if "int_max_str_digits" in str(error):
            raise ValueError("it holds an integer of thousands of digits") from None
        raise
    return plain_values(values)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in values if names.count(name) > 1)
        raise ValueError(f"it has the entry {short_repr(twice)} twice")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def plain_values(values: Any) -> Any:
    """Return parsed values with texts that can be printed: control characters are replaced.

    Raises:
        ValueError: for values nested too deep, texts that are too long, numbers that are not finite or beyond
            64 bits, and values other than texts, numbers, true, false, null, lists and objects.
    """
    return values if _is_plain(values) else _plain(values, MAX_DEPTH)


def _is_plain(values: Any) -> bool:
    """Return whether nothing has to be replaced or refused: the usual case, found out without a copy."""
    level = [[values]]
    for _ in range(MAX_DEPTH + 1):
        deeper = []
        for container in level:
            for value in container:
                kind = type(value)
                if kind is str:
                    if not value.isprintable() or len(value) > MAX_CHARS:
                        return False
                elif kind is float:
                    if not -math.inf < value < math.inf:
                        return False
                elif kind is int:
                    if not -MAX_INTEGER <= value <= MAX_INTEGER:
                        return False
                elif kind is list:
                    deeper.append(value)
                elif kind is dict:
                    deeper += (list(value), list(value.values()))
                elif value is not None and kind is not bool:
                    return False
        if not deeper:
            return True
        level = deeper
    return False


def _plain(value: Any, depth: int, where: str = "") -> Any:
    """Return plain values; see `plain_values`.

    Args:
        value: the values.
        depth: number of levels that may follow.
        where: dotted names of what holds them, for the error.
    """
    kind, place = type(value), f" at {where}" if where else ""
    if kind is str:
        if len(value) > MAX_CHARS:
            raise ValueError(f"it holds a text of {len(value):,} characters{place}: {short_repr(value)}")
        return value if value.isprintable() else printable_text(value)
    if kind is float and not math.isfinite(value):
        raise ValueError(f"it holds {value} in place of a number{place}")
    if kind is int and not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ValueError(f"it holds an integer of more than 64 bits{place}")
    if kind in (float, int, bool) or value is None:
        return value
    if kind is not dict and kind is not list:
        raise ValueError(f"it holds a {kind.__name__}{place}; expected texts and numbers")
    if depth == 0:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    inside = f"{where}." if where else ""
    if kind is list:
        return [_plain(entry, depth - 1, f"{inside}{index}") for index, entry in enumerate(value)]
    return {
        _plain(name, depth - 1, where): _plain(entry, depth - 1, f"{inside}{short_text(name)}")
        for name, entry in value.items()
    }


def checked_number(value: object, what: str, minimum: float = -math.inf) -> float:
    """Return a value of a file that has to be a number.

    Raises:
        ValueError: for anything else, or a number below `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value < math.inf:
        bound = "" if minimum == -math.inf else f" of at least {minimum:g}"
        raise ValueError(f"{what} is {short_repr(value)}; expected a number{bound}")
    return float(value)


def checked_integer(value: object, what: str, minimum: int = 0) -> int:
    """Return a value of a file that has to be an integer.

    Raises:
        ValueError: for anything else, or a number below `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{what} is {short_repr(value)}; expected an integer of at least {minimum}")
    return value


def checked_text(value: object, what: str) -> str:
    """Return a value of a file that has to be a text.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(value, str):
        raise ValueError(f"{what} is {short_repr(value)}; expected a text")
    return value


def checked_object(value: object, what: str) -> Mapping[str, Any]:
    """Return a value of a file that has to be an object.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} is {short_repr(value)}; expected an object")
    return value
