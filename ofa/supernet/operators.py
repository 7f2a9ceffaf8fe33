"""Elastic convolution, depthwise convolution, batch norm, squeeze-excite and linear layer.

Every operator has one method that returns its tensors for given sizes; its forward pass and its static copy
both use it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.common.distributed import SINGLE_PROCESS
from ofa.modules.activations import activate
from ofa.modules.depthwise import depthwise_conv2d
from ofa.supernet.slicing import leading, transform_kernel


class ElasticConv2d(nn.Module):
    """Dense convolution that uses its first output and input channels."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = False) -> None:
        """Create parameters of the largest size; He initialisation by fan-out."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def tensors(self, in_channels: int, out_channels: int) -> dict[str, Tensor]:
        """Return weight (out, in, k, k) and, where there is one, bias (out,)."""
        tensors = {"weight": leading(leading(self.weight, out_channels), in_channels, 1)}
        if self.bias is not None:
            tensors["bias"] = leading(self.bias, out_channels)
        return tensors

    def output_tensors(self) -> list[Tensor]:
        """Return all tensors whose dimension 0 runs over the output channels."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def forward(self, images: Tensor, out_channels: int, stride: int = 1) -> Tensor:
        """Convolve images (n, in, h, w) to (n, out, h', w') with 'same' padding."""
        tensors = self.tensors(images.shape[1], out_channels)
        padding = self.weight.shape[-1] // 2
        return F.conv2d(images, tensors["weight"], tensors.get("bias"), stride, padding)


class ElasticDepthwiseConv2d(nn.Module):
    """Depthwise convolution with elastic channels and kernel size.

    Smaller kernels are transformed centre crops of the largest: one matrix per step, shared by all
    channels and initialised to identity (Cai et al. 2020, sec. 3.3).
    """

    def __init__(self, channels: int, kernel_sizes: tuple[int, ...]) -> None:
        """Create kernels of the largest size and one matrix per smaller size."""
        super().__init__()
        largest, *smaller = sorted(kernel_sizes, reverse=True)
        self.weight = nn.Parameter(torch.empty(channels, 1, largest, largest))
        self.smaller_sizes = tuple(smaller)
        self.matrices = nn.ParameterDict(
            {str(side): nn.Parameter(torch.eye(side * side)) for side in smaller}
        )
        nn.init.normal_(self.weight, std=math.sqrt(2.0 / (largest * largest)))

    def tensors(self, channels: int, kernel_size: int) -> dict[str, Tensor]:
        """Return weight (channels, 1, kernel_size, kernel_size)."""
        matrices = [self.matrices[str(side)] for side in self.smaller_sizes]
        return {"weight": transform_kernel(leading(self.weight, channels), matrices, kernel_size)}

    def forward(self, images: Tensor, kernel_size: int, stride: int) -> Tensor:
        """Convolve images (n, channels, h, w) to (n, channels, h', w') with 'same' padding."""
        weight = self.tensors(images.shape[1], kernel_size)["weight"]
        return depthwise_conv2d(images, weight, stride)


class ElasticBatchNorm2d(nn.Module):
    """Batch norm that uses its first channels; all sub-networks share the running statistics.

    Attributes:
        world: processes over whose images a batch's statistics are computed; not part of the state.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, epsilon: float, momentum: float = 0.1) -> None:
        """Create scale 1, shift 0 and running statistics."""
        super().__init__()
        self.epsilon, self.momentum = epsilon, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.world = SINGLE_PROCESS

    def tensors(self, channels: int) -> dict[str, Tensor]:
        """Return the four vectors of shape (channels,); the running ones are views."""
        names = ("weight", "bias", "running_mean", "running_var")
        return {name: leading(getattr(self, name), channels) for name in names}

    def output_tensors(self) -> list[Tensor]:
        """Return all tensors whose dimension 0 runs over the channels."""
        return list(self.tensors(len(self.weight)).values())

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (n, channels, h, w); in training mode update the running statistics."""
        t = self.tensors(images.shape[1])
        if self.training and self.world.size > 1:
            return self._synchronised(images, t)
        return F.batch_norm(
            images,
            t["running_mean"],
            t["running_var"],
            t["weight"],
            t["bias"],
            self.training,
            self.momentum,
            self.epsilon,
        )

    def _synchronised(self, images: Tensor, t: dict[str, Tensor]) -> Tensor:
        """Normalise by the statistics of the images of all processes, which have equal numbers of images."""
        size, values = self.world.size, images.float()
        mean = self.world.all_reduce_sum(values.mean((0, 2, 3), keepdim=True)) / size
        deviations = values - mean
        var = self.world.all_reduce_sum(deviations.square().mean((0, 2, 3), keepdim=True)) / size
        scale = t["weight"].view(1, -1, 1, 1) * torch.rsqrt(var + self.epsilon)
        with torch.no_grad():
            count = size * images.numel() // images.shape[1]
            t["running_mean"].lerp_(mean.flatten(), self.momentum)
            t["running_var"].lerp_(var.flatten() * (count / max(count - 1, 1)), self.momentum)
        return (deviations * scale + t["bias"].view(1, -1, 1, 1)).to(images.dtype)

    @torch.no_grad()
    def forget_non_finite(self) -> None:
        """Set running statistics that are not finite back to their initial values."""
        self.running_mean.nan_to_num_(0.0, 0.0, 0.0)
        self.running_var.nan_to_num_(1.0, 1.0, 1.0)


