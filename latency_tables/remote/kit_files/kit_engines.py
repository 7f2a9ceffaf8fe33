"""The engines of this kit; each loads a program and returns a function that runs it once."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kit_folder import KitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Session = Callable[[], object]

ENGINES = {"onnxruntime": ("onnx_runtime", "ONNX Runtime"), "openvino": ("openvino", "OpenVINO")}
"""By package: name in device descriptions, and title."""


def load_onnxruntime(files: list[bytes], array: Any, threads: int, precision: str) -> Session:
    """Return a function that runs an ONNX model once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin after a run would occupy the cores of the session that runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(files[0], options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: array}
    return lambda: session.run(None, feed)


def load_openvino(files: list[bytes], array: Any, threads: int, precision: str) -> Session:
    """Return a function that runs an ONNX model, or OpenVINO's own two files, once."""
    os.environ.setdefault("CI", "true")  # keeps OpenVINO from reporting its use to its makers unasked
    import openvino

    core = openvino.Core()
    if len(files) > 1:
        model = core.read_model(model=files[0], weights=files[1])
    else:
        model = core.read_model(model=files[0])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "ENABLE_CPU_PINNING": "NO",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(array, shared_memory=True))

    def run() -> object:
        request.infer(share_outputs=True)
        return array  # the request holds only a pointer to it

    return run


LOADERS: dict[str, Callable[[list[bytes], Any, int, str], Session]] = {
    "onnxruntime": load_onnxruntime,
    "openvino": load_openvino,
}


def choose_engine(requested_package: str | None, device: dict[str, Any]) -> tuple[str, str]:
    """Return the engine's package and its version."""
    kit_package = next(
        (package for package, names in ENGINES.items() if names[0] == device["engine"]), "onnxruntime"
    )
    name, precision = requested_package or kit_package, device["precision"]
    if name != kit_package and precision == "int8":
        raise KitError(f"The kit was quantised for {kit_package}; it cannot be measured with {name}.")
    if name == "onnxruntime" and precision == "bf16":
        raise KitError("The kit asks for bf16, which onnxruntime does not offer. Use --engine openvino.")
    try:
        module = __import__(name)
    except ImportError as error:
        other_options = " or ".join(f"--engine {package}" for package in ENGINES if package != name)
        raise KitError(
            f"{name} is not installed ({error}): pip install {name}, or try {other_options}."
        ) from error
    if precision == "bf16" and "BF16" not in module.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise KitError("The kit asks for bf16, which this processor has no instructions for.")
    version = getattr(module, "__version__", None) or module.get_version()
    return name, str(version)


@contextmanager
def failures_named(key: str) -> Iterator[None]:
    """Turn an engine's failure into an error that names the program."""
    try:
        yield
    except (KitError, OSError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:500]
        raise KitError(
            f"The engine failed at {key}: {type(error).__name__}: {text}. All measurements are saved; the "
            "same command continues after the cause is removed."
        ) from error
