"""ExecuTorch on the processor, with the XNNPACK backend."""

from __future__ import annotations

import copy
import gc
import io
import weakref
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from ofa.common.errors import UserError
from ofa.runtimes.base import (
    FP32,
    FileFormat,
    Files,
    NetworkSource,
    Offers,
    Runtime,
    Session,
    does_not_load,
    quiet,
)

MODEL_FILE = "model.pte"


class ExecuTorchSession(Session):
    """A loaded program of one method."""

    def __init__(self, method: Any) -> None:
        """Take the program's `Method`."""
        self._method = method
        _SESSIONS.add(self)

    @override
    def __call__(self, images: Tensor, /) -> Tensor:
        (output,) = self._method.execute((images.detach().contiguous(),))
        return torch.as_tensor(output).clone()

    @override
    def bind(self, images: Tensor) -> Callable[[], object]:
        inputs = (images.detach().contiguous(),)
        return lambda: self._method.execute(inputs)


_SESSIONS: weakref.WeakSet[ExecuTorchSession] = weakref.WeakSet()
"""Sessions in use. All sessions of a process share one thread pool, which cannot be replaced meanwhile."""


def convert(network: nn.Module, example: Tensor, precision: str) -> Files:
    """Return `network` as a program for inputs of the example's shape."""
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = torch.export.export(copy.deepcopy(network).eval(), (example,))
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        return {MODEL_FILE: bytes(lowered.to_executorch().buffer)}


def load(folder: Path, threads: int, precision: str, accelerator: str = "cpu") -> ExecuTorchSession:
    """Return the program in `folder`.

    Raises:
        UserError: if a session with another number of threads is in use in this process.
    """
    with quiet(), redirect_stderr(io.StringIO()):  # compiled code logs there
        from executorch.runtime import Runtime as ExecuTorch

        _set_threads(threads)
        program = ExecuTorch.get().load_program(folder / MODEL_FILE)
        return ExecuTorchSession(program.load_method("forward"))


def thread_count() -> int:
    """Return how many threads the sessions of this process use."""
    with quiet():
        from executorch.extension.pybindings import portable_lib

        count: int = portable_lib._threadpool_get_thread_count()
        return count


def _set_threads(threads: int) -> None:
    from executorch.extension.pybindings import portable_lib

    if thread_count() == threads:
        return
    gc.collect()
    if _SESSIONS:
        raise UserError(
            f"ExecuTorch runs with {thread_count()} threads in this process, and {len(_SESSIONS)} networks "
            f"that use them are loaded; {threads} threads need a process of their own."
        )
    portable_lib._unsafe_reset_threadpool(threads)


def _offers() -> Offers:
    """Import the package, which fails where its wheel does not fit PyTorch."""
    try:
        with quiet():
            import executorch.exir
            import executorch.runtime  # noqa: F401
    except (ImportError, OSError, AttributeError) as error:
        raise does_not_load("ExecuTorch", "executorch", error) from error
    return {"cpu": ("fp32",)}


def _facts() -> dict[str, str]:
    from importlib.metadata import version

    return {"version": version("executorch"), "exporter": f"PyTorch {torch.__version__}, XNNPACK"}


def _write(source: NetworkSource) -> Files:
    return convert(source.network, source.images(1), FP32)


def _example(paths: Sequence[str], precision: str) -> str:
    return f"""import torch
from executorch.runtime import Runtime
method = Runtime.get().load_program("{paths[0]}").load_method("forward")
logits = method.execute([torch.from_numpy(images)])[0].numpy()"""


RUNTIME = Runtime(
    name="executorch",
    title="ExecuTorch",
    packages=("executorch",),
    extra="executorch",
    offers=_offers,
    convert=convert,
    load=load,
    facts=_facts,
    format=FileFormat("executorch", (MODEL_FILE,), _write, _example, batch_size=1),
)
