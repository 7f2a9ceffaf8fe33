"""Sweeps: `-m` runs a command once for every combination of the values that its settings list."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode


def in_sweep() -> bool:
    """Return whether this is one of the jobs of a command that was started with `-m`."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def swept_settings() -> dict[str, str]:
    """Return by name the settings that tell this job of a sweep from its others; empty outside a sweep."""
    if not in_sweep():
        return {}
    parser = OverridesParser.create()
    listed = map(parser.parse_override, _sweep_arguments())
    swept = {override.key_or_group for override in listed if override.is_sweep_override()}
    job = map(parser.parse_override, HydraConfig.get().overrides.task)
    return {one.key_or_group: _text(one) for one in job if one.key_or_group in swept}


def _text(override: Override) -> str:
    """Return the value of a setting as it is typed, without quotes."""
    value = override.value()
    return value if isinstance(value, str) else override.get_value_element_as_str()


def job_name(name: str, named_settings: Sequence[str] = ()) -> str:
    """Return a name for what this job of a sweep makes, so that each job makes its own.

    Args:
        name: name outside a sweep.
        named_settings: settings that the name tells already, with all that lie below them.
    """
    parts = [name]
    for setting, value in swept_settings().items():
        if not any(setting == known or setting.startswith(f"{known}.") for known in named_settings):
            parts.append(re.sub(r"[^\w.-]+", "_", f"{setting.rpartition('.')[2]}_{value}"))
    return "-".join(parts)


def job_text() -> str:
    """Return the settings of this job of a sweep, as they are written."""
    return " ".join(f"{name}={value}" for name, value in swept_settings().items())


def _sweep_arguments() -> list[str]:
    """Return the settings that this process was started with; options such as -m are none."""
    return [argument for argument in sys.argv[1:] if "=" in argument and not argument.startswith("-")]
