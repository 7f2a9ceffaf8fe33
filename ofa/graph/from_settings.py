"""`supernet_of`: the supernet of the network that settings name."""

from __future__ import annotations

from pathlib import Path

import torch

from ofa.graph.convert import make_elastic
from ofa.graph.factory import load_model
from ofa.graph.settings import ConversionSettings
from ofa.graph.supernet import GraphSupernet


def supernet_of(settings: ConversionSettings) -> GraphSupernet:
    """Load a network and convert it; takes some seconds, and more for large networks and images.

    Raises:
        UserError: for what cannot be loaded or converted; see `load_model` and `make_elastic`.
    """
    model = settings.model
    weights = Path(model.weights) if model.weights else None
    network = load_model(model.name, model.kwargs, weights)
    parameter = next(network.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    return make_elastic(
        network,
        torch.rand(settings.example_shape, generator=generator).to(parameter.dtype),
        widths=settings.widths,
        kernel_sizes=settings.kernel_sizes,
        depths=settings.depths,
        resolutions=settings.resolutions,
        divisor=settings.divisor,
        min_channels=settings.min_channels,
        exclude=settings.exclude,
        include=settings.include,
        rules=settings.rules,
        name=model.short_name,
    )
