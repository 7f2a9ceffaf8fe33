"""MACs and parameters of any module, counted in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class ModuleCost:
    """Multiply-accumulates of convolutions and matrix products for one image, and parameters."""

    macs: int
    parameters: int


@torch.no_grad()
def module_cost(network: nn.Module, image_shape: tuple[int, int, int]) -> ModuleCost:
    """Return the costs of `network`, in eval mode, for one image of shape (channels, height, width)."""
    parameters = list(network.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    counter = FlopCounterMode(display=False)
    with counter:
        network(torch.zeros(1, *image_shape, device=device))
    return ModuleCost(counter.get_total_flops() // 2, sum(parameter.numel() for parameter in parameters))
