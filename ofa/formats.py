"""File formats of an exported network: what is written, and how the written files are run."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from torch.export import ExportedProgram

from ofa.bundle import WEIGHTS_FILE, BundleInfo, network_of, read_weights
from ofa.runtimes import executorch, ncnn, onnx_runtime, openvino
from ofa.runtimes.base import Files, Logits, Runtime, each_image
from ofa.runtimes.onnx_export import DYNAMIC_BATCH, export_onnx
from ofa.static import StaticNetwork

PRECISION = "fp32"


class Source:
    """The network being exported: on the CPU, in eval mode; traced once for all formats."""

    def __init__(self, network: StaticNetwork, info: BundleInfo) -> None:
        """Copy `network`; it is not changed."""
        self.network = (
            copy.deepcopy(network).to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
        )
        self.network.eval().requires_grad_(False)
        self.info = info

    def images(self, count: int) -> Tensor:
        """Return normally distributed images, the same in every call."""
        side = self.info.config.resolution
        generator = torch.Generator().manual_seed(count)
        return torch.randn(count, self.info.space.in_channels, side, side, generator=generator)

    @cached_property
    def program(self) -> ExportedProgram:
        """The network as a graph with any number of images."""
        return torch.export.export(self.network, (self.images(2),), dynamic_shapes=DYNAMIC_BATCH)

    @cached_property
    def onnx(self) -> bytes:
        """The network as an ONNX model with any number of images."""
        return export_onnx(self.program, self.images(2))


@dataclass(frozen=True)
class Format:
    """One file format: its files for a source, and how to run the written files.

    Attributes:
        serialise: takes the source, returns the content of each file by its name in the bundle.
        load: takes the bundle's folder and the info, returns the function from images to logits.
        packages: what must be installed.
        extra: the extra of this project that installs it.
        batch_size: the only number of images per run; None where any number will do. `load` runs more
            images one after another.
        runtime: the engine that runs the files; None for PyTorch itself.
    """

    serialise: Callable[[Source], Files]
    load: Callable[[Path, BundleInfo], Logits]
    packages: tuple[str, ...] = ()
    extra: str = ""
    batch_size: int | None = None
    runtime: Runtime | None = None


def _weights_content(source: Source) -> Files:
    state = {name: tensor.contiguous() for name, tensor in source.network.state_dict().items()}
    return {WEIGHTS_FILE: safetensors.torch.save(state)}


def _load_weights(folder: Path, info: BundleInfo) -> Logits:
    network = network_of(info)
    network.load_state_dict(read_weights((folder / WEIGHTS_FILE).read_bytes()), assign=True)
    return network.eval()


def _pt2_content(source: Source) -> Files:
    buffer = io.BytesIO()
    torch.export.save(source.program, buffer)
    return {"model.pt2": buffer.getvalue()}


def _load_pt2(folder: Path, info: BundleInfo) -> Logits:
    return torch.export.load(folder / "model.pt2").module()


def _run_by(
    runtime: Runtime,
    serialise: Callable[[Source], Files],
    more_packages: tuple[str, ...] = (),
    batch_size: int | None = None,
) -> Format:
    """Return the format that a runtime reads."""

    def load(folder: Path, info: BundleInfo) -> Logits:
        session = runtime.load(folder, torch.get_num_threads(), PRECISION, "cpu")
        return session if batch_size is None else each_image(session)

    packages = (*runtime.packages, *more_packages)
    return Format(serialise, load, packages, runtime.extra, batch_size, runtime)


WEIGHTS = Format(_weights_content, _load_weights)
FORMATS: dict[str, Format] = {
    "pt2": Format(_pt2_content, _load_pt2),
    "onnx": _run_by(
        onnx_runtime.RUNTIME, lambda source: {onnx_runtime.MODEL_FILE: source.onnx}, ("onnxscript",)
    ),
    "openvino": _run_by(
        openvino.RUNTIME, lambda source: openvino.save(openvino.read_onnx(source.onnx)), ("onnxscript",)
    ),
    "ncnn": _run_by(
        ncnn.RUNTIME,
        lambda source: ncnn.convert(source.network, source.images(1), PRECISION),
        batch_size=1,
    ),
    "executorch": _run_by(
        executorch.RUNTIME,
        lambda source: executorch.convert(source.network, source.images(1), PRECISION),
        batch_size=1,
    ),
}
