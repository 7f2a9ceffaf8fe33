"""Extraction: a sub-network of a supernet as a static network with its own weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ofa.architecture.lowering import lower
from ofa.modules.static import StaticNetwork
from ofa.space.subnet import SubnetConfig
from ofa.supernet.operators import prefixed

if TYPE_CHECKING:
    from ofa.supernet.supernet import Supernet


@torch.no_grad()
def extract_subnet(supernet: Supernet, config: SubnetConfig, dropout: float = 0.0) -> StaticNetwork:
    """Return sub-network `config` as a static network in the supernet's mode, dtype and device.

    In eval mode its output equals the supernet's bit for bit. Its batch-norm statistics are the
    supernet's shared ones: recalibrate them before the network is used (`ofa.evaluation.recalibrate`).

    Raises:
        UserError: if the config is outside the supernet's space.
    """
    with torch.device("meta"):
        network = StaticNetwork(lower(supernet.space, config), dropout)
    state: dict[str, torch.Tensor] = {}
    for index, (layer, spec) in enumerate(supernet.active_layers(config)):
        tensors = prefixed(f"layers.{index}", layer.tensors(spec))
        state |= {name: tensor.detach().clone() for name, tensor in tensors.items()}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros_like(tensor, device="cpu")
    network.load_state_dict(state, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return network.train(supernet.training)
