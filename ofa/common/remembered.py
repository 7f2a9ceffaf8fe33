"""What the user has made or named on this machine: digests as empty files in the user's state folder.

Neither a copied bundle nor a copied run brings them along.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ofa.common.user_folders import state_folder


def remember(kind: str, digest: str) -> None:
    """Remember a digest; where the folder cannot be written, nothing happens.

    Args:
        kind: name of the folder of such digests.
        digest: SHA-256, hex.
    """
    file = _file(kind, digest)
    if file is not None:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()


def is_remembered(kind: str, digest: str) -> bool:
    """Return whether a digest was remembered by this user on this machine."""
    file = _file(kind, digest)
    return file is not None and file.is_file()


def _file(kind: str, digest: str) -> Path | None:
    folder = state_folder()
    return None if folder is None or not digest.isalnum() else folder / kind / digest
