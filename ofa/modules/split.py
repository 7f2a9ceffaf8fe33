"""A convolution as a vertical and a horizontal one: which can be split, the layers, and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def factoring_obstacle(convolution: nn.Conv2d) -> str | None:
    """Return why a convolution cannot be computed by smaller ones in sequence; None if it can."""
    if convolution.groups > 1:
        return "grouped"
    if min(convolution.kernel_size) < 2:
        return f"with a {'x'.join(map(str, convolution.kernel_size))} kernel"
    if type(convolution) is not nn.Conv2d:
        return "of a class of its own"
    if isinstance(convolution.padding, str) or convolution.padding_mode != "zeros":
        return "with other padding than zeros"
    if hasattr(convolution, "parametrizations"):
        return "with weights that are computed"
    return None


def smaller_convolution(
    convolution: nn.Conv2d,
    in_channels: int,
    out_channels: int,
    axes: Sequence[int],
    *,
    bias: bool = False,
    groups: int = 1,
) -> nn.Conv2d:
    """Return a convolution with the kernel, stride, padding and dilation of another one along some axes.

    Args:
        convolution: the other one; the device and type of its weights are taken, too.
        in_channels: channels of the input.
        out_channels: channels of the output.
        axes: 0 for the vertical one, 1 for the horizontal one; along others the kernel is 1.
        bias: whether it has a bias.
        groups: groups of channels that do not mix.
    """

    def along(values: Sequence[int | str], default: int) -> tuple[int, int]:
        vertical, horizontal = (int(values[axis]) if axis in axes else default for axis in (0, 1))
        return vertical, horizontal

    make: Any = nn.utils.skip_init  # draws no random numbers
    smaller: nn.Conv2d = make(
        nn.Conv2d,
        in_channels,
        out_channels,
        along(convolution.kernel_size, 1),
        stride=along(convolution.stride, 1),
        padding=along(tuple(convolution.padding), 0),
        dilation=along(convolution.dilation, 1),
        groups=groups,
        bias=bias,
        device=convolution.weight.device,
        dtype=convolution.weight.dtype,
    )
    return smaller


def full_rank(weight: Tensor) -> int:
    """Return the rank at which a split convolution computes the function of weight (out, in, k, l)."""
    out_channels, in_channels, height, width = weight.shape
    return min(in_channels * height, out_channels * width)


def split_layers(convolution: nn.Conv2d, rank: int) -> nn.Sequential:
    """Return a k x 1 convolution to `rank` channels and a 1 x l one to the output; weights are undefined."""
    has_bias = convolution.bias is not None
    return nn.Sequential(
        smaller_convolution(convolution, convolution.in_channels, rank, (0,)),
        smaller_convolution(convolution, rank, convolution.out_channels, (1,), bias=has_bias),
    )


def random_split(convolution: nn.Conv2d, rank: int) -> nn.Sequential:
    """Return the layers of a split convolution with random weights, as PyTorch draws them."""
    layers = split_layers(convolution, rank)
    for layer in layers:
        assert isinstance(layer, nn.Conv2d)
        layer.reset_parameters()
    return layers


@torch.no_grad()
def with_factors(layers: nn.Sequential, factors: Sequence[Tensor], bias: Tensor | None) -> nn.Sequential:
    """Fill convolutions with weights, and the last one with a bias if there is one; return them."""
    for layer, factor in zip(layers, factors, strict=True):
        assert isinstance(layer, nn.Conv2d)
        layer.weight.copy_(factor)
    if bias is not None:
        last_bias = layers[-1].bias
        assert isinstance(last_bias, Tensor)
        last_bias.copy_(bias)
    return layers


def split_weights(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the weights of a split convolution that come closest to weight (out, in, k, l).

    They are the best ones of this form in the least squares of the kernel (Jaderberg et al., 2014): the
    matrix whose rows are the inputs with the vertical axis, and whose columns are the outputs with the
    horizontal axis, is cut to its largest singular values, which come first. Both factors carry the square
    root of them, so the first r channels between are the best split of rank r.

    Args:
        weight: weight of the convolution.
        rank: channels between the two, at most `full_rank`.

    Returns:
        Weights (rank, in, k, 1) and (out, rank, 1, l).
    """
    out_channels, in_channels, height, width = weight.shape
    matrix = weight.permute(1, 2, 0, 3).reshape(in_channels * height, out_channels * width)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    scale = values[:rank].sqrt()
    first = (left[:, :rank] * scale).T.reshape(rank, in_channels, height, 1)
    last = (scale[:, None] * right[:rank]).reshape(rank, out_channels, width).permute(1, 0, 2)
    return first, last[:, :, None, :]


def composed_weight(first: Tensor, last: Tensor) -> Tensor:
    """Return the weight (out, in, k, l) of the convolution that a split one computes.

    Args:
        first: weight (rank, in, k, 1).
        last: weight (out, rank, 1, l).
    """
    (rank, in_channels, height, _), (out_channels, _, _, width) = first.shape, last.shape
    # Kernels stay in the precision of the weights.
    with torch.autocast(first.device.type, enabled=False):
        matrix = last.permute(0, 3, 1, 2).reshape(-1, rank) @ first.reshape(rank, -1)
    kernels = matrix.view(out_channels, width, in_channels, height)
    return kernels.permute(0, 2, 3, 1).contiguous()


@torch.no_grad()
def sort_by_singular_value(first: Tensor, last: Tensor, rank: int) -> None:
    """Let the first `rank` channels of a split convolution be its best ones in order, in place.

    What these channels compute together stays but for rounding; the other channels are not touched.

    Args:
        first: weight (channels, in, k, 1).
        last: weight (out, channels, 1, l).
        rank: number of channels, at most all.
    """
    kept = first[:rank].double().cpu(), last[:, :rank].double().cpu()
    factors = split_weights(composed_weight(*kept), rank)
    first[:rank].copy_(factors[0])
    last[:, :rank].copy_(factors[1])
