"""Networks as ONNX models."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
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
    the newer exporter; if it has several outputs, they are "output_0", "output_1" and so on.
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
    num_outputs = len(program.graph_signature.user_outputs)
    names = [OUTPUT] if num_outputs == 1 else [f"output_{number}" for number in range(num_outputs)]
    exported = torch.onnx.export(
        program,
        (example,),
        dynamo=True,
        dynamic_shapes=DYNAMIC_BATCH,
        input_names=[INPUT],
        output_names=names,
        verbose=False,
    )
    assert exported is not None
    content: bytes = exported.model_proto.SerializeToString()
    return content


def with_metadata(model: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return an ONNX model with texts by key in its `metadata_props`, in place of those of the same keys.

    Without any texts the model is returned as it is.
    """
    if not metadata:
        return model
    import onnx

    proto = onnx.load_from_string(model)
    texts = {entry.key: entry.value for entry in proto.metadata_props} | dict(metadata)
    del proto.metadata_props[:]
    for key, value in sorted(texts.items()):
        proto.metadata_props.add(key=key, value=value)
    content: bytes = proto.SerializeToString()
    return content


def metadata_of(model: bytes) -> dict[str, str]:
    """Return the texts in the `metadata_props` of an ONNX model by key."""
    import onnx

    return {entry.key: entry.value for entry in onnx.load_from_string(model).metadata_props}


def exporter_facts() -> str:
    """Return the versions that a measured model depends on."""
    return f"PyTorch {torch.__version__}, TorchScript, opset {OPSET}"
