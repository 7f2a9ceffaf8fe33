"""A small network to prune, and what tests of both methods ask of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ofa.graph.convert import make_elastic
from ofa.graph.supernet import GraphSupernet
from ofa.space.plain import GeneConfig


def two_convolutions() -> GraphSupernet:
    """Return the supernet of two convolutions of 32 and 48 channels, `0` and `3`, and a classifier."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 48, 3, padding=1),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 4),
    )
    return make_elastic(network.eval(), torch.randn(2, 3, 8, 8), kernel_sizes=[]).eval()


def full_macs(supernet: GraphSupernet) -> float:
    """Return the multiply-accumulates of the largest network."""
    return float(supernet.costs["macs"](supernet.space.genomes([supernet.space.largest]))[0])


def num_parameters(network: nn.Module) -> float:
    """Return the number of parameters, as a score that prefers large networks."""
    return float(sum(parameter.numel() for parameter in network.parameters()))


def fast_smallest(supernet: GraphSupernet) -> Callable[[Sequence[GeneConfig]], list[float]]:
    """Return made-up measurements: the smallest network takes 1 ms, all others take 5 ms."""
    smallest = supernet.space.smallest
    return lambda configs: [1.0 if config == smallest else 5.0 for config in configs]
