"""Engines by name; a new engine is one file beside this one and one line here."""

from __future__ import annotations

from collections.abc import Callable

from latency_tables.device import DeviceSpec
from latency_tables.engines.base import Engine
from latency_tables.engines.imported import refuse_imported
from latency_tables.engines.onnx_runtime import OnnxRuntimeEngine
from latency_tables.engines.pytorch import PyTorchEngine
from ofa.errors import unknown_name

ENGINES: dict[str, Callable[[DeviceSpec], Engine]] = {
    "pytorch": PyTorchEngine,
    "onnx_runtime": OnnxRuntimeEngine,
    "imported": refuse_imported,
}


def create_engine(device: DeviceSpec) -> Engine:
    """Return the engine that `device` names.

    Raises:
        UserError: if the name is unknown (listing the known ones), a package is missing, or the engine
            cannot do what the device asks for.
    """
    if device.engine not in ENGINES:
        raise unknown_name("engine", device.engine, ENGINES)
    return ENGINES[device.engine](device)
