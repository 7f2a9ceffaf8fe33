"""Training with rounded numbers: the grid of an engine, gradients that pass, plain weights at the end."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from ofa.common.errors import UserError
from ofa.compression.facts import CompressionFacts, InputRange
from ofa.compression.fake_quantisation import fake_quantised, quantised_layers, rounded_weight
from ofa.compression.quantisation.onnx import quantise_onnx
from ofa.compression.settings import SparsePattern
from ofa.compression.sparse import make_sparse, sparse_layers, zeros_kept
from ofa.compression.trained_ranges import kept_ranges
from ofa.runtimes.onnx_export import export_onnx


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.Flatten(),
        nn.Linear(256, 5),
    )


@pytest.mark.parametrize(("bits", "num_values"), [(8, 255), (4, 15)])
def test_weights_have_a_symmetric_grid_for_each_output(bits: int, num_values: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 200, 3, 3) * torch.tensor([0.01, 1.0, 100.0])[:, None, None, None]
    rounded = rounded_weight(weight, bits)
    steps = num_values // 2
    for row, before in zip(rounded, weight, strict=True):
        scale = before.abs().max() / steps
        assert torch.unique((row / scale).round()).numel() <= num_values
        torch.testing.assert_close(row / scale, (row / scale).round(), atol=1e-4, rtol=0)
        assert (row - before).abs().max() <= 0.501 * scale
    # Rounded values stay as they are, as when an engine rounds them, and so do zeros.
    assert torch.equal(rounded_weight(rounded, bits), rounded)
    assert torch.equal(rounded_weight(torch.zeros(2, 3), bits), torch.zeros(2, 3))


def trained(model: nn.Sequential, bits: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Train for some steps with rounded numbers; return images and outputs with rounded numbers."""
    images = torch.randn(16, 4, 8, 8)
    with fake_quantised(model, quantised_layers(model), bits):
        optimizer = torch.optim.SGD(model.train().parameters(), 0.05)
        for _ in range(5):
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            return images, model.eval()(images)


def test_a_training_leaves_plain_rounded_weights() -> None:
    model, names = network(), set(network().state_dict())
    before = copy.deepcopy(model.state_dict())
    images, outputs = trained(model)
    assert set(model.state_dict()) == names
    for name in ("0.weight", "3.weight", "5.weight"):
        weight = model.get_parameter(name)
        assert not torch.equal(weight, before[name]) and torch.equal(rounded_weight(weight, 8), weight)
    assert not any(layer._forward_pre_hooks for layer in model.modules())
    with torch.no_grad():
        difference = (model(images) - outputs).abs().max()
    assert 0 < difference < 0.05 * outputs.abs().max()


def test_a_training_that_goes_on_has_the_ranges() -> None:
    model = network()
    with fake_quantised(model, quantised_layers(model), 8):
        model.train()(torch.randn(16, 4, 8, 8))
        state = copy.deepcopy(model.state_dict())
    ranges = {name: value for name, value in state.items() if name.endswith("maximum")}
    assert len(ranges) == 3 and all(value > 0 for value in ranges.values())
    resumed = network()
    with fake_quantised(resumed, quantised_layers(resumed), 8):
        resumed.load_state_dict(state)
        again = resumed.state_dict()
        assert all(torch.equal(again[name], value) for name, value in state.items())


def test_zeros_stay_zero() -> None:
    model = network()
    names, _ = sparse_layers(model, SparsePattern())
    make_sparse(model, SparsePattern(), names)
    zeros = {name: torch.eq(model.get_parameter(f"{name}.weight"), 0) for name in names}
    with zeros_kept(model, names):
        trained(model)
    for name in names:
        assert (model.get_parameter(f"{name}.weight")[zeros[name]] == 0).all()


def test_bfloat16_passes_through() -> None:
    model = network()
    with fake_quantised(model, quantised_layers(model), 8), torch.autocast("cpu", torch.bfloat16):
        outputs = model.train()(torch.randn(16, 4, 8, 8))
    assert outputs.dtype == torch.bfloat16
    outputs.float().sum().backward()


def test_an_engine_rounds_the_weights_to_themselves() -> None:
    model = nn.Sequential(nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3))
    with fake_quantised(model, quantised_layers(model), 8):
        pass
    images = torch.randn(8, 4, 8, 8)
    content = export_onnx(model.eval(), images[:1])
    quantised = onnx.load_from_string(quantise_onnx(content, [image[None].numpy() for image in images]))
    tensors = {entry.name: numpy_helper.to_array(entry) for entry in quantised.graph.initializer}
    found = 0
    for node in quantised.graph.node:
        weight = tensors.get(node.input[0])
        if node.op_type == "DequantizeLinear" and weight is not None and weight.ndim == 4:
            scale = tensors[node.input[1]].reshape(-1, 1, 1, 1)
            own = model.get_parameter("0.weight" if weight.shape[1] == 4 else "2.weight")
            np.testing.assert_allclose(weight * scale, own.detach().numpy(), rtol=1e-5, atol=1e-7)
            found += 1
    assert found == 2


def test_ranges_are_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ranges.jsonl"
    ranges = kept_ranges(path, ["a", "b"], {"a": (-0.5, 1.25), "b": (0.0, 3.0)})
    assert ranges == (InputRange("a", -0.5, 1.25), InputRange("b", 0.0, 3.0))
    assert kept_ranges(path, ["a", "b"], {}) == ranges
    assert CompressionFacts().digest == CompressionFacts(input_ranges=()).digest
    assert CompressionFacts().digest != CompressionFacts(input_ranges=ranges).digest
    path.write_text("no number\n")
    with pytest.raises(UserError, match=r"ranges\.jsonl"):
        kept_ranges(path, ["a"], {})
    path.write_text('{"name": "a minimum", "value": -0.5}\n')
    with pytest.raises(UserError, match=r"ranges\.jsonl lacks 'a maximum' of a trained range"):
        kept_ranges(path, ["a"], {})


@pytest.mark.parametrize(
    ("minimum", "maximum"), [(0.1, 1.0), (-1.0, -0.1), (0.0, float("nan")), (-np.inf, 1.0)]
)
def test_a_range_has_finite_numbers_around_0(minimum: float, maximum: float) -> None:
    with pytest.raises(UserError, match="The range of head is .*; expected finite numbers"):
        InputRange("head", minimum, maximum)


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(UserError, match="no convolution or linear layer"):
        quantised_layers(nn.Sequential(nn.ReLU()))
