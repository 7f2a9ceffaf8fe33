"""TensorRT on NVIDIA GPUs, through ONNX Runtime where its build has this provider."""

from __future__ import annotations

from pathlib import Path

from ofa.runtimes.base import Offers, Runtime
from ofa.runtimes.onnx_runtime import CUDA, OnnxSession, convert, facts, open_session

_TENSORRT = "TensorrtExecutionProvider"


def load(folder: Path, threads: int, precision: str, accelerator: str = "cuda") -> OnnxSession:
    """Return a session of the model in `folder`; layers that TensorRT does not support run on CUDA."""
    settings = {"trt_fp16_enable": str(precision == "fp16")}
    return open_session(folder, threads, precision, [(_TENSORRT, settings), CUDA])


def _offers() -> Offers:
    import onnxruntime

    return {"cuda": ("fp32", "fp16")} if _TENSORRT in onnxruntime.get_available_providers() else {}


RUNTIME = Runtime(
    name="tensorrt",
    title="ONNX Runtime with TensorRT",
    packages=("onnx", "onnxruntime"),
    extra="onnx",
    offers=_offers,
    convert=convert,
    load=load,
    facts=facts,
)
