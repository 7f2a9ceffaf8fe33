"""Extraction: a sub-network of a supernet as a static network with its own weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ofa.architecture.layer import LayerSpec
from ofa.modules.static import StaticNetwork
from ofa.supernet.layer import ElasticLayer
from ofa.supernet.operators import prefixed


@torch.no_grad()
def extract_layers(
    layers: Sequence[tuple[ElasticLayer[Any], LayerSpec]], dropout: float = 0.0
) -> StaticNetwork:
    """Return variants of elastic layers as a static network; see `AbstractSupernet.extract`.

    Args:
        layers: pairs of an elastic layer and its variant, in the order they run.
        dropout: dropout probability before the classifier.
    """
    with torch.device("meta"):
        network = StaticNetwork((spec for _, spec in layers), dropout)
    state: dict[str, torch.Tensor] = {}
    for index, (layer, spec) in enumerate(layers):
        tensors = prefixed(f"layers.{index}", layer.tensors(spec))
        state |= {name: tensor.detach().clone() for name, tensor in tensors.items()}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros_like(tensor, device="cpu")
    network.load_state_dict(state, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return network
