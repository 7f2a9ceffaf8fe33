"""`DeviceSpec`: the device of a latency, and the measuring effort."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ofa.common.config import below_minimum, differences
from ofa.common.display import short_repr
from ofa.common.errors import UserError, unknown_name
from ofa.common.latency_target import LatencyTarget
from ofa.common.shipped import preset_names, preset_settings

ACCELERATORS = ("cpu", "cuda", "other")
METHODS = ("sandwich", "isolated")
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "other")
DEVICE_FIELDS = ("engine", "accelerator", "threads", "affinity", "batch_size", "precision")
"""Fields that latencies depend on; the other fields set the measuring effort."""

_MINIMUMS = {
    "threads": 1,
    "batch_size": 1,
    "min_rounds": 1,
    "rounds": 1,
    "runs_per_visit": 1,
    "warmup_runs": 0,
    "processes": 1,
}


@dataclass(frozen=True)
class DeviceSpec:
    """A device, the engine that runs networks on it, and the measuring effort.

    Attributes:
        name: letters, digits, dots, dashes and underscores; tables are named after it.
        engine: name of an engine in `latency_tables.engines.registry`.
        accelerator: "cpu", "cuda", or "other" for a remote or imported device.
        threads: number of processor threads per run.
        batch_size: images per run; latencies are per run.
        precision: number format of weights and activations; "int8" means quantised; "other" as above.
        affinity: processor cores to pin runs to; None: not pinned.
        method: method for the entries of layers, one of `METHODS`.
        min_rounds: minimum number of rounds, regardless of spread and time; at most `rounds`.
        rounds: maximum number of rounds; each visits all layers and networks in a new random order.
        runs_per_visit: timed runs per visit.
        warmup_runs: untimed runs at the start of each visit.
        spread_percent: standard error of nearly all latencies, in percent, at which rounds end.
        minutes: time budget of the measurement in minutes, over all processes.
        processes: number of fresh processes that measure a table in sequence; latencies are their means.
    """

    name: str
    engine: str
    accelerator: str = "cpu"
    threads: int = 1
    batch_size: int = 1
    precision: str = "fp32"
    affinity: tuple[int, ...] | None = None
    method: str = "sandwich"
    min_rounds: int = 1
    rounds: int = 60
    runs_per_visit: int = 5
    warmup_runs: int = 2
    spread_percent: float = 1.0
    minutes: float = 14.0
    processes: int = 2

    def __post_init__(self) -> None:
        """Check every value; the existence of engine and cores is checked on use.

        Raises:
            UserError: listing every wrong value.
        """
        problems = below_minimum(self, _MINIMUMS)
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name):
            problems.append(
                f"name of the device is {short_repr(self.name)}; expected letters, digits, '.', '-' and '_', "
                "because files are named after it."
            )
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", self.engine):
            problems.append(f"engine is {short_repr(self.engine)}; expected the name of an engine.")
        names_by_field = {"accelerator": ACCELERATORS, "precision": PRECISIONS, "method": METHODS}
        for field, names in names_by_field.items():
            if getattr(self, field) not in names:
                problems.append(str(unknown_name(field, getattr(self, field), names)))
        for field in ("spread_percent", "minutes"):
            if not getattr(self, field) > 0:
                problems.append(f"{field} is {getattr(self, field)}; expected a number above 0.")
        cores = self.affinity
        if cores is not None and (not cores or min(cores) < 0 or len(set(cores)) < len(cores)):
            problems.append(
                f"affinity is {list(cores)}; expected the numbers of different cores, from 0 on, or null."
            )
        if problems:
            raise UserError("\n".join(problems))


def device_target(
    device: DeviceSpec, processor: str = "", error_percent: float | None = None
) -> LatencyTarget:
    """Return what the latencies of a device are for; `processor` and the table's error where known."""
    return LatencyTarget(
        device.name,
        device.engine,
        device.precision,
        device.threads,
        device.batch_size,
        processor,
        error_percent,
    )


def device_values(device: DeviceSpec) -> dict[str, Any]:
    """Return the plain JSON values of a device."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(device)))
    return values


def device_differences(names: Iterable[str], old: DeviceSpec, new: DeviceSpec) -> list[str]:
    """Return one sentence per named field in which two devices differ."""
    old_values, new_values = ({name: getattr(device, name) for name in names} for device in (old, new))
    return differences(old_values, new_values)


def device_settings(device: DeviceSpec) -> dict[str, str]:
    """Return by name the settings that choose a device on a command line.

    They are its file in `conf/device/` and what differs from that, or, for a device without a file such as
    that of a kit, all that latencies depend on.
    """
    if device.name in preset_names("device"):
        settings = preset_settings("device", device)
        return {name: str(value) for name, value in settings.items() if value is not None}
    values = {field: getattr(device, field) for field in ("name", *DEVICE_FIELDS)}
    values["affinity"] = device.affinity and f"[{','.join(map(str, device.affinity))}]"
    return {f"device.{field}": str(value) for field, value in values.items() if value is not None}
