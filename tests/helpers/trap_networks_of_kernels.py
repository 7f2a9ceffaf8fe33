"""Small networks whose kernels are computed, and which run operators under other settings or over windows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from trap_networks import Pooled, conv, trap


@trap
class WeightNorm(Pooled):
    """The kernel is computed from its direction and length."""

    def __init__(self) -> None:
        weight_norm = nn.utils.parametrizations.weight_norm
        super().__init__(16, a=weight_norm(conv(3, 16)), b=weight_norm(conv(16, 16)))

    def features(self, images: Tensor) -> Any:
        return self.b(self.a(images).relu())


@trap
class WeightStandardised(Pooled):
    """The kernel is standardised by a batch norm without statistics."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), b=conv(16, 16))

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images).relu()
        flat = self.b.weight.reshape(1, 16, -1)
        kernel = functional.batch_norm(flat, None, None, training=True, momentum=0.0)
        return functional.conv2d(hidden, kernel.reshape_as(self.b.weight), self.b.bias, padding=1)


@trap
class SpatialGate(Pooled):
    """A map of one channel is expanded to all, by the shape of another tensor and by numbers."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), gate=conv(2, 1), b=conv(16, 16))

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images).relu()
        gate = self.gate(torch.cat([hidden.mean(1, keepdim=True), hidden.amax(1, keepdim=True)], 1)).sigmoid()
        hidden = self.b(hidden * gate.expand_as(hidden))
        return hidden + gate.expand(-1, hidden.shape[1], -1, -1)


@trap
class SpectralNorm(Pooled):
    """The kernel is divided by its largest singular value, of which buffers hold the vectors."""

    def __init__(self) -> None:
        spectral_norm = nn.utils.parametrizations.spectral_norm
        super().__init__(16, a=spectral_norm(conv(3, 16)), b=spectral_norm(conv(16, 16)))

    def features(self, images: Tensor) -> Any:
        return self.b(self.a(images).relu())


@trap
class OtherSettings(Pooled):
    """Some operators run without gradients, or without automatic types, on one tensor as two operands."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 32), b=conv(32, 16))

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images)
        with torch.no_grad():
            scale = hidden.sigmoid() * hidden.tanh()
        with torch.autocast("cpu", enabled=False):
            return self.b(hidden.float().to(hidden.dtype).relu() * scale)


@trap
class Windows(Pooled):
    """Patches of images as channels, and back: nine channels of a patch go with one of an image."""

    def __init__(self) -> None:
        super().__init__(8, a=conv(3, 16), b=nn.Conv1d(144, 72, 1))

    def features(self, images: Tensor) -> Any:
        patches = functional.unfold(self.a(images), 3, padding=1)
        return functional.fold(self.b(patches), 32, 3, padding=1).relu()


@trap
class Sampled(Pooled):
    """Images are read at positions of a grid, and tables by index along one of three axes."""

    index: Tensor

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), grid=conv(16, 2))
        self.table = nn.Parameter(torch.randn(16, 40, 32))
        self.register_buffer("index", torch.arange(32) + 4)

    def features(self, images: Tensor) -> Any:
        hidden = self.a(images)
        positions = self.grid(hidden).tanh().permute(0, 2, 3, 1)
        sampled = functional.grid_sample(hidden, positions, align_corners=False)
        return sampled + self.table[:, self.index] + self.table.index_select(1, self.index)
