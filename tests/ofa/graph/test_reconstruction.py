"""`Reconstructor`: layers that lost inputs compute nearly what they computed before."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.compression.changes import LayerChange, apply_changes
from ofa.graph import reconstruction
from ofa.graph.convert import make_elastic
from ofa.graph.reconstruction import Reconstructor
from ofa.graph.supernet import GraphSupernet
from ofa.space.plain import GeneConfig


def half_of(model: nn.Module, example: Tensor) -> tuple[GraphSupernet, GeneConfig]:
    """Return the supernet of a network, and its sub-network with half of the units of each group."""
    supernet = make_elastic(
        model.eval(), example, widths=[0.5, 1.0], depths=[1.0], divisor=1, min_channels=1
    ).eval()
    return supernet, supernet.space.smallest


def error(network: nn.Module, other: nn.Module, images: Tensor) -> float:
    """Return the squared difference of two networks' outputs, as a part of the square of the second's."""
    with torch.no_grad():
        outputs, expected = network(images), other(images)
    return float(((outputs - expected) ** 2).sum() / (expected**2).sum())


class Residual(nn.Module):
    """Convolutions with batch norm, strides, a bias, a depthwise one, a shortcut and a classifier."""

    def __init__(self) -> None:
        """Make the layers with random weights and statistics."""
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.first = nn.Conv2d(16, 32, 3, padding=1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.second = nn.Conv2d(32, 16, 1)
        self.last = nn.Linear(16, 5)
        self.norm.running_mean.normal_()  # type: ignore[union-attr]
        self.norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, 5) of images (n, 3, h, w)."""
        values = self.norm(self.stem(images)).relu()
        values = values + self.second(self.depthwise(self.first(values).relu()).relu())
        return self.last(values.mean((2, 3)))  # type: ignore[no-any-return]


def test_a_pruned_network_computes_nearly_what_it_computed() -> None:
    torch.manual_seed(0)
    images, other_images = torch.randn(64, 3, 10, 10), torch.randn(32, 3, 10, 10)
    supernet, config = half_of(Residual(), images[:2])
    original, pruned = supernet.extract(supernet.space.largest), supernet.extract(config)
    before = error(pruned, original, other_images)
    sliced = copy.deepcopy(pruned.state_dict())
    fitted = Reconstructor(original, images).fit(pruned, supernet.positions(config))
    assert [layer.name for layer in fitted] == ["first", "second", "last"]  # In the order of their calls.
    assert all(layer.error_after < 0.7 * layer.error_before for layer in fitted)
    assert error(pruned, original, other_images) < 0.3 * before
    changed_names = {name for name, value in pruned.state_dict().items() if not value.equal(sliced[name])}
    assert changed_names == {"first.weight", "second.weight", "last.weight"}


