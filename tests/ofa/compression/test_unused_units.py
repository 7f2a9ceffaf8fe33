"""Channels that zeros made useless: found along chains and residual blocks, and left out exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.common.errors import UserError
from ofa.compression.facts import TensorShape
from ofa.compression.unused_units import (
    CutNetwork,
    cut_shapes,
    removable_groups,
    used_units,
    with_shapes,
    without_units,
)
from ofa.evaluation.recalibrate import recalibrate_batchnorm

SHAPE = (3, 8, 8)


class Residual(nn.Module):
    """A stream that two layers write and three read, with one block inside, and a chain at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.inner, self.inner_norm = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.outer, self.outer_norm = nn.Conv2d(5, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.last, self.last_norm = nn.Conv2d(6, 7, 1, bias=False), nn.BatchNorm2d(7)
        self.head = nn.Linear(7, 4)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(images)))
        x = F.relu(x + self.outer_norm(self.outer(F.relu(self.inner_norm(self.inner(x))))))
        outputs: Tensor = self.head(F.relu(self.last_norm(self.last(x))).mean((2, 3)))
        return outputs


@pytest.fixture
def network() -> Residual:
    """A network whose batch norms shift down, so that channels without input are zero after a ReLU."""
    torch.manual_seed(0)
    model = Residual().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.uniform_(-0.5, 0.0)
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return model


def cut(network: nn.Module) -> tuple[CutNetwork, dict[str, list[int]]]:
    """Return the network without unused channels, and the channels of each group that went."""
    groups = removable_groups(network, SHAPE)
    used = used_units(network, groups)
    gone = {group.name: (~flags).nonzero()[0].tolist() for group, flags in zip(groups, used, strict=True)}
    return without_units(network, groups, used), {name: units for name, units in gone.items() if units}


def zero(network: nn.Module, name: str, index: int, *, axis: int) -> None:
    """Set the weights of a layer that make (axis 0) or read (axis 1) a channel to zero."""
    with torch.no_grad():
        network.get_parameter(f"{name}.weight").select(axis, index).zero_()


def assert_equal(network: nn.Module, smaller: nn.Module) -> None:
    images = torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert torch.allclose(smaller(images), network(images), atol=1e-6)


def test_a_network_without_zeros_stays(network: Residual) -> None:
    smaller, gone = cut(network)
    assert not gone and not smaller.kept_indices
    assert_equal(network, smaller.network)


def test_in_a_chain_one_end_is_enough(network: Residual) -> None:
    zero(network, "inner", 1, axis=0)
    zero(network, "outer", 3, axis=1)
    smaller, gone = cut(network)
    assert gone == {"inner": [1, 3]}
    assert smaller.network.get_parameter("inner.weight").shape == (3, 6, 3, 3)
    assert smaller.network.get_parameter("outer.weight").shape == (6, 3, 3, 3)
    assert smaller.network.get_buffer("inner_norm.running_mean").shape == (3,)
    assert_equal(network, smaller.network)
    assert network.inner.weight.shape == (5, 6, 3, 3)


def test_a_shortcut_needs_all_that_write_or_all_that_read(network: Residual) -> None:
    zero(network, "stem", 0, axis=0)  # one of two that write
    zero(network, "inner", 1, axis=1)  # one of two that read
    for name in ("stem", "outer"):
        zero(network, name, 2, axis=0)
    for name in ("inner", "last"):
        zero(network, name, 4, axis=1)
    smaller, gone = cut(network)
    assert gone == {"stem": [2, 4]}
    assert smaller.network.get_parameter("last.weight").shape == (7, 4, 1, 1)
    assert_equal(network, smaller.network)


def test_what_follows_goes_as_well(network: Residual) -> None:
    with torch.no_grad():
        network.outer.weight[2].zero_()
        network.outer.weight[2, 1] = 1.0
        network.stem.weight[2].zero_()
        network.inner.weight[1].zero_()
        network.last.weight[3].zero_()
        network.last.weight[3, 2] = 1.0
    # Channel 1 of `inner` has no input, so channel 2 of the stream has none, and so 3 of `last`.
    smaller, gone = cut(network)
    assert gone == {"inner": [1], "stem": [2], "last": [3]}
    assert_equal(network, smaller.network)


def test_one_channel_stays(network: Residual) -> None:
    with torch.no_grad():
        network.inner.weight.zero_()
    smaller, gone = cut(network)
    assert gone == {"inner": [1, 2, 3, 4]}
    assert_equal(network, smaller.network)


def test_a_constant_is_taken_up_by_batch_norm(network: Residual) -> None:
    with torch.no_grad():
        network.norm.bias.fill_(1.0)
        network.outer_norm.bias.fill_(1.0)
    for name in ("stem", "outer"):
        zero(network, name, 2, axis=0)
    # Its readers see a constant; `inner` is padded, so that it does not read it here.
    zero(network, "inner", 2, axis=1)
    smaller, gone = cut(network)
    assert gone == {"stem": [2]}
    images = torch.randn(16, *SHAPE)
    with torch.no_grad():
        assert not torch.allclose(smaller.network(images), network(images), atol=1e-3)
    for model in (network, smaller.network):
        recalibrate_batchnorm(model, [images])
    assert_equal(network, smaller.network)


def test_a_linear_layer_after_flatten_loses_all_positions() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(45, 8), nn.ReLU(), nn.Linear(8, 4)
    ).eval()
    with torch.no_grad():
        network.get_parameter("3.weight")[:, 9:18] = 0.0
    smaller, gone = cut(network)
    assert gone == {"0": [1]}
    assert smaller.network.get_parameter("3.weight").shape == (8, 36)
    assert_equal(network, smaller.network)


def test_the_shapes_alone_make_it_again(network: Residual) -> None:
    zero(network, "inner", 1, axis=0)
    smaller, _ = cut(network)
    shapes = cut_shapes(smaller.network, network)
    by_name = {own.name: own.shape for own in shapes}
    assert list(by_name) == sorted(by_name)
    assert by_name["outer.weight"] == (6, 4, 3, 3) and "stem.weight" not in by_name
    with torch.device("meta"):
        empty = Residual()
    made = with_shapes(empty, shapes)
    made.load_state_dict(smaller.network.state_dict(), assign=True)
    assert_equal(smaller.network, made.eval())
    assert with_shapes(network, ()) is network


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("other.weight", (1,), "no tensor 'other.weight'"),
        (
            "inner.weight",
            (6, 6, 3, 3),
            r"inner.weight has shape \(5, 6, 3, 3\); it cannot become \(6, 6, 3, 3\)",
        ),
        ("inner.weight", (0, 6, 3, 3), "it cannot become"),
        ("inner.weight", (5, 6), "it cannot become"),
    ],
)
def test_other_shapes_are_refused(network: Residual, name: str, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(UserError, match=text):
        with_shapes(network, [TensorShape(name, shape)])
