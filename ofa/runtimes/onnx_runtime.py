"""ONNX Runtime: on the processor, and on CUDA or TensorRT where its build has these providers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ofa.errors import UserError
from ofa.quantisation.onnx import quantise_onnx
from ofa.runtimes.base import Files, Offers, Runtime
from ofa.runtimes.onnx_export import export_onnx, exporter_facts
from ofa.runtimes.random_calibration import random_inputs

MODEL_FILE = "model.onnx"
_CPU, _CUDA, _TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


class OnnxSession:
    """A session of ONNX Runtime; on a GPU a run includes the transfer of input and output."""

    def __init__(self, session: Any, dtype: torch.dtype) -> None:
        """Take an `InferenceSession` of one input of `dtype` and one output."""
        self._session = session
        self._dtype = dtype
        self._input = session.get_inputs()[0].name

    def __call__(self, images: Tensor, /) -> Tensor:
        """See `Session`."""
        (output,) = self._session.run(None, self._feed(images))
        return torch.from_numpy(output).float()

    def bind(self, images: Tensor) -> Callable[[], object]:
        """See `Session.bind`."""
        return partial(self._session.run, None, self._feed(images))

    def _feed(self, images: Tensor) -> dict[str, Any]:
        return {self._input: images.detach().to(self._dtype).contiguous().numpy()}


def convert(network: nn.Module, example: Tensor, precision: str) -> Files:
    """Return `network` as an ONNX model of the example's shape; int8 is calibrated on random inputs."""
    if precision == "fp16":
        half = copy.deepcopy(network).half()
        return {MODEL_FILE: export_onnx(half, example.half())}
    model = export_onnx(network, example)
    if precision == "int8":
        model = quantise_onnx(model, random_inputs(example))
    return {MODEL_FILE: model}


def load(folder: Path, threads: int, precision: str, accelerator: str = "cpu") -> OnnxSession:
    """Return a session of the model in `folder`."""
    providers: dict[str, list[Any]] = {"cpu": [_CPU], "cuda": [(_CUDA, {"use_tf32": "0"})]}
    return _session(folder, threads, precision, providers[accelerator])


def load_tensorrt(folder: Path, threads: int, precision: str, accelerator: str = "cuda") -> OnnxSession:
    """Return a session of the model in `folder` on TensorRT; layers that it cannot do run on CUDA."""
    settings = {"trt_fp16_enable": str(precision == "fp16")}
    return _session(folder, threads, precision, [(_TENSORRT, settings), _CUDA])


def _session(folder: Path, threads: int, precision: str, providers: list[Any]) -> OnnxSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait busily after a run would take the cores from the session that runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / MODEL_FILE), options, providers=providers)
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if wanted not in session.get_providers():
        raise UserError(
            f"ONNX Runtime has {wanted} but could not start it (it would run on "
            f"{', '.join(session.get_providers())}). Check the GPU's driver and libraries, or use "
            "accelerator: cpu."
        )
    return OnnxSession(session, torch.float16 if precision == "fp16" else torch.float32)


def _offers() -> Offers:
    import onnxruntime

    found = onnxruntime.get_available_providers()
    return {"cpu": ("fp32", "int8")} | ({"cuda": ("fp32", "fp16")} if _CUDA in found else {})


def _offers_tensorrt() -> Offers:
    import onnxruntime

    return {"cuda": ("fp32", "fp16")} if _TENSORRT in onnxruntime.get_available_providers() else {}


def _facts() -> dict[str, str]:
    import onnxruntime

    return {"version": onnxruntime.__version__, "exporter": exporter_facts()}


RUNTIME = Runtime("ONNX Runtime", ("onnx", "onnxruntime"), "onnx", _offers, convert, load, _facts)
TENSORRT_RUNTIME = Runtime(
    "ONNX Runtime with TensorRT",
    ("onnx", "onnxruntime"),
    "onnx",
    _offers_tensorrt,
    convert,
    load_tensorrt,
    _facts,
)
