"""Static networks and supernets can be captured by PyTorch's own tools, with outputs equal bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ofa.architecture.lowering import lower
from ofa.modules.static import StaticNetwork
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig
from ofa.supernet.supernet import Supernet

SPACES = sorted(path.stem for path in (Path(__file__).parents[3] / "conf" / "space").glob("*.yaml"))


def networks(space: StagedSpace) -> list[SubnetConfig]:
    """Return the smallest, the largest and three random sub-networks."""
    genomes = space.sample(3, np.random.default_rng(0))
    return [space.smallest, space.largest, *(space.config(genome) for genome in genomes)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_static_networks_are_traced_and_exported(load_space: Callable[[str], StagedSpace], name: str) -> None:
    space = load_space(name)
    for config in networks(space):
        network = StaticNetwork(lower(space, config)).eval()
        images = torch.randn(1, *network.image_shape, generator=torch.Generator().manual_seed(0))
        expected = network(images)
        assert torch.equal(torch.fx.symbolic_trace(network)(images), expected)
        assert torch.equal(torch.export.export(network, (images,)).module()(images), expected)


class OneSubnet(nn.Module):
    """A supernet of which one sub-network runs."""

    def __init__(self, supernet: Supernet, config: SubnetConfig) -> None:
        super().__init__()
        self.supernet, self.config = supernet, config

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.supernet(images, self.config)
        return logits


@pytest.mark.parametrize("name", ["micro_space", "micro_proxyless", "micro_resnet"])
def test_supernets_are_exported(
    request: pytest.FixtureRequest, make_supernet: Callable[[StagedSpace, int], Supernet], name: str
) -> None:
    space: StagedSpace = request.getfixturevalue(name)
    supernet = make_supernet(space, 0)
    for config in (space.smallest, space.largest):
        images = torch.randn(2, 2, config.resolution, config.resolution)
        exported = torch.export.export(OneSubnet(supernet, config).eval(), (images,))
        assert torch.equal(exported.module()(images), supernet(images, config))
