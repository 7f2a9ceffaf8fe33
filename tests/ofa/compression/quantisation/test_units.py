"""The operators of a module that is no chain of layers, counted in its graph."""

from __future__ import annotations

import torch
import torchvision
from any_modules import two_branches
from torch import Tensor, nn

from ofa.compression.quantisation.graph import count_operators, operator_units


class Attention(nn.Module):
    """A product of activations, which has no weights, beside products with parameters and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.register_buffer("basis", torch.randn(4, 4))

    def forward(self, images: Tensor) -> Tensor:
        rows = images.flatten(2)
        hidden = rows @ self.weight
        output: Tensor = (hidden @ hidden.transpose(1, 2) @ rows) @ self.get_buffer("basis")
        return output


def count(network: nn.Module, *shape: int) -> int:
    return count_operators(torch.export.export(network.eval(), (torch.zeros(2, *shape),)))


def test_convolutions_linear_layers_and_products_with_constants_count() -> None:
    # A linear layer that is used twice is two operators.
    assert count(two_branches(), 1, 10, 14) == 5
    assert count(Attention(), 3, 2, 2) == 2
    # 20 convolutions, those of the shortcuts included, and the classifier.
    assert count(torchvision.models.resnet18(num_classes=4), 3, 32, 32) == 21


def test_each_operator_is_a_unit() -> None:
    units = operator_units(3)
    assert (units.title, units.positions) == ("operator", (0, 1, 2))
    assert set(units.operators((0, 2))) == {0, 2}
