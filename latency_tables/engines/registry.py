"""Engines by name; a new engine is one file in `ofa.runtimes` (or beside this one) and one line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from latency_tables.device import DeviceSpec
from latency_tables.engines.base import Engine
from latency_tables.engines.imported import refuse_imported
from latency_tables.engines.pytorch import PyTorchEngine
from latency_tables.engines.runtime import RuntimeEngine
from latency_tables.engines.torch_compile import TorchCompileEngine
from ofa.errors import unknown_name
from ofa.runtimes import executorch, ncnn, onnx_runtime, openvino

ENGINES: dict[str, Callable[[DeviceSpec], Engine]] = {
    "pytorch": PyTorchEngine,
    "torch_compile": TorchCompileEngine,
    "onnx_runtime": partial(RuntimeEngine, onnx_runtime.RUNTIME),
    "tensorrt": partial(RuntimeEngine, onnx_runtime.TENSORRT_RUNTIME),
    "openvino": partial(RuntimeEngine, openvino.RUNTIME),
    "ncnn": partial(RuntimeEngine, ncnn.RUNTIME),
    "executorch": partial(RuntimeEngine, executorch.RUNTIME),
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
