"""Ranges that a network was trained with: an engine's graph has them at the tensors that the layers read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from ofa.compression.facts import InputRange
from ofa.compression.fake_quantisation import fake_quantised, quantised_layers
from ofa.compression.quantisation.registry import QUANTISERS
from ofa.compression.quantisation.trained_inputs import TrainedInputs
from ofa.compression.trained_ranges import trained_inputs
from ofa.runtimes import onnx_runtime, openvino
from ofa.runtimes.base import INT8, Files, write_files
from ofa.runtimes.onnx_export import DYNAMIC_BATCH, export_onnx

Images = NDArray[np.float32]
PACKAGES = {"onnx_runtime": ("onnx", "onnxruntime"), "openvino": ("openvino", "nncf")}
RUNTIMES = {"onnx_runtime": onnx_runtime.RUNTIME, "openvino": openvino.RUNTIME}


@pytest.fixture(params=PACKAGES)
def engine(request: pytest.FixtureRequest) -> str:
    """Return the name of an engine that has a quantiser; skips it without its packages."""
    name: str = request.param
    for package in PACKAGES[name]:
        pytest.importorskip(package)
    return name


class Shortcut(nn.Module):
    """Two branches, of which an optimiser may put either first, and a pooling before the last layer."""

    def __init__(self) -> None:
        """Make the layers with random weights."""
        super().__init__()
        self.stem, self.norm = nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)
        self.first, self.second = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 10, 3, padding=1)
        self.shortcut = nn.Conv2d(6, 10, 1)
        self.last = nn.Conv2d(10, 12, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (n, 12, h, w) of images (n, 4, h, w)."""
        values = self.norm(self.stem(images)).relu()
        inner = self.second(self.first(values).relu())
        return self.last(torch.max_pool2d((inner + self.shortcut(values)).relu(), 3, 1))  # type: ignore[no-any-return]


def quantised(engine: str, content: bytes, inputs: Sequence[Images], trained: TrainedInputs | None) -> Files:
    """Return an engine's int8 files of an ONNX model."""
    if engine == "onnx_runtime":
        files = {onnx_runtime.MODEL_FILE: content}
    else:
        files = openvino.save(openvino.read_onnx(content))
    return QUANTISERS[engine].prepare(files, inputs, trained)(())


def rounded_ranges(files: Files) -> dict[tuple[int, ...], float]:
    """Return the width of the range of each convolution's inputs, by outputs and inputs of its weight."""
    if onnx_runtime.MODEL_FILE in files:
        return _ranges_in_onnx(files[onnx_runtime.MODEL_FILE])
    model = openvino.core().read_model(files[openvino.MODEL_FILE], files[openvino.WEIGHTS_FILE])
    found = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution":
            rounding = node.input_value(0).get_node()
            while rounding.get_type_name() != "FakeQuantize":
                rounding = rounding.input_value(0).get_node()
            low, high = (float(rounding.input_value(side).get_node().data.item()) for side in (1, 2))
            found[tuple(node.input_value(1).get_shape()[:2])] = high - low
    return found


def _ranges_in_onnx(content: bytes) -> dict[tuple[int, ...], float]:
    model = onnx.load_from_string(content)
    tensors = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            rounding = makers[node.input[0]]
            while rounding.op_type != "DequantizeLinear":
                rounding = makers[rounding.input[0]]
            shape = tensors[makers[node.input[1]].input[0]].shape
            found[shape[:2]] = 255 * float(tensors[rounding.input[1]])
    return found


def outputs_of(engine: str, files: Files, inputs: Sequence[Images], folder: Path) -> Images:
    """Return what an engine computes of single images, in one array."""
    write_files(folder, files)
    session = RUNTIMES[engine].load(folder, 1, INT8, "cpu")
    return np.concatenate([session(torch.from_numpy(images)).numpy() for images in inputs])


def trained_network() -> tuple[nn.Module, torch.Tensor, list[InputRange], Images]:
    """Return a network, images, ranges that are not those of the images, and the outputs with them."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(16)
    model = nn.Sequential(nn.Conv2d(4, 16, 3), norm, nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten())
    model.append(nn.Linear(256, 5))
    images = torch.randn(64, 4, 8, 8)
    names = quantised_layers(model)
    with fake_quantised(model, names, 8) as ranges, torch.no_grad():
        for _ in range(5):
            model.train()(images)
        for name, value in model.eval().named_buffers():
            if name.endswith(("minimum", "maximum")):
                value.mul_(0.7)
        outputs = model(images).numpy()
    return model, images, [InputRange(name, *ranges[name]) for name in names], outputs


def test_an_engine_computes_with_the_ranges_of_the_training(engine: str, tmp_path: Path) -> None:
    model, images, ranges, expected = trained_network()
    inputs = [image[None].numpy() for image in images]
    content = export_onnx(model, images[:1])
    trained = trained_inputs(model, images[:1], ranges)
    assert trained is not None and trained.ranges == tuple(ranges)
    strange = dataclasses.replace(trained, values=tuple(2 * values for values in trained.values))
    errors = []
    for name, given in (("trained", trained), ("calibrated", None), ("strange", strange)):
        outputs = outputs_of(engine, quantised(engine, content, inputs, given), inputs, tmp_path / name)
        errors.append(float(np.abs(outputs - expected).mean() / np.abs(expected).mean()))
    # ONNX Runtime rounds the outputs as well. Ranges of tensors that are not in the graph change nothing.
    assert errors[0] < {"onnx_runtime": 0.01, "openvino": 0.001}[engine]
    assert errors[1] > 0.03 and errors[2] > 0.03


def test_ranges_belong_to_their_operators_in_a_network_of_branches(engine: str) -> None:
    torch.manual_seed(0)
    model, images = Shortcut().eval(), torch.randn(8, 4, 10, 10)
    maxima = {"stem": 3.0, "first": 5.0, "second": 7.0, "shortcut": 4.0, "last": 9.0}
    trained = trained_inputs(model, images[:1], [InputRange(n, 0.0, m) for n, m in maxima.items()])
    program = torch.export.export(model, (images,), dynamic_shapes=DYNAMIC_BATCH)
    for content in (export_onnx(model, images[:1]), export_onnx(program, images)):
        files = quantised(engine, content, [image[None].numpy() for image in images], trained)
        # Both branches read one tensor, whose range covers those of both.
        expected = {(6, 4): 3.0, (8, 6): 5.0, (10, 8): 7.0, (10, 6): 5.0, (12, 10): 9.0}
        assert rounded_ranges(files) == pytest.approx(expected, rel=1e-5)


def test_no_ranges_and_zeros_alone_are_no_trained_inputs() -> None:
    model, images = nn.Sequential(nn.Conv2d(1, 2, 3)), torch.zeros(1, 1, 4, 4)
    assert trained_inputs(model, images, []) is None
    assert trained_inputs(model, images, [InputRange("0", 0.0, 0.0)]) is None
    # What is zero in the run could be any tensor.
    trained = trained_inputs(model, images, [InputRange("0", 0.0, 1.0)])
    assert trained is not None and trained.limits({"x": images.numpy()}) == {}
