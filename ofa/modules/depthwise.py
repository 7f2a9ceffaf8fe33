"""Depthwise convolution on CPUs: in float32 under autocast, and with a faster weight gradient.

oneDNN's 5x5 and 7x7 depthwise convolutions take several times as long in bfloat16 as in float32; under
autocast they are therefore computed in float32 between two casts. On CUDA, autocast decides.

oneDNN's weight gradient of a depthwise kernel wider than 3 columns takes 5 to 20 times that of a narrow one.
The gradient of a wide kernel is therefore computed in strips of 2 or 3 columns.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_STRIP = 3


def depthwise_conv2d(images: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the depthwise convolution with 'same' padding.

    Args:
        images: shape (n, channels, h, w).
        weight: shape (channels, 1, k, k).
        stride: stride in both directions.

    Returns:
        Shape (n, channels, h', w'), in autocast's dtype if autocast is on.
    """
    if images.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            return depthwise_conv2d(images.float(), weight.float(), stride).to(dtype)
    if _strips_are_faster(images, weight):
        result: Tensor = _StripGradient.apply(images, weight, stride)
        return result
    return F.conv2d(images, weight, None, stride, weight.shape[-1] // 2, groups=images.shape[1])


def _strips_are_faster(images: Tensor, weight: Tensor) -> bool:
    if images.device.type != "cpu" or not (torch.is_grad_enabled() and weight.requires_grad):
        return False
    kernel_size = weight.shape[-1]
    strips_overlap_input = images.shape[-1] > kernel_size // 2
    return kernel_size > MAX_STRIP and strips_overlap_input


class _StripGradient(torch.autograd.Function):
    """Convolution whose weight gradient is computed in strips."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride = stride
        return F.conv2d(images, weight, None, stride, weight.shape[-1] // 2, groups=images.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        images, weight = ctx.saved_tensors
        image_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            padding = weight.shape[-1] // 2
            image_gradient = _backward(gradient, images, weight, ctx.stride, padding, [True, False])[0]
        if ctx.needs_input_grad[1]:
            weight_gradient = strip_weight_gradient(images, gradient, weight.shape[-1], ctx.stride)
        return image_gradient, weight_gradient, None


def strip_weight_gradient(images: Tensor, gradient: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Return the gradient of the depthwise weights, shape (channels, 1, k, k).

    Args:
        images: input of the convolution, (n, channels, h, w).
        gradient: gradient of the output, (n, channels, h', w').
        kernel_size: side k of the kernel.
        stride: stride in both directions.
    """
    padding, count = kernel_size // 2, -(-kernel_size // MAX_STRIP)
    edges = [kernel_size * strip // count for strip in range(count + 1)]
    bottom = (gradient.shape[-2] - 1) * stride + kernel_size - padding - images.shape[-2]
    strips = []
    for first, last in pairwise(edges):
        # The part of the padded images that these kernel columns cover.
        right = (gradient.shape[-1] - 1) * stride + last - padding - images.shape[-1]
        covered_input = F.pad(images, (padding - first, right, padding, bottom))
        weight = images.new_empty(images.shape[1], 1, kernel_size, last - first)
        strips.append(_backward(gradient, covered_input, weight, stride, 0, [False, True])[1])
    return torch.cat(strips, dim=3)


def _backward(
    gradient: Tensor,
    images: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    output_mask: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients; `output_mask` says whether those of images and weight are needed."""
    strides, dilation, output_padding, groups = [stride, stride], [1, 1], [0, 0], images.shape[1]
    result: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient,
        images,
        weight,
        None,
        strides,
        [padding, padding],
        dilation,
        False,
        output_padding,
        groups,
        [*output_mask, False],
    )
    return result
