"""Texts and values of files as they are shown to users: without control characters, and short."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence

MAX_TEXT = 8000
"""Longest text of an error, in characters: lists of a hundred names fit."""

_MAX_VALUE = 120
_MAX_LISTED_CHARS = 200
_MAX_ENTRIES = 6
# Control characters but line break and tab, marks that turn the direction of a line, halves of characters.
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _MAX_VALUE
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = _MAX_ENTRIES
_SHORT.maxlevel = 3


def printable_text(text: str) -> str:
    """Return `text` with � for every character that would act on a terminal or cannot be written."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def shortened(text: str, max_chars: int = MAX_TEXT) -> str:
    """Return a text of at most `max_chars` characters: its beginning and its end."""
    if len(text) <= max_chars:
        return text
    num_last = max_chars // 4
    return f"{text[: max_chars - num_last - 3]} … {text[len(text) - num_last :]}"


def short_text(value: object, max_chars: int = _MAX_VALUE) -> str:
    """Return a value, such as a name in a file, as a text of at most `max_chars` that can be printed."""
    return printable_text(shortened(value if isinstance(value, str) else str(value), max_chars))


def listed_names(names: Sequence[str], max_names: int = 12, separator: str = ", ") -> str:
    """Return the first `max_names` names or texts, each shortened, and the number of the others."""
    num_others = len(names) - max_names
    more = f" and {num_others} more" if num_others > 0 else ""
    return separator.join(short_text(name, _MAX_LISTED_CHARS) for name in names[:max_names]) + more


def short_repr(value: object) -> str:
    """Return the `repr` of a value of a file, shortened at every level."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return f"a long {type(value).__name__}"


def aligned_lines(rows: Sequence[Sequence[str]], num_left: int = 1) -> list[str]:
    """Return the lines of a table: the first `num_left` columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index < num_left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
