"""Small networks of vectors, sequences, signals, volumes, and several inputs or outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from trap_networks import conv, trap


@trap
class TiedWeights(nn.Module):
    """One matrix under two names, with two biases."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = (
            nn.Linear(8, 16),
            nn.Linear(16, 16),
            nn.Linear(16, 16),
            nn.Linear(16, 4),
        )
        self.c.weight = self.b.weight

    def example(self, generator: Generator) -> tuple[Any, ...]:
        return (torch.randn(2, 8, generator=generator),)

    def forward(self, values: Tensor) -> Any:
        return self.head(self.c(self.b(self.a(values)).relu()).relu())


@trap
class Unused(nn.Module):
    """A layer that does not run has no channels to leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.spare, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def example(self, generator: Generator) -> tuple[Any, ...]:
        return (torch.randn(2, 8, generator=generator),)

    def forward(self, values: Tensor) -> Any:
        return self.head(self.a(values).relu())


@trap
class Bilinear(nn.Module):
    """A layer with two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.both, self.head = (
            nn.Linear(8, 16),
            nn.Linear(8, 12),
            nn.Bilinear(16, 12, 20),
            nn.Linear(20, 4),
        )

    def example(self, generator: Generator) -> tuple[Any, ...]:
        return torch.randn(2, 8, generator=generator), torch.randn(2, 8, generator=generator)

    def forward(self, first: Tensor, second: Tensor) -> Any:
        return self.head(self.both(self.a(first).relu(), self.b(second).relu()))


@trap
class Recurrent(nn.Module):
    """A recurrent layer is one operator with many weights; all that meets it stays."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gru, self.b, self.head = (
            nn.Linear(8, 16),
            nn.GRU(16, 16, batch_first=True),
            nn.Linear(16, 24),
            nn.Linear(24, 4),
        )

    def example(self, generator: Generator) -> tuple[Any, ...]:
        return (torch.randn(2, 5, 8, generator=generator),)

    def forward(self, values: Tensor) -> Any:
        return self.head(self.b(self.gru(self.a(values))[0][:, -1]).relu())


@trap
class Signal(nn.Module):
    """Convolutions over one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn, self.b = nn.Conv1d(4, 16, 3), nn.BatchNorm1d(16), nn.Conv1d(16, 32, 3, groups=2)
        self.head = nn.Linear(32, 10)

    def example(self, generator: Generator) -> tuple[Any, ...]:
        return (torch.randn(2, 4, 40, generator=generator),)

    def forward(self, signal: Tensor) -> Any:
        return self.head(functional.max_pool1d(self.b(self.bn(self.a(signal)).relu()), 2).mean(2))


@trap
class Volume(nn.Module):
    """Convolutions over three axes, of one input channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn, self.b = nn.Conv3d(1, 16, 3), nn.BatchNorm3d(16), nn.Conv3d(16, 8, 3)
        self.head = nn.Linear(8, 10)

    def example(self, generator: Generator) -> tuple[Any, ...]:
        return (torch.randn(2, 1, 8, 8, 8, generator=generator),)

    def forward(self, volume: Tensor) -> Any:
        return self.head(self.b(functional.avg_pool3d(self.bn(self.a(volume)).relu(), 2)).flatten(2).mean(2))


@trap
class Dictionaries(nn.Module):
    """The input is a dictionary, and so is the output, whose features stay."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 16), conv(16, 24), nn.Linear(24, 10)

    def example(self, generator: Generator) -> tuple[Any, ...]:
        images = torch.randn(2, 3, 32, 32, generator=generator)
        return ({"images": images, "mask": images[:, :1].sigmoid()},)

    def forward(self, batch: dict[str, Tensor]) -> Any:
        features = self.b(self.a(batch["images"]).relu() * batch["mask"]).mean((2, 3))
        return {"features": features, "logits": self.head(features.relu())}


@trap
class TwoInputs(nn.Module):
    """Channels of images beside those of a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 16), nn.Linear(5, 8), nn.Linear(24, 10)

    def example(self, generator: Generator) -> tuple[Any, ...]:
        return torch.randn(2, 3, 32, 32, generator=generator), torch.randn(2, 5, generator=generator)

    def forward(self, images: Tensor, vector: Tensor) -> Any:
        maps = self.a(images) + self.b(vector).repeat(1, 2)[:, :, None, None]
        return self.head(torch.cat([maps.mean((2, 3)), self.b(vector).relu()], 1))


@trap
class Masked(nn.Module):
    """The number of examples depends on data; the channels do not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 16), nn.Linear(16, 24), nn.Linear(24, 4)

    def example(self, generator: Generator) -> tuple[Any, ...]:
        return (torch.randn(6, 8, generator=generator),)

    def forward(self, values: Tensor) -> Any:
        hidden = self.a(values).relu()
        return self.head(self.b(hidden[values.sum(1) > 0]).relu())
