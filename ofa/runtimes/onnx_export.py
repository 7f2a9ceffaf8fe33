"""Networks as ONNX models."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ofa.runtimes.base import quiet

OPSET = 17
INPUT, OUTPUT = "images", "logits"
DYNAMIC_BATCH = ({0: Dim("batch", min=1)},)
"""Dynamic shapes of a network that takes any number of images."""


def export_onnx(network: nn.Module | ExportedProgram, example: Tensor) -> bytes:
    """Return an ONNX model with the input "images" and the output "logits".

    A module becomes a model of the example's shape, for measuring. The TorchScript exporter writes it in
    about a fortieth of the newer exporter's time; a table needs hundreds of layers. A program that
    `torch.export` made with `DYNAMIC_BATCH` becomes a model for any number of images, for delivery, through
    the newer exporter.
    """
    with quiet(), tempfile.TemporaryDirectory() as folder:
        if isinstance(network, ExportedProgram):
            return _export_program(network, example)
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            copy.deepcopy(network).eval(),
            (example,),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
        return path.read_bytes()


def _export_program(program: ExportedProgram, example: Tensor) -> bytes:
    exported = torch.onnx.export(
        program,
        (example,),
        dynamo=True,
        dynamic_shapes=DYNAMIC_BATCH,
        input_names=[INPUT],
        output_names=[OUTPUT],
        verbose=False,
    )
    assert exported is not None
    content: bytes = exported.model_proto.SerializeToString()
    return content


def exporter_facts() -> str:
    """Return the versions that a measured model depends on."""
    return f"PyTorch {torch.__version__}, TorchScript, opset {OPSET}"
