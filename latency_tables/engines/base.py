"""`Engine`: the interface of inference engines for timing layers and networks."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from ofa.runtimes.base import Files

TimedRun = Callable[[], float]
"""Runs a prepared module once and returns the elapsed milliseconds."""

Description = dict[str, str]
"""Facts about an engine; a table is only extended while they stay the same."""


class Engine(Protocol):
    """An inference engine on one device; created by `latency_tables.engines.registry.create_engine`."""

    def describe(self) -> Description:
        """Return engine, version, processor and everything else that latencies depend on."""
        ...

    def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
        """Return a timed run of `module` on `example`, which includes the batch dimension.

        `module` is not changed: it is copied or converted, always in eval mode.
        """
        ...

    def measuring(self) -> AbstractContextManager[None]:
        """Configure the process for the runs (e.g. its thread count), and restore it afterwards."""
        ...


@runtime_checkable
class ConvertingEngine(Engine, Protocol):
    """An engine that runs files, which another process can have made."""

    def convert(self, module: nn.Module, example: Tensor) -> Files:
        """Return the files of `module` for inputs like the example."""
        ...

    def load(self, files: Files, example: Tensor) -> TimedRun:
        """Return a timed run of files that `convert` returned."""
        ...


def timed(call: Callable[[], object]) -> TimedRun:
    """Return a run that times `call` by the wall clock."""

    def run() -> float:
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1e3

    return run


def processor_name() -> str:
    """Return the model name of this machine's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
