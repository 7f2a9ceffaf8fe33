"""OpenVINO on the processor."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from ofa.runtimes.base import INT8, FileFormat, Files, NetworkSource, Offers, Runtime, Session
from ofa.runtimes.onnx_export import export_onnx, exporter_facts

MODEL_FILE, WEIGHTS_FILE = "model.xml", "model.bin"
_HINTS = {"fp32": "f32", "bf16": "bf16", INT8: "f32"}
"""Precision of operations that are not quantised. The default is bf16 on processors that support it."""


class OpenVinoSession(Session):
    """A compiled model."""

    def __init__(self, model: Any, settings: dict[str, str]) -> None:
        """Compile an `openvino.Model` of one input and one output."""
        self._model, self._settings = model, settings
        self.compiled = core().compile_model(model, "CPU", settings)
        self._request = self.compiled.create_infer_request()

    @override
    def __call__(self, images: Tensor, /) -> Tensor:
        result = self._request.infer([images.detach().contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(result[0])

    @override
    def bind(self, images: Tensor) -> Callable[[], object]:
        """Return one run on these images.

        A model with a dynamic batch dimension is compiled anew for this number of images. With a dynamic
        shape, small networks take 1.6 times as long in fp32 and 2.5 times in int8.
        """
        openvino = _import_openvino()
        array = images.detach().contiguous().numpy()
        compiled = self.compiled
        if self._model.is_dynamic():
            fixed = self._model.clone()
            fixed.reshape(list(array.shape))
            compiled = core().compile_model(fixed, "CPU", self._settings)
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(array, shared_memory=True))

        def run() -> object:
            request.infer(share_outputs=True)
            return array  # the request holds only a pointer to it

        return run


def convert(network: nn.Module, example: Tensor, precision: str) -> Files:
    """Return `network` as a model of the example's shape.

    The conversion goes through ONNX, like exported networks and kits for other devices.
    """
    assert precision != INT8, "int8 files are made by ofa.compression.quantisation"
    return save(read_onnx(export_onnx(network, example)))


def read_onnx(model: bytes) -> Any:
    """Return an ONNX model as an `openvino.Model`."""
    return core().read_model(model)


def save(model: Any) -> Files:
    """Return an `openvino.Model` as its two files, with uncompressed weights."""
    openvino = _import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_FILE
        openvino.save_model(model, path, compress_to_fp16=False)
        return {name: path.with_name(name).read_bytes() for name in (MODEL_FILE, WEIGHTS_FILE)}


def load(folder: Path, threads: int, precision: str, accelerator: str = "cpu") -> OpenVinoSession:
    """Return the model in `folder`, compiled for the lowest latency of one request at a time.

    Threads are not pinned: pinning gains nothing, and doubles the time when another process has the core.
    """
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "ENABLE_CPU_PINNING": "NO",
    }
    return OpenVinoSession(core().read_model(folder / MODEL_FILE), settings)


@cache
def core() -> Any:
    """Return the `openvino.Core`, one per process."""
    return _import_openvino().Core()


def _import_openvino() -> Any:
    """Import OpenVINO without the report on its use that the first import would send to its makers unasked.

    The report comes from a forked process, which may hang beside PyTorch's threads. OpenVINO sends none where
    the variable CI is true; after the import the variable is as before.
    """
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        import openvino
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before
    return openvino


def _offers() -> Offers:
    """Return the precisions that this processor has instructions for; OpenVINO emulates others."""
    bf16 = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {"cpu": ("fp32", "bf16", INT8) if bf16 else ("fp32", INT8)}


def _facts() -> dict[str, str]:
    return {"version": _import_openvino().get_version(), "exporter": exporter_facts()}


def _write(source: NetworkSource) -> Files:
    return save(read_onnx(source.onnx))


def _example(paths: Sequence[str], precision: str) -> str:
    return f"""import openvino
model = openvino.Core().read_model("{paths[0]}")
model.reshape(images.shape)  # a fixed number of images is faster
network = openvino.compile_model(model, "CPU", {{"INFERENCE_PRECISION_HINT": "{_HINTS[precision]}"}})
logits = network(images)[0]"""


RUNTIME = Runtime(
    name="openvino",
    title="OpenVINO",
    packages=("openvino", "onnx"),
    extra="openvino",
    offers=_offers,
    convert=convert,
    load=load,
    facts=_facts,
    format=FileFormat("openvino", (MODEL_FILE, WEIGHTS_FILE), _write, _example, packages=("onnxscript",)),
    kit_precisions=("fp32", "bf16", INT8),
)
