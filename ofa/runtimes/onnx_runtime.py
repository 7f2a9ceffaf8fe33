"""ONNX Runtime: on the processor, and on CUDA where its build has this provider."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from ofa.common.errors import UserError
from ofa.runtimes.base import INT8, FileFormat, Files, NetworkSource, Offers, Runtime, Session
from ofa.runtimes.onnx_export import INPUT, export_onnx, exporter_facts, with_metadata

MODEL_FILE = "model.onnx"
CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"


class OnnxSession(Session):
    """A session of ONNX Runtime; on a GPU a run includes the transfer of input and output."""

    def __init__(self, session: Any, dtype: torch.dtype) -> None:
        """Take an `InferenceSession` of one input of `dtype` and one output."""
        self._session = session
        self._dtype = dtype
        self._input = session.get_inputs()[0].name

    @override
    def __call__(self, images: Tensor, /) -> Tensor:
        outputs = [torch.from_numpy(array).float() for array in self._session.run(None, self._feed(images))]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)  # type: ignore[return-value]

    @override
    def bind(self, images: Tensor) -> Callable[[], object]:
        return partial(self._session.run, None, self._feed(images))

    def _feed(self, images: Tensor) -> dict[str, Any]:
        return {self._input: images.detach().to(self._dtype).contiguous().numpy()}


def convert(network: nn.Module, example: Tensor, precision: str) -> Files:
    """Return `network` as an ONNX model of the example's shape."""
    assert precision != INT8, "int8 files are made by ofa.compression.quantisation"
    if precision == "fp16":
        half = copy.deepcopy(network).half()
        return {MODEL_FILE: export_onnx(half, example.half())}
    return {MODEL_FILE: export_onnx(network, example)}


def load(folder: Path, threads: int, precision: str, accelerator: str = "cpu") -> OnnxSession:
    """Return a session of the model in `folder`."""
    providers: dict[str, list[Any]] = {"cpu": [_CPU], "cuda": [(CUDA, {"use_tf32": "0"})]}
    return open_session(folder, threads, precision, providers[accelerator])


def open_session(folder: Path, threads: int, precision: str, providers: list[Any]) -> OnnxSession:
    """Return a session of the model in `folder` on the first of `providers`.

    Args:
        folder: folder of the model.
        threads: number of processor threads per run.
        precision: precision of the model's input.
        providers: execution providers in order of preference, each a name or a pair (name, settings).

    Raises:
        UserError: if the first provider does not start.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin after a run would occupy the cores of the session that runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / MODEL_FILE), options, providers=providers)
    provider = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if provider not in session.get_providers():
        raise UserError(
            f"ONNX Runtime has {provider} but could not start it (it would run on "
            f"{', '.join(session.get_providers())}). Check the GPU's driver and libraries, or use "
            "accelerator: cpu."
        )
    return OnnxSession(session, torch.float16 if precision == "fp16" else torch.float32)


def _offers() -> Offers:
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    return {"cpu": ("fp32", INT8)} | ({"cuda": ("fp32", "fp16")} if CUDA in providers else {})


def facts() -> dict[str, str]:
    """Return the versions of engine and exporter."""
    import onnxruntime

    return {"version": onnxruntime.__version__, "exporter": exporter_facts()}


def _write(source: NetworkSource) -> Files:
    return {MODEL_FILE: with_metadata(source.onnx, source.metadata)}


def _example(paths: Sequence[str], precision: str) -> str:
    return f"""import onnxruntime
session = onnxruntime.InferenceSession("{paths[0]}")
logits = session.run(None, {{"{INPUT}": images}})[0]"""


RUNTIME = Runtime(
    name="onnx_runtime",
    title="ONNX Runtime",
    packages=("onnx", "onnxruntime"),
    extra="onnx",
    offers=_offers,
    convert=convert,
    load=load,
    facts=facts,
    format=FileFormat("onnx", (MODEL_FILE,), _write, _example, packages=("onnxscript",)),
    kit_precisions=("fp32", INT8),
)
