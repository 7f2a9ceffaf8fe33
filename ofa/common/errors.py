"""Errors for users: what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable, Mapping
from typing import TypedDict

from ofa.common.display import printable_text, short_repr, short_text, shortened


class Remedy(TypedDict):
    """What remedies a mistake: arguments of `UserError`."""

    stage: str
    settings: dict[str, str]


class UserError(ValueError):
    """A mistake in the user's input; commands print its text without a traceback.

    What files hold may be part of the text: control characters are replaced, and a long text is shortened.

    Attributes:
        stage: sub-command of `ofa` that makes the missing or damaged file, e.g. "collect"; empty without one.
            The commands name it below the text; the library does not know the command line.
        settings: settings of that sub-command that the error implies, by name.
    """

    def __init__(self, text: str = "", *, stage: str = "", settings: Mapping[str, str] | None = None) -> None:
        """Take the text for the user, and the remedy."""
        super().__init__(shortened(printable_text(text)))
        self.stage = stage
        self.settings = dict(settings or {})


class StoppedError(Exception):
    """Work that ended early on a signal; finished work is saved.

    Attributes:
        signal_number: number of the signal received.
    """

    def __init__(self, text: str, signal_number: int = signal.SIGTERM) -> None:
        """Keep the text for the user, and the signal."""
        super().__init__(text)
        self.signal_number = signal_number


def unknown_name(kind: str, name: object, known_names: Iterable[str]) -> UserError:
    """Return the error for a `name` of `kind` that is not one of `known_names`."""
    names = sorted(known_names)
    matches = difflib.get_close_matches(short_text(name), names, n=1)
    hint = f" Did you mean {matches[0]!r}?" if matches else ""
    return UserError(f"Unknown {kind} {short_repr(name)}; known: {', '.join(names) or 'none'}.{hint}")
