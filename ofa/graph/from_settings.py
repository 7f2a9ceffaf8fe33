"""`supernet_of`: the supernet of the network that settings name, for inputs of a shape or for images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ofa.graph.convert import make_elastic
from ofa.graph.factory import load_model
from ofa.graph.network_source import make_known
from ofa.graph.settings import ModelSettings
from ofa.graph.supernet import GraphSupernet


def supernet_of(model: ModelSettings, input_shape: Sequence[int]) -> GraphSupernet:
    """Load a network and convert it; takes some seconds, and more for large networks and images.

    Args:
        model: the network, and what of it may vary.
        input_shape: shape of its input, with a batch of at least 2.

    Raises:
        UserError: for what cannot be loaded or converted; see `load_model` and `make_elastic`.
    """
    return converted(network_of(model), model, input_shape)


def network_of(model: ModelSettings, seed: int = 0) -> nn.Module:
    """Return the network that a user names, with its weights, in eval mode; see `load_model`.

    Args:
        model: the network.
        seed: seed of weights that the function draws.
    """
    assert model.name is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = load_model(model.name, model.kwargs, Path(model.weights) if model.weights else None)
    make_known(model.name, model.kwargs)
    return network


def converted(network: nn.Module, model: ModelSettings, input_shape: Sequence[int]) -> GraphSupernet:
    """Convert a network with the choices of `model`; see `make_elastic`."""
    return make_elastic(
        network,
        _example(network, input_shape),
        widths=model.widths,
        kernel_sizes=model.kernel_sizes,
        depths=model.depths,
        resolutions=model.resolutions,
        divisor=model.divisor,
        min_channels=model.min_channels,
        exclude=model.exclude,
        include=model.include,
        rules=model.rules,
        min_pointwise_width=model.min_pointwise_width,
        ranks=model.ranks,
        name=model.short_name,
    )


def _example(network: nn.Module, input_shape: Sequence[int]) -> Tensor:
    parameter = next(network.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    return torch.rand(tuple(input_shape), generator=generator).to(parameter.dtype)
