"""`torch.compile` on the processor: each module becomes C++ code, which takes seconds.

A table of a hundred layers takes some ten minutes to prepare, and needs a C++ compiler.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from typing_extensions import override

from latency_tables.engines.base import Description, Engine, TimedRun, processor_name
from latency_tables.engines.pytorch import DTYPES, time_on_cpu
from latency_tables.table.device import DeviceSpec
from ofa.common.accelerator import threads_set
from ofa.common.errors import UserError
from ofa.runtimes.base import quiet


class TorchCompileEngine(Engine):
    """TorchInductor's code for fixed input shapes, under inference mode."""

    def __init__(self, device: DeviceSpec) -> None:
        """Check that the engine supports the device's settings.

        Raises:
            UserError: if the device is not a processor, its precision is not offered, or there is no C++
                compiler.
        """
        if device.accelerator != "cpu" or device.precision not in DTYPES:
            raise UserError(
                f"Device {device.name!r} asks for {device.precision} on {device.accelerator}; engine "
                f"torch_compile offers {', '.join(DTYPES)} on cpu. Change the device, or use engine: pytorch."
            )
        compilers = (os.environ.get("CXX", "g++"), "clang++")
        if not any(map(shutil.which, compilers)):
            raise UserError(
                f"Engine torch_compile needs a C++ compiler; found none of {', '.join(compilers)}. Install "
                "g++ or set CXX, or use engine: pytorch."
            )
        self._device = device

    @override
    def describe(self) -> Description:
        return {
            "engine": "torch.compile",
            "version": torch.__version__,
            "processor": processor_name(),
            "backend": "inductor",
            "clock": "perf_counter",
        }

    @override
    def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
        """Compile a copy of `module` now, not in the first timed run, and return a timed run of it."""
        dtype = DTYPES[self._device.precision]
        images = example.to(dtype)
        with quiet():
            run = time_on_cpu(compiled(copy.deepcopy(module).to(dtype), images), images)
            run()
        return run

    def measuring(self) -> AbstractContextManager[None]:
        """Set the number of threads that the code is compiled for; see `Engine.measuring`."""
        return threads_set(self._device.threads)


def compiled(module: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the module in eval mode, compiled for inputs of the shape of `images` at its first call."""
    # A graph has its own code object. PyTorch caches only a few compilations per code object, and all blocks
    # of a class share one.
    graph = torch.export.export(module.eval(), (images,)).module()
    result: Callable[[Tensor], Tensor] = torch.compile(graph, dynamic=False)
    return result