class Tokens(nn.Module):
    """A network whose graph runs, as its forward has sizes written into it: windows of an image, groups."""

    def __init__(self) -> None:
        """Make the layers with random weights."""
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 2, 2)
        self.mix = nn.Conv2d(24, 24, 3, padding="same", groups=4)
        self.wide, self.narrow = nn.Linear(24, 48), nn.Linear(48, 24)
        self.last_weight = nn.Parameter(torch.randn(5, 24) / 5)

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, 5) of images (n, 3, 8, 8)."""
        values = self.mix(self.patches(images).relu())
        values = values.view(-1, 24, 2, 2, 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 24)
        values = values + self.narrow(self.wide(values).relu())
        return F.linear(values.reshape(-1, 16, 24).mean(1), self.last_weight)


def test_networks_whose_graph_runs_are_fitted_as_well() -> None:
    torch.manual_seed(4)
    images, other_images = torch.randn(64, 3, 8, 8), torch.randn(32, 3, 8, 8)
    supernet, config = half_of(Tokens(), images[:2])
    original, pruned = supernet.extract(supernet.space.largest), supernet.extract(config)
    assert supernet.runs_graph
    before = error(pruned, original, other_images)
    fitted = Reconstructor(original, images).fit(pruned, supernet.positions(config))
    # The convolution loses whole groups, and what is left reads as much as before.
    assert [layer.name for layer in fitted] == ["wide", "narrow", "last_weight"]
    assert all(layer.error_after < layer.error_before for layer in fitted)
    assert error(pruned, original, other_images) < 0.6 * before


@pytest.mark.parametrize(("groups", "padding"), [(1, "same"), (2, (2, 1)), (4, "valid")])
def test_each_group_of_a_convolution_is_fitted_to_its_own_inputs(
    groups: int, padding: str | tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the inputs of each group are a third of the others: nothing is lost."""
    monkeypatch.setattr(reconstruction, "_RIDGE", 1e-9)
    torch.manual_seed(5)
    first = nn.Conv2d(2, 16, 1, bias=False)
    second = nn.Conv2d(16, 8, 3, padding=padding, dilation=2, groups=groups)
    with torch.no_grad():
        first.weight[1::2] = first.weight[::2] / 3
    network = nn.Sequential(first, nn.ReLU(), second)
    kept_of_group = torch.arange(0, 16 // groups, 2)
    half, last = nn.Conv2d(2, 8, 1, bias=False), copy.deepcopy(second)
    half.weight = nn.Parameter(first.weight[::2].detach())
    last.in_channels, last.weight = 8, nn.Parameter(second.weight[:, kept_of_group].detach())
    pruned = nn.Sequential(half, nn.ReLU(), last)
    positions = torch.arange(second.weight.numel()).view(second.weight.shape)[:, kept_of_group]
    images = torch.randn(24, 2, 9, 9)
    assert error(pruned, network, images) > 0.01
    (layer,) = Reconstructor(network, images).fit(pruned, {"2.weight": positions})
    assert layer.name == "2" and layer.error_after < 1e-8
    assert error(pruned, network, images) < 1e-8


def test_redundant_channels_are_made_up_for() -> None:
    torch.manual_seed(1)
    first, second = nn.Conv2d(2, 8, 3, bias=False), nn.Conv2d(8, 4, 3, stride=2)
    with torch.no_grad():
        first.weight[4:] = 0.5 * first.weight[:4]  # The last four units are half of the first ones.
    images = torch.randn(40, 2, 7, 7)
    supernet, config = half_of(nn.Sequential(first, nn.ReLU(), second), images[:2])
    original, pruned = supernet.extract(supernet.space.largest), supernet.extract(config)
    assert error(pruned, original, images) > 0.01
    Reconstructor(original, images).fit(pruned, supernet.positions(config))
    assert error(pruned, original, images) < 1e-5


def test_the_weights_are_those_of_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "_RIDGE", 1e-12)
    torch.manual_seed(2)
    images = torch.randn(80, 6)
    supernet, config = half_of(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), images[:2])
    original, pruned = supernet.extract(supernet.space.largest), supernet.extract(config)
    Reconstructor(original, images).fit(pruned, supernet.positions(config))
    with torch.no_grad():
        inputs = F.linear(images, pruned.get_parameter("0.weight"), pruned.get_parameter("0.bias")).relu()
        outputs = original(images) - original.get_parameter("2.bias")
    is_fitted = np.arange(80) % 4 != 0
    expected = np.linalg.lstsq(inputs.numpy()[is_fitted], outputs.numpy()[is_fitted])[0]
    weight = pruned.get_parameter("2.weight").detach()
    torch.testing.assert_close(weight, torch.from_numpy(expected.T), rtol=1e-4, atol=1e-5)


def test_weights_stay_where_the_fit_is_not_better() -> None:
    first = nn.Linear(4, 8)
    with torch.no_grad():
        first.weight.zero_()
        first.bias.zero_()  # The second layer reads zeros alone.
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(8, 3))
    images = torch.randn(16, 4)
    supernet, config = half_of(model, images[:2])
    pruned = supernet.extract(config)
    sliced = pruned.get_parameter("2.weight").clone()
    (layer,) = Reconstructor(supernet.extract(supernet.space.largest), images).fit(
        pruned, supernet.positions(config)
    )
    assert layer.error_after == layer.error_before and pruned.get_parameter("2.weight").equal(sliced)


def test_layers_that_are_called_twice_are_left_out() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.again, self.last = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, values: Tensor) -> Tensor:
            values = self.again(self.again(self.wide(values)).relu())
            return self.last(values)  # type: ignore[no-any-return]

    images = torch.randn(16, 4)
    supernet, config = half_of(Twice(), images[:2])
    reconstructor = Reconstructor(supernet.extract(supernet.space.largest), images)
    assert set(reconstructor.layer_names) == {"wide", "last"}
    fitted = reconstructor.fit(supernet.extract(config), supernet.positions(config))
    assert [layer.name for layer in fitted] == ["last"]


def test_the_last_of_two_factors_is_fitted_to_the_whole() -> None:
    torch.manual_seed(3)
    images, other_images = torch.randn(32, 4, 9, 9).relu(), torch.randn(16, 4, 9, 9).relu()
    network = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2)).eval()
    changed = apply_changes(network, [LayerChange("2", "split", (16,))])
    first, second = changed.get_parameter("2.0.weight").clone(), changed.get_parameter("2.1.weight").clone()
    before = error(changed, network, other_images)
    (layer,) = Reconstructor(network, images).fit_factors(changed, {"2.1": "2"})
    assert layer.name == "2.1" and layer.error_after < layer.error_before
    assert error(changed, network, other_images) < 0.7 * before
    assert changed.get_parameter("2.0.weight").equal(first)
    assert not changed.get_parameter("2.1.weight").equal(second)


def test_too_few_images_are_an_error() -> None:
    with pytest.raises(UserError, match="There are 7 images to fit layers to; expected 8 at least"):
        Reconstructor(nn.Linear(2, 2), torch.randn(7, 2))
