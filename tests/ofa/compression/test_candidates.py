"""Which convolutions can be changed, and the reasons of the others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.compression.candidates import find_candidates


class OwnConvolution(nn.Conv2d):
    """A class of its own, whose forward may be another."""


class Odd(nn.Module):
    """Convolutions of all kinds; `twice` is called at two sizes, `shared` has two names."""

    def __init__(self) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(3, 32, 1)
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.reflected = nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect")
        self.same = nn.Conv2d(32, 32, 3, padding="same")
        self.own = OwnConvolution(32, 32, 3, padding=1)
        self.twice = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.shared = nn.Conv2d(32, 32, 3, padding=1)
        self.other_name = self.shared
        self.narrow = nn.Conv2d(32, 1, 3, padding=1)
        self.unused = nn.Conv2d(32, 32, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.same(self.reflected(self.grouped(self.pointwise(images))))
        x = self.other_name(self.shared(self.twice(self.twice(self.own(x)))))
        outputs: Tensor = self.narrow(x).mean((2, 3))
        return outputs


def test_all_kinds_are_told_apart() -> None:
    found = find_candidates(Odd().eval(), (3, 16, 16), ["split"])
    assert [layer.layer for layer in found.layers] == ["twice"]
    (layer,) = found.layers
    assert layer.sizes == ((16, 16), (8, 8))
    assert layer.macs == 9 * 32 * 32 * (64 + 16)
    assert found.text == (
        "1 of 9 convolutions qualify (the others: 1 with a 1x1 kernel, 1 grouped, 2 with other padding than "
        "zeros, 1 of a class of its own, 1 with several names, 1 with too few channels, 1 not called by name)"
    )


def test_nothing_qualifies() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8))
    with pytest.raises(UserError, match="0 of 2 convolutions qualify: 1 with a 1x1 kernel, 1 grouped"):
        find_candidates(network.eval(), (3, 8, 8), ["split", "tucker"])


def test_weights_that_are_not_finite_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3))
    with torch.no_grad():
        network.get_parameter("1.weight")[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="weights of 1 are not finite"):
        find_candidates(network.eval(), (3, 8, 8), ["split"])
