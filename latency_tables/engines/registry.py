"""Engines by name: the runtimes of `ofa.runtimes.registry`, and PyTorch's engines in this folder."""

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
    """Return the constructors of engines by name: PyTorch's own engines and `runtimes`."""
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
            does not support the device's settings.
    """
    if device.engine not in ENGINES:
        raise unknown_name("engine", device.engine, ENGINES)
    return ENGINES[device.engine](device)
