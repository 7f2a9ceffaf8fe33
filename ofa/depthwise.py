"""Depthwise convolution with a faster weight gradient for small feature maps on CPUs.

oneDNN's weight gradient of 5x5 and 7x7 depthwise kernels takes several times its forward pass. On small
maps the same sums are one product per channel, (input pixels x images) (images x output pixels), whose
entries are then added up by the kernel tap that joins their two pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Above this many pairs of pixels the product does more work than it saves (7x7 to 7x7 is 2,401).
MAX_PIXEL_PAIRS = 2500
MIN_KERNEL_SIZE = 5


def depthwise_conv2d(images: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the depthwise convolution with 'same' padding.

    Args:
        images: shape (n, channels, h, w).
        weight: shape (channels, 1, k, k).
        stride: of both directions.
    """
    if _product_pays(images, weight, stride):
        result: Tensor = _ProductGradient.apply(images, weight, stride)
        return result
    return F.conv2d(images, weight, None, stride, weight.shape[-1] // 2, groups=images.shape[1])


def _product_pays(images: Tensor, weight: Tensor, stride: int) -> bool:
    if images.device.type != "cpu" or not (torch.is_grad_enabled() and weight.requires_grad):
        return False
    if weight.shape[-1] < MIN_KERNEL_SIZE or torch.is_autocast_enabled("cpu"):
        return False
    height, width = images.shape[-2:]
    out_height, out_width = (height - 1) // stride + 1, (width - 1) // stride + 1
    return height * width * out_height * out_width <= MAX_PIXEL_PAIRS


class _ProductGradient(torch.autograd.Function):
    """Convolution whose weight gradient is a batched matrix product."""

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
            strides, padding = [ctx.stride] * 2, [weight.shape[-1] // 2] * 2
            image_gradient = torch.ops.aten.convolution_backward(
                gradient,
                images,
                weight,
                None,
                strides,
                padding,
                [1, 1],
                False,
                [0, 0],
                images.shape[1],
                [True, False, False],
            )[0]
        if ctx.needs_input_grad[1]:
            weight_gradient = product_weight_gradient(images, gradient, weight.shape[-1], ctx.stride)
        return image_gradient, weight_gradient, None


def product_weight_gradient(images: Tensor, gradient: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Return the gradient of depthwise weights, shape (channels, 1, k, k).

    Args:
        images: input of the convolution, (n, channels, h, w).
        gradient: of its output, (n, channels, h', w').
        kernel_size: k.
        stride: of the convolution.
    """
    count, channels, height, width = images.shape
    out_height, out_width = gradient.shape[-2:]
    inputs = images.permute(0, 2, 3, 1).reshape(count, height * width, channels)
    outputs = gradient.permute(0, 2, 3, 1).reshape(count, out_height * out_width, channels)
    pairs = torch.bmm(
        inputs.permute(2, 0, 1).contiguous().transpose(1, 2), outputs.permute(2, 0, 1).contiguous()
    )
    taps = _taps(height, width, out_height, out_width, kernel_size, stride).to(images.dtype)
    return (pairs.reshape(channels, -1) @ taps).reshape(channels, 1, kernel_size, kernel_size)


@lru_cache(maxsize=256)
def _taps(height: int, width: int, out_height: int, out_width: int, kernel_size: int, stride: int) -> Tensor:
    """Return 1 where (input pixel, output pixel) are joined by a tap, (pixel pairs, k * k)."""
    rows = _taps_of_one_axis(height, out_height, kernel_size, stride)
    columns = _taps_of_one_axis(width, out_width, kernel_size, stride)
    joined = torch.einsum("yui,xvj->yxuvij", rows, columns)
    return joined.reshape(height * width * out_height * out_width, kernel_size * kernel_size)


def _taps_of_one_axis(size: int, out_size: int, kernel_size: int, stride: int) -> Tensor:
    """Return 1 where input position = stride * output position + tap - k // 2, (in, out, k)."""
    position = torch.arange(size)[:, None, None]
    reached = stride * torch.arange(out_size)[None, :, None] + torch.arange(kernel_size) - kernel_size // 2
    return (position == reached).float()
