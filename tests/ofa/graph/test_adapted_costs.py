"""Costs after a new classifier or other image channels: those of a conversion of the new network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from ofa.architecture.cost import space_costs
from ofa.graph.adaptation import adapt_to_images
from ofa.graph.adapted_costs import adapted_space
from ofa.graph.convert import make_elastic
from ofa.graph.state import state_of
from ofa.graph.supernet import GraphSupernet
from ofa.modules.cost import module_cost


class Small(nn.Module):
    """A first convolution with an elastic kernel, a residual block, and features of 2 x 2 positions."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 16, 5, padding=2)
        self.block = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 1))
        self.pool, self.head = nn.AdaptiveAvgPool2d(2), nn.Linear(64, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images).relu()
        logits: torch.Tensor = self.head(self.pool((x + self.block(x)).relu()).flatten(1))
        return logits


class ConvolutionalHead(nn.Sequential):
    """A classifier at each of 16 or 36 positions, whose outputs are averaged, as in SqueezeNet."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__(
            *(nn.Conv2d(in_channels, 16, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(16, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )


def mobilenet(in_channels: int, classes: int) -> nn.Module:
    network: nn.Module = models.mobilenet_v3_small(num_classes=classes)
    stem = network.get_submodule("features.0")
    assert isinstance(stem, nn.Sequential)
    stem[0] = nn.Conv2d(in_channels, 16, 3, stride=2, padding=1, bias=False)
    return network


def converted(
    make: Callable[[int, int], nn.Module], sides: tuple[int, ...], channels: int, classes: int
) -> GraphSupernet:
    example = torch.rand(2, channels, sides[0], sides[0])
    supernet = make_elastic(make(channels, classes).eval(), example, divisor=4, resolutions=sides)
    assert supernet.space.structure.costs.storages
    supernet.space = dataclasses.replace(supernet.space, in_channels=channels, num_classes=classes)
    return supernet


@pytest.mark.parametrize(
    ("make", "sides"),
    [(Small, (8, 12)), (ConvolutionalHead, (8, 12)), (mobilenet, (32,))],
)
@pytest.mark.parametrize(("channels", "classes"), [(3, 10), (1, 7), (1, 40)])
def test_costs_are_those_of_the_new_network(
    make: Callable[[int, int], nn.Module], sides: tuple[int, ...], channels: int, classes: int
) -> None:
    old, new = converted(make, sides, 3, 7), converted(make, sides, channels, classes)
    genomes = old.space.sample(50, np.random.default_rng(0))
    for config in (old.space.smallest, old.space.config(genomes[0])):
        network = old.extract(config).eval()
        shapes = {name: tuple(tensor.shape) for name, tensor in state_of(network).items()}
        adapt_to_images(network, side=config.resolution, in_channels=channels, num_classes=classes)
        space = adapted_space(old.space, config, network, shapes, in_channels=channels, num_classes=classes)
        assert (space.in_channels, space.num_classes) == (channels, classes)
        expected = space_costs(new.space)
        for name, cost in space_costs(space).items():
            assert np.array_equal(cost(genomes), expected[name](genomes)), name
        counted = module_cost(network, (channels, config.resolution, config.resolution))
        own = space.genomes([config])
        assert space_costs(space)["macs"](own) == counted.macs
        assert space_costs(space)["parameters"](own) == counted.parameters
