"""Networks whose values are not the initial ones."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def randomise(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(0.5 + noise.abs())
        elif "matrices" in name:
            tensor.add_(0.05 * noise)
        elif tensor.dim() == 1:
            tensor.add_(0.2 * noise)
        else:
            tensor.copy_(noise * (2.0 / tensor[0].numel()) ** 0.5)
