"""How a sub-command of `ofa` is written, for texts that can be copied into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping


def command_line(stage: str, settings: Mapping[str, object] | None = None) -> str:
    """Return `ofa STAGE name=value …`, quoted for a POSIX shell; settings of None are left out."""
    values = {name: value for name, value in (settings or {}).items() if value is not None}
    return shlex.join(["ofa", stage, *(f"{name}={value}" for name, value in values.items())])
