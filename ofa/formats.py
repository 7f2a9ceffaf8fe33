"""File formats of an exported network: what is written, and how a written file is run."""

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
from torch.export import Dim, ExportedProgram

from ofa.bundle import WEIGHTS_FILE, BundleInfo, network_of
from ofa.static import StaticNetwork

Logits = Callable[[Tensor], Tensor]


class Source:
    """The network being exported: on the CPU, in eval mode; traced once for all formats."""

    def __init__(self, network: StaticNetwork, info: BundleInfo) -> None:
        """Copy `network`; it is not changed."""
        self.network = (
            copy.deepcopy(network).to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
        )
        self.network.eval().requires_grad_(False)
        self.info = info
        self.dynamic_shapes = ({0: Dim("batch", min=1)},)

    def images(self, count: int) -> Tensor:
        """Return normally distributed images, the same in every call."""
        side = self.info.config.resolution
        generator = torch.Generator().manual_seed(count)
        return torch.randn(count, self.info.space.in_channels, side, side, generator=generator)

    @cached_property
    def program(self) -> ExportedProgram:
        """The network as a graph with any number of images."""
        return torch.export.export(self.network, (self.images(2),), dynamic_shapes=self.dynamic_shapes)


@dataclass(frozen=True)
class Format:
    """One file format: its content for a source, and how to run the written file.

    Attributes:
        file: name in the bundle.
        packages: what must be installed.
        serialise: takes the source, returns the file's content.
        load: takes the file and the info, returns the function from images to logits.
    """

    file: str
    packages: tuple[str, ...]
    serialise: Callable[[Source], bytes]
    load: Callable[[Path, BundleInfo], Logits]


def _weights_content(source: Source) -> bytes:
    state = {name: tensor.contiguous() for name, tensor in source.network.state_dict().items()}
    return safetensors.torch.save(state)


def _load_weights(path: Path, info: BundleInfo) -> Logits:
    network = network_of(info)
    network.load_state_dict(safetensors.torch.load(path.read_bytes()), assign=True)
    return network.eval()


def _pt2_content(source: Source) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(source.program, buffer)
    return buffer.getvalue()


def _load_pt2(path: Path, info: BundleInfo) -> Logits:
    return torch.export.load(path).module()


def _onnx_content(source: Source) -> bytes:
    program = torch.onnx.export(
        source.program,
        (source.images(2),),
        dynamo=True,
        dynamic_shapes=source.dynamic_shapes,
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def _load_onnx(path: Path, info: BundleInfo) -> Logits:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


WEIGHTS = Format(WEIGHTS_FILE, (), _weights_content, _load_weights)
FORMATS: dict[str, Format] = {
    "pt2": Format("model.pt2", (), _pt2_content, _load_pt2),
    "onnx": Format("model.onnx", ("onnx", "onnxscript", "onnxruntime"), _onnx_content, _load_onnx),
}
