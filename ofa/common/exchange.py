"""`exchange`: two files or folders swap their names in one step, where the system can do that."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def exchange(first_path: Path, second_path: Path) -> bool:
    """Swap two files or folders of one file system, so that at no moment one of the names is missing.

    Returns False, and nothing has changed, where that fails: Linux has it (`renameat2`), but not on every
    file system, and other systems do not have it under this name.
    """
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    paths = os.fsencode(first_path), os.fsencode(second_path)
    return bool(rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0)
