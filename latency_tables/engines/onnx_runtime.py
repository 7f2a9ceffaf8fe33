"""ONNX Runtime on the processor."""

from __future__ import annotations

import copy
import importlib.util
import tempfile
import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from latency_tables.device import DeviceSpec
from latency_tables.engines.base import Description, TimedRun, processor_name
from ofa.errors import UserError

OPSET = 17


class OnnxRuntimeEngine:
    """Sessions of ONNX Runtime's CPU provider; a run includes handing over input and output."""

    def __init__(self, device: DeviceSpec) -> None:
        """Check that the packages are there and that the engine can do what the device asks for.

        Raises:
            UserError: if onnx or onnxruntime is missing, or the device is not float32 on the CPU.
        """
        missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(
                f"Engine onnx_runtime needs {' and '.join(missing)}; install with: pip install -e '.[onnx]'"
            )
        if device.accelerator != "cpu" or device.dtype != "float32":
            raise UserError(
                f"Device {device.name!r} asks for {device.dtype} on {device.accelerator}; engine "
                "onnx_runtime offers float32 on cpu. Change the device, or use engine: pytorch."
            )
        self._device = device

    def describe(self) -> Description:
        """See `Engine.describe`."""
        import onnxruntime

        return {
            "engine": "ONNX Runtime",
            "version": onnxruntime.__version__,
            "processor": processor_name(),
            "exporter": f"PyTorch {torch.__version__}, TorchScript, opset {OPSET}",
            "clock": "perf_counter",
        }

    def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
        """See `Engine.prepare`."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._device.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            export_onnx(module, example), options, providers=["CPUExecutionProvider"]
        )
        feed = {session.get_inputs()[0].name: example.numpy()}

        def run() -> float:
            start = time.perf_counter()
            session.run(None, feed)
            return (time.perf_counter() - start) * 1e3

        return run

    def measuring(self) -> AbstractContextManager[None]:
        """Nothing to hold: threads are settings of each session."""
        return nullcontext()


def export_onnx(module: nn.Module, example: Tensor) -> bytes:
    """Return `module` as an ONNX model of fixed input shape.

    The TorchScript exporter takes a tenth of the time of the newer one, which matters for hundreds of
    layers; its deprecation notices are silenced.
    """
    copied = copy.deepcopy(module).eval()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        torch.onnx.export(copied, (example,), path, dynamo=False, opset_version=OPSET)
        return path.read_bytes()
