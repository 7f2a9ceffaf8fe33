"""The error that a user's mistake raises: what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable, Mapping


class UserError(ValueError):
    """A mistake in what the user gave; commands print its text without a traceback.

    Attributes:
        stage: sub-command of `ofa` that makes what is missing or damaged, e.g. "collect"; empty if there is
            none. The commands name it below the text; the library knows no command line.
        settings: settings of that sub-command that the error implies, by name.
    """

    def __init__(self, text: str = "", *, stage: str = "", settings: Mapping[str, str] | None = None) -> None:
        """Keep the text for the user, and what remedies the mistake."""
        super().__init__(text)
        self.stage = stage
        self.settings = dict(settings or {})


class StoppedError(Exception):
    """Work ended early because the process was told to; what was done is saved.

    Attributes:
        signal_number: of the signal that told it.
    """

    def __init__(self, text: str, signal_number: int = signal.SIGTERM) -> None:
        """Keep the text for the user, and the signal."""
        super().__init__(text)
        self.signal_number = signal_number


def unknown_name(kind: str, name: object, known_names: Iterable[str]) -> UserError:
    """Return the error for a `name` that is none of the `known_names` of its `kind`."""
    names = sorted(known_names)
    matches = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {matches[0]!r}?" if matches else ""
    return UserError(f"Unknown {kind} {name!r}; known: {', '.join(names) or 'none'}.{hint}")
