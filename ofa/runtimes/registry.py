"""The list of inference engines; a new one is one file beside this one and one entry here."""

from __future__ import annotations

from ofa.runtimes import executorch, ncnn, onnx_runtime, openvino, tensorrt
from ofa.runtimes.base import Runtime

RUNTIMES: tuple[Runtime, ...] = (
    onnx_runtime.RUNTIME,
    tensorrt.RUNTIME,
    openvino.RUNTIME,
    ncnn.RUNTIME,
    executorch.RUNTIME,
)
