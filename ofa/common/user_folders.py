"""Folders of the user for what the project remembers between runs: caches, and what was exported here."""

from __future__ import annotations

import os
from pathlib import Path

_PROJECT = "ofa"


def cache_folder() -> Path | None:
    """Return the user's cache folder of this project: `$XDG_CACHE_HOME/ofa`, or `~/.cache/ofa`.

    None for a user without a home folder.
    """
    return _folder("XDG_CACHE_HOME", ".cache")


def state_folder() -> Path | None:
    """Return the user's state folder of this project: `$XDG_STATE_HOME/ofa`, or `~/.local/state/ofa`.

    None for a user without a home folder.
    """
    return _folder("XDG_STATE_HOME", ".local/state")


def _folder(variable: str, default: str) -> Path | None:
    base = os.environ.get(variable)
    try:
        return (Path(base) if base else Path.home() / default) / _PROJECT
    except RuntimeError:
        # There is no HOME, and the user has no entry in the list of users, as in many containers.
        return None
