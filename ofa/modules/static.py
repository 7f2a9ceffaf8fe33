"""Plain `nn` networks from `LayerSpec`s: the networks that are deployed, measured and fine-tuned."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from functools import singledispatch

import torch
from torch import Tensor, nn

from ofa.architecture.common_layers import ConvSpec, LinearSpec, MaxPoolSpec, PoolSpec
from ofa.architecture.layer import LayerSpec
from ofa.architecture.mobilenet import MBConvSpec
from ofa.architecture.resnet import BottleneckSpec
from ofa.modules.activations import activation_module
from ofa.modules.depthwise import depthwise_conv2d
from ofa.modules.split import random_split


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution with the gradient and autocast behaviour of the elastic one."""

    def __init__(self, channels: int, kernel_size: int, stride: int) -> None:
        """Create the convolution with 'same' padding and without bias."""
        padding = kernel_size // 2
        super().__init__(channels, channels, kernel_size, stride, padding, groups=channels, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Convolve images (n, channels, h, w) to (n, channels, h', w')."""
        if self.training or torch.is_autocast_enabled("cpu"):
            return depthwise_conv2d(images, self.weight, self.stride[0])
        return super().forward(images)


class SqueezeExcite(nn.Module):
    """Channel attention by two 1x1 convolutions (Hu et al. 2018)."""

    def __init__(self, channels: int, hidden_channels: int) -> None:
        """Create both convolutions."""
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden_channels, 1)
        self.expand = nn.Conv2d(hidden_channels, channels, 1)
        self.relu = nn.ReLU()
        self.gate = nn.Hardsigmoid()

    def forward(self, images: Tensor) -> Tensor:
        """Scale the channels of images (n, channels, h, w)."""
        squeezed = images.mean((2, 3), keepdim=True)
        gate: Tensor = self.gate(self.expand(self.relu(self.reduce(squeezed))))
        return images * gate


class MBConv(nn.Module):
    """Inverted bottleneck (Sandler et al. 2018)."""

    def __init__(self, spec: MBConvSpec) -> None:
        """Create the block of `spec`."""
        super().__init__()
        mid = spec.mid_channels
        self.expand = (
            conv_bn_act(spec.in_channels, mid, 1, 1, spec.activation, spec.bn_epsilon)
            if spec.expand
            else nn.Identity()
        )
        self.depthwise = DepthwiseConv2d(mid, spec.kernel_size, spec.stride)
        self.depthwise_bn = nn.BatchNorm2d(mid, spec.bn_epsilon)
        self.activation = activation_module(spec.activation)
        self.squeeze_excite = SqueezeExcite(mid, spec.se_channels) if spec.squeeze_excite else nn.Identity()
        self.project = conv_bn_act(mid, spec.out_channels, 1, 1, "none", spec.bn_epsilon)
        self.residual = spec.residual

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, in, h, w) to (n, out, h', w')."""
        hidden = self.expand(images)
        hidden = self.activation(self.depthwise_bn(self.depthwise(hidden)))
        hidden = self.project(self.squeeze_excite(hidden))
        output: Tensor = images + hidden if self.residual else hidden
        return output


class Bottleneck(nn.Module):
    """Bottleneck of a residual network (He et al. 2016, 2019)."""

    def __init__(self, spec: BottleneckSpec) -> None:
        """Create the block of `spec`."""
        super().__init__()
        activation, epsilon, mid = spec.activation, spec.bn_epsilon, spec.mid_channels
        self.reduce = conv_bn_act(spec.in_channels, mid, 1, 1, activation, epsilon)
        self.middle = conv_bn_act(mid, mid, spec.kernel_size, spec.stride, activation, epsilon, spec.rank)
        self.expand = conv_bn_act(mid, spec.out_channels, 1, 1, "none", epsilon)
        self.pool: nn.Module = nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if spec.project:
            if spec.stride > 1:
                self.pool = nn.AvgPool2d(spec.stride, spec.stride, ceil_mode=True)
            self.shortcut = conv_bn_act(spec.in_channels, spec.out_channels, 1, 1, "none", epsilon)
        self.activation = activation_module(activation)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, in, h, w) to (n, out, h', w')."""
        hidden = self.expand(self.middle(self.reduce(images)))
        output: Tensor = self.activation(hidden + self.shortcut(self.pool(images)))
        return output


class AddInput(nn.Sequential):
    """Modules in sequence, with the input added to their output."""

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, channels, h, w) to the same shape."""
        hidden = images
        for module in self:
            hidden = module(hidden)
        return images + hidden


class GlobalPool(nn.Module):
    """Mean over all pixels."""

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, channels, h, w) to (n, channels, 1, 1)."""
        return images.mean((2, 3), keepdim=True)


def conv_bn_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    activation: str,
    epsilon: float | None,
    rank: int | None = None,
) -> nn.Sequential:
    """Return convolution (split with a `rank`), batch norm (unless `epsilon` is None) and activation."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    layers["conv"] = conv if rank is None else random_split(conv, rank)
    if epsilon is not None:
        layers["bn"] = nn.BatchNorm2d(out_channels, epsilon)
    if activation != "none":
        layers["activation"] = activation_module(activation)
    return nn.Sequential(layers)


@singledispatch
def static_layer(spec: LayerSpec, dropout: float = 0.0) -> nn.Module:
    """Return the randomly initialised module of one layer."""
    raise NotImplementedError(f"no static layer for {type(spec).__name__}")


@static_layer.register
def _(spec: ConvSpec, dropout: float = 0.0) -> nn.Module:
    epsilon = spec.bn_epsilon if spec.batch_norm else None
    layer = conv_bn_act(
        spec.in_channels, spec.out_channels, spec.kernel_size, spec.stride, spec.activation, epsilon
    )
    return AddInput(OrderedDict(layer.named_children())) if spec.add_input else layer


@static_layer.register
def _(spec: MBConvSpec, dropout: float = 0.0) -> nn.Module:
    return MBConv(spec)


@static_layer.register
def _(spec: BottleneckSpec, dropout: float = 0.0) -> nn.Module:
    return Bottleneck(spec)


@static_layer.register
def _(spec: MaxPoolSpec, dropout: float = 0.0) -> nn.Module:
    return nn.MaxPool2d(spec.kernel_size, spec.stride, spec.kernel_size // 2)


@static_layer.register
def _(spec: PoolSpec, dropout: float = 0.0) -> nn.Module:
    return GlobalPool()


@static_layer.register
def _(spec: LinearSpec, dropout: float = 0.0) -> nn.Module:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["flatten"] = nn.Flatten()
    parts["dropout"] = nn.Dropout(dropout)
    parts["linear"] = nn.Linear(spec.in_channels, spec.out_channels)
    return nn.Sequential(parts)


class StaticNetwork(nn.Module):
    """A fixed network: the layers of `specs` in sequence."""

    def __init__(self, specs: Iterable[LayerSpec], dropout: float = 0.0) -> None:
        """Create the randomly initialised network of `specs`."""
        super().__init__()
        self.specs = tuple(specs)
        self.layers = nn.Sequential(*(static_layer(spec, dropout) for spec in self.specs))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one input image: (channels, resolution, resolution)."""
        first = self.specs[0]
        return first.in_channels, first.input_size, first.input_size

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, in_channels, resolution, resolution) to logits (n, num_classes)."""
        logits: Tensor = self.layers(images)
        return logits
