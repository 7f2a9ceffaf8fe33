"""`DeviceSpec`: what a latency is measured on, and how thoroughly."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ofa.errors import UserError, unknown_name

ACCELERATORS = ("cpu", "cuda", "other")
DTYPES = ("float32", "float16", "bfloat16", "other")


@dataclass(frozen=True)
class DeviceSpec:
    """A device, the engine that runs networks on it, and the measuring effort.

    Attributes:
        name: letters, digits, dots, dashes and underscores; tables are named after it.
        engine: a name that `latency_tables.engines.registry` knows.
        accelerator: "cpu", "cuda", or "other" for a device that nothing is measured on from here.
        threads: processor threads that one run may use.
        batch_size: images per run; latencies are per run.
        dtype: number format of weights and activations; "other" as above.
        rounds: each visits all layers and networks in a new random order.
        runs_per_visit: timed runs per visit.
        warmup_runs: untimed runs at the start of each visit.
    """

    name: str
    engine: str
    accelerator: str = "cpu"
    threads: int = 1
    batch_size: int = 1
    dtype: str = "float32"
    rounds: int = 30
    runs_per_visit: int = 3
    warmup_runs: int = 1

    def __post_init__(self) -> None:
        """Check every value; whether the engine exists is checked when it is created."""
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name):
            raise UserError(
                f"name of the device is {self.name!r}; expected letters, digits, '.', '-' and '_', "
                "because files are named after it."
            )
        if self.accelerator not in ACCELERATORS:
            raise unknown_name("accelerator", self.accelerator, ACCELERATORS)
        if self.dtype not in DTYPES:
            raise unknown_name("dtype", self.dtype, DTYPES)
        for field in ("threads", "batch_size", "rounds", "runs_per_visit"):
            if getattr(self, field) < 1:
                raise UserError(f"{field} is {getattr(self, field)}; expected at least 1.")
        if self.warmup_runs < 0:
            raise UserError(f"warmup_runs is {self.warmup_runs}; expected at least 0.")