class ElasticSqueezeExcite(nn.Module):
    """Squeeze-excite with elastic width (Hu et al. 2018; hard sigmoid as in Howard et al. 2019)."""

    def __init__(self, channels: int, hidden_channels: int) -> None:
        """Create both 1x1 convolutions of the largest size."""
        super().__init__()
        self.reduce = ElasticConv2d(channels, hidden_channels, 1, bias=True)
        self.expand = ElasticConv2d(hidden_channels, channels, 1, bias=True)

    def tensors(self, channels: int, hidden_channels: int) -> dict[str, Tensor]:
        """Return the tensors of both convolutions under the names `reduce.*` and `expand.*`."""
        reduce = self.reduce.tensors(channels, hidden_channels)
        expand = self.expand.tensors(hidden_channels, channels)
        return {**prefixed("reduce", reduce), **prefixed("expand", expand)}

    def forward(self, images: Tensor, hidden_channels: int) -> Tensor:
        """Scale the channels of images (n, channels, h, w)."""
        means = images.mean((2, 3), keepdim=True)
        hidden = F.relu(self.reduce(means, hidden_channels))
        return images * F.hardsigmoid(self.expand(hidden, images.shape[1]))


class ElasticLinear(nn.Module):
    """Linear layer that uses its first inputs."""

    def __init__(self, in_features: int, out_features: int) -> None:
        """Create weight and bias of the largest size."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.normal_(self.weight, std=0.01)

    def tensors(self, in_features: int) -> dict[str, Tensor]:
        """Return weight (out, in_features) and bias (out,)."""
        return {"weight": leading(self.weight, in_features, 1), "bias": self.bias}

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, in) to (n, out)."""
        t = self.tensors(features.shape[1])
        return F.linear(features, t["weight"], t["bias"])


class ElasticConvBNAct(nn.Module):
    """Elastic convolution, batch norm (optional) and activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, bn_epsilon: float | None
    ) -> None:
        """Create the convolution and, unless `bn_epsilon` is None, the batch norm."""
        super().__init__()
        self.conv = ElasticConv2d(in_channels, out_channels, kernel_size)
        self.bn = None if bn_epsilon is None else ElasticBatchNorm2d(out_channels, bn_epsilon)

    def tensors(self, in_channels: int, out_channels: int) -> dict[str, Tensor]:
        """Return the tensors of both parts under the names `conv.*` and `bn.*`."""
        tensors = prefixed("conv", self.conv.tensors(in_channels, out_channels))
        if self.bn is not None:
            tensors |= prefixed("bn", self.bn.tensors(out_channels))
        return tensors

    def output_tensors(self) -> list[Tensor]:
        """Return all tensors whose dimension 0 runs over the output channels."""
        return [*self.conv.output_tensors(), *([] if self.bn is None else self.bn.output_tensors())]

    def forward(self, images: Tensor, out_channels: int, stride: int, activation: str) -> Tensor:
        """Map images (n, in, h, w) to (n, out, h', w')."""
        images = self.conv(images, out_channels, stride)
        if self.bn is not None:
            images = self.bn(images)
        return activate(images, activation)


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `tensors` with `prefix.` in front of each name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
