"""How a sub-command of `ofa` is written, for texts that can be copied into a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

# Values that stand in a setting as they are: words, paths, numbers, and lists of them.
_PLAIN = re.compile(r"[\w./:@%+-]+|\[[\w./:@%+,-]*\]", re.ASCII)


DEFAULT_RUNS_DIR = "runs"


class Written(str):
    """The value of a setting as it is written, with all quotes that it needs."""


def run_settings(run_name: str | None, runs_dir: str = DEFAULT_RUNS_DIR) -> dict[str, str | None]:
    """Return the settings that name a run; the folder of runs only where it is not the default one."""
    return {"run_name": run_name, "runs_dir": None if runs_dir == DEFAULT_RUNS_DIR else runs_dir}


def command_line(stage: str, settings: Mapping[str, object] | None = None) -> str:
    """Return `ofa STAGE name=value …`, quoted for a POSIX shell; settings of None are left out."""
    return shlex.join(["ofa", stage, *assignments(settings or {})])


def assignments(settings: Mapping[str, object]) -> list[str]:
    """Return `name=value` as Hydra reads it for each setting; settings of None are left out."""
    values = {name: value for name, value in settings.items() if value is not None}
    return [
        f"{name}={value if isinstance(value, Written) else quoted(str(value))}"
        for name, value in values.items()
    ]


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Return nested settings by their dotted names; lists and None are written as in a setting."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            flat[prefix + name] = _written(value)
        else:
            # A setting that is None is one that is not given; here it is given as null.
            flat[prefix + name] = "null" if value is None else value
    return flat


def _written(value: Any) -> Written:
    """Return a value, which may be a list or a mapping, as it is written in a setting."""
    if isinstance(value, Mapping):
        return Written(f"{{{','.join(f'{name}:{_written(entry)}' for name, entry in value.items())}}}")
    if isinstance(value, list | tuple):
        return Written(f"[{','.join(map(_written, value))}]")
    return Written("null" if value is None else quoted(str(value)))


def quoted(value: str, *, always: bool = False) -> str:
    """Return a value as it is written in a setting: in quotes where it holds more than words, or `always`."""
    if not always and _PLAIN.fullmatch(value):
        return value
    # Backslashes count before a quote alone.
    text = re.sub(r'(\\*)"', r'\1\1\\"', value)
    return '"' + re.sub(r"(\\+)$", r"\1\1", text) + '"'
