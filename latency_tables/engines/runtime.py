"""Engines that convert networks and run the result: one class for all of `ofa.runtimes`."""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from typing_extensions import override

from latency_tables.engines.base import Description, Engine, TimedRun, processor_name, timed
from latency_tables.table.device import DeviceSpec
from ofa.common.errors import UserError
from ofa.compression.quantisation.registry import converted, offers_of
from ofa.runtimes.base import Files, Runtime, check_packages, offered_text, quiet, write_files


class RuntimeEngine(Engine):
    """Times a module converted for a runtime: one call, with the input in the runtime's memory."""

    def __init__(self, runtime: Runtime, device: DeviceSpec) -> None:
        """Check that the packages are installed and that the runtime supports the device's settings.

        Raises:
            UserError: if a package is missing or does not load, or the runtime offers no such precision,
                accelerator or batch size on this machine.
        """
        check_packages(runtime.packages, f"Engine {device.engine}", runtime.extra)
        offers = offers_of(runtime)
        if device.precision not in offers.get(device.accelerator, ()):
            raise UserError(
                f"Device {device.name!r} asks for {device.precision} on {device.accelerator}; engine "
                f"{device.engine} offers {offered_text(offers) or 'nothing'} on this machine. "
                "Change the device, or use engine: pytorch."
            )
        if runtime.one_image and device.batch_size != 1:
            raise UserError(
                f"Device {device.name!r} has batch_size {device.batch_size}; engine {device.engine} runs one "
                "image at a time. Use batch_size: 1, or another engine."
            )
        self._runtime = runtime
        self._device = device

    @override
    def describe(self) -> Description:
        on_gpu = self._device.accelerator == "cuda" and torch.cuda.is_available()
        processor = torch.cuda.get_device_name() if on_gpu else processor_name()
        facts = {"engine": self._runtime.title, "processor": processor, "clock": "perf_counter"}
        return facts | self._runtime.facts()

    @override
    def prepare(self, module: nn.Module, example: Tensor) -> TimedRun:
        return self.load(self.convert(module, example), example)

    def convert(self, module: nn.Module, example: Tensor) -> Files:
        """Return the files of `module` in the runtime's format for inputs like the example."""
        with quiet():
            return converted(self._runtime, module, example, self._device.precision)

    def load(self, files: Files, example: Tensor) -> TimedRun:
        """Return a timed run of files of `convert`."""
        device = self._device
        with tempfile.TemporaryDirectory() as name, quiet():
            folder = Path(name)
            write_files(folder, files)
            session = self._runtime.load(folder, device.threads, device.precision, device.accelerator)
        return timed(session.bind(example))

    def measuring(self) -> AbstractContextManager[None]:
        """Change nothing: threads are settings of each session."""
        return nullcontext()
