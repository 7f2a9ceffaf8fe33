"""Small convolutional networks, each with one thing that is hard when channels are left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

TRAPS: dict[str, type[nn.Module]] = {}


def trap(kind: type[nn.Module]) -> type[nn.Module]:
    TRAPS[kind.__name__] = kind
    return kind


def example_of(network: nn.Module) -> tuple[Any, ...]:
    """Return positional arguments for a trap, those it names itself or two images."""
    generator = torch.Generator().manual_seed(1)
    make: Callable[[torch.Generator], tuple[Any, ...]] | None = getattr(network, "example", None)
    return make(generator) if make else (torch.randn(2, 3, 32, 32, generator=generator),)


def conv(inputs: int, outputs: int, size: int = 3, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **settings)


class Pooled(nn.Module):
    """Layers of a network that ends in a mean over space and a linear layer `head`."""

    def __init__(self, width: int, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.head = nn.Linear(width, 10)

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name)

    def features(self, images: Tensor) -> Any:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Any:
        return self.head(self.features(images).mean((2, 3)))


@trap
class Concat(Pooled):
    """Each input of a concatenation has columns of its own."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), b=conv(3, 24), c=conv(40, 16))

    def features(self, images: Tensor) -> Any:
        return self.c(torch.cat([self.a(images), self.b(images)], 1).relu())


@trap
class ConcatSame(Pooled):
    """One tensor twice in a concatenation: two columns go with a channel."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), c=conv(32, 16))

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images).relu()
        return self.c(torch.cat([hidden, hidden], 1))


@trap
class ConcatThenAdd(Pooled):
    """A sum ties the halves of one layer to two others."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), b=conv(3, 16), c=conv(3, 32), d=conv(32, 16))

    def features(self, images: Tensor) -> Any:
        return self.d((torch.cat([self.a(images), self.b(images)], 1) + self.c(images)).relu())


@trap
class ConcatInput(Pooled):
    """Elastic channels beside the network's input."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), c=conv(19, 16))

    def features(self, images: Tensor) -> Any:
        return self.c(torch.cat([self.a(images).relu(), images], 1))


class Block(nn.Module):
    """Two convolutions with batch norm, and a sum with the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(width, width, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, bias=False), nn.BatchNorm2d(width)

    def forward(self, hidden: Tensor) -> Any:
        return (self.bn2(self.conv2(self.bn1(self.conv1(hidden)).relu())) + hidden).relu()


@trap
class Depth(Pooled):
    """A chain of residual blocks ties one stream."""

    def __init__(self) -> None:
        super().__init__(16, stem=conv(3, 16), blocks=nn.Sequential(Block(16), Block(16)))

    def features(self, images: Tensor) -> Any:
        return self.blocks(self.stem(images))


@trap
class DepthModuleList(Pooled):
    """The same chain, run by a loop."""

    def __init__(self) -> None:
        super().__init__(16, stem=conv(3, 16))
        self.blocks = nn.ModuleList([Block(16), Block(16)])

    def features(self, images: Tensor) -> Any:
        hidden = self.stem(images)
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


@trap
class Residual(Pooled):
    """A shortcut with a projection."""

    def __init__(self) -> None:
        super().__init__(
            32, stem=conv(3, 16), conv1=conv(16, 24), conv2=conv(24, 32), shortcut=conv(16, 32, 1)
        )

    def features(self, images: Tensor) -> Any:
        hidden = self.stem(images).relu()
        return self.conv2(self.conv1(hidden).relu()) + self.shortcut(hidden)


@trap
class InplaceResidual(Pooled):
    """Sums and activations that write into their input."""

    def __init__(self) -> None:
        super().__init__(16, conv1=conv(3, 16), conv2=conv(16, 16))

    def features(self, images: Tensor) -> Any:
        hidden = self.conv1(images).relu_()
        output = self.conv2(hidden)
        output += hidden
        return functional.relu(output, inplace=True)


@trap
class InplacePart(Pooled):
    """Some channels are overwritten in place."""

    def __init__(self) -> None:
        super().__init__(32, conv1=conv(3, 32), conv2=conv(3, 8))

    def features(self, images: Tensor) -> Any:
        hidden = self.conv1(images)
        hidden[:, :8] = self.conv2(images)
        hidden[:, 8:] *= 2
        return hidden.relu()


@trap
class PaddedShortcut(Pooled):
    """Channels are padded with zeros before a sum."""

    def __init__(self) -> None:
        super().__init__(32, conv1=conv(3, 16), conv2=conv(16, 32))

    def features(self, images: Tensor) -> Any:
        hidden = self.conv1(images).relu()
        return self.conv2(hidden) + functional.pad(hidden, (0, 0, 0, 0, 8, 8))


@trap
class FlattenLinear(nn.Module):
    """A channel is 16 columns of the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.head = conv(3, 16), nn.Linear(256, 32), nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Any:
        maps = functional.adaptive_avg_pool2d(self.conv(images).relu(), 4)
        return self.head(self.hidden(torch.flatten(maps, 1)).relu())


@trap
class Grouped(Pooled):
    """Channels of a grouped convolution go a whole group at a time."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 32), b=conv(32, 64, groups=4), c=conv(64, 16))

    def features(self, images: Tensor) -> Any:
        return self.c(self.b(self.a(images).relu()).relu())


@trap
class DepthwiseMultiplier(Pooled):
    """A depthwise convolution makes two channels of each."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), b=conv(16, 32, groups=16), c=conv(32, 16))

    def features(self, images: Tensor) -> Any:
        return self.c(self.b(self.a(images).relu()).relu())


@trap
class Transposed(Pooled):
    """Transposed convolutions have their inputs in axis 0; with groups, outputs have no axis of their own."""

    def __init__(self) -> None:
        up = nn.ConvTranspose2d(16, 32, 2, stride=2)
        grouped = nn.ConvTranspose2d(32, 16, 2, stride=2, groups=4)
        super().__init__(16, a=conv(3, 16), up=up, grouped=grouped)

    def features(self, images: Tensor) -> Any:
        return self.grouped(self.up(self.a(images).relu()).relu())


@trap
class Shared(Pooled):
    """One module runs twice, so that its inputs and outputs are the same channels."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), b=conv(16, 16))

    def features(self, images: Tensor) -> Any:
        return self.b(self.b(self.a(images).relu()).relu())


@trap
class SqueezeExcite(Pooled):
    """Channels are scaled by what 1x1 convolutions make of their means."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), reduce=conv(16, 4, 1), expand=conv(4, 16, 1))

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images).relu()
        return hidden * self.expand(self.reduce(hidden.mean((2, 3), keepdim=True)).relu()).sigmoid()


@trap
class SqueezeExciteLinear(Pooled):
    """The same with linear layers, views and an expansion."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), reduce=nn.Linear(16, 4), expand=nn.Linear(4, 16))

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images).relu()
        batch, channels = hidden.shape[:2]
        means = functional.adaptive_avg_pool2d(hidden, 1).view(batch, channels)
        scales = self.expand(self.reduce(means).relu()).sigmoid().view(batch, channels, 1, 1)
        return hidden * scales.expand_as(hidden)


@trap
class Shuffle(Pooled):
    """Channels are reordered by views: index i of all four parts goes together."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 32), c=conv(32, 16))

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images).relu()
        batch, channels, height, width = hidden.shape
        parts = hidden.view(batch, 4, channels // 4, height, width).transpose(1, 2)
        return self.c(parts.reshape(batch, channels, height, width))
