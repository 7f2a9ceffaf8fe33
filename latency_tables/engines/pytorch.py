"""PyTorch eager on the processor (clock) or on CUDA (events).

Modules run in PyTorch's default memory layout, that of a network which is loaded and called without further
settings.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from latency_tables.engines.base import Description, Engine, TimedRun, processor_name, timed
from latency_tables.table.device import DeviceSpec
from ofa.common.accelerator import threads_set
from ofa.common.errors import UserError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class PyTorchEngine(Engine):
    """Eager execution under inference mode."""

    def __init__(self, device: DeviceSpec) -> None:
        """Check that the accelerator exists.

        Raises:
            UserError: if the device asks for CUDA and this machine or this PyTorch lacks it, or for an
                accelerator or precision that PyTorch does not offer.
        """
        if device.accelerator not in ("cpu", "cuda") or device.precision not in DTYPES:
            raise UserError(
                f"Device {device.name!r} asks for {device.precision} on {device.accelerator}; engine pytorch "
                f"offers {', '.join(DTYPES)} on cpu or cuda. Choose one of these."
            )
        if device.accelerator == "cuda" and not torch.cuda.is_available():
            raise UserError(
                f"Device {device.name!r} needs CUDA, and PyTorch finds no CUDA device here. "
                "Choose a device with accelerator: cpu, for instance device=my_cpu."
            )
        self._device = device

    @override
    def describe(self) -> Description:
        cuda = self._device.accelerator == "cuda"
        return {
            "engine": "PyTorch eager",
            "version": torch.__version__,
            "processor": torch.cuda.get_device_name() if cuda else processor_name(),
            "memory_format": "contiguous",
            "clock": "CUDA events" if cuda else "perf_counter",
        }

    @override
    def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
        torch_device, dtype = torch.device(self._device.accelerator), DTYPES[self._device.precision]
        model = copy.deepcopy(module).eval().to(torch_device, dtype)
        images = example.to(torch_device, dtype)
        return time_on_cuda(model, images) if torch_device.type == "cuda" else time_on_cpu(model, images)

    def measuring(self) -> AbstractContextManager[None]:
        """Set the number of threads; see `Engine.measuring`."""
        return threads_set(self._device.threads)


def time_on_cpu(module: Callable[[Tensor], object], images: Tensor) -> TimedRun:
    """Return a run of `module`, timed by the wall clock."""

    once = timed(lambda: module(images))

    def run() -> float:
        with torch.inference_mode():
            return once()

    return run


def time_on_cuda(module: nn.Module, images: Tensor) -> TimedRun:
    """Return a run of `module`, timed between two CUDA events, starting on an idle device."""
    # PyTorch leaves the constructor and the result of its events untyped.
    new_event: Callable[[], Any] = partial(torch.cuda.Event, enable_timing=True)
    start, end = new_event(), new_event()

    def run() -> float:
        with torch.inference_mode():
            torch.cuda.synchronize()
            start.record()
            module(images)
            end.record()
            end.synchronize()
        return float(start.elapsed_time(end))

    return run
