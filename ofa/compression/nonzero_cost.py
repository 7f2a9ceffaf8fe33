"""What the weights that are not zero cost, were zeros skipped: multiply-accumulates, and bits of storage."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ofa.compression.shared_basis import KernelFactors
from ofa.modules.cost import module_cost

BASIS_BITS, COEFFICIENT_BITS, OTHER_BITS = 8, 2, 32
"""Bits of a number of a basis, of a coefficient (-1, 0 or 1), and of all others, scales included."""


@torch.no_grad()
def nonzero_macs(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the multiply-accumulates for one image without those with weights that are zero.

    Processors and most engines do not skip zeros: this is how papers about sparse networks count.

    Args:
        network: network in eval mode.
        image_shape: (channels, height, width) of its images.
    """
    skipped, handles = [0], []

    def count(layer: nn.Module, _: object, outputs: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        num_positions = outputs.numel() // layer.weight.shape[0]
        skipped[0] += num_positions * int((layer.weight == 0).sum())

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            handles.append(layer.register_forward_hook(count))
    try:
        total = module_cost(network, image_shape).macs
    finally:
        for handle in handles:
            handle.remove()
    return total - skipped[0]


def zero_share(network: nn.Module) -> float:
    """Return the share of the weights of convolutions and linear layers that are zero."""
    weights = [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    total = sum(weight.numel() for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else 0.0


def hybrid_bits(network: nn.Module, factors: Mapping[str, KernelFactors]) -> int:
    """Return the bits of a network with bases in 8 bits and ternary coefficients (Li et al. 2021).

    Each layer has one scale for its coefficients and one for its basis. All other parameters have 32 bits.
    This is the size of a file; no engine computes so, and the network would have to be trained for it.

    Args:
        network: network whose layers in `factors` have plain weights.
        factors: factors of weights by the name of the layer.
    """
    in_factors = {f"{name}.weight" for name in factors}
    bits = sum(
        OTHER_BITS * parameter.numel()
        for name, parameter in network.named_parameters()
        if name not in in_factors
    )
    for own in factors.values():
        bits += BASIS_BITS * own.basis.numel() + COEFFICIENT_BITS * own.coefficients.numel() + 2 * OTHER_BITS
    return bits
