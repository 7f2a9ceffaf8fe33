"""Slices of full-size tensors: the part of a parameter that a sub-network uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def leading(tensor: Tensor, size: int, dim: int = 0) -> Tensor:
    """Return the first `size` entries of `dim`: a view, or `tensor` itself if it has no more.

    The backward pass of a view over all entries would copy the gradient.
    """
    return tensor if tensor.shape[dim] == size else tensor.narrow(dim, 0, size)


def transform_kernel(weight: Tensor, matrices: list[Tensor], kernel_size: int) -> Tensor:
    """Return kernels of side `kernel_size` from larger ones, shape (out, in / groups, k, k).

    Each step crops the centre to the side of the next matrix and applies it to the flattened crop
    (Cai et al. 2020, sec. 3.3).

    Args:
        weight: kernels of shape (out, in / groups, K, K).
        matrices: linear maps of shape (k*k, k*k), from the largest k below K downwards.
        kernel_size: side of the returned kernels: K or the side of one of the matrices.
    """
    # Stay in the precision of the weights: under bf16 autocast, depthwise convolutions run in fp32.
    with torch.autocast(weight.device.type, enabled=False):
        return _transform(weight, matrices, kernel_size)


def _transform(weight: Tensor, matrices: list[Tensor], kernel_size: int) -> Tensor:
    for matrix in matrices:
        if weight.shape[-1] == kernel_size:
            break
        side = round(matrix.shape[0] ** 0.5)
        start = (weight.shape[-1] - side) // 2
        crop = weight[:, :, start : start + side, start : start + side]
        weight = F.linear(crop.reshape(-1, side * side), matrix).view(*weight.shape[:2], side, side)
    return weight
