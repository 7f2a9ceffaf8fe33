"""Engines by name: those of `ofa.runtimes.registry`, and those beside this file, which run in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from latency_tables.engines.base import Engine
from latency_tables.engines.imported import refuse_imported
from latency_tables.engines.pytorch import PyTorchEngine
from latency_tables.engines.runtime import RuntimeEngine
from latency_tables.engines.torch_compile import TorchCompileEngine
from latency_tables.table.device import DeviceSpec
from ofa.common.errors import unknown_name
from ofa.runtimes.base import Runtime
from ofa.runtimes.registry import RUNTIMES

EngineOf = Callable[[DeviceSpec], Engine]


def engines_of(runtimes: Iterable[Runtime]) -> dict[str, EngineOf]:
    """Return by name what measures on a device: PyTorch's own engines and the given ones."""
    return {
        "pytorch": PyTorchEngine,
        "torch_compile": TorchCompileEngine,
        **{runtime.name: partial(RuntimeEngine, runtime) for runtime in runtimes},
        "imported": refuse_imported,
    }


ENGINES = engines_of(RUNTIMES)


def create_engine(device: DeviceSpec) -> Engine:
    """Return the engine that `device` names.

    Raises:
        UserError: if the name is unknown (listing the known ones), a package is missing, or the engine
            cannot do what the device asks for.
    """
    if device.engine not in ENGINES:
        raise unknown_name("engine", device.engine, ENGINES)
    return ENGINES[device.engine](device)
