"""Weights with 2 of 4 zeros in the form that the sparse tensor cores of CUDA devices compute with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ofa.common.errors import UserError

# What torch.sparse takes in both of its libraries, for 16-bit weights.
_ROW_MULTIPLE, _COLUMN_MULTIPLE = 32, 64
_DTYPES = (torch.float16, torch.bfloat16)
_FIRST_CAPABILITY = (8, 0)


def make_semi_structured(network: nn.Module) -> dict[str, str]:
    """Let linear layers with 2 of 4 zeros compute with half of their weights, in place, for inference.

    Their weights become `torch.sparse` semi-structured tensors. PyTorch has these for linear layers alone, so
    convolutions stay, and so do the projections of `nn.MultiheadAttention`, which reads their weights by
    itself. Weights in this form are not to be trained or saved.

    Args:
        network: a network in fp16 or bf16 on a CUDA device; `ofa compress steps=[sparse,…]` makes the zeros.

    Returns:
        why each of the linear layers that stay does so, by name.

    Raises:
        UserError: if no layer can change, or the network is on a device without sparse tensor cores.
    """
    layers = {name: layer for name, layer in network.named_modules() if type(layer) is nn.Linear}
    obstacles = {name: semi_structured_obstacle(layer.weight) for name, layer in layers.items()}
    reasons = {name: reason for name, reason in obstacles.items() if reason is not None}
    if len(reasons) == len(layers):
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "it has none"
        raise UserError(f"No linear layer can compute with half of its weights. {listed}")
    for device in {layer.weight.device for layer in layers.values()}:
        _check_device(device)
    for name, layer in layers.items():
        if name not in reasons:
            weight = torch.sparse.to_sparse_semi_structured(layer.weight.detach())
            layer.weight = nn.Parameter(weight, requires_grad=False)
    return reasons


def semi_structured_obstacle(weight: Tensor) -> str | None:
    """Return why a weight (out, in) cannot become a semi-structured tensor; None if it can."""
    num_rows, num_columns = weight.shape
    if weight.dtype not in _DTYPES:
        return f"weights of {weight.dtype}, not of fp16 or bf16"
    if num_rows % _ROW_MULTIPLE or num_columns % _COLUMN_MULTIPLE:
        return f"{num_rows}x{num_columns} weights are no multiples of {_ROW_MULTIPLE}x{_COLUMN_MULTIPLE}"
    if (weight.detach().reshape(-1, 4) != 0).sum(1).max() > 2:
        return "more than 2 of 4 consecutive weights are not zero"
    return None


def _check_device(device: torch.device) -> None:
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FIRST_CAPABILITY:
        return
    raise UserError(
        f"The network is on {device}. Sparse tensor cores are in CUDA devices of compute capability "
        f"{'.'.join(map(str, _FIRST_CAPABILITY))} or later: move it there first."
    )
