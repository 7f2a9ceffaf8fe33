"""Small networks that cut channels, or use them in ways that know an order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from trap_networks import Pooled, conv, trap


@trap
class Slice(Pooled):
    """Two slices of one tensor are two groups."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 32), b=conv(8, 16), c=conv(40, 16))

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images).relu()
        return self.c(torch.cat([self.b(hidden[:, :8]), hidden[:, 8:]], 1))


@trap
class Chunk(Pooled):
    """Two halves with layers of their own."""

    def __init__(self) -> None:
        super().__init__(40, a=conv(3, 32), b=conv(16, 16), c=conv(16, 24))

    def features(self, images: Tensor) -> Any:
        first, second = self.a(images).chunk(2, 1)
        return torch.cat([self.b(first.relu()), self.c(second.tanh())], 1)


@trap
class SplitUneven(Pooled):
    """Three parts of different sizes, one of which nothing reads."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 32), b=conv(12, 16))

    def features(self, images: Tensor) -> Any:
        _, second, third = self.a(images).split([4, 12, 16], 1)
        return self.b(second.relu()) + third


@trap
class Glu(Pooled):
    """Two halves of one axis are multiplied."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 32), b=conv(16, 16))

    def features(self, images: Tensor) -> Any:
        return self.b(functional.glu(self.a(images), 1))


@trap
class PixelShuffle(Pooled):
    """Four channels become one."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 32), b=conv(8, 16))

    def features(self, images: Tensor) -> Any:
        return self.b(functional.pixel_shuffle(self.a(images), 2).relu())


@trap
class PixelUnshuffle(Pooled):
    """One channel becomes four."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 8), b=conv(32, 16))

    def features(self, images: Tensor) -> Any:
        return self.b(functional.pixel_unshuffle(self.a(images), 2).relu())


@trap
class Repeat(Pooled):
    """Channels are repeated, as a whole and one by one."""

    def __init__(self) -> None:
        super().__init__(32, a=conv(3, 16), b=conv(3, 8), c=conv(3, 8))

    def features(self, images: Tensor) -> Any:
        whole, single = self.b(images).repeat(1, 2, 1, 1), self.c(images).repeat_interleave(2, 1)
        return torch.cat([self.a(images) * whole, single.relu()], 1)


@trap
class ChannelMean(Pooled):
    """A mean over channels knows no order."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 32), b=conv(32, 16))

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images).relu()
        return self.b(hidden - hidden.mean(1, keepdim=True) / (1 + hidden.amax(1, keepdim=True)))


@trap
class ChannelSoftmax(Pooled):
    """A softmax over channels knows no order."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 32), b=conv(32, 16))

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images)
        return self.b(hidden.softmax(1) * hidden)


@trap
class Functional(nn.Module):
    """Functional calls with raw parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel1, self.bias1 = nn.Parameter(torch.randn(16, 3, 3, 3)), nn.Parameter(torch.randn(16))
        self.kernel2, self.scale = (
            nn.Parameter(torch.randn(24, 16, 1, 1)),
            nn.Parameter(torch.randn(24, 1, 1)),
        )
        self.matrix = nn.Parameter(torch.randn(24, 10))

    def forward(self, images: Tensor) -> Any:
        hidden = functional.conv2d(images, self.kernel1, self.bias1, padding=1).relu()
        return (functional.conv2d(hidden, self.kernel2) * self.scale).mean((2, 3)) @ self.matrix


@trap
class PythonBranch(Pooled):
    """The forward pass branches on data."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), b=conv(16, 16))

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images)
        if hidden.sum() > 0:
            hidden = self.b(hidden)
        return hidden


@trap
class TwoOutputs(nn.Module):
    """Feature maps are outputs, so that their channels stay; what lies between them may change."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 16), conv(16, 24), conv(24, 32)

    def forward(self, images: Tensor) -> Any:
        first = self.a(images)
        return [first, self.c(self.b(first).relu())]


@trap
class UnknownOperator(Pooled):
    """An operator without a rule meets the channels of one layer."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), b=conv(16, 16))

    def features(self, images: Tensor) -> Any:
        return self.b(torch.logcumsumexp(self.a(images), 1).relu())


@trap
class Ordered(Pooled):
    """Operators that know an order: of space here, of channels there."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), b=conv(16, 16), c=conv(16, 16), d=conv(16, 16))

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images).roll(2, 3).flip(2).cumsum(3)
        hidden = self.c(self.b(hidden).roll(1, 1))
        return self.d(hidden.flip(1).relu())


@trap
class PooledChannels(Pooled):
    """Pooling over channels, which are the last axis."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 32), b=conv(16, 16))

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images)
        tokens = functional.avg_pool1d(hidden.flatten(2).transpose(1, 2), 2)
        return self.b(tokens.transpose(1, 2).reshape(-1, 16, *hidden.shape[2:]))


@trap
class PaddedChannels(Pooled):
    """Channels are mirrored at the end of their axis."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), b=conv(18, 16))

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images).permute(0, 2, 3, 1).flatten(1, 2)
        padded = functional.pad(hidden, (1, 1), mode="reflect").transpose(1, 2)
        return self.b(padded.reshape(-1, 18, *images.shape[2:]))


@trap
class Clamped(Pooled):
    """Channels are limited by a parameter of each."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16))
        self.limit = nn.Parameter(torch.rand(16, 1, 1))

    def features(self, images: Tensor) -> Any:
        return torch.clamp(self.a(images), min=-self.limit, max=self.limit)


@trap
class GroupNorms(Pooled):
    """A norm of four groups: index i of all groups goes together; of one group: every channel alone."""

    def __init__(self) -> None:
        super().__init__(32, a=conv(3, 32), b=conv(32, 32), one=nn.GroupNorm(1, 32), four=nn.GroupNorm(4, 32))

    def features(self, images: Tensor) -> Any:
        return self.four(self.b(self.one(self.a(images)).relu()))


@trap
class InstanceNorm(Pooled):
    """A norm of single channels, with its own statistics."""

    def __init__(self) -> None:
        norm = nn.InstanceNorm2d(16, affine=True, track_running_stats=True)
        super().__init__(16, a=conv(3, 16), norm=norm)

    def features(self, images: Tensor) -> Any:
        return self.norm(self.a(images)).relu()
